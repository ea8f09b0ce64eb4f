"""One training on many processes, started by torchrun; each takes its share of every batch.

The batches, their order and whatever is drawn at random are those of one process: each draws for the
whole batch and keeps its share. Batch norm goes by the whole batch, and gradients are summed, so
that all processes hold the weights that one would hold, to rounding. A run may therefore go on
with another number of processes than it began with.
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

_TIMEOUT = datetime.timedelta(seconds=45)  # then a process that waits for a dead one ends too


class World:
    """The processes of a training; `World()` is one alone.

    Attributes:
        rank: of this process, from 0; that one alone writes and prints.
        size: how many there are.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size
        self._share = slice(None)
        self._num_patches = 0  # of the whole batch

    @property
    def is_alone(self) -> bool:
        return self.size == 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def check_batches(self, *, num_patches: int, num_batches: int) -> None:
        """Proves that every process has a patch of every batch.

        Raises:
            TrainingError: a batch has fewer patches than there are processes.
        """
        smallest = num_patches // num_batches
        if smallest < self.size:
            raise TrainingError(
                f"--nproc-per-node: {self.size} processes share batches of {smallest} patches; "
                "start fewer, or raise train.batch_size"
            )

    def take_share(self, num_patches: int) -> slice:
        """Returns this process's part of a batch; shared dropout goes by it until the next one."""
        edges = [num_patches * rank // self.size for rank in range(self.size + 1)]
        self._share, self._num_patches = slice(edges[self.rank], edges[self.rank + 1]), num_patches
        return self._share

    def wrap(self, model: nn.Module) -> nn.Module:
        """Returns a network on the same weights whose training step is that of the whole batch.

        The loss has to be this process's part of the whole batch's: gradients are summed.
        """
        if self.is_alone:
            return model
        tensors = itertools.chain(model.parameters(), model.buffers())
        twin = copy.deepcopy(model, memo={id(tensor): tensor for tensor in tensors})  # shares them
        for module in twin.modules():
            if isinstance(module, _BatchNorm):
                module.__class__ = _SharedNorm
            elif type(module) is nn.Dropout:
                module.__class__ = _SharedDropout
                vars(module)["world"] = self
        parallel = DistributedDataParallel(twin, broadcast_buffers=False)
        parallel.register_comm_hook(None, _sum_gradients)
        return parallel

    def sum(self, value: Tensor) -> Tensor:
        """Adds a value up over the processes, in place."""
        if not self.is_alone:
            dist.all_reduce(value)
        return value

    def any(self, flag: bool) -> bool:
        """Whether it holds in any process."""
        if self.is_alone:
            return flag
        return bool(self.sum(torch.tensor(int(flag))))

    def agree(self, text: str) -> bool:
        """Whether every process has the same text as the first; the others wait for it."""
        if self.is_alone:
            return True
        mine = torch.frombuffer(bytearray(text.encode()[:64].ljust(64)), dtype=torch.uint8)
        first = mine.clone()
        dist.broadcast(first, 0)
        return not self.any(not torch.equal(mine, first))


@contextmanager
def join(device: torch.device) -> Iterator[World]:
    """Yields the processes that torchrun has started, this one among them; without torchrun, it alone.

    They talk over gloo, and over nccl about what is on GPUs.
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
    """Inside, the loss of another process is one line.

    Raises:
        ClusterError: another process has ended, or no longer answers.
    """
    try:
        yield
    except RuntimeError as error:
        if not any(
            word in str(error) for word in ("gloo", "Gloo", "NCCL", "peer", "Timed out", "Broken pipe")
        ):
            raise
        raise ClusterError("another process of this training has ended or does not answer") from None


class _Sum(torch.autograd.Function):
    """A sum over the processes, and in the way back the sum of the gradients."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        del ctx
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        del ctx
        total = gradient.clone()
        dist.all_reduce(total)
        return total


def _sum(value: Tensor) -> Tensor:
    return cast(Tensor, _Sum.apply(value))  # type: ignore[no-untyped-call]


def _sum_gradients(
    _: None,
    bucket: dist.GradBucket,  # type: ignore[name-defined]
) -> torch.futures.Future[Tensor]:
    """DDP's own hook divides by the number of processes."""
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    return cast(torch.futures.Future[Tensor], work.get_future().then(lambda done: done.value()[0]))


class _SharedDropout(nn.Dropout):
    """Draws for the whole batch and keeps its share, so that every process draws what one would."""

    world: World

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.p:
            return x
        whole = x.new_ones(self.world._num_patches, *x.shape[1:])
        return x * F.dropout(whole, self.p)[self.world._share]


class _SharedNorm(_BatchNorm):
    """Batch norm over the patches of all processes; mean first, then variance, so that nothing cancels."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        others = [axis for axis in range(x.ndim) if axis != 1]
        values = x.float() if x.dtype == torch.bfloat16 else x
        count = values.new_full((1,), values.numel() // values.shape[1])
        sums = _sum(torch.cat([values.sum(others), count]))  # (c + 1,)
        mean, count = sums[:-1] / sums[-1], sums[-1]
        centred = values - _along_channels(mean, x.ndim)
        variance = _sum(centred.square().sum(others)) / count
        self._move_statistics(mean, variance * (count / (count - 1)))
        scale = torch.rsqrt(variance + self.eps)
        if self.weight is not None:
            scale = scale * self.weight
        y = centred * _along_channels(scale, x.ndim)
        if self.bias is not None:
            y = y + _along_channels(self.bias, x.ndim)
        return y.to(x.dtype)

    @torch.no_grad()
    def _move_statistics(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        share = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)

    def _check_input_dim(self, x: Tensor) -> None: ...


def _along_channels(value: Tensor, ndim: int) -> Tensor:
    return value.view(1, -1, *[1] * (ndim - 2))
