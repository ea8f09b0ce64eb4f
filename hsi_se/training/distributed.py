"""Trains with several torchrun processes, each of which computes its share of every batch.

The result equals that of a single process, up to rounding:

- Batches and their order are the same. Each process draws all random numbers of the whole batch and keeps its share.
- Batch norm uses the statistics of the whole batch.
- Gradients are summed over the processes.

A run can therefore be resumed with a different number of processes.
"""

import copy
import datetime
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from hsi_se.errors import ClusterError, TrainingError
from hsi_se.system.processes import is_distributed
from hsi_se.training.overlap import normalize, sum_type

_TIMEOUT = datetime.timedelta(seconds=45)  # after this time, a process stops waiting for one that has died
_LOST = ("gloo", "Gloo", "NCCL", "peer", "Timed out", "Broken pipe")  # words of torch's errors about one


class World:
    """The processes of a training run, of which only number 0 writes; `World()` is one without torchrun."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size
        self.is_alone, self.is_first = size == 1, rank == 0
        self._share = slice(None)
        self._num_patches = 0  # in the whole batch

    def check_batches(self, *, num_patches: int, num_batches: int) -> None:
        """Raises a `TrainingError` if a batch has fewer patches than there are processes."""
        smallest = num_patches // num_batches
        if smallest < self.size:
            raise TrainingError(
                f"--nproc-per-node: {self.size} processes cannot share batches of {smallest} patches; "
                "start fewer processes, or raise train.batch_size"
            )

    def take_share(self, num_patches: int) -> slice:
        """Returns this process's slice of a batch of `num_patches`, and sets it for dropout."""
        edges = [num_patches * rank // self.size for rank in range(self.size + 1)]
        self._share, self._num_patches = slice(edges[self.rank], edges[self.rank + 1]), num_patches
        return self._share

    def wrap(self, model: nn.Module) -> nn.Module:
        """Returns a network that shares `model`'s weights and takes the training step of the whole batch.

        Gradients are averaged over the processes. The loss must therefore be this process's part of the
        whole batch's mean loss, times the number of processes.
        """
        if self.is_alone:
            return model
        tensors = itertools.chain(model.parameters(), model.buffers())
        twin = copy.deepcopy(model, memo={id(tensor): tensor for tensor in tensors})  # shares the tensors
        for module in twin.modules():
            if isinstance(module, _BatchNorm):
                module.__class__ = _SharedNorm
            elif type(module) is nn.Dropout:
                module.__class__ = _SharedDropout
            if isinstance(module, _SharedNorm | _SharedDropout):
                vars(module)["world"] = self
        return DistributedDataParallel(twin, broadcast_buffers=False)

    def sum(self, value: Tensor) -> Tensor:
        """Sums a value over the processes, in place."""
        if not self.is_alone:
            dist.all_reduce(value)
        return value

    def any(self, flag: bool) -> bool:
        """Returns whether `flag` is true in any process."""
        if self.is_alone:
            return flag
        return bool(self.sum(torch.tensor(int(flag))))

    def agree(self, text: str) -> bool:
        """Returns whether all processes pass the same text; waits for all of them."""
        return len({*self._gather(text)}) == 1

    def follow_first(self, text: str) -> str:
        """Returns the text that the first process passes; waits for all of them."""
        return self._gather(text)[0]

    def _gather(self, text: str) -> list[str]:
        texts = [text] * self.size
        if not self.is_alone:
            dist.all_gather_object(texts, text)
        return texts


@contextmanager
def join(device: torch.device) -> Iterator[World]:
    """Joins the process group that torchrun has started and yields it; without torchrun, `World()`.

    CPU tensors are exchanged with gloo, CUDA tensors with NCCL.
    """
    if not is_distributed():
        yield World()
        return
    backend = "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, timeout=_TIMEOUT)
    try:
        with together():
            yield World(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


@contextmanager
def together() -> Iterator[None]:
    """Turns torch's errors about a process that has ended or does not respond into a `ClusterError`."""
    try:
        yield
    except RuntimeError as error:
        if not any(word in str(error) for word in _LOST):
            raise
        raise ClusterError("another process of this run has ended or does not respond") from None


class _Sum(torch.autograd.Function):
    """Sums a tensor over the processes; the backward pass sums its gradient over them."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        del ctx
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        del ctx
        return _sum(gradient)


def _sum(value: Tensor) -> Tensor:
    return cast(Tensor, _Sum.apply(value))  # type: ignore[no-untyped-call]


class _SharedDropout(nn.Dropout):
    """Dropout that draws the mask of the whole batch, as a single process would, and uses its share."""

    world: World

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.p:
            return x
        whole = x.new_ones(self.world._num_patches, *x.shape[1:])
        return x * F.dropout(whole, self.p)[self.world._share]


class _SharedNorm(_BatchNorm):
    """Batch norm over the patches of all processes."""

    world: World

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        total = self.world._num_patches * x[0, 0].numel()
        return normalize(x, self, counts=x.new_ones((), dtype=sum_type(x)), total=total, add=_sum)

    def _check_input_dim(self, x: Tensor) -> None: ...
