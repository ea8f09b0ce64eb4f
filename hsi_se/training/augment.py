"""Augments training patches at random, each on its own or all patches of a batch alike.

Axes: n patches, k components, p × p pixels of a patch; h rows and w cols of the area that a batch covers.
"""

import torch
from torch import Tensor

from hsi_se.config.training import TrainSettings
from hsi_se.sampling.patches import NUM_SYMMETRIES, PatchDataset
from hsi_se.training.overlap import Corners

_FLIPPED_AXES = ((), (0,), (1,), (0, 1))  # for symmetries 0-3; symmetries 4-7 transpose first


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
