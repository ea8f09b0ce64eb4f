"""Re-estimates batch-norm statistics on the scene to be mapped (AdaBN).

Li, Wang, Shi, Liu, Hou: Revisiting Batch Normalization for Practical Domain Adaptation (AdaBN),
https://arxiv.org/abs/1603.04779.
"""

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from hsi_se.models.inference import evaluation_mode
from hsi_se.sampling.patches import PatchSource
from hsi_se.scene.raster import Mask


def adapt_norms(
    model: nn.Module, source: PatchSource, valid: Mask, *, seed: int, max_patches: int = 4096, batch_size: int = 256
) -> None:
    """Replaces the running statistics of every batch norm by statistics of unlabelled patches.

    The weights do not change. All other layers, including dropout, run in evaluation mode; the model's own mode is
    restored. The patches are of the pixels of the mask `valid` in the scene to be mapped: of more than `max_patches`, a
    random sample by `seed`. The statistics are averaged over the batches.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    momenta = {norm: norm.momentum for norm in norms}
    generator = torch.Generator().manual_seed(seed)
    sample = torch.randperm(int(valid.sum()), generator=generator)[:max_patches].numpy()
    patches = source.cut(np.stack(np.divmod(np.flatnonzero(valid)[sample], valid.shape[1]), axis=1))
    with evaluation_mode(model):
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # cumulative average: every batch gets the same weight
            norm.train()
        for index in torch.arange(len(patches)).tensor_split(max(1, len(patches) // batch_size)):
            model(patches.gather(index))
    for norm in norms:
        norm.momentum = momenta[norm]
