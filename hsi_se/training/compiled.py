"""A network as one compiled program, which a GPU replays without launching its kernels one by one."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from hsi_se.errors import TrainingError


def compile_network(model: nn.Module, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Returns the forward pass of `model`, compiled with its gradients on the first call; weights are shared.

    A batch has one of two sizes (see `TrainingState.batches`), and each has a program of its own. On a GPU
    both ways are captured as CUDA graphs (torch's `reduce-overhead`): a small step is all launches there.

    Raises:
        TrainingError: at the first call, where torch has no compiler.
    """
    mode = "reduce-overhead" if device.type == "cuda" else "default"
    compiled = torch.compile(model, mode=mode, dynamic=False)

    def forward(patches: Tensor) -> Tensor:
        try:
            logits: Tensor = compiled(patches)
        except torch._dynamo.exc.TorchDynamoException as error:
            raise TrainingError(
                f"train.compile = true: torch cannot compile here ({str(error).splitlines()[0]}); "
                "install a C++ compiler (a GPU needs triton too), or leave train.compile out"
            ) from None
        return logits

    return forward
