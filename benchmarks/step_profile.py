#!/usr/bin/env python
"""Profiles a training step: time and MACs of each stage, compared with the device's matrix-product rate.

    python benchmarks/step_profile.py configs/demo.yaml [--set a.b=c] [--data DIR] [--device auto|cpu|cuda]

The rate is that of a large matrix product on the same device. No files are written.
"""

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from rich.table import Table
from torch import Tensor, nn

from hsi_se.cli.terminal import make_console
from hsi_se.config.experiment import Config
from hsi_se.config.model import Network as NetworkSettings
from hsi_se.config.training import TrainSettings
from hsi_se.config.yaml_file import load_config
from hsi_se.errors import ConfigError
from hsi_se.models.inference import pick_device, set_tf32
from hsi_se.models.network import Network
from hsi_se.sampling.patches import PatchDataset
from hsi_se.system.memory import keep_freed_memory
from hsi_se.training import shared_step
from hsi_se.training import step as step_module
from hsi_se.training.state import make_optimizer
from hsi_se.training.step import BatchCost, Stepper
from hsi_se.workflows.preparation import prepare

DRAWN, CUT, LOSS, OPTIMIZER = "sampling and augmentation", "cutting patches", "loss", "optimizer"
_PRODUCT_SIZE = 2048


@dataclass(frozen=True)
class StageTime:
    """The cost of one part of a training step; times are medians over the steps.

    Attributes:
        name: a stage, an attention slot as `attention.STAGE`, `head`, or a part outside the network.
        macs: counted MACs of forward and backward pass together.
        forward_s: seconds of the forward pass.
        backward_s: seconds of the backward pass.
    """

    name: str
    macs: int
    forward_s: float
    backward_s: float


@dataclass(frozen=True)
class StepProfile:
    """Measurements of a training step.

    Attributes:
        stages: its parts in the order of the forward pass.
        step_s: median seconds of a whole step.
        product_rate: MACs per second of a large matrix product in the step's precision.
        batch_size: patches per step.
        cost: counted cost of the last batch, or None if patches cannot share features.
        obstacle: why patches cannot share features; empty if they can.
    """

    stages: tuple[StageTime, ...]
    step_s: float
    product_rate: float
    batch_size: int
    cost: BatchCost | None
    obstacle: str

    @property
    def floor_s(self) -> float:
        """Lower bound of a step's seconds: its counted MACs at the matrix-product rate."""
        return sum(stage.macs for stage in self.stages) / self.product_rate


def profile_steps(
    model: Network, *, train: PatchDataset, settings: TrainSettings, seed: int, num_steps: int = 5
) -> StepProfile:
    """Trains `model` for one warm-up step and `num_steps` more, and returns the time of each part.

    Args:
        model: the network; its weights change.
        train: training patches with targets.
        settings: the config's `train` section.
        seed: seed of the batches and their augmentation.
        num_steps: number of measured steps.
    """
    if train.device.type == "cpu":
        keep_freed_memory()
    generator = torch.Generator().manual_seed(seed)
    step = Stepper(model, train=train, settings=settings)
    optimizer = make_optimizer(model, settings)
    clock = _Clock(train.device)
    model.train()
    step.count_macs(1)  # runs the network, which must not be timed
    with set_tf32(False), _watch(model, clock):
        for _ in range(num_steps + 1):
            index = torch.randperm(len(train), generator=generator)[: settings.batch_size]
            clock.start()
            loss = step.compute_loss(index, generator=generator)
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
            # The backward pass computes the gradients of the weights and of the features: two products
            # per forward product, but one in the first stage, whose input needs no gradient.
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


@contextmanager
def _watch(model: Network, clock: "_Clock") -> Iterator[None]:
    """Marks the end of every part of a forward pass, patch by patch or with shared features."""
    names: dict[nn.Module, str] = {model.head: "head"}
    names |= {stage: point for point, stage in model.stages.items()}
    for point, block in model.attention.items():
        if not isinstance(block, nn.Identity):
            names[block] = f"attention.{point}"

    def mark(module: nn.Module, _: object, x: Tensor) -> None:
        clock.mark(names.get(module, CUT), x)

    run_stage, cut_patches = shared_step._run_stage, shared_step._cut_patches

    def run_and_mark(stage: nn.Module, *inputs: Any, **options: Any) -> Tensor:
        x = run_stage(stage, *inputs, **options)
        if not isinstance(stage, nn.Flatten):  # which is called as a module
            mark(stage, inputs, x)
        return x

    def cut_and_mark(block: nn.Module, *inputs: Any, **options: Any) -> Tensor:
        x = cut_patches(block, *inputs, **options)
        if clock.last_name != names.get(block, CUT):  # nor was the block called as a module
            mark(block, inputs, x)
        return x

    def draw_and_mark(name: str, draw: Callable[..., Any], *inputs: Any, **options: Any) -> Any:
        drawn = draw(*inputs, **options)
        clock.mark(name, drawn[0] if isinstance(drawn, tuple) else drawn)
        return drawn

    with ExitStack() as changes:
        for module in names:
            changes.enter_context(module.register_forward_hook(mark))
        changes.enter_context(patch.object(shared_step, "_run_stage", run_and_mark))
        changes.enter_context(patch.object(shared_step, "_cut_patches", cut_and_mark))
        for part, name in (("cut_patches", DRAWN), ("draw_area", DRAWN), ("gather_windows", CUT)):
            drawing = partial(draw_and_mark, name, getattr(step_module, part))
            changes.enter_context(patch.object(step_module, part, drawing))
        yield


