"""Gets the files of known scenes: tries one source after another and verifies every checksum."""

import os
import shutil
import subprocess
import sys
from functools import partial
from importlib.metadata import distributions
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO
from urllib.parse import urlsplit
from urllib.request import url2pathname

from hsi_se.errors import SceneError
from hsi_se.progress import Observer
from hsi_se.scene.catalogue import KnownFile, KnownScene
from hsi_se.scene.folders import Folders, find_file
from hsi_se.scene.guards import refuse

MIRROR_VARIABLE = "HSI_SE_MIRROR"
TIMEOUT_S = 30.0  # without receiving a byte
_ATTEMPTS = 2  # per source
_CHUNK = 2**16  # bytes
_WEB_PAGE_STARTS = (b"<!doctype html", b"<html", b"<?xml", b"<head", b"<!--")


def fetch_scene(known: KnownScene, folder: Path, *, progress: Observer, timeout_s: float = TIMEOUT_S) -> list[Path]:
    """Puts the files of a known scene into the folder unless they are already there; returns their paths.

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
        raise refuse(known.name, "registration", site=known.registration, names=names, folder=folder)
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as wheels:
        fetch = partial(_fetch_file, folder=folder, wheels=Path(wheels), progress=progress, timeout_s=timeout_s)
        return [fetch(known.labels), fetch(known.cube)]


def list_sources(file: KnownFile, *, wheels: Path | None = None) -> list[tuple[str, KnownFile]]:
    """Returns URLs with the file that each provides, as tried: `HSI_SE_MIRROR`, a package at hand, all others."""
    mirror = os.environ.get(MIRROR_VARIABLE, "").strip()
    try:
        urlsplit(mirror)
    except ValueError as error:
        raise SceneError(f"{MIRROR_VARIABLE} = {mirror}: is not a URL ({error}); correct or unset it") from None
    mirrored = [(f"{mirror.rstrip('/')}/{form.names[0]}", form) for form in file.forms if mirror]
    sources = [(url, form) for form in file.forms for url in form.sources]
    packages = [(url.replace("pip:", "installed:", 1), form) for url, form in sources if url.startswith("pip:")]
    return [*mirrored, *(each for each in packages if _find_member(each[0], wheels)), *sources]


def _fetch_file(file: KnownFile, *, folder: Path, wheels: Path, progress: Observer, timeout_s: float) -> Path:
    import pooch

    pooch.get_logger().setLevel("WARNING")  # its own messages would interrupt the progress bar
    for form in file.forms:
        path = folder / form.names[0]
        if path.exists():
            if pooch.file_hash(str(path)) == form.sha256:
                progress.note(f"{path} already exists")
                return path
            raise refuse(path, "other_file")

    def download(form: KnownFile, url: str, draft: str, _: object) -> None:
        Path(draft).unlink()  # pooch made it readable by its owner only
        with Path(draft).open("wb") as stream:
            checked = _CheckedStream(stream, form, progress)
            if urlsplit(url).scheme in ("file", "installed", "pip"):
                with _find_local(url, form, wheels, timeout_s=timeout_s).open("rb") as source:
                    shutil.copyfileobj(source, checked, _CHUNK)
            else:
                pooch.HTTPDownloader(chunk_size=_CHUNK, timeout=timeout_s)(url, checked, None)
            size = stream.tell()
        if form.num_bytes is not None and size < form.num_bytes:
            raise OSError(f"ends after {size:,} of {form.num_bytes:,} bytes")

    problems: list[str] = []
    for url, form in list_sources(file, wheels=wheels):
        path, get = folder / form.names[0], partial(download, form)
        for attempts_left in reversed(range(_ATTEMPTS)):
            progress.start(path.name, total=form.num_bytes or 2**27, unit="B")  # a guess where it is not known
            try:
                pooch.retrieve(url, form.sha256, fname=path.name, path=folder, downloader=get)
                return path
            except Exception as error:  # whatever fails at one source, the next one is tried
                problem, may_retry = _explain(error)
            is_last = not (attempts_left and may_retry)
            problems.append(f"{urlsplit(url).netloc or urlsplit(url).path}: {problem}")
            progress.note(f"{url}: {problem}; {'trying the next source' if is_last else 'retrying'}")
            if is_last:
                break
    causes = "; ".join(dict.fromkeys(problems))
    raise refuse(file.names[0], "no_source", problems=causes, folder=folder, variable=MIRROR_VARIABLE)


def _find_member(url: str, wheels: Path | None) -> Any:
    """Returns the path of a package's file, which may lie in a wheel; None if there is none. Imports nothing."""
    parts = urlsplit(url)
    folders = [*(sys.path if parts.scheme == "installed" else ()), *map(str, wheels.glob("*.whl") if wheels else ())]
    paths = (each.locate_file(parts.fragment) for each in distributions(name=parts.path.split("=")[0], path=folders))
    return next((path for path in paths if path.is_file()), None)  # type: ignore[attr-defined]


def _find_local(url: str, form: KnownFile, wheels: Path, *, timeout_s: float) -> Any:
    """Returns the path of a file in a folder or package; pip downloads the package first if the URL says so."""
    scheme, where = urlsplit(url).scheme, urlsplit(url).path
    if scheme == "file":
        path = Path(url2pathname(where))
        return find_file(path, Folders((Path(),), (path.parent,)), setting=url, also=form.names)
    if scheme == "pip" and not any(wheels.glob("*.whl")):  # one wheel has both files of a scene
        options = ("-q", "--no-input", "--no-deps", "--only-binary=:all:", "--retries=1", f"--timeout={timeout_s}")
        command = (sys.executable, "-m", "pip", "download", *options, f"--dest={wheels}", where)
        pip = subprocess.run(command, env=os.environ | {"TMPDIR": str(wheels)}, capture_output=True, text=True)
        if pip.returncode:
            raise _FinalError((pip.stderr.strip() or "pip failed").splitlines()[-1].removeprefix("ERROR: "))
    if found := _find_member(url, wheels):
        return found
    raise _FinalError("the package does not contain the file")


class _FinalError(Exception):
    """A source does not have the file; a second attempt would not help."""


class _CheckedStream:
    """A writable stream that reports progress and stops as soon as the content cannot be the file."""

    def __init__(self, stream: BinaryIO, file: KnownFile, progress: Observer) -> None:
        self._stream, self._num_bytes, self._progress = stream, file.num_bytes, progress
        self.flush = stream.flush

    def write(self, chunk: bytes) -> int:
        position, num_bytes = self._stream.tell(), self._num_bytes
        if position == 0 and chunk.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_WEB_PAGE_STARTS):
            raise _FinalError("sends a web page instead of the file")
        if num_bytes is not None and position + len(chunk) > num_bytes:
            raise _FinalError(f"sends more than the {num_bytes:,} bytes of the file")
        self._progress.advance(len(chunk))
        return self._stream.write(chunk)


def _explain(error: Exception) -> tuple[str, bool]:
    """Returns in a few words why a source failed, and whether a second attempt may succeed."""
    if isinstance(error, _FinalError):
        return str(error), False
    if type(error) is ValueError:  # pooch found another checksum; errors of a request are subclasses
        return "sends a different file (its SHA-256 does not match)", False
    reason: BaseException = error  # the innermost reason is the most specific
    while (inner := reason.__cause__ or reason.__context__) is not None:
        reason = inner
    text = next(iter(str(reason).splitlines()), "") or type(reason).__name__
    return (text if len(text) <= 120 else f"{text[:119]}…"), True
