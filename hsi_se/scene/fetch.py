"""Downloads the files of known scenes: tries one source after another and verifies every checksum."""

import os
import shutil
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit
from urllib.request import url2pathname

from hsi_se.errors import SceneError
from hsi_se.progress import Observer
from hsi_se.scene.catalogue import KnownFile, KnownScene
from hsi_se.scene.folders import Folders, find_file

MIRROR_VARIABLE = "HSI_SE_MIRROR"
TIMEOUT_S = 30.0  # without receiving a byte
_ATTEMPTS = 2  # per source
_CHUNK = 2**16  # bytes
_GUESSED_SIZE = 2**27  # bytes, for the progress bar of a file whose size the catalogue does not know
_WEB_PAGE_STARTS = (b"<!doctype html", b"<html", b"<?xml", b"<head", b"<!--")


def fetch_scene(known: KnownScene, folder: Path, *, progress: Observer, timeout_s: float = TIMEOUT_S) -> list[Path]:
    """Downloads the files of a known scene unless they are already in the folder; returns their paths.

    Args:
        folder: created if it does not exist.
        progress: receives the bytes of every download and a note for every source that failed.
        timeout_s: longest time that a source may send nothing.

    Raises:
        SceneError: the scene requires registration, no source provides the file, or a different file
            of that name exists. No partial file is left behind.
    """
    if known.registration is not None:
        names = " and ".join(file.names[0] for file in (known.cube, known.labels))
        raise SceneError(
            f"{known.name}: its files require registration at {known.registration}; download them there "
            f"and put {names} into {folder}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    files = known.labels, known.cube
    return [_fetch_file(file, folder, progress=progress, timeout_s=timeout_s) for file in files]


def list_sources(file: KnownFile) -> list[str]:
    """Returns the URLs of a file in the order in which they are tried; `HSI_SE_MIRROR` comes first."""
    mirror = os.environ.get(MIRROR_VARIABLE, "").strip()
    try:
        urlsplit(mirror)
    except ValueError as error:
        raise SceneError(f"{MIRROR_VARIABLE} = {mirror}: is not a URL ({error}); correct or unset it") from None
    return [*([f"{mirror.rstrip('/')}/{file.names[0]}"] if mirror else []), *file.sources]


def _fetch_file(file: KnownFile, folder: Path, *, progress: Observer, timeout_s: float) -> Path:
    import pooch

    pooch.get_logger().setLevel("WARNING")  # its own messages would interrupt the progress bar
    path = folder / file.names[0]
    if path.exists():
        if pooch.file_hash(str(path)) == file.sha256:
            progress.note(f"{path} already exists")
            return path
        raise SceneError(
            f"{path}: already exists but is not the published file (its SHA-256 differs); move it away first"
        )

    def download(url: str, draft: str, _: object) -> None:
        Path(draft).unlink()  # pooch made it readable by its owner only
        with Path(draft).open("wb") as stream:
            checked = _CheckedStream(stream, file, progress)
            if urlsplit(url).scheme == "file":
                mirrored = Path(url2pathname(urlsplit(url).path))
                beside = Folders((Path(),), (mirrored.parent,))
                found = find_file(mirrored, beside, setting=url, also=file.names)
                with found.open("rb") as source:
                    shutil.copyfileobj(source, checked, _CHUNK)
            else:
                pooch.HTTPDownloader(chunk_size=_CHUNK, timeout=timeout_s)(url, checked, None)
            size = stream.tell()
        if file.num_bytes is not None and size < file.num_bytes:
            raise OSError(f"ends after {size:,} of {file.num_bytes:,} bytes")

    problems: list[str] = []
    for url in list_sources(file):
        for attempts_left in reversed(range(_ATTEMPTS)):
            progress.start(path.name, total=file.num_bytes or _GUESSED_SIZE, unit="B")
            try:
                pooch.retrieve(url, file.sha256, fname=path.name, path=folder, downloader=download)
                return path
            except Exception as error:  # whatever fails at one source, the next one is tried
                problem, may_retry = _explain(error)
            is_last = not (attempts_left and may_retry)
            problems.append(f"{urlsplit(url).netloc or urlsplit(url).path}: {problem}")
            progress.note(f"{url}: {problem}; {'trying the next source' if is_last else 'retrying'}")
            if is_last:
                break
    raise SceneError(
        f"{path.name}: no source provides it ({'; '.join(dict.fromkeys(problems))}); put the file into "
        f"{folder} by hand, or set {MIRROR_VARIABLE} to the URL of a server or folder that has it"
    )


class _WrongContentError(Exception):
    """A source sends something other than the file."""


class _CheckedStream:
    """A writable stream that reports progress and stops as soon as the content cannot be the file."""

    def __init__(self, stream: BinaryIO, file: KnownFile, progress: Observer) -> None:
        self._stream, self._num_bytes, self._progress = stream, file.num_bytes, progress
        self.flush = stream.flush

    def write(self, chunk: bytes) -> int:
        position, num_bytes = self._stream.tell(), self._num_bytes
        if position == 0 and chunk.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_WEB_PAGE_STARTS):
            raise _WrongContentError("sends a web page instead of the file")
        if num_bytes is not None and position + len(chunk) > num_bytes:
            raise _WrongContentError(f"sends more than the {num_bytes:,} bytes of the file")
        self._progress.advance(len(chunk))
        return self._stream.write(chunk)


def _explain(error: Exception) -> tuple[str, bool]:
    """Returns in a few words why a source failed, and whether a second attempt may succeed."""
    if isinstance(error, _WrongContentError):
        return str(error), False
    if type(error) is ValueError:  # pooch found another checksum; errors of a request are subclasses
        return "sends a different file (its SHA-256 does not match)", False
    reason: BaseException = error  # the innermost reason is the most specific
    while (inner := reason.__cause__ or reason.__context__) is not None:
        reason = inner
    text = next(iter(str(reason).splitlines()), "") or type(reason).__name__
    return (text if len(text) <= 120 else f"{text[:119]}…"), True
