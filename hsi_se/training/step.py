"""Takes the forward and backward pass of a training step, patch by patch or over the area that the patches share.

Also chooses the precision of the products: bfloat16 is faster only where the device supports it natively.
Axes: n patches, k components, p × p pixels of a patch; h rows and w cols of the area that a batch covers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hsi_se.config.training import TrainSettings
from hsi_se.models.cost import StageCost, count_stage_costs
from hsi_se.models.inference import set_tf32
from hsi_se.models.insertion import is_plain
from hsi_se.models.network import Network
from hsi_se.progress import Silent
from hsi_se.sampling.patches import NUM_SYMMETRIES, PatchDataset
from hsi_se.training.distributed import World
from hsi_se.training.graph import GraphedStep, can_capture
from hsi_se.training.overlap import Corners, gather_windows
from hsi_se.training.shared_step import can_share, share_forward

# Time of one MAC in the shared pass relative to one patch by patch, including gathers and scatter-adds.
# Measured by benchmarks/training_throughput.py: 1.04 without attention, 0.99 with gates; 1.1 leaves a margin.
SHARED_COST = 1.1

_FLIPPED_AXES = ((), (0,), (1,), (0, 1))  # for symmetries 0-3; symmetries 4-7 transpose first

_SILENT = Silent()

Precision = Literal["float32", "tf32", "bfloat16"]

# Names of bfloat16 products in torch.cpu.get_capabilities: first x86, then ARM.
_CPU_PRODUCTS = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")


def draw_places(
    train: PatchDataset, index: Tensor, *, settings: TrainSettings, generator: torch.Generator
) -> tuple[Tensor, Tensor | None]:
    """Returns where the patches at `index` `(n,)` begin, moved by `shift`, and the symmetry of each, if any.

    Both are `(n,)` int64 on the CPU, for `cut_patches`. With `vary_by: batch` all patches have the same symmetry.
    """
    symmetries = None
    if settings.flips:
        count = 1 if settings.vary_by == "batch" else len(index)
        symmetries = torch.randint(NUM_SYMMETRIES, (count,), generator=generator).expand(len(index))
    shifts = _draw_shifts(len(index), settings=settings, generator=generator)
    return train.find_places(index, shifts=shifts), symmetries


def cut_patches(train: PatchDataset, places: Tensor, *, symmetries: Tensor | None, settings: TrainSettings) -> Tensor:
    """Returns augmented patches `(n, 1, k, p, p)`.

    The steps run in this order; the first two are those of `draw_places`:

    1. `shift` moves the patch by some pixels.
    2. `flips` applies one of the eight symmetries of the square.
    3. `spectral_jitter` scales each component.
    4. `noise` is added to every value.
    5. `band_dropout` sets components to zero, which is the training mean of standardised ones.

    Steps 3 to 5 are drawn from torch's global generator of the device, for each patch, or with `vary_by: batch`
    once for the whole scene.

    Args:
        train: the dataset.
        places, symmetries: as returned by `draw_places`, on the dataset's device.
    """
    if settings.vary_by == "batch":
        scene = _vary_values(train.padded.permute(2, 0, 1)[None], settings)[0].permute(1, 2, 0).contiguous()
        return train.cut(scene, places, symmetries=symmetries)
    patches = train.cut(train.padded, places, symmetries=symmetries)
    return _vary_values(patches.squeeze(1), settings).unsqueeze(1)


def draw_area(
    train: PatchDataset, index: Tensor, *, settings: TrainSettings, generator: torch.Generator
) -> tuple[Tensor, Corners]:
    """Returns the augmented area `(h, w, k)` that a batch covers, and each patch's upper-left corner in it.

    The augmentation is that of `cut_patches` with `vary_by: batch`: all patches share one symmetry, the gains and the
    dropped components, and the noise where they overlap. Rows and cols that no patch covers are left out.
    """
    size, symmetry = train.patch_size, 0
    if settings.flips:
        symmetry = int(torch.randint(NUM_SYMMETRIES, (), generator=generator))
    shifts = _draw_shifts(len(index), settings=settings, generator=generator)
    corners = train.find_corners(index, shifts=shifts)
    area = train.padded
    for axis in (0, 1):
        first = corners[:, axis, None] + torch.arange(size)  # (n, p)
        is_covered = torch.zeros(area.shape[axis], dtype=torch.bool)
        is_covered[first.flatten()] = True
        area = area.index_select(axis, is_covered.nonzero()[:, 0].to(train.device, non_blocking=True))
        corners[:, axis] = (is_covered.cumsum(0) - 1)[corners[:, axis]]
    if symmetry >= len(_FLIPPED_AXES):
        area, corners = area.transpose(0, 1), corners.flip(1)
    for axis in _FLIPPED_AXES[symmetry % len(_FLIPPED_AXES)]:
        area = area.flip(axis)
        corners[:, axis] = area.shape[axis] - size - corners[:, axis]
    area = _vary_values(area.permute(2, 0, 1)[None], settings)[0].permute(1, 2, 0)  # (h, w, k)
    return area.contiguous(), [(row, col) for row, col in corners.tolist()]


def _draw_shifts(count: int, *, settings: TrainSettings, generator: torch.Generator) -> Tensor | None:
    reach = settings.shift
    return torch.randint(-reach, reach + 1, (count, 2), generator=generator) if reach else None


def _vary_values(x: Tensor, settings: TrainSettings) -> Tensor:
    """Returns `x` `(n, k, rows, cols)` with jitter, noise and band dropout, drawn for each of the n."""
    each_component = (*x.shape[:2], 1, 1)
    if settings.spectral_jitter:
        x = x * (1 + settings.spectral_jitter * torch.randn(each_component, device=x.device))
    if settings.noise:
        x = x + settings.noise * torch.randn_like(x)
    if settings.band_dropout:
        x = x * (torch.rand(each_component, device=x.device) >= settings.band_dropout)
    return x


@dataclass(frozen=True)
class BatchCost:
    """Multiply-accumulates of one batch's forward pass: patch by patch, and with shared features.

    `area` is the rows and cols that the patches cover.
    """

    area: tuple[int, int]
    patchwise_macs: int
    shared_macs: int

    @property
    def is_shared(self) -> bool:
        """Whether the shared pass is expected to be faster."""
        return self.shared_macs * SHARED_COST < self.patchwise_macs


class Stepper:
    """Augments a training batch and computes its loss and gradients in the fastest way.

    On a CPU, the way with fewer operations: `share_forward` over the area that the patches cover, or the network on
    each patch. On a GPU, the network on each patch, replayed as a CUDA graph.

    Attributes:
        precision: of the products, with `auto` resolved.
        obstacle: why patches cannot share features; empty if they can.
        cost: cost of the last batch whose patches could share features, or None.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        train: PatchDataset,
        settings: TrainSettings,
        weight: Tensor | None = None,
        world: World | None = None,
        on_note: Callable[[str], None] = _SILENT.note,
    ) -> None:
        """Args:
        model: maps patches to logits, on the dataset's device.
        train: the training patches, with targets.
        weight: `(C,)` weights of the classes in the loss.
        world: the processes that share each batch.
        on_note: receives a sentence if the step of this network cannot be replayed as a graph.
        """
        self._model, self._train, self._settings, self._weight = model, train, settings, weight
        self._world = world or World()
        self.precision = choose_precision(settings.precision, train.device)
        self.obstacle = _explain_obstacle(model, settings, device=train.device)
        self.cost: BatchCost | None = None
        self._graphed: GraphedStep | None = None
        if can_capture(train.device):
            if self._world.is_alone:
                trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
                self._graphed = GraphedStep(self._compute, trained, on_note=on_note)
            else:
                on_note("with several processes, training steps are not replayed as CUDA graphs, which is slower")

    def __call__(self, index: Tensor, *, generator: torch.Generator) -> Tensor:
        """Sets the gradients of the batch's mean loss, and returns it: `()`, without history.

        Under torchrun every process draws the augmentation of the whole batch, and computes the loss of its own slice:
        its part of the mean, so that the processes' losses add up to it.

        Args:
            index: `(n,)` int64 positions in the training set, on the CPU.
            generator: CPU generator for symmetries and shifts.
        """
        with set_tf32(self.precision == "tf32"):
            if self._graphed is not None:
                return self._graphed(self._draw(index, generator))
            self._model.zero_grad()
            loss = self.compute_loss(index, generator=generator)
            torch.autograd.backward(loss * self._world.size)  # gradients are averaged over the processes
            return loss.detach()

    def compute_loss(self, index: Tensor, *, generator: torch.Generator) -> Tensor:
        """Returns the loss with its history, without a graph; arguments as for a call."""
        share = self._world.take_share(len(index))
        if self._settings.vary_by == "batch" and self._train.device.type == "cpu":
            return self._compute_over_area(index, generator, share)
        return self._compute(self._draw(index, generator), share)

    def _draw(self, index: Tensor, generator: torch.Generator) -> Tensor:
        places, symmetries = draw_places(self._train, index, settings=self._settings, generator=generator)
        rows = [index, places] if symmetries is None else [index, places, symmetries]
        return torch.stack(rows).to(self._train.device, non_blocking=True)

    def _compute(self, batch: Tensor, share: slice = slice(None)) -> Tensor:
        """Returns the loss of a batch `(2 or 3, n)` on the device: index, places and perhaps symmetries."""
        index, places, *rest = batch
        patches = cut_patches(self._train, places, symmetries=rest[0] if rest else None, settings=self._settings)
        with self._autocast():
            logits = self._model(patches[share])
        return self._mean_loss(logits, self._train.targets[index], share)

    def _compute_over_area(self, index: Tensor, generator: torch.Generator, share: slice) -> Tensor:
        area, corners = draw_area(self._train, index, settings=self._settings, generator=generator)
        targets = self._train.targets[index]
        if not self.obstacle:
            self.cost = self.estimate(len(index), area.shape[:2])
            if self.cost.is_shared:
                with self._autocast():
                    logits = share_forward(cast(Network, self._model), area, corners)
                return self._mean_loss(logits, targets, slice(None))
        patches = gather_windows(area, corners, size=self._train.patch_size)  # (n, p, p, k)
        with self._autocast():
            logits = self._model(patches.permute(0, 3, 1, 2).unsqueeze(1)[share])
        return self._mean_loss(logits, targets, share)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._train.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    def _mean_loss(self, logits: Tensor, targets: Tensor, share: slice) -> Tensor:
        """Returns what the patches of `share` contribute to the mean loss of the whole batch."""
        weight, smoothing = self._weight, self._settings.label_smoothing
        total = F.cross_entropy(  # for a mean, torch would select patches, and a GPU wait for their number
            logits.float(), targets[share], weight=weight, label_smoothing=smoothing, reduction="sum"
        )
        return total / (len(targets) if weight is None else weight[targets].sum())

    @cached_property
    def _stage_costs(self) -> list[StageCost]:
        return count_stage_costs(cast(Network, self._model))

    def count_macs(self, num_patches: int, area: tuple[int, ...] | None = None) -> dict[str, int]:
        """Returns the forward MACs of each stage, attention slot and the head for one batch.

        With `area`, the rows and cols that the batch covers, they are those of the shared pass.
        """
        macs = {}
        shared = cast(Network, self._model).early_points
        for cost in self._stage_costs:
            span = cost.shape[-1]
            if area is not None and cost.name in shared:
                rows, cols = (length - self._train.patch_size + span for length in area)
                macs[cost.name] = cost.macs // span**2 * rows * cols
            else:
                macs[cost.name] = num_patches * cost.macs
        return macs

    def estimate(self, num_patches: int, area: tuple[int, ...]) -> BatchCost:
        """Returns the cost of a batch of `num_patches` patches that cover an `area` of rows × cols."""
        each, together = self.count_macs(num_patches), self.count_macs(num_patches, area)
        return BatchCost((area[0], area[1]), sum(each.values()), sum(together.values()))


