"""The processes of a training: what torchrun tells them, and the signals that ask for an end."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from hsi_se.errors import Interrupted


def is_distributed() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


def is_first() -> bool:
    """Whether this is the process that writes and prints; a process without torchrun is."""
    return not is_distributed() or os.environ.get("RANK", "0") == "0"


def local_rank() -> int:
    """Returns the number of this process's GPU on its machine."""
    return int(os.environ.get("LOCAL_RANK", "0")) if is_distributed() else 0


class Stop:
    """The signal that has asked for an end, if one has.

    A signal is only noted, so that no step and no file is left half done, and takes effect at the next
    `check`. Inside `at_once`, where nothing can be left half done, it takes effect immediately.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None  # of the first signal
        self._message: str | None = None  # inside `at_once`

    def check(self, message: str) -> None:
        """Raises `Interrupted` if a signal has come."""
        if self.signal_number is not None:
            raise Interrupted(message, signal_number=self.signal_number)

    @contextmanager
    def at_once(self, message: str) -> Iterator[None]:
        """Inside, a signal raises `Interrupted` immediately.

        One that came before does so at the start, and one whose exception was lost at the end: Python
        drops an exception that is raised in a destructor.
        """
        outer, self._message = self._message, message
        try:
            self.check(message)
            yield
            self.check(message)
        except KeyboardInterrupt:
            raise Interrupted(message, signal_number=signal.SIGINT) from None
        finally:
            self._message = outer

    def hear(self, number: int, _: FrameType | None) -> None:
        """Handles a signal. A second Ctrl-C ends the process at once; torchrun itself sends more than one."""
        if number == signal.SIGINT == self.signal_number and not is_distributed():
            raise KeyboardInterrupt
        if self.signal_number is None:
            self.signal_number = number
            if self._message is not None:
                self.check(self._message)


@contextmanager
def listening(*numbers: int) -> Iterator[Stop]:
    """Inside, signals go to the `Stop` that is yielded: that of the caller, if it listens already.

    The signals are SIGINT and SIGTERM unless given. Outside the main thread, where none arrives, nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield Stop()
        return
    listener = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    stop = listener if isinstance(listener, Stop) else Stop()
    message, stop._message = stop._message, None
    numbers = numbers or (signal.SIGINT, signal.SIGTERM)
    earlier = {number: signal.signal(number, stop.hear) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
        stop._message = message
    if message is not None:
        stop.check(message)
