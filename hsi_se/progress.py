"""What a training loop tells: one record an epoch, and whoever wants to watch."""

from typing import Protocol

from pydantic import BaseModel, ConfigDict


class EpochRecord(BaseModel):
    """One epoch: `loss` is the mean over the training patches, accuracies are fractions.

    Attributes:
        validation_per_class: of classes 0..C-1, the share of their validation pixels that is called so;
            None where a class has none there, or nothing validates.
        elapsed_s: training time up to the end of this epoch, interruptions not counted.
    """

    model_config = ConfigDict(frozen=True)

    epoch: int
    loss: float
    validation_accuracy: float | None
    validation_loss: float | None
    learning_rate: float
    patches_per_second: float
    validation_per_class: tuple[float | None, ...] | None = None
    elapsed_s: float | None = None


class Observer(Protocol):
    """Is told of progress; `hsi_se` itself prints nothing."""

    def start(self, task: str, *, total: int, unit: str) -> None:
        """A piece of work of `total` units begins."""

    def advance(self, count: int) -> None:
        """`count` more units are done."""

    def epoch(self, record: EpochRecord) -> None:
        """An epoch has ended."""

    def note(self, text: str) -> None:
        """Something the user should know, in one sentence."""


class Silent:
    """The observer that keeps to itself."""

    def start(self, task: str, *, total: int, unit: str) -> None: ...

    def advance(self, count: int) -> None: ...

    def epoch(self, record: EpochRecord) -> None: ...

    def note(self, text: str) -> None: ...
