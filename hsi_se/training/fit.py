"""Trains a network; the best epoch is chosen on validation pixels, never on test pixels."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hsi_se.config.training import TrainSettings
from hsi_se.errors import DivergedError
from hsi_se.models.inference import evaluation_mode, predict_patches, set_tf32
from hsi_se.progress import EpochRecord, Observer
from hsi_se.sampling.patches import PatchDataset
from hsi_se.system.memory import keep_freed_memory
from hsi_se.training.checkpoint import Keeper
from hsi_se.training.distributed import World
from hsi_se.training.state import TrainingState
from hsi_se.training.step import Stepper


@dataclass(frozen=True)
class FitResult:
    """The outcome of a training run."""

    best_epoch: int  # whose weights the model now has, from 1
    history: tuple[EpochRecord, ...]
    training_s: float = 0.0  # without interruptions
    notes: tuple[str, ...] = ()  # what the user should know about the training, one sentence each


def fit(
    model: nn.Module,
    *,
    train: PatchDataset,
    val: PatchDataset,
    num_classes: int,
    settings: TrainSettings,
    seed: int,
    observer: Observer,
    keeper: Keeper | None = None,
    world: World | None = None,
) -> FitResult:
    """Trains the model in place and leaves it with the weights of its best epoch.

    The best epoch is the latest one whose validation accuracy is within one standard error of the highest. This is the
    one-standard-error rule of Breiman et al. 1984, Classification and Regression Trees, with training time in place of
    complexity. Fifty validation pixels cannot distinguish 98 % from 100 %, and the schedule makes later epochs more
    stable. Without validation pixels the last epoch is used.

    With `weight_averaging`, the exponential moving average of weights and batch-norm statistics is validated and kept
    instead of the weights themselves.

    Data order, flips, noise and dropout depend only on the seed. Torch's global generators are restored.

    Args:
        model: maps patches `(n, 1, k, p, p)` to logits `(n, C)`, on the datasets' device.
        train, val: patches with targets; `val` may be empty.
        num_classes: C.
        keeper: saves the training state and restores it when a run is resumed.
        world: the processes that share each batch; each of them receives all patches.

    DivergedError if the loss or a weight is NaN or infinite; TrainingError for more processes than patches in a batch.
    """
    world, keeper = world or World(), keeper or Keeper()
    state = TrainingState(model, settings, num_patches=len(train), seed=seed)
    world.check_batches(num_patches=len(train), num_batches=state.num_batches)
    if train.device.type == "cpu":
        keep_freed_memory()
    weight = _class_weights(train.targets, num_classes, settings.class_weights)
    cuda = [train.device] if train.device.type == "cuda" else []
    with torch.random.fork_rng(cuda), set_tf32(False):
        torch.manual_seed(seed)
        keeper.restore(state)
        notes: list[str] = []

        def tell(note: str) -> None:
            notes.append(note)
            observer.note(note)

        network = world.wrap(model)
        step = Stepper(network, train=train, settings=settings, weight=weight, world=world, on_note=tell)
        has_jumped = _note_jump(state, settings, tell)  # once more, if an earlier session noted it
        done = state.num_patches_done
        task = f"training from epoch {state.epoch}" if done else "training"
        observer.start(task, total=settings.epochs * len(train) - done, unit="patches")
        while state.epoch <= settings.epochs:
            network.train()
            for index in state.batches():
                loss = step(index, generator=state.generator)
                state.optimizer.step()
                state.end_step(world.sum(loss), num_patches=len(index))
                observer.advance(len(index))
                # Reading losses makes a GPU wait, so they are read after 1, 2, 4, 8, … steps.
                if not has_jumped and (state.steps.bit_count() == 1 or state.steps == len(state.first_losses)):
                    has_jumped = _note_jump(state, settings, tell)
                keeper.after_step(state)

            mean_loss = float(state.total_loss) / len(train)
            rate = len(train) / state.epoch_s
            is_sound = math.isfinite(mean_loss) and _is_finite(model, train)
            val_accuracy, val_loss, val_per_class = _validate(state.judged, val, num_classes)
            if not is_sound or (val_loss is not None and not math.isfinite(val_loss)):
                raise DivergedError(
                    f"train.learning_rate = {settings.learning_rate:g}: training diverged: "
                    f"loss or weights became NaN or infinite in epoch {state.epoch}; "
                    f"lower the learning rate, for example to {_lower_rate(settings):.1g}, "
                    "or check the scale of the cube"
                )
            record = EpochRecord(
                epoch=state.epoch,
                loss=mean_loss,
                validation_accuracy=val_accuracy,
                validation_loss=val_loss,
                learning_rate=state.learning_rate,
                patches_per_second=rate,
                validation_per_class=val_per_class,
                elapsed_s=state.elapsed_s,
            )
            state.end_epoch(record, num_val=len(val))
            observer.epoch(record)
            keeper.after_epoch(state)

    model.load_state_dict(state.best_weights)
    return FitResult(state.best_epoch, tuple(state.history), training_s=state.elapsed_s, notes=tuple(notes))


def _note_jump(state: TrainingState, settings: TrainSettings, tell: Callable[[str], None]) -> bool:
    """Tells the user if the loss has jumped in the first steps, and returns whether it has."""
    note = explain_jump(state.first_losses[: state.steps], settings)
    if note:
        tell(note)
    return bool(note)


def explain_jump(losses: Tensor, settings: TrainSettings) -> str:
    """Returns a sentence about the first jump among the first steps' losses `(n,)`; empty without one.

    A jump is a loss of more than ten times the mean of those before it, and more than three times the first:
    one misclassified pixel of a rare class stays below that.
    """
    values = losses.to("cpu", torch.float64)
    before = values.cumsum(0)[:-1] / torch.arange(1, max(1, len(values)))  # (n - 1,)
    jumps = ((values[1:] > 10 * before) & (values[1:] > 3 * values[:1])).nonzero()
    if not len(jumps):
        return ""
    step = int(jumps[0]) + 2
    return (
        f"train.learning_rate = {settings.learning_rate:g}: the loss jumped from {before[step - 2]:.3g} to "
        f"{values[step - 1]:.3g} in step {step}, so this rate is too high for the network; "
        f"try {_lower_rate(settings):.1g}"
    )


def _lower_rate(settings: TrainSettings) -> float:
    """Returns a learning rate to try instead: a tenth, and at most the default."""
    return min(settings.learning_rate / 10, float(TrainSettings.model_fields["learning_rate"].default))


def _is_finite(model: nn.Module, train: PatchDataset) -> bool:
    """Returns whether weights, running statistics and the logits of some training patches are finite."""
    with evaluation_mode(model):
        logits = model(train.gather(torch.arange(min(len(train), 16))))
        values = [value for value in model.state_dict().values() if value.is_floating_point()]
        return bool(nn.utils.get_total_norm([*values, logits], norm_type=1).isfinite())


def _class_weights(targets: Tensor, num_classes: int, kind: str) -> Tensor | None:
    """Returns weights `(C,)`, n^-power for a class of n pixels, with mean 1 over the training pixels."""
    power = {"none": 0.0, "sqrt": 0.5, "balanced": 1.0}[kind]
    if not power:
        return None
    counts = torch.bincount(targets, minlength=num_classes).clamp(min=1).float()
    weights = counts**-power
    return weights / weights[targets].mean()


def _validate(
    model: nn.Module, val: PatchDataset, num_classes: int
) -> tuple[float | None, float | None, tuple[float | None, ...] | None]:
    """Returns overall accuracy, mean cross-entropy and per-class accuracy; None without any pixels."""
    if not len(val):
        return None, None, None
    logits = predict_patches(model, val)
    is_right = logits.argmax(1) == val.targets
    counts = torch.bincount(val.targets, minlength=num_classes).tolist()
    num_right = torch.bincount(val.targets[is_right], minlength=num_classes).tolist()
    per_class = tuple(right / n if n else None for right, n in zip(num_right, counts, strict=True))
    return float(is_right.float().mean()), float(F.cross_entropy(logits, val.targets)), per_class
