"""Signals that ask for an end are heard between two steps, so that none is left half done."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


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
