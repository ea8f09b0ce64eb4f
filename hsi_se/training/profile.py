"""Where the time of a training step goes, by stage, beside what its arithmetic would take at least."""

import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from hsi_se.config import TrainSettings
from hsi_se.models.inference import full_float32
from hsi_se.models.network import Network
from hsi_se.sampling.patches import PatchDataset
from hsi_se.training.allocator import keep_freed_memory
from hsi_se.training.state import make_optimizer
from hsi_se.training.step import BatchCost, Stepper

LOSS, OPTIMIZER = "loss", "optimizer"
_PRODUCT_SIZE = 2048


@dataclass(frozen=True)
class StageTime:
    """One row: medians over the steps.

    Attributes:
        name: a stage, a slot as `attention.STAGE`, `head`, or what happens around the network.
        macs: of forward and backward pass together, as counted.
        forward_s: seconds, and
        backward_s: seconds.
    """

    name: str
    macs: int
    forward_s: float
    backward_s: float


@dataclass(frozen=True)
class StepProfile:
    """A step of training, measured.

    Attributes:
        stages: in the order of the forward pass.
        step_s: median seconds of a whole step.
        product_rate: MACs a second of the machine's own matrix product, in the step's precision.
        batch_size: patches of a step.
        cost: the last batch's, either way, or None where patches cannot share:
        obstacle: why not.
    """

    stages: tuple[StageTime, ...]
    step_s: float
    product_rate: float
    batch_size: int
    cost: BatchCost | None
    obstacle: str

    @property
    def floor_s(self) -> float:
        """The least time of a step: its counted products at the machine's rate, and nothing else."""
        return sum(stage.macs for stage in self.stages) / self.product_rate


def profile_steps(
    model: Network, *, train: PatchDataset, settings: TrainSettings, seed: int, num_steps: int = 5
) -> StepProfile:
    """Trains `model` for a warm-up and `num_steps` steps and returns where the time went."""
    if train.device.type == "cpu":
        keep_freed_memory()
    generator = torch.Generator().manual_seed(seed)
    step = Stepper(model, train=train, settings=settings)
    optimizer = make_optimizer(model, settings)
    clock = _Clock(train.device)
    model.train()
    step.watch = clock.mark
    with full_float32():
        for _ in range(num_steps + 1):
            index = torch.randperm(len(train), generator=generator)[: settings.batch_size]
            clock.start()
            logits = step(index, generator=generator)
            loss = F.cross_entropy(logits.float(), train.targets[index.to(train.device)])
            clock.mark(LOSS, loss)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            clock.finish_backward()
            optimizer.step()
            clock.lap(OPTIMIZER)
    cost = step.cost
    counted = step.count_macs(len(index), cost.area if cost is not None and cost.is_shared else None)
    first = next(iter(model.stages))
    stages = tuple(
        StageTime(
            name,
            # Backwards, a product gives the gradients of weights and of features; the input needs none.
            macs=counted.get(name, 0) * (2 if name == first else 3),
            forward_s=statistics.median(clock.forward[name][1:]),
            backward_s=statistics.median(clock.backward[name][1:] or [0.0]),
        )
        for name in clock.forward
    )
    return StepProfile(
        stages=stages,
        step_s=statistics.median(clock.steps[1:]),
        product_rate=measure_product_rate(train.device, step.precision),
        batch_size=len(index),
        cost=cost,
        obstacle=step.obstacle,
    )


def measure_product_rate(
    device: torch.device,
    precision: str = "float32",
    *,
    repeats: int = 7,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Returns the MACs a second of the best of some matrix products."""
    square = torch.randn(_PRODUCT_SIZE, _PRODUCT_SIZE, device=device, dtype=getattr(torch, precision))
    laps = _Clock(device, clock)
    for _ in range(repeats):
        laps.start()
        square @ square
        laps.lap("product")
    return _PRODUCT_SIZE**3 / min(laps.forward["product"])


class _Clock:
    """Notes when each stage's output is there, and when its gradient is."""

    def __init__(self, device: torch.device, clock: Callable[[], float] = time.perf_counter) -> None:
        self._device, self._clock = device, clock
        self.forward: dict[str, list[float]] = defaultdict(list)
        self.backward: dict[str, list[float]] = defaultdict(list)
        self.steps: list[float] = []
        self._order: list[str] = []
        self._start = self._last = 0.0

    def start(self) -> None:
        self._order.clear()
        self._start = self._last = self._now()

    def lap(self, name: str) -> None:
        now = self._now()
        self.forward[name].append(now - self._last)
        self._last = now
        if name == OPTIMIZER:
            self.steps.append(now - self._start)

    def mark(self, name: str, x: Tensor) -> None:
        """The forward pass has come to `x`; when its gradient is there, the part behind it is done."""
        self.lap(name)
        if not x.requires_grad:
            return
        behind = len(self._order) + 1
        self._order.append(name)

        def close(_: Tensor) -> None:
            if behind < len(self._order):
                self._close(self._order[behind])

        x.register_hook(close)  # type: ignore[no-untyped-call]

    def finish_backward(self) -> None:
        self._close(self._order[0])

    def _close(self, name: str) -> None:
        """The time since the last gradient belongs to `name`."""
        now = self._now()
        self.backward[name].append(now - self._last)
        self._last = now

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return self._clock()
