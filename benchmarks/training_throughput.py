#!/usr/bin/env python
"""Training speed: the loop of `hsi-se train` against a plain PyTorch loop, in patches per second.

    python benchmarks/training_throughput.py --threads 2 --json benchmarks/results/training_throughput.json

Both train the same network from the same weights on the same patches of a random cube:

- `hsi-se` calls `hsi_se.training.fit.fit`, which gathers each batch from the padded cube; without
  flips, and once more with them;
- `plain` has every patch in one float32 array `(n, 1, k, p, p)`, cut before the clock starts, and
  goes through it with TensorDataset, DataLoader(shuffle=True) and AdamW, neither tuned, no schedule.

All run in one process, in turn, once a round. In each turn the first epoch warms up and is not
timed; the others are timed whole, with hsi-se's copy of the best weights in them. Neither side has
validation patches. Nothing is timed unless both sides see equal patches. Printed: the patches per
second of each (median and range over the rounds), the ratio of hsi-se to plain (median and range of
the rounds' ratios), the memory that the patches take, and the machine.
"""

import argparse
import gc
import json
import math
import platform
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from hsi_se.config import TrainSettings
from hsi_se.config_model import HybridSN, SqueezeExcite
from hsi_se.models import build_model
from hsi_se.sampling.patches import PatchDataset, pad_cube
from hsi_se.sampling.splits import Pixels
from hsi_se.training.fit import fit
from hsi_se.training.history import EpochRecord, Silent

NUM_CLASSES = 16
OURS, PLAIN, OURS_WITH_FLIPS = SIDES = ("hsi-se", "plain", "hsi-se with flips")
GATES = {point: SqueezeExcite(kind="se") for point in ("fold", "conv2d")}
DEFAULTS = {
    "rows": 145,
    "cols": 145,
    "components": 30,
    "pixels": 1024,  # that train
    "patch": 25,  # rows and cols, odd
    "batch": 256,
    "rounds": 5,
    "steps": 8,  # timed in a turn, rounded up to whole epochs
}


class EpochClock(Silent):
    """Notes when each epoch ends."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def epoch(self, _: EpochRecord) -> None:
        self.ends.append(time.perf_counter())


def cut_patches(cube: NDArray[np.float32], pixels: Pixels, *, patch_size: int) -> NDArray[np.float32]:
    """Returns all patches `(n, 1, k, p, p)`, cut one by one as scripts of this field do it."""
    margin = patch_size // 2
    padded = np.pad(cube, ((margin, margin), (margin, margin), (0, 0)), mode="reflect")
    patches = np.empty((len(pixels), 1, cube.shape[2], patch_size, patch_size), dtype=np.float32)
    for position, (row, col) in enumerate(pixels):
        patches[position, 0] = padded[row : row + patch_size, col : col + patch_size].transpose(2, 0, 1)
    return patches


def train_ours(model: torch.nn.Module, patches: PatchDataset, settings: TrainSettings) -> list[float]:
    """Trains as `hsi-se train` does, without validation pixels, and returns when each epoch ended."""
    clock = EpochClock()
    none = PatchDataset(patches.padded, np.empty((0, 2), np.int64), patch_size=patches.patch_size)
    fit(model, train=patches, val=none, num_classes=NUM_CLASSES, settings=settings, seed=0, observer=clock)
    return clock.ends


def train_plainly(model: torch.nn.Module, patches: TensorDataset, settings: TrainSettings) -> list[float]:
    """Trains as a tutorial would, and returns when each epoch ended."""
    loader = DataLoader(patches, batch_size=settings.batch_size, shuffle=True)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    ends = []
    for _ in range(settings.epochs):
        model.train()
        total_loss = 0.0
        for batch, targets in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(batch), targets)
            loss.backward()
            optimizer.step()
            total_loss += loss.item() * len(batch)
        ends.append(time.perf_counter())
    return ends


def name_cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def measure(options: argparse.Namespace) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Returns each side's patches per second, one for each round, and the bytes its patches take."""
    rng = np.random.default_rng(0)
    size, batch_size = options.patch, options.batch
    cube = rng.standard_normal((options.rows, options.cols, options.components), dtype=np.float32)
    chosen = np.sort(rng.choice(options.rows * options.cols, size=options.pixels, replace=False))
    pixels = np.stack(np.divmod(chosen, options.cols), axis=1)
    targets = rng.integers(NUM_CLASSES, size=options.pixels)

    padded = pad_cube(cube, patch_size=size, padding="reflect")
    ours = PatchDataset(padded, pixels, patch_size=size, targets=targets)
    patches = torch.from_numpy(cut_patches(cube, pixels, patch_size=size))
    plain = TensorDataset(patches, torch.from_numpy(targets))
    for start in range(0, len(ours), batch_size):
        index = torch.arange(start, min(start + batch_size, len(ours)))
        if not torch.equal(ours.gather(index), patches[index]):
            raise SystemExit("the gathered patches differ from the cut ones; nothing is timed")

    epochs = 1 + math.ceil(options.steps / math.ceil(options.pixels / batch_size))
    network = HybridSN(name="hybridsn", attention=GATES)
    rates: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(options.rounds):
        for side in SIDES:
            model = build_model(
                network, num_bands=options.components, patch_size=size, num_classes=NUM_CLASSES
            )
            settings = TrainSettings(epochs=epochs, batch_size=batch_size, flips=side == OURS_WITH_FLIPS)
            gc.collect()
            if side == PLAIN:
                ends = train_plainly(model, plain, settings)
            else:
                ends = train_ours(model, ours, settings)
            rates[side].append((epochs - 1) * options.pixels / (ends[-1] - ends[0]))
    return rates, {OURS: padded.nbytes, PLAIN: patches.nbytes}


def summarise(values: list[float], *, digits: int) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser(description="Training patches per second, hsi-se against a plain loop.")
    for name, default in (DEFAULTS | {"threads": torch.get_num_threads()}).items():
        parser.add_argument(f"--{name}", type=int, default=default, help="default %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here too")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    rates, patch_bytes = measure(options)
    ratios = {
        side: [ours / plain for ours, plain in zip(rates[side], rates[PLAIN], strict=True)]
        for side in (OURS, OURS_WITH_FLIPS)
    }
    machine = {"torch": str(torch.__version__), "threads": torch.get_num_threads(), "cpu": name_cpu()}
    settings = {name: getattr(options, name) for name in DEFAULTS}
    print(", ".join(f"{name} {value}" for name, value in (machine | settings).items()))
    for side in SIDES:
        print(f"{side + ':':<28}{summarise(rates[side], digits=0)} patches/s")
    for side in ratios:
        print(f"{side + ' / plain:':<28}{summarise(ratios[side], digits=3)}")
    print(f"{'all patches, for plain:':<28}{patch_bytes[PLAIN] / 1e6:.1f} MB")
    print(f"{'padded cube, for hsi-se:':<28}{patch_bytes[OURS] / 1e6:.1f} MB")
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        results = {"machine": machine, "settings": settings, "rates": rates, "ratios": ratios}
        options.json.write_text(json.dumps(results | {"patch_bytes": patch_bytes}, indent=2) + "\n")


if __name__ == "__main__":
    main()
