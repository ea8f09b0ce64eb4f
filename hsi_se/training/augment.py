"""Training patches as they are varied at every step; n patches, k components, p × p pixels."""

import torch
from torch import Tensor

from hsi_se.config import TrainSettings
from hsi_se.sampling.patches import NUM_SYMMETRIES, PatchDataset


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
        symmetries = torch.randint(NUM_SYMMETRIES, count, generator=generator).to(train.device)
    if settings.shift:
        reach = settings.shift
        shifts = torch.randint(-reach, reach + 1, (*count, 2), generator=generator).to(train.device)
    patches = train.gather(index.to(train.device), symmetries=symmetries, shifts=shifts)
    num_components = patches.shape[2]
    each_component = (*count, 1, num_components, 1, 1)
    if settings.spectral_jitter:
        patches = patches * (1 + settings.spectral_jitter * torch.randn(each_component, device=train.device))
    if settings.noise:
        patches = patches + settings.noise * torch.randn_like(patches)
    if settings.band_dropout:
        patches = patches * (torch.rand(each_component, device=train.device) >= settings.band_dropout)
    return patches
