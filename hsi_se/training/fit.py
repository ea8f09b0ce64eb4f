"""The training loop: AdamW, a schedule, flips, and the best epoch by validation, never by test."""

import copy
import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from hsi_se.config import TrainSettings
from hsi_se.errors import TrainingError
from hsi_se.models.inference import predict_patches
from hsi_se.sampling.patches import PatchDataset
from hsi_se.training.augment import draw_patches
from hsi_se.training.history import EpochRecord, Observer


@dataclass(frozen=True)
class FitResult:
    """The epoch whose weights the model now has, and the record of every epoch."""

    best_epoch: int
    history: tuple[EpochRecord, ...]


def fit(
    model: nn.Module,
    *,
    train: PatchDataset,
    val: PatchDataset,
    num_classes: int,
    settings: TrainSettings,
    seed: int,
    observer: Observer,
) -> FitResult:
    """Trains the model in place and leaves it with the weights of its best epoch.

    The epoch taken is the latest whose validation accuracy is within one standard error of the highest
    (the one-standard-error rule of Breiman et al. 1984, Classification and Regression Trees, with
    training time for complexity): fifty validation pixels cannot tell 98 % from 100 %, and the schedule
    has settled the later epochs. Without validation pixels it is the last. With `weight_averaging`, the
    moving average of the weights and statistics over the steps is validated and kept instead of the
    weights themselves. The data order, the flips, the noise and
    the dropout depend on the seed alone, and torch's global generator is left as it was.

    Args:
        model: from patches `(n, 1, k, p, p)` to logits `(n, C)`, on the datasets' device.
        train: patches with targets; only these are fitted.
        val: patches with targets, possibly none.
        num_classes: C.
        settings: the config's `train` section.
        seed: an int in 0..2⁶³.
        observer: told of every batch and epoch.

    Raises:
        TrainingError: the loss is no longer a finite number.
    """
    generator = torch.Generator().manual_seed(seed)
    num_batches = math.ceil(len(train) / settings.batch_size)
    optimizer = _make_optimizer(model, settings)
    schedule = _make_schedule(optimizer, settings, num_steps=settings.epochs * num_batches)
    average = None
    if settings.weight_averaging:
        decay = get_ema_multi_avg_fn(settings.weight_averaging)  # type: ignore[no-untyped-call]
        average = AveragedModel(model, multi_avg_fn=decay, use_buffers=True)
    judged = model if average is None else average.module  # whose weights are validated and kept
    is_mixed = settings.precision == "bfloat16"
    weight = _class_weights(train.targets, num_classes, settings.class_weights)

    history: list[EpochRecord] = []
    best_accuracy, best_epoch, best_state = 0.0, 0, model.state_dict()
    observer.start("training", total=settings.epochs * len(train), unit="patches")
    first_start = time.perf_counter()
    cuda = [train.device] if train.device.type == "cuda" else []
    with torch.random.fork_rng(cuda):
        torch.manual_seed(seed)
        for epoch in range(1, settings.epochs + 1):
            start = time.perf_counter()
            model.train()
            learning_rate = float(schedule.get_last_lr()[0])
            total_loss = torch.zeros((), device=train.device)
            order = torch.randperm(len(train), generator=generator)
            # Batches of equal size, give or take one: batch norm never meets a single left-over patch.
            for index in order.tensor_split(num_batches):
                patches = draw_patches(train, index, settings=settings, generator=generator)
                with torch.autocast(train.device.type, torch.bfloat16, enabled=is_mixed):
                    logits = model(patches)
                loss = F.cross_entropy(
                    logits.float(),
                    train.targets[index.to(train.device)],
                    weight=weight,
                    label_smoothing=settings.label_smoothing,
                )
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
                schedule.step()
                if average is not None:
                    average.update_parameters(model)
                total_loss += loss.detach() * len(index)
                observer.advance(len(index))

            mean_loss = float(total_loss) / len(train)
            now = time.perf_counter()
            if not math.isfinite(mean_loss) or not _has_finite_weights(model):
                raise TrainingError(
                    f"train.learning_rate = {settings.learning_rate:g}: the loss or a weight is no finite "
                    f"number after epoch {epoch}; lower the learning rate, or check the scale of the cube"
                )
            val_accuracy, val_loss, val_per_class = _validate(judged, val, num_classes)
            record = EpochRecord(
                epoch=epoch,
                loss=mean_loss,
                validation_accuracy=val_accuracy,
                validation_loss=val_loss,
                learning_rate=learning_rate,
                patches_per_second=len(train) / (now - start),
                validation_per_class=val_per_class,
                elapsed_s=time.perf_counter() - first_start,
            )
            history.append(record)
            observer.epoch(record)
            best_accuracy = max(best_accuracy, val_accuracy or 0.0)
            if val_accuracy is None or val_accuracy >= best_accuracy - _standard_error(
                best_accuracy, len(val)
            ):
                best_epoch, best_state = epoch, copy.deepcopy(judged.state_dict())

    model.load_state_dict(best_state)
    return FitResult(best_epoch=best_epoch, history=tuple(history))


def _standard_error(accuracy: float, num_pixels: int) -> float:
    """Of a share counted on few pixels; two right and two wrong are added (Agresti and Coull 1998)."""
    share = (accuracy * num_pixels + 2) / (num_pixels + 4)
    return math.sqrt(share * (1 - share) / (num_pixels + 4))


def _has_finite_weights(model: nn.Module) -> bool:
    """Batch norm's running statistics count too."""
    return all(bool(value.isfinite().all()) for value in model.state_dict().values())


def _make_optimizer(model: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    """AdamW; weight decay acts on weights alone, not on biases and batch norm's scales."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True)


def _make_schedule(
    optimizer: torch.optim.Optimizer, settings: TrainSettings, *, num_steps: int
) -> LRScheduler:
    match settings.schedule:
        case "one-cycle":
            return OneCycleLR(optimizer, max_lr=settings.learning_rate, total_steps=num_steps + 1)
        case "cosine":
            return CosineAnnealingLR(optimizer, T_max=num_steps)
        case "constant":
            return LambdaLR(optimizer, lambda _: 1.0)


def _class_weights(targets: Tensor, num_classes: int, kind: str) -> Tensor | None:
    """`(C,)` n^-power of each class, scaled so that the mean weight of a training pixel is 1."""
    power = {"none": 0.0, "sqrt": 0.5, "balanced": 1.0}[kind]
    if not power:
        return None
    counts = torch.bincount(targets, minlength=num_classes).clamp(min=1).float()
    weights = counts**-power
    return weights / weights[targets].mean()


def _validate(
    model: nn.Module, val: PatchDataset, num_classes: int
) -> tuple[float | None, float | None, tuple[float | None, ...] | None]:
    """The accuracy, mean cross-entropy and accuracy of each class over the validation pixels, if any."""
    if not len(val):
        return None, None, None
    logits = predict_patches(model, val)
    is_right = logits.argmax(1) == val.targets
    counts = torch.bincount(val.targets, minlength=num_classes).tolist()
    num_right = torch.bincount(val.targets[is_right], minlength=num_classes).tolist()
    per_class = tuple(right / n if n else None for right, n in zip(num_right, counts, strict=True))
    return float(is_right.float().mean()), float(F.cross_entropy(logits, val.targets)), per_class
