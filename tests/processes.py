"""Commands in processes of their own, which can be killed; they start at once, with torch imported."""

import contextlib
import multiprocessing
import os
import resource
import sys
from pathlib import Path

import torch

import hsi_se.workflows.train  # noqa: F401  what a training needs is imported once, by the server
from hsi_se.cli.main import main

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([__name__])


class Command:
    """`hsi-se` with some arguments, on one thread.

    Args:
        arguments: of the command line.
        log: takes what it prints.
        max_file_size: above which a write fails, as on a full disk.
    """

    def __init__(self, *arguments: object, log: Path, max_file_size: int | None = None) -> None:
        self.log = log
        log.touch()
        self.process = _CONTEXT.Process(target=_call, args=([*map(str, arguments)], log, max_file_size))
        self.process.start()

    def send(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):  # has ended by itself
            os.kill(self.process.pid, number)

    def is_alive(self) -> bool:
        return self.process.is_alive()

    def wait(self) -> int:
        """Returns the exit code, or minus the signal that ended it."""
        self.process.join(120)
        assert self.process.exitcode is not None, self.log.read_text()
        return self.process.exitcode

    def last_line(self) -> str:
        return self.log.read_text().splitlines()[-1]


def _call(arguments: list[str], log: Path, max_file_size: int | None) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    sys.stdout, sys.stderr = (os.fdopen(stream, "w", buffering=1) for stream in (1, 2))
    torch.set_num_threads(1)
    if max_file_size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_size, max_file_size))
    sys.argv = ["hsi-se", *arguments]
    main()
