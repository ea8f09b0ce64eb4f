"""Files that are complete at every moment, whatever happens, and the folders and records made of them."""

import csv
import errno
import functools
import io
import os
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from hsi_se.errors import RunError

if TYPE_CHECKING:  # slow to load
    from jinja2 import Environment

DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CANNOT_SYNC = (errno.EACCES, errno.EINVAL, errno.ENOTSUP)
_CHUNK = 1 << 20
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how one begins in a cell of a spreadsheet
_LONGEST_RECORD = 1 << 28  # bytes

Model = TypeVar("Model", bound=BaseModel)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a path to write to. The file written there replaces `path` once it is on the disk.

    If the block or the disk fails, the earlier file at `path` is kept.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")  # pictures go by their suffix
    with _publishing(draft, path):
        yield draft


def write_durably(path: Path, data: bytes) -> None:
    """Replaces a file as `replacing` does, after it has been read back; one process at a time may do so.

    OSError if the file cannot be written or reads back differently; the earlier one is kept.
    """
    draft = path.with_name(f".{path.name}.draft")  # the next writer replaces one that a kill left behind
    with _publishing(draft, path, expected=data):
        draft.write_bytes(data)


@contextmanager
def _publishing(draft: Path, path: Path, *, expected: bytes | None = None) -> Iterator[None]:
    try:
        yield
        with draft.open("rb+") as stream:  # Windows syncs no file that is open for reading alone
            os.fsync(stream.fileno())
            if expected is not None and not _holds(stream, expected):
                raise OSError(errno.EIO, "reads back differently", str(path))
        draft.replace(path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a failed write does not name its file
        raise
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(path.parent)


def _holds(stream: IO[bytes], expected: bytes) -> bool:
    view = memoryview(expected)
    starts = range(0, len(expected) + 1, _CHUNK)  # the last part is empty if the chunks fit exactly
    return all(stream.read(_CHUNK) == view[start : start + _CHUNK] for start in starts)


@functools.cache
def read_facts(package: str, name: str) -> dict[str, Any]:
    """Returns the facts in a TOML file of the package."""
    return tomllib.loads(resources.files(package).joinpath(name).read_text("utf-8"))


def fill_template(package: str, name: str, /, **values: object) -> str:
    """Returns a template of the package, filled with values; a name that it lacks is an error."""
    return _open_templates(package).get_template(name).render(values)


@functools.cache
def _open_templates(package: str) -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    return Environment(
        loader=PackageLoader(package),
        undefined=StrictUndefined,
        autoescape=select_autoescape(["html"], default=False),
        trim_blocks=True,
        lstrip_blocks=True,
    )


def to_csv(headings: Iterable[str], rows: Iterable[Sequence[object]]) -> str:
    """Returns a table as CSV; None is an empty cell, and a text that a spreadsheet would calculate is behind '."""
    stream = io.StringIO()
    for row in ([*headings], *rows):
        cells = [f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell for cell in row]
        csv.writer(stream, lineterminator="\n").writerow(cells)
    return stream.getvalue()


def sync_folder(path: Path) -> None:
    """Puts the names of a folder's files on the disk, where the system can: Windows opens no folder."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise


class Folder(os.PathLike[str]):
    """A folder and the names of the files in it, which are the attributes of each subclass."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def __fspath__(self) -> str:
        return str(self.path)

    __str__ = __fspath__

    def write(self, path: Path, content: str | BaseModel) -> None:
        """Replaces a text file; of a record it is the JSON."""
        text = content if isinstance(content, str) else content.model_dump_json(indent=2) + "\n"
        with replacing(path) as draft:
            draft.write_text(text, encoding="utf-8")


def read_record(kind: type[Model], path: Path, *, remedy: str) -> Model:
    """Returns a record from its JSON file; RunError if it is missing, or not in the format of this version."""
    return parse_record(kind, read_bounded(path, remedy=remedy), path=path, remedy=remedy)


def read_bounded(path: Path, *, remedy: str) -> bytes:
    """Returns what is in a file of a run; RunError if it is missing, or longer than any that this version writes."""
    try:
        with path.open("rb") as stream:
            text = stream.read(min(path.stat().st_size, _LONGEST_RECORD) + 1)
    except FileNotFoundError:
        raise RunError(f"{path}: missing from the run folder; {remedy}") from None
    if len(text) > _LONGEST_RECORD:
        raise RunError(f"{path}: is too long to be a record of this version; {remedy}")
    return text


def parse_record(kind: type[Model], text: bytes, *, path: Path, remedy: str) -> Model:
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        problem = ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))
        raise RunError(f"{path}: not what this version writes ({problem}); {remedy}") from None
