"""What a training loop tells: one record an epoch, and whoever wants to watch."""

from typing import Protocol

from pydantic import BaseModel, ConfigDict


class EpochRecord(BaseModel):
    """One epoch: `loss` is the mean over the training patches, accuracies are fractions."""

    model_config = ConfigDict(frozen=True)

    epoch: int
    loss: float
    validation_accuracy: float | None
    validation_loss: float | None
    learning_rate: float
    patches_per_second: float


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
