"""Progress reporting: one record per epoch, and the observers that receive progress events."""

from typing import Protocol

from pydantic import BaseModel, ConfigDict


class EpochRecord(BaseModel):
    """The record of one epoch: `loss` is the mean over the training patches, accuracies are fractions.

    Attributes:
        validation_per_class: for classes 0..C-1, the fraction of validation pixels classified correctly;
            None for a class without validation pixels, or if there is no validation set.
        elapsed_s: training time in seconds up to the end of this epoch, without interruptions.
    """

    model_config = ConfigDict(frozen=True)

    epoch: int
    loss: float
    validation_accuracy: float | None
    validation_loss: float | None
    learning_rate: float
    patches_per_second: float
    elapsed_s: float
    validation_per_class: tuple[float | None, ...] | None = None


class Observer(Protocol):
    """Receives progress events; library code prints nothing itself."""

    def start(self, task: str, *, total: int, unit: str) -> None:
        """Called when a task of `total` units starts."""

    def advance(self, count: int) -> None:
        """Called when `count` more units are done."""

    def epoch(self, record: EpochRecord) -> None:
        """Called at the end of each epoch."""

    def note(self, text: str) -> None:
        """Called with a one-sentence note for the user."""


class Silent:
    """An observer that ignores every event."""

    def start(self, task: str, *, total: int, unit: str) -> None: ...

    def advance(self, count: int) -> None: ...

    def epoch(self, record: EpochRecord) -> None: ...

    def note(self, text: str) -> None: ...


class Undecided(Silent):
    """The observer of a session that names none: workflows report nothing, and the public functions show progress."""


def clock(seconds: float) -> str:
    """Returns `3725` as `1:02:05`; a day is 24:00:00."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
