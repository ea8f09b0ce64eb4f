"""Run by torchrun for test_distributed: gradients and statistics of batches that its processes share."""

import sys
from pathlib import Path

import torch
from torch.nn import functional as F

from hsi_se.training.distributed import World, join
from tests.training.test_training import make_model, make_patches


def take_steps(world: World, *, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Gradients and statistics after batches of 7, 8 and 9 patches, dropout on."""
    model = make_model(dropout=0.4).to(dtype)
    patches = make_patches(24)
    network = world.wrap(model)
    network.train()
    torch.manual_seed(3)
    found = {}
    for number, index in enumerate(torch.arange(24).split([7, 8, 9])):
        share = world.take_share(len(index))
        logits = network(patches.gather(index)[share].to(dtype))
        loss = F.cross_entropy(logits, patches.targets[index][share], reduction="sum") / len(index)
        model.zero_grad()
        (loss * world.size).backward()
        found |= {f"{number} {name}": p.grad.clone() for name, p in model.named_parameters()}
    return found | dict(model.named_buffers())


if __name__ == "__main__":
    with join(torch.device("cpu")) as world:
        for dtype in (torch.float32, torch.float64):
            found = take_steps(world, dtype=dtype)
            torch.save(found, Path(sys.argv[1]) / f"{dtype}-{world.rank}.pt")
