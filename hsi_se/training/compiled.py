"""Compiles a network with `torch.compile`, on a GPU as CUDA graphs."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from hsi_se.errors import TrainingError


def compile_network(model: nn.Module, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Returns a compiled version of `model`'s forward pass that shares its weights.

    Forward and backward pass are compiled at the first call. Batches have one of two sizes (see
    `TrainingState.batches`), and each size is compiled once. On a GPU both passes are captured as CUDA
    graphs (torch's `reduce-overhead` mode), because kernel launches dominate a small training step.

    Raises:
        TrainingError: at the first call, if torch finds no compiler.
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
