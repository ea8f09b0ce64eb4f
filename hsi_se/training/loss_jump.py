"""Finds a loss that jumps in the first steps: the learning rate is too high for the network."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hsi_se.config.training import TrainSettings

_JUMP = 10  # times the mean of the losses before
_OF_UNTRAINED = 3  # times the first loss: one misclassified pixel of a rare class stays below
_FIRST_STEPS = 0.3  # of all steps: the one-cycle schedule reaches its highest rate there


@dataclass(frozen=True)
class LossJump:
    """A jump of the loss at `step`, from 1; `before` is the mean of the losses before it."""

    step: int
    before: float
    after: float

    def describe(self, settings: TrainSettings) -> str:
        """Returns one sentence that names the setting and a value to try."""
        rate = settings.learning_rate
        lower = min(rate / 10, TrainSettings.model_fields["learning_rate"].default)
        return (
            f"train.learning_rate = {rate:g}: the loss jumped from {self.before:.3g} to {self.after:.3g} in "
            f"step {self.step}, so this rate is too high for the network; try {lower:.1g}"
        )


def count_first_steps(num_steps: int, *, num_batches: int) -> int:
    """Returns the number of steps in which a jump is looked for, an epoch of `num_batches` or more."""
    return max(num_batches, math.ceil(_FIRST_STEPS * num_steps))


def find_jump(losses: Tensor) -> LossJump | None:
    """Returns the first jump among the losses `(n,)` of a training's first steps, or None.

    A jump is a loss of more than ten times the mean of those before it, and more than three times the
    first one. Infinity is a jump; NaN is not.
    """
    values = losses.to("cpu", torch.float64)  # (n,)
    before = values.cumsum(0)[:-1] / torch.arange(1, max(1, len(values)))  # (n - 1,)
    jumps = (values[1:] > _JUMP * before) & (values[1:] > _OF_UNTRAINED * values[:1])
    if not jumps.any():
        return None
    index = int(jumps.int().argmax())
    return LossJump(index + 2, float(before[index]), float(values[index + 1]))
