"""The device to compute on."""

import torch

from hsi_se.errors import TrainingError
from hsi_se.system.processes import is_distributed, local_rank


def pick_device(name: str) -> torch.device:
    """Returns the device to work on; `auto` is the GPU where there is one.

    Raises:
        TrainingError: `cuda` is asked for and not there, or the name is unknown.
    """
    choices = ("auto", "cpu", "cuda")
    if name not in choices:
        raise TrainingError(f"--device {name}: choose from {', '.join(choices)}")
    if name == "cuda" and not torch.cuda.is_available():
        raise TrainingError("--device cuda: this torch sees no GPU; write --device cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and is_distributed():
        if local_rank() >= torch.cuda.device_count():
            raise TrainingError(
                f"--nproc-per-node: this machine has {torch.cuda.device_count()} GPUs, one for a process; "
                "start fewer"
            )
        return torch.device(name, local_rank())
    return torch.device(name)
