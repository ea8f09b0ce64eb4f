"""The life of a run folder: it is begun before the first step, may be resumed, and ends with its record."""

import errno
import os
import shutil
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from hsi_se.config.experiment import Config
from hsi_se.errors import ClusterError, DivergedError, Interrupted, RunError
from hsi_se.progress import EpochRecord, Observer
from hsi_se.runs.folder import RunFolder
from hsi_se.runs.records import RunStart
from hsi_se.sampling.splits import Split
from hsi_se.system.files import DISK_IS_FULL, sync_folder
from hsi_se.system.locks import hold


def check_free(path: Path, *, overwrite: bool) -> None:
    """Raises RunError unless a run may be written at `path`: nothing is there, or a run and `overwrite`."""
    if not path.exists():
        parent = next(parent for parent in path.absolute().parents if parent.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK):
            raise RunError(f"{path}: cannot create a folder in {parent}; choose another with --out DIR")
        return
    folder = RunFolder(path)
    if not folder.record.is_file() and not folder.is_unfinished:
        raise RunError(f"{path}: already exists but is not a run folder; choose another with --out DIR")
    if folder.is_unfinished:
        with hold(path, "training"):  # says so if another process is training here
            pass
    if overwrite:
        if (foreign := folder.find_foreign()) is not None:
            raise RunError(f"--overwrite would delete {foreign}, which hsi-se did not write; move it first")
        return
    found = "this run folder already exists;"
    if folder.is_unfinished:
        found = f"contains an unfinished run; {folder.how_to_resume},"
    raise RunError(f"{path}: {found} choose another with --out DIR, or add --overwrite")


@contextmanager
def begin_run(path: Path, *, overwrite: bool, start: RunStart, config: Config, split: Split) -> Iterator[RunFolder]:
    """Yields the folder of a run that is trained inside the block, under the rules of `until_finished`.

    The folder appears at once with its config, its split and the first line of its progress, and this
    process holds it until the block ends. A finished run that it replaces waits in a hidden folder.
    """
    path = path.resolve() if path.is_symlink() else path  # the link stays
    check_free(path, overwrite=overwrite)
    new_parents = [parent for parent in path.absolute().parents if not parent.exists()]
    draft = RunFolder(path.with_name(f".{path.name}.{os.getpid()}.partial"))
    with hold(draft.path, "training") as held:
        try:
            draft.write_start(start, config=config, split=split)
            if RunFolder(path).record.is_file():
                shutil.rmtree(_replaced(path), ignore_errors=True)
                path.rename(_replaced(path))
            elif path.exists():
                with hold(path, "training"):
                    shutil.rmtree(path)
            held.move(path)
            sync_folder(path.absolute().parent)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            problem = "another process has just begun a run there"
            raise RunError(f"{path}: {problem}; choose another with --out DIR") from None
        finally:
            shutil.rmtree(draft.path, ignore_errors=True)
        with until_finished(RunFolder(path), new_parents=new_parents):
            yield RunFolder(path)


def _replaced(path: Path) -> Path:
    """Returns where a finished run waits while another is trained in its place."""
    return path.with_name(f".{path.name}.replaced")


def open_unfinished(path: str | Path | RunFolder) -> RunFolder:
    """Returns the folder of a run that can be resumed; RunError if it holds no run or a finished one."""
    folder = RunFolder(path)
    if folder.record.is_file():
        raise RunError(f"{path}: is finished; evaluate it with `hsi-se eval {path}`")
    if not folder.is_unfinished:
        raise RunError(folder.describe_lack(folder.progress))
    return folder


@contextmanager
def until_finished(folder: RunFolder, *, new_parents: Sequence[Path] = ()) -> Iterator[None]:
    """Trains a run inside the block. A run that fails can be resumed, or is removed.

    It is removed if it diverges or fails before the first checkpoint, and a finished run that it was to
    replace is put back. After an interruption, a full disk or a mistake in resuming, what was saved stays.
    """
    path = folder.path
    from_outside = (ClusterError, OSError, KeyboardInterrupt, Interrupted)
    try:
        yield
    except BaseException as error:
        is_lost = not folder.has_checkpoint and not isinstance(error, from_outside)
        if is_lost or isinstance(error, DivergedError):
            shutil.rmtree(path, ignore_errors=True)
            if _replaced(path).exists():
                _replaced(path).rename(path)
            with suppress(OSError):  # another run may be in there by now
                for parent in new_parents:
                    parent.rmdir()
            raise
        if isinstance(error, ClusterError):
            raise ClusterError(f"{error}; {folder.how_to_resume}") from None
        if isinstance(error, OSError) and error.errno in DISK_IS_FULL:
            where = error.filename or folder
            raise RunError(f"{where}: {error.strerror}; make room, then {folder.how_to_resume}") from None
        if isinstance(error, KeyboardInterrupt):
            error = Interrupted("interrupted", signal_number=signal.SIGINT)
        if isinstance(error, Interrupted):
            how = f"{error}; {folder.how_to_resume}"
            raise Interrupted(how, signal_number=error.signal_number) from None
        raise
    for done_with in (folder.checkpoints, _replaced(path)):
        shutil.rmtree(done_with, ignore_errors=True)


class Logged:
    """An observer that writes each epoch to the run folder before it passes it on."""

    def __init__(self, observer: Observer, folder: RunFolder) -> None:
        self._observer, self._folder = observer, folder
        self.start, self.advance, self.note = observer.start, observer.advance, observer.note
        self.begin_run, self.end_run = observer.begin_run, observer.end_run

    def epoch(self, record: EpochRecord) -> None:
        self._folder.log(record)
        self._observer.epoch(record)
