"""Running a trained network: dropout and batch normalisation stand still, nothing is recorded."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from hsi_se.sampling.patches import PatchDataset


@contextmanager
def full_float32() -> Iterator[None]:
    """Inside, cuDNN multiplies all of a float32; by default new GPUs drop 13 of its 23 bits (TF32)."""
    cudnn = torch.backends.cudnn
    with cudnn.flags(
        enabled=cudnn.enabled,
        benchmark=cudnn.benchmark,
        deterministic=cudnn.deterministic,
        allow_tf32=False,
    ):
        yield


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Inside, dropout passes everything, batch norm uses its running statistics, and no gradient flows.

    Afterwards every module is in the mode it was in before, whether or not an error came between.
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.inference_mode(), full_float32():
            yield
    finally:
        for module, is_training in modes.items():
            module.training = is_training


def predict_patches(
    model: nn.Module,
    patches: PatchDataset,
    *,
    batch_size: int = 128,
    on_batch: Callable[[int], None] | None = None,
) -> Tensor:
    """Returns the logits `(n, C)` of every patch, in the dataset's order and on its device.

    Args:
        model: from patches `(n, 1, k, p, p)` to logits; used in evaluation mode and left as it was.
        patches: the dataset.
        batch_size: bounds the memory; it does not change the result beyond rounding.
        on_batch: called with the number of patches after each batch.
    """
    logits = []
    with evaluation_mode(model):
        for index in torch.split(torch.arange(len(patches)), batch_size):
            logits.append(model(patches.gather(index)))
            if on_batch is not None:
                on_batch(len(index))
    return torch.cat(logits).clone()
