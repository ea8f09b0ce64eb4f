"""The folder of scenes, the device and the observer, in one value."""

from dataclasses import dataclass, field
from typing import Any

from hsi_se.errors import ConfigError
from hsi_se.progress import Observer, Undecided


@dataclass(frozen=True)
class Session:
    """The surroundings of a piece of work, passed along unchanged to everything it calls.

    Attributes:
        data: folder searched for scenes before `datasets/`; by default, for a run that exists, that of its training.
        device: `auto` (a GPU where there is one), `cpu` or `cuda`.
        observer: receives progress events; by default the public functions show progress on a terminal and in a
            notebook, and nothing elsewhere.
    """

    data: Any = None
    device: str = "auto"
    observer: Observer = field(default_factory=Undecided)

    def __post_init__(self) -> None:
        if not isinstance(self.observer, Observer):
            remedy = "leave it out, or give hsi_se.Silent() or a subclass"
            raise ConfigError(f"observer = {self.observer!r}: is not an observer; {remedy}")
