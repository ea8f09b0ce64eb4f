"""Chooses the device, and runs networks in evaluation mode, without gradients and in full float32."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from hsi_se.errors import TrainingError
from hsi_se.sampling.patches import PatchDataset
from hsi_se.system.processes import is_distributed, local_rank


def pick_device(name: str) -> torch.device:
    """Returns the device to compute on; `auto` is the GPU if there is one.

    TrainingError if `cuda` is not available, the name is unknown, or there are more processes than GPUs.
    """
    choices = ("auto", "cpu", "cuda")
    if name not in choices:
        raise TrainingError(f"--device {name}: choose from {', '.join(choices)}")
    if name == "cuda" and not torch.cuda.is_available():
        raise TrainingError("--device cuda: PyTorch found no CUDA device; use --device cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and is_distributed():
        if local_rank() >= torch.cuda.device_count():
            raise TrainingError(
                f"--nproc-per-node: this machine has {torch.cuda.device_count()} GPUs, one per process; "
                "start fewer processes"
            )
        return torch.device(name, local_rank())
    return torch.device(name)


@contextmanager
def set_tf32(is_allowed: bool) -> Iterator[None]:
    """Sets inside the context whether a GPU may round the factors of float32 products to TF32, 10 of 23 mantissa bits.

    By default PyTorch does so in convolutions, but not in matrix products.
    """
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before, matmul.allow_tf32 = matmul.allow_tf32, is_allowed
    try:
        with cudnn.flags(
            enabled=cudnn.enabled, benchmark=cudnn.benchmark, deterministic=cudnn.deterministic, allow_tf32=is_allowed
        ):
            yield
    finally:
        matmul.allow_tf32 = before


@contextmanager
def evaluation_mode(model: nn.Module, *, tf32: bool = False) -> Iterator[None]:
    """Puts a model in evaluation mode inside the context, without gradients, and without TF32 unless it is asked for.

    Every module returns to its previous mode afterwards, also after an error.
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.inference_mode(), set_tf32(tf32):
            yield
    finally:
        for module, is_training in modes.items():
            module.training = is_training


def predict_patches(
    model: nn.Module,
    patches: PatchDataset,
    *,
    batch_size: int | None = None,
    on_batch: Callable[[int], None] | None = None,
    tf32: bool = False,
) -> Tensor:
    """Returns the logits `(n, C)` of every patch, in the order and on the device of the dataset.

    Args:
        model: maps patches `(n, 1, k, p, p)` to logits; its mode is restored afterwards.
        batch_size: patches per batch, by default 128 on a CPU and 1,024 on a GPU; affects memory, and the result
            only by rounding.
        on_batch: called after each batch with its number of patches.
        tf32: whether a GPU may round the factors of products to TF32.
    """
    logits = []
    batch_size = batch_size or (128 if patches.device.type == "cpu" else 1024)
    with evaluation_mode(model, tf32=tf32):
        for index in torch.split(torch.arange(len(patches)), batch_size):
            logits.append(model(patches.gather(index)))
            if on_batch is not None:
                on_batch(len(index))
    return torch.cat(logits).clone()
