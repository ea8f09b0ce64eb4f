"""Trains a network; the best epoch is chosen on validation pixels, never on test pixels."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hsi_se.config.training import TrainSettings
from hsi_se.errors import DivergedError
from hsi_se.models.inference import evaluation_mode, predict_patches, set_tf32
from hsi_se.progress import EpochRecord, Observer, clock
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
    stopped: str = ""  # why training ended before the last epoch of the settings, a sentence
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
    last_epoch: int | None = None,
) -> FitResult:
    """Trains the model in place and leaves it with the weights of its best epoch.

    The best epoch is the latest one whose validation accuracy is within one standard error of the highest. This is the
    one-standard-error rule of Breiman et al. 1984, Classification and Regression Trees, with training time in place of
    complexity. Fifty validation pixels cannot distinguish 98 % from 100 %, and the schedule makes later epochs more
    stable. Without validation pixels the last epoch is used.

    With `weight_averaging`, the exponential moving average of weights and batch-norm statistics is validated and kept
    instead of the weights themselves.

    Training ends early as `train.early_stopping` and `train.max_minutes` say, on the decision of the first process. The
    schedule of the learning rate is that of all epochs nevertheless.

    Data order, flips, noise and dropout depend only on the seed. Torch's global generators are restored.

    Args:
        model: maps patches `(n, 1, k, p, p)` to logits `(n, C)`, on the datasets' device.
        train, val: patches with targets; `val` may be empty.
        num_classes: C.
        keeper: saves the training state and restores it when a run is resumed.
        world: the processes that share each batch; each of them receives all patches.
        last_epoch: after which training ends, if not that of the settings, which lay out the schedule.

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
        last_epoch = last_epoch or settings.epochs
        stopped = world.follow_first(explain_stop(state.history, settings))
        while state.epoch <= last_epoch and not stopped:
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
            stopped = world.follow_first(explain_stop(state.history, settings))
            observer.epoch(record)
            keeper.after_epoch(state, is_last=bool(stopped) or state.epoch > last_epoch)
        if stopped:
            tell(stopped)

    model.load_state_dict(state.best_weights)
    return FitResult(
        state.best_epoch, tuple(state.history), training_s=state.elapsed_s, notes=tuple(notes), stopped=stopped
    )


def explain_stop(history: Sequence[EpochRecord], settings: TrainSettings) -> str:
    """Returns a sentence on why training ends after the epochs in `history`; empty if it does not end early.

    It depends on nothing else, so that a resumed training ends at the same epoch.
    """
    done, stopping = len(history), settings.early_stopping
    if not 0 < done < settings.epochs:
        return ""
    start = f"training stopped after epoch {done} of {settings.epochs}: "
    if stopping is not None and history[0].validation_loss is not None:
        sign = 1 if stopping.monitor == "accuracy" else -1
        values = [sign * (getattr(record, f"validation_{stopping.monitor}") or 0.0) for record in history]
        best = values.index(max(values)) + 1
        if done - best >= stopping.patience:
            since = f"the validation {stopping.monitor} has not improved since epoch {best}"
            return f"{start}{since} (train.early_stopping.patience = {stopping.patience})"
    elapsed_s = [0.0, *(record.elapsed_s for record in history)]
    longest_s = max(after - before for before, after in itertools.pairwise(elapsed_s))
    if settings.max_minutes is not None and elapsed_s[-1] + longest_s > 60 * settings.max_minutes:
        spent = f"{clock(elapsed_s[-1])} of training, and an epoch takes up to {clock(longest_s)}"
        return f"{start}{spent} (train.max_minutes = {settings.max_minutes:g})"
    return ""


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
