"""Holds the state of a training run between two steps: everything that is needed to resume it."""

import copy
import math
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, OneCycleLR

from hsi_se.config.training import TrainSettings
from hsi_se.progress import EpochRecord

MOST_INPUTS = 5_184  # of an output value, at the full learning rate: HybridSN at patches of 17, as measured
Tree = dict[str, Any]  # nested; leaves are tensors and JSON values
# Attributes of a state that a checkpoint stores as they are.
_TENSORS, _NUMBERS = ("total_loss", "first_losses"), ("epoch", "steps", "learning_rate", "best_accuracy", "best_epoch")


class TrainingState:
    """The state of a training run between two steps, as the training loop updates it.

    `generator` is for data order, symmetries and shifts. Noise and dropout use torch's global generators,
    which are saved and restored too.
    """

    def __init__(self, model: nn.Module, settings: TrainSettings, *, num_patches: int, seed: int) -> None:
        self.num_patches = num_patches
        self.num_batches = math.ceil(num_patches / settings.batch_size)
        self.device = next(model.parameters()).device
        self.model = model
        self.optimizer = make_optimizer(model, settings)
        num_steps = settings.epochs * self.num_batches
        self.schedule = _make_schedule(self.optimizer, settings, num_steps=num_steps)
        self._decay = settings.weight_averaging
        self._average = copy.deepcopy(model) if self._decay else None  # of weights and batch-norm statistics
        self.generator = torch.Generator().manual_seed(seed)
        self.epoch = 1  # the current one; when training is finished, one more than the last
        self.steps = 0  # finished in all epochs
        self.learning_rate = 0.0  # of the epoch's first step
        self.total_loss = torch.zeros((), device=self.device)  # sum over the epoch's patches so far
        # Of the steps until the one-cycle schedule has its highest rate, or of an epoch.
        num_first = max(self.num_batches, math.ceil(0.3 * num_steps))
        self.first_losses = torch.zeros(num_first, device=self.device)
        self.history: list[EpochRecord] = []
        self.best_accuracy = 0.0  # on the validation pixels
        self.best_epoch = 0  # see `fit`
        self.best_weights = _copy_weights(model)
        self._order = torch.empty(0, dtype=torch.int64)  # order of the epoch's patches; empty between epochs
        self._started = time.perf_counter()  # moved back by the time that earlier sessions took
        self._epoch_started_s = 0.0

    @property
    def _parts(self) -> dict[str, Any]:
        """What keeps a state dict of its own."""
        average = {} if self._average is None else {"average": self._average}
        return {"model": self.model, "optimizer": self.optimizer, "schedule": self.schedule, **average}

    @property
    def judged(self) -> nn.Module:
        """The network whose weights are validated and kept: the moving average, if there is one."""
        return self.model if self._average is None else self._average

    @property
    def elapsed_s(self) -> float:
        """Training time in seconds so far, including that of earlier sessions."""
        return time.perf_counter() - self._started

    @property
    def num_patches_done(self) -> int:
        """Number of patches processed so far, in all epochs."""
        batches = self._order.tensor_split(self.num_batches)[: self._position]
        return (self.epoch - 1) * self.num_patches + sum(map(len, batches))

    @property
    def _position(self) -> int:
        """Number of finished batches in this epoch."""
        return self.steps - (self.epoch - 1) * self.num_batches

    def batches(self) -> Iterator[Tensor]:
        """Yields the dataset positions `(n,)` of the epoch's remaining batches.

        Batch sizes differ by at most one, so batch norm never sees a last batch of a single patch.
        """
        if not len(self._order):
            self._order = torch.randperm(self.num_patches, generator=self.generator)
            self._epoch_started_s = self.elapsed_s
            self.learning_rate = float(self.schedule.get_last_lr()[0])
            self.total_loss = torch.zeros((), device=self.device)
        yield from self._order.tensor_split(self.num_batches)[self._position :]

    def end_step(self, loss: Tensor, *, num_patches: int) -> None:
        """Updates schedule, moving average and loss sum after a step; `loss` is the batch's mean."""
        self.schedule.step()
        if self._average is not None:
            self._update_average(self._average)
        self.total_loss += loss.detach() * num_patches
        if self.steps < len(self.first_losses):
            self.first_losses[self.steps] = loss.detach()
        self.steps += 1

    def _update_average(self, average: nn.Module) -> None:
        """Moves the average towards the weights; torch's `AveragedModel` would make a GPU wait in every step."""
        if not self.steps:
            average.load_state_dict(self.model.state_dict())
            return
        pairs = zip(average.state_dict().values(), self.model.state_dict().values(), strict=True)
        floats = [pair for pair in pairs if pair[0].is_floating_point()]
        torch._foreach_lerp_([pair[0] for pair in floats], [pair[1] for pair in floats], 1 - self._decay)

    @property
    def epoch_s(self) -> float:
        """Time in seconds spent on this epoch so far."""
        return self.elapsed_s - self._epoch_started_s

    def end_epoch(self, record: EpochRecord, *, num_val: int) -> None:
        """Appends the record, and keeps the weights if this is the best epoch so far (see `fit`)."""
        self.history.append(record)
        accuracy = record.validation_accuracy
        self.best_accuracy = max(self.best_accuracy, accuracy or 0.0)
        if accuracy is None or accuracy >= self.best_accuracy - _standard_error(self.best_accuracy, num_val):
            self.best_epoch, self.best_weights = self.epoch, _copy_weights(self.judged)
        self.epoch += 1
        self._order = self._order[:0]

    def save(self) -> Tree:
        """Returns the whole state as a tree; tensors are not copied."""
        generators = {"order": self.generator.get_state(), "cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            generators["cuda"] = torch.cuda.get_rng_state(self.device)
        return {
            **{name: part.state_dict() for name, part in self._parts.items()},
            **{name: getattr(self, name) for name in (*_TENSORS, *_NUMBERS)},
            "generators": generators,
            "order": self._order,
            "best_weights": self.best_weights,
            "history": [record.model_dump(mode="json") for record in self.history],
            "elapsed_s": self.elapsed_s,
            "epoch_started_s": self._epoch_started_s,
        }

    def load(self, saved: Tree) -> None:
        """Restores a state returned by `save`, including torch's global generators.

        LookupError, RuntimeError, TypeError or ValueError if the state does not fit this run.
        """
        for name, part in self._parts.items():
            state = saved[name]
            if part is self.optimizer:  # JSON has made texts of its parameters' numbers
                state = {**state, "state": {int(number): values for number, values in state["state"].items()}}
            part.load_state_dict(state)
        self.generator.set_state(saved["generators"]["order"])
        torch.set_rng_state(saved["generators"]["cpu"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(saved["generators"]["cuda"], self.device)
        self._order = saved["order"]
        for name in _TENSORS:
            setattr(self, name, saved[name].to(self.device))
        for name in _NUMBERS:
            setattr(self, name, type(getattr(self, name))(saved[name]))
        self.best_weights = {name: value.to(self.device) for name, value in saved["best_weights"].items()}
        self.history = [EpochRecord.model_validate(record) for record in saved["history"]]
        self._started = time.perf_counter() - float(saved["elapsed_s"])
        self._epoch_started_s = float(saved["epoch_started_s"])


def _copy_weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def _standard_error(accuracy: float, num_pixels: int) -> float:
    """Returns the standard error of an accuracy measured on few pixels.

    Two correct and two wrong pixels are added before it is computed (Agresti and Coull 1998).
    """
    share = (accuracy * num_pixels + 2) / (num_pixels + 4)
    return math.sqrt(share * (1 - share) / (num_pixels + 4))


def make_optimizer(model: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    """Returns AdamW with weight decay on weights only, not on biases or batch-norm parameters.

    A step of Adam changes a layer's output by up to the learning rate times the sum of its inputs. The rate
    of weights with more than `MOST_INPUTS` inputs is therefore inversely proportional to their number
    (Yang et al. 2022, Tensor Programs V, table 3).
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        num_inputs = parameter[0].numel() if parameter.ndim > 1 else 1
        factor = min(1.0, MOST_INPUTS / num_inputs)
        weight_decay = settings.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((factor, weight_decay), []).append(parameter)
    tensors = [
        {"params": parameters, "lr": settings.learning_rate * factor, "weight_decay": weight_decay}
        for (factor, weight_decay), parameters in sorted(groups.items(), reverse=True)
    ]
    return torch.optim.AdamW(tensors, fused=True)


def _make_schedule(optimizer: torch.optim.Optimizer, settings: TrainSettings, *, num_steps: int) -> LRScheduler:
    rates = [group["lr"] for group in optimizer.param_groups]
    match settings.schedule:
        case "one-cycle":
            return OneCycleLR(optimizer, max_lr=rates, total_steps=num_steps + 1)
        case "cosine":
            return CosineAnnealingLR(optimizer, T_max=num_steps)
        case "constant":
            return LambdaLR(optimizer, lambda _: 1.0)
