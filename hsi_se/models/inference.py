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

    Raises:
        TrainingError: `cuda` is requested but not available, the name is unknown, or there are more
            processes than GPUs.
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
def full_float32() -> Iterator[None]:
    """Disables TF32 in cuDNN inside the context; by default new GPUs drop 13 of 23 mantissa bits."""
    cudnn = torch.backends.cudnn
    with cudnn.flags(
        enabled=cudnn.enabled, benchmark=cudnn.benchmark, deterministic=cudnn.deterministic, allow_tf32=False
    ):
        yield


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Puts a model in evaluation mode inside the context, with neither gradients nor TF32.

    Every module returns to its previous mode afterwards, also after an error.
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
    model: nn.Module, patches: PatchDataset, *, batch_size: int = 128, on_batch: Callable[[int], None] | None = None
) -> Tensor:
    """Returns the logits `(n, C)` of every patch, in the order and on the device of the dataset.

    Args:
        model: maps patches `(n, 1, k, p, p)` to logits; its mode is restored afterwards.
        batch_size: patches per batch; affects memory, and the result only by rounding.
        on_batch: called after each batch with its number of patches.
    """
    logits = []
    with evaluation_mode(model):
        for index in torch.split(torch.arange(len(patches)), batch_size):
            logits.append(model(patches.gather(index)))
            if on_batch is not None:
                on_batch(len(index))
    return torch.cat(logits).clone()
