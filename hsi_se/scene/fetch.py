"""Downloads of known scenes: source after source, and a file gets its name only with the right checksum."""

import hashlib
import os
import shutil
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import unquote, urlsplit

from hsi_se.errors import SceneError
from hsi_se.scene.catalogue import KnownFile, KnownScene
from hsi_se.scene.loading import find_file

MIRROR_VARIABLE = "HSI_SE_MIRROR"
TIMEOUT_S = 30.0  # without a byte
_ATTEMPTS = 2  # a source; the second starts again from the first byte
_CHUNK = 2**16  # bytes
_GUESSED_SIZE = 2**27  # bytes, where the catalogue has none
_WEB_PAGE_STARTS = (b"<!doctype html", b"<html", b"<?xml", b"<head", b"<!--")


class Progress(Protocol):
    """Is told of a download; the training's observers fit."""

    def start(self, task: str, *, total: int, unit: str) -> None:
        """A download of `total` bytes begins."""

    def advance(self, count: int) -> None:
        """`count` more bytes have come."""

    def note(self, text: str) -> None:
        """Something the user should know, in one sentence."""


def fetch_scene(
    known: KnownScene, folder: Path, *, progress: Progress, timeout_s: float = TIMEOUT_S
) -> list[Path]:
    """Returns the files of a known scene in a folder, downloaded unless they are there already.

    Args:
        known: the scene.
        folder: made if it is not there.
        progress: told of every download, and of every source that failed.
        timeout_s: how long a source may be silent.

    Raises:
        SceneError: the scene is behind a registration, no source has the file, or another file is in
            its place; no part of a file is left.
    """
    if known.registration is not None:
        names = " and ".join(file.names[0] for file in (known.cube, known.labels))
        raise SceneError(
            f"{known.name}: its files are given out by {known.registration}; ask there, "
            f"then put {names} into {folder}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    return [
        _fetch_file(file, folder, progress=progress, timeout_s=timeout_s)
        for file in (known.labels, known.cube)
    ]


def list_sources(file: KnownFile) -> list[str]:
    """Returns the URLs where a file is looked for, in order; `HSI_SE_MIRROR` goes in front."""
    mirror = os.environ.get(MIRROR_VARIABLE, "").strip()
    in_front = [f"{mirror.rstrip('/')}/{file.names[0]}"] if mirror else []
    return [*in_front, *file.sources]


def _fetch_file(file: KnownFile, folder: Path, *, progress: Progress, timeout_s: float) -> Path:
    path = folder / file.names[0]
    if path.exists():
        if _hash_of(path) == file.sha256:
            progress.note(f"{path} is there already")
            return path
        raise SceneError(
            f"{path}: exists and is not the published file (its SHA-256 is another); move it away first"
        )
    draft = path.with_name(f".{path.name}.partial")
    problems: list[str] = []
    try:
        for url in list_sources(file):
            for attempt in range(1, _ATTEMPTS + 1):
                try:
                    _download(url, draft, file, progress=progress, timeout_s=timeout_s)
                    draft.replace(path)
                    return path
                except _WrongContentError as error:  # again, it would be the same
                    problem, is_last = str(error), True
                except Exception as error:  # whatever goes wrong with one source, there is the next
                    problem, is_last = _shorten(error), attempt == _ATTEMPTS
                problems.append(f"{urlsplit(url).netloc or urlsplit(url).path}: {problem}")
                progress.note(
                    f"{url}: {problem}; {'trying the next source' if is_last else 'starting again'}"
                )
                if is_last:
                    break
    finally:
        draft.unlink(missing_ok=True)
    raise SceneError(
        f"{file.names[0]}: no source has it ({'; '.join(dict.fromkeys(problems))}); put the file into "
        f"{folder} by hand, or name a server or folder that has it with {MIRROR_VARIABLE}"
    )


class _WrongContentError(Exception):
    """A source answers with something that is not the file."""


class _Draft:
    """What a download is written to: counts, hashes, and stops as soon as it cannot be the file."""

    def __init__(self, stream: BinaryIO, file: KnownFile, progress: Progress) -> None:
        self._stream, self._file, self._progress = stream, file, progress
        self._hash, self._size = hashlib.sha256(), 0

    def write(self, chunk: bytes) -> int:
        if self._size == 0 and chunk.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_WEB_PAGE_STARTS):
            raise _WrongContentError("answers with a web page instead of the file")
        self._size += len(chunk)
        if self._file.num_bytes is not None and self._size > self._file.num_bytes:
            raise _WrongContentError(f"sends more than the {self._file.num_bytes:,} bytes of the file")
        self._hash.update(chunk)
        self._progress.advance(len(chunk))
        return self._stream.write(chunk)

    def flush(self) -> None:
        """Left to the closing of the stream."""

    def check(self) -> None:
        if self._file.num_bytes is not None and self._size < self._file.num_bytes:
            raise OSError(f"ends after {self._size:,} of {self._file.num_bytes:,} bytes")
        if self._hash.hexdigest() != self._file.sha256:
            raise _WrongContentError("sends another file (its SHA-256 is not the published one)")


def _download(url: str, draft: Path, file: KnownFile, *, progress: Progress, timeout_s: float) -> None:
    progress.start(file.names[0], total=file.num_bytes or _GUESSED_SIZE, unit="B")
    with draft.open("wb") as stream:
        checked = _Draft(stream, file, progress)
        parts = urlsplit(url)
        if parts.scheme == "file":
            mirrored = Path(unquote(parts.path))
            if not mirrored.is_file():
                folder = mirrored.parent
                mirrored = find_file(folder / file.names[0], [folder], setting=url, also=file.names)
            with mirrored.open("rb") as source:
                shutil.copyfileobj(source, checked, _CHUNK)
        else:
            import pooch

            pooch.HTTPDownloader(chunk_size=_CHUNK, timeout=timeout_s)(url, checked, None)
        checked.check()


def _hash_of(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _shorten(error: Exception) -> str:
    """A library's error in a few words: the innermost reason says most."""
    reason: BaseException = error
    while (inner := reason.__cause__ or reason.__context__) is not None:
        reason = inner
    text = next(iter(str(reason).splitlines()), "") or type(reason).__name__
    return text if len(text) <= 120 else f"{text[:119]}…"
