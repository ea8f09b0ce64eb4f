"""Commands in processes of their own, which can be killed; they start at once, with torch imported."""

import contextlib
import importlib
import itertools
import multiprocessing
import os
import resource
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import hsi_se.workflows.train  # noqa: F401  what a training needs is imported once, by the server
from hsi_se.cli import main as command_line

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([__name__])


@dataclass(frozen=True)
class Moment:
    """When a process sends itself a signal: at the call of a function, before that does its work.

    Attributes:
        function: `module:name`, where it is looked up.
        number: of the signal.
        call: which call of the function it is, from 1.
    """

    function: str
    number: int
    call: int = 1

    def arrange(self) -> None:
        module, _, name = self.function.partition(":")
        *path, last = name.split(".")
        parent = importlib.import_module(module)
        for part in path:
            parent = getattr(parent, part)
        function, calls = getattr(parent, last), itertools.count(1)

        def call(*arguments: object, **options: object) -> object:
            if next(calls) == self.call:
                os.kill(os.getpid(), self.number)
            return function(*arguments, **options)

        setattr(parent, last, call)


class Command:
    """`hsi-se` with some arguments, on one thread.

    Args:
        arguments: of the command line.
        log: takes what it prints.
        max_file_size: above which a write fails, as on a full disk.
        moment: at which it sends itself a signal.
    """

    def __init__(
        self, *arguments: object, log: Path, max_file_size: int | None = None, moment: Moment | None = None
    ) -> None:
        self.log = log
        log.touch()
        self._started = _CONTEXT.Event()
        self.process = _CONTEXT.Process(
            target=_call, args=([*map(str, arguments)], log, max_file_size, moment, self._started)
        )
        self.process.start()

    def wait_for_start(self) -> None:
        """Until the command line is read; signals are heard from then on."""
        assert self._started.wait(120)

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


def _call(arguments: list[str], log: Path, max_file_size: int | None, moment: Moment | None, started: Any) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    sys.stdout, sys.stderr = (os.fdopen(stream, "w", buffering=1) for stream in (1, 2))
    torch.set_num_threads(1)
    if max_file_size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_size, max_file_size))
    sys.argv = ["hsi-se", *arguments]
    if moment is not None:
        moment.arrange()
    read = command_line.check_words

    def start(words: list[str]) -> None:
        started.set()
        read(words)

    command_line.check_words = start
    command_line.main()
