"""The base of the folders that commands write: of runs, ablations and maps."""

import os
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from hsi_se.errors import RunError
from hsi_se.system.files import replacing

Model = TypeVar("Model", bound=BaseModel)


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
    """Returns a record from its JSON file.

    Raises:
        RunError: the file is missing, or does not have the format of this version.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise RunError(f"{path}: missing from the run folder; {remedy}") from None
    return parse_record(kind, text, path=path, remedy=remedy)


def parse_record(kind: type[Model], text: bytes, *, path: Path, remedy: str) -> Model:
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        problem = ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))
        raise RunError(f"{path}: not what this version writes ({problem}); {remedy}") from None
