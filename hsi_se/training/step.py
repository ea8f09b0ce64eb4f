"""Augments a training batch and computes its logits, either patch by patch or over the area that the patches share.

Also chooses the precision of the products: bfloat16 is faster only where the device supports it natively.
Axes: n patches, k components, p × p pixels of a patch; h rows and w cols of the area that a batch covers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, cast

import torch
from torch import Tensor, nn

from hsi_se.config.training import TrainSettings
from hsi_se.errors import TrainingError
from hsi_se.models.cost import StageCost, count_stage_costs
from hsi_se.models.insertion import is_plain
from hsi_se.models.network import Network
from hsi_se.sampling.patches import NUM_SYMMETRIES, PatchDataset
from hsi_se.training.overlap import Corners, gather_windows
from hsi_se.training.shared_step import can_share, list_shared_points, share_forward

# Time of one MAC in the shared pass relative to one patch by patch, including gathers and scatter-adds.
# Measured by benchmarks/training_throughput.py: 1.04 without attention, 0.99 with gates; 1.1 leaves a margin.
SHARED_COST = 1.1

_FLIPPED_AXES = ((), (0,), (1,), (0, 1))  # for symmetries 0-3; symmetries 4-7 transpose first

Precision = Literal["float32", "bfloat16"]

# Names of bfloat16 products in torch.cpu.get_capabilities: first x86, then ARM.
_CPU_PRODUCTS = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")


def draw_patches(train: PatchDataset, index: Tensor, *, settings: TrainSettings, generator: torch.Generator) -> Tensor:
    """Returns the patches `(n, 1, k, p, p)` at `index` `(n,)`, each with its own random augmentation.

    The steps run in this order:

    1. `shift` moves the patch by some pixels.
    2. `flips` applies one of the eight symmetries of the square.
    3. `spectral_jitter` scales each component.
    4. `noise` is added to every value.
    5. `band_dropout` sets components to zero, which is the training mean of standardised ones.

    Args:
        train: the dataset; the patches are returned on its device.
        index: `(n,)` int64 positions in the dataset, on the CPU.
        generator: CPU generator for symmetries and shifts. Jitter, noise and dropout are drawn from
            torch's global generator of the patches' device.
    """
    symmetries = None
    if settings.flips:
        symmetries = torch.randint(NUM_SYMMETRIES, (len(index),), generator=generator)
    shifts = _draw_shifts(len(index), settings=settings, generator=generator)
    patches = train.gather(index, symmetries=symmetries, shifts=shifts)
    return _vary_values(patches.squeeze(1), settings).unsqueeze(1)


def draw_area(
    train: PatchDataset, index: Tensor, *, settings: TrainSettings, generator: torch.Generator
) -> tuple[Tensor, Corners]:
    """Returns the augmented area `(h, w, k)` that a batch covers, and each patch's upper-left corner in it.

    Arguments and augmentation are those of `draw_patches`, but all except `shift` is drawn once for the
    whole batch. All patches therefore share one symmetry, the gains and the dropped components, and the
    noise where they overlap. Rows and cols of the scene that no patch covers are left out.
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
    """Augments a training batch and computes its logits in the cheaper of two ways.

    The ways are `share_forward` over the area that the patches cover, and the network on each patch.

    Attributes:
        obstacle: why patches cannot share features; empty if they can.
        cost: cost of the last batch whose patches could share features, or None.
    """

    def __init__(self, model: nn.Module, *, train: PatchDataset, settings: TrainSettings) -> None:
        self._model, self._train, self._settings = model, train, settings
        self._network = _compile(model, train.device) if settings.compile else model
        self.precision = choose_precision(settings.precision, train.device)
        self.obstacle = _explain_obstacle(model, settings, device=train.device)
        self.cost: BatchCost | None = None

    def __call__(self, index: Tensor, *, generator: torch.Generator, share: slice = slice(None)) -> Tensor:
        """Returns the logits `(n, C)` of the training pixels at `index`.

        Args:
            index: `(n,)` int64 positions in the training set, on the CPU.
            generator: CPU generator for symmetries and shifts.
            share: slice of the batch that goes through the network. Under torchrun every process draws
                the augmentation of the whole batch and computes its own slice.
        """
        settings, size = self._settings, self._train.patch_size
        autocast = torch.autocast(self._train.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")
        if settings.vary_by == "patch" and self.obstacle:
            patches = draw_patches(self._train, index, settings=settings, generator=generator)
        else:
            area, corners = draw_area(self._train, index, settings=settings, generator=generator)
            if not self.obstacle:
                self.cost = self.estimate(len(index), area.shape[:2])
                if self.cost.is_shared:
                    with autocast:
                        return share_forward(cast(Network, self._model), area, corners)
            patches = gather_windows(area, corners, size=size)  # (n, p, p, k)
            patches = patches.permute(0, 3, 1, 2).unsqueeze(1)  # (n, 1, k, p, p)
        with autocast:
            return self._network(patches[share])

    @cached_property
    def _stage_costs(self) -> list[StageCost]:
        return count_stage_costs(cast(Network, self._model))

    def count_macs(self, num_patches: int, area: tuple[int, ...] | None = None) -> dict[str, int]:
        """Returns the forward MACs of each stage, attention slot and the head for one batch.

        With `area`, the rows and cols that the batch covers, they are those of the shared pass.
        """
        macs = {}
        shared = list_shared_points(cast(Network, self._model))
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
    if settings.compile:
        return "train.compile compiles the forward pass of separate patches"
    if device.type != "cpu":
        return "features are shared on CPUs only: on a GPU, one kernel launch per patch would dominate"
    if not can_share(model):
        return "only HybridSN and cnn3d can share features between patches"
    if not is_plain(model):
        return "the network was altered, as by insert_attention, and only its stages and points can be shared"
    varied = settings.list_variations()
    if settings.vary_by == "patch" and varied:
        return f"each patch has its own {' and '.join(varied)}; train.vary_by: batch draws them per batch"
    return ""


def choose_precision(asked: Literal["float32", "bfloat16", "auto"], device: torch.device) -> Precision:
    """Returns `asked`; for `auto`, bfloat16 if the device supports it natively, otherwise float32."""
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


def warn_of_emulation(precision: str, device: torch.device) -> tuple[str, ...]:
    """Returns a note if bfloat16 is emulated on the device, otherwise nothing."""
    if precision != "bfloat16" or has_bfloat16(device):
        return ()
    return (
        "train.precision = bfloat16: bfloat16 is emulated on this device and much slower than float32; "
        "use precision: auto",
    )


def _compile(model: nn.Module, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Returns a compiled version of `model`'s forward pass that shares its weights.

    Compilation happens at the first call with each of the two batch sizes (see `TrainingState.batches`), and
    raises a `TrainingError` if torch finds no compiler.
    """
    # On a GPU both passes become CUDA graphs, because kernel launches dominate a small training step.
    mode = "reduce-overhead" if device.type == "cuda" else "default"
    compiled = torch.compile(model, mode=mode, dynamic=False)

    def forward(patches: Tensor) -> Tensor:
        try:
            logits: Tensor = compiled(patches)
        except torch._dynamo.exc.TorchDynamoException as error:
            raise TrainingError(
                f"train.compile = true: torch cannot compile here ({str(error).splitlines()[0]}); "
                "install a C++ compiler (a GPU needs triton too), or leave train.compile out"
            ) from None
        return logits

    return forward
