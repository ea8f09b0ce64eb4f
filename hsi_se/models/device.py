"""Chooses the device to compute on."""

import torch

from hsi_se.errors import TrainingError
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