def _explain_obstacle(model: nn.Module, settings: TrainSettings, *, device: torch.device) -> str:
    if device.type != "cpu":
        return "features are shared on CPUs only: a GPU replays the network on each patch as a CUDA graph"
    if not can_share(model):
        return "only HybridSN and cnn3d can share features between patches"
    if not is_plain(model):
        return "the network was altered, as by insert_attention, and only its stages and points can be shared"
    varied = settings.list_variations()
    if settings.vary_by == "patch" and varied:
        return f"each patch has its own {' and '.join(varied)}; train.vary_by: batch draws them per batch"
    return ""


def choose_precision(asked: Literal["float32", "tf32", "bfloat16", "auto"], device: torch.device) -> Precision:
    """Returns `asked`; for `auto`, bfloat16 if the device supports it natively, otherwise float32.

    A device without TF32 computes with float32 instead.
    """
    if asked == "tf32" and not has_tf32(device):
        return "float32"
    if asked != "auto":
        return asked
    return "bfloat16" if has_bfloat16(device) else "float32"


def has_bfloat16(device: torch.device) -> bool:
    """Returns whether a device has native bfloat16 products.

    Where they are emulated, they take at least ten times as long as float32.
    """
    if device.type == "cuda":
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Before torch 2.12, only oneDNN's check exists. It also accepts AVX-512 without native bfloat16
    # products, where bfloat16 is not slower than float32.
    if not hasattr(torch.cpu, "get_capabilities"):
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return any(torch.cpu.get_capabilities().get(name) for name in _CPU_PRODUCTS)


def has_tf32(device: torch.device) -> bool:
    """Returns whether a device has TF32 products: NVIDIA's GPUs since compute capability 8.0."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def warn_of_emulation(precision: str, device: torch.device) -> tuple[str, ...]:
    """Returns a note if bfloat16 is emulated on the device or it has no TF32, otherwise nothing."""
    if precision == "tf32" and not has_tf32(device):
        return ("train.precision = tf32: this device has no TF32, so it computes with float32",)
    if precision != "bfloat16" or has_bfloat16(device):
        return ()
    return (
        "train.precision = bfloat16: bfloat16 is emulated on this device and much slower than float32; "
        "use precision: auto",
    )
