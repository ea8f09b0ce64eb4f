"""Training patches as they are varied at every step, each on its own or all of a batch as one.

Axes: n patches, k components, p × p pixels; h rows and w cols of the area that a batch covers.
"""

import torch
from torch import Tensor

from hsi_se.config.training import TrainSettings
from hsi_se.sampling.patches import NUM_SYMMETRIES, PatchDataset
from hsi_se.training.windows import Corners

_FLIPPED_AXES = ((), (0,), (1,), (0, 1))  # of symmetries 0-3, and of 4-7 behind a transpose


def draw_patches(
    train: PatchDataset, index: Tensor, *, settings: TrainSettings, generator: torch.Generator
) -> Tensor:
    """Returns the patches `(n, 1, k, p, p)` at `index` `(n,)`, each varied on its own and at random.

    In order: `shift` moves a patch off its pixel, `flips` turns it by a symmetry of the square,
    `spectral_jitter` scales each of its components, `noise` is added to every value, `band_dropout`
    sets components to zero, which is their mean over the training pixels once they are standardised.

    Args:
        train: the dataset; the patches come on its device.
        index: int64 positions on the CPU.
        settings: the config's `train` section.
        generator: on the CPU; the one source of the symmetries and shifts. Values on the patches
            themselves come from torch's global generator of their device.
    """
    count = (len(index),)
    symmetries = shifts = None
    if settings.flips:
        symmetries = torch.randint(NUM_SYMMETRIES, count, generator=generator)
    if settings.shift:
        reach = settings.shift
        shifts = torch.randint(-reach, reach + 1, (*count, 2), generator=generator)
    patches = train.gather(index, symmetries=symmetries, shifts=shifts)
    return _vary_values(patches.squeeze(1), settings).unsqueeze(1)


def draw_area(
    train: PatchDataset, index: Tensor, *, settings: TrainSettings, generator: torch.Generator
) -> tuple[Tensor, Corners]:
    """Returns the area `(h, w, k)` that a batch covers, varied as one, and where its patches lie in it.

    It varies as `draw_patches` does, but once for all patches: they are turned together, share gains
    and lost components, and have the same noise where they overlap. Only `shift` stays each patch's own.
    Rows and cols of the scene that no patch touches are left out.
    """
    size, shifts = train.patch_size, None
    symmetry = 0
    if settings.flips:
        symmetry = int(torch.randint(NUM_SYMMETRIES, (), generator=generator))
    if settings.shift:
        reach = settings.shift
        shifts = torch.randint(-reach, reach + 1, (len(index), 2), generator=generator)
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


def _vary_values(x: Tensor, settings: TrainSettings) -> Tensor:
    """Components `(n, k, rows, cols)` with gains, noise and gaps, each of the n by itself."""
    each_component = (*x.shape[:2], 1, 1)
    if settings.spectral_jitter:
        x = x * (1 + settings.spectral_jitter * torch.randn(each_component, device=x.device))
    if settings.noise:
        x = x + settings.noise * torch.randn_like(x)
    if settings.band_dropout:
        x = x * (torch.rand(each_component, device=x.device) >= settings.band_dropout)
    return x
