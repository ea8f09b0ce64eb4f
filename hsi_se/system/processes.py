"""The processes of a training: what torchrun tells them, and signals that ask for an end.

Signals are heard between two steps, so that none is left half done.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


def is_distributed() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


def is_first() -> bool:
    """Whether this is the process that writes and prints; the only one is."""
    return not is_distributed() or os.environ.get("RANK", "0") == "0"


def local_rank() -> int:
    """Which GPU of the machine is this process's."""
    return int(os.environ.get("LOCAL_RANK", "0")) if is_distributed() else 0


class Stop:
    """The signal that has asked for an end, if one has."""

    signal_number: int | None = None


@contextmanager
def listening(*, insist: bool = True) -> Iterator[Stop]:
    """Inside, SIGINT and SIGTERM are noted; outside the main thread, where none arrive, nothing is done.

    Args:
        insist: whether a second SIGINT ends the process at once, as the first does elsewhere.
    """
    stop = Stop()

    def note(number: int, _: FrameType | None) -> None:
        if insist and number == signal.SIGINT == stop.signal_number:
            raise KeyboardInterrupt
        stop.signal_number = stop.signal_number or number

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    earlier = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
