"""The life of a run folder: begun before the first step, finished by its record, or gone if it fails."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hsi_se.config import Config
from hsi_se.errors import RunError
from hsi_se.records import RunFolder, RunStart
from hsi_se.sampling.splits import Split
from hsi_se.training.history import EpochRecord, Observer


def check_free(path: Path, *, overwrite: bool) -> None:
    """Proves that a run may be written at `path`.

    Raises:
        RunError: something is there already, and it is no run, or `overwrite` is not set; or no
            folder can be made there.
    """
    if not path.exists():
        parent = next(parent for parent in path.absolute().parents if parent.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK):
            raise RunError(f"{path}: no folder can be made in {parent}; name another with --run DIR")
        return
    folder = RunFolder(path)
    if not folder.record.is_file() and not folder.is_unfinished:
        raise RunError(f"{path}: exists and is no run folder; name another with --run DIR")
    if overwrite:
        return
    if folder.is_unfinished:
        raise RunError(
            f"{path}: holds an unfinished run; go on with `hsi-se train --resume {path}`, "
            "name another with --run DIR, or add --overwrite"
        )
    raise RunError(f"{path}: this run folder exists; name another with --run DIR, or add --overwrite")


@contextmanager
def begin_run(
    path: Path, *, overwrite: bool, start: RunStart, config: Config, split: Split
) -> Iterator[RunFolder]:
    """Yields the folder of a run that is to be trained inside the block.

    It appears with its config, its split and the head of its progress, all at once. If the block fails,
    it vanishes, and a finished run that it took the place of is back.
    """
    check_free(path, overwrite=overwrite)
    draft = RunFolder(path.with_name(f".{path.name}.{os.getpid()}.partial"))
    replaced = path.with_name(f".{path.name}.replaced")
    new_parents = [parent for parent in path.absolute().parents if not parent.exists()]
    draft.path.mkdir(parents=True)
    try:
        draft.write_start(start, config=config, split=split)
        if RunFolder(path).record.is_file():
            shutil.rmtree(replaced, ignore_errors=True)
            path.rename(replaced)
        elif path.exists():
            shutil.rmtree(path)
        draft.path.rename(path)
    finally:
        shutil.rmtree(draft.path, ignore_errors=True)
    try:
        yield RunFolder(path)
    except BaseException:
        shutil.rmtree(path)
        if replaced.exists():
            replaced.rename(path)
        with suppress(OSError):  # by now another run may be in there
            for parent in new_parents:
                parent.rmdir()
        raise
    shutil.rmtree(replaced, ignore_errors=True)


class Logged:
    """An observer that writes each epoch into the run folder before it tells another."""

    def __init__(self, observer: Observer, folder: RunFolder) -> None:
        self._observer, self._folder = observer, folder
        self.start, self.advance, self.note = observer.start, observer.advance, observer.note

    def epoch(self, record: EpochRecord) -> None:
        self._folder.log(record)
        self._observer.epoch(record)
