"""Batch norm's statistics from the scene that is to be mapped, in place of the training patches'.

Li, Wang, Shi, Liu, Hou: Revisiting Batch Normalization for Practical Domain Adaptation (AdaBN),
https://arxiv.org/abs/1603.04779.
"""

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from hsi_se.sampling.patches import PatchDataset


def adapt_norms(
    model: nn.Module, patches: PatchDataset, *, seed: int, max_patches: int = 4096, batch_size: int = 256
) -> None:
    """Replaces the running statistics of every batch norm by those over patches without labels.

    The weights stay as they are; dropout and everything else run as in evaluation.

    Args:
        model: from patches to logits, on the dataset's device; left in its mode.
        patches: of the scene to be mapped; a seeded sample is used where there are many.
        seed: decides the sample.
        max_patches: its size.
        batch_size: patches whose mean statistics are averaged.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    modes = {module: module.training for module in model.modules()}
    momenta = {norm: norm.momentum for norm in norms}
    generator = torch.Generator().manual_seed(seed)
    sample = torch.randperm(len(patches), generator=generator)[:max_patches].to(patches.device)
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over the batches
        norm.train()
    with torch.no_grad():
        for index in sample.tensor_split(max(1, len(sample) // batch_size)):
            model(patches.gather(index))
    for norm in norms:
        norm.momentum = momenta[norm]
    for module, is_training in modes.items():
        module.training = is_training