def measure_product_rate(
    device: torch.device,
    precision: str = "float32",
    *,
    repeats: int = 7,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Returns the MACs per second of the fastest of `repeats` large matrix products."""
    square = torch.randn(_PRODUCT_SIZE, _PRODUCT_SIZE, device=device, dtype=getattr(torch, precision))
    laps = _Clock(device, clock)
    for _ in range(repeats):
        laps.start()
        square @ square
        laps.lap("product")
    return _PRODUCT_SIZE**3 / min(laps.forward["product"])


class _Clock:
    """Records the time at which each stage's output and its gradient have been computed."""

    def __init__(self, device: torch.device, clock: Callable[[], float] = time.perf_counter) -> None:
        self._device, self._clock = device, clock
        self.forward: dict[str, list[float]] = defaultdict(list)
        self.backward: dict[str, list[float]] = defaultdict(list)
        self.steps: list[float] = []
        self.last_name = ""  # of the forward part that ended last
        self._order: list[str] = []
        self._start = self._last = 0.0

    def start(self) -> None:
        self._order.clear()
        self._start = self._last = self._now()

    def lap(self, name: str) -> None:
        """Adds the time since the last call to the forward time of `name`."""
        now = self._now()
        self.forward[name].append(now - self._last)
        self._last, self.last_name = now, name
        if name == OPTIMIZER:
            self.steps.append(now - self._start)

    def mark(self, name: str, x: Tensor) -> None:
        """Ends the forward part `name` with output `x`.

        Once the gradient of `x` is computed, the backward pass of the following part has ended.
        """
        self.lap(name)
        if not x.requires_grad:
            return
        following = len(self._order) + 1
        self._order.append(name)

        def close(_: Tensor) -> None:
            if following < len(self._order):
                self._close(self._order[following])

        x.register_hook(close)  # type: ignore[no-untyped-call]

    def finish_backward(self) -> None:
        self._close(self._order[0])

    def _close(self, name: str) -> None:
        """Adds the time since the last gradient to the backward time of `name`."""
        now = self._now()
        self.backward[name].append(now - self._last)
        self._last = now

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return self._clock()


def profile_training(config: Config, *, data: str | Path | None = None, device: str = "auto") -> StepProfile:
    """Profiles the training steps of a config's network.

    Raises:
        HsiError: a mistake in the config or the scene, or a model that is not trained in steps.
    """
    if not isinstance(config.model, NetworkSettings):
        raise ConfigError(f"model.name = {config.model.name}: this model is not trained in steps; profile a network")
    given = prepare(config, data=data, device=pick_device(device))
    assert given.network is not None
    train = given.make_patches(given.split.train)
    return profile_steps(given.network, train=train, settings=config.train, seed=config.seed)


def print_profile(profile: StepProfile) -> None:
    title = f"training step with {profile.batch_size} patches"
    table = Table(title=title, title_justify="left", show_footer=True)
    total = sum(stage.macs for stage in profile.stages)
    rate = total / profile.step_s
    table.add_column("", "step", no_wrap=True)
    for heading, footer in (
        ("M MACs", f"{total / 1e6:,.0f}"),
        ("forward ms", f"{1e3 * sum(stage.forward_s for stage in profile.stages):,.1f}"),
        ("backward ms", f"{1e3 * sum(stage.backward_s for stage in profile.stages):,.1f}"),
        ("% of step", "100"),
        ("G MACs/s", f"{rate / 1e9:,.1f}"),
        ("% of product rate", f"{100 * rate / profile.product_rate:.0f}"),
    ):
        table.add_column(heading, footer, justify="right")
    for stage in profile.stages:
        seconds = stage.forward_s + stage.backward_s
        rate = stage.macs / seconds
        table.add_row(
            stage.name,
            f"{stage.macs / 1e6:,.0f}" if stage.macs else "–",
            f"{1e3 * stage.forward_s:,.1f}",
            f"{1e3 * stage.backward_s:,.1f}",
            f"{100 * seconds / profile.step_s:.0f}",
            f"{rate / 1e9:,.1f}" if stage.macs else "–",
            f"{100 * rate / profile.product_rate:.0f}" if stage.macs else "–",
        )
    make_console().print(table)
    print(
        f"{profile.step_s:.3f} s per step, {profile.batch_size / profile.step_s:,.0f} patches/s; lower bound "
        f"{profile.floor_s:.3f} s (its MACs at this device's matrix product rate, "
        f"{profile.product_rate / 1e9:,.0f} G MACs/s)."
    )
    print(_describe_sharing(profile))


def _describe_sharing(profile: StepProfile) -> str:
    cost = profile.cost
    if cost is None:
        return f"Patch by patch: {profile.obstacle}."
    way = "with shared features" if cost.is_shared else "patch by patch"
    return (
        f"The last batch was computed {way}. Its patches cover {cost.area[0]} × {cost.area[1]} pixels. The "
        f"forward pass takes {cost.shared_macs / 1e9:,.2f} G MACs with shared features, "
        f"{cost.patchwise_macs / 1e9:,.2f} patch by patch."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="a.b=c")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    print_profile(profile_training(load_config(given.config, given.overrides), data=given.data, device=given.device))


if __name__ == "__main__":
    main()
