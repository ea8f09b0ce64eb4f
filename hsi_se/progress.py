"""Progress reporting: one record per epoch, and the observers that receive progress events."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field

Drawable = Annotated[float, Field(ge=-1e100, le=1e100)]  # the axes of a picture overflow far beyond


class EpochRecord(BaseModel):
    """The record of one epoch: `loss` is the mean over the training patches, accuracies are fractions.

    Attributes:
        validation_per_class: for classes 0..C-1, the fraction of validation pixels classified correctly;
            None for a class without validation pixels, or if there is no validation set.
        elapsed_s: training time in seconds up to the end of this epoch, without interruptions.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    epoch: int
    loss: Drawable
    validation_accuracy: Drawable | None
    validation_loss: Drawable | None
    learning_rate: Drawable
    patches_per_second: Drawable
    elapsed_s: Drawable
    validation_per_class: tuple[float | None, ...] | None = None


@runtime_checkable
class Observer(Protocol):
    """Receives progress events; library code prints nothing itself. One's own may extend `Silent`."""

    def begin_run(self, name: str, settings: Mapping[str, object], *, epoch: int) -> None:
        """Called before a run is trained, resumed or evaluated, after `epoch` epochs.

        The name is the same each time, and no other run has it; the settings are by their dotted keys.
        """

    def end_run(self, results: Mapping[str, float], *, page: Path | None) -> None:
        """Called with what is known of the run at the end of training or evaluation, and the report page if drawn."""

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

    def begin_run(self, name: str, settings: Mapping[str, object], *, epoch: int) -> None: ...

    def end_run(self, results: Mapping[str, float], *, page: Path | None) -> None: ...

    def start(self, task: str, *, total: int, unit: str) -> None: ...

    def advance(self, count: int) -> None: ...

    def epoch(self, record: EpochRecord) -> None: ...

    def note(self, text: str) -> None: ...


class Several(Silent):
    """An observer that passes every event on to several others."""

    def __init__(self, *observers: Observer) -> None:
        for name in [name for name in vars(Silent) if name[0] != "_"]:
            setattr(self, name, partial(_call_each, [getattr(observer, name) for observer in observers]))


def _call_each(functions: Sequence[Callable[..., None]], *arguments: object, **named: object) -> None:
    for function in functions:
        function(*arguments, **named)


class Undecided(Silent):
    """The observer of a session that names none: workflows report nothing, and the public functions show progress."""


def clock(seconds: float) -> str:
    """Returns `3725` as `1:02:05`; a day is 24:00:00."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
