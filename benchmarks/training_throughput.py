#!/usr/bin/env python
"""Compares the training throughput of `hsi-se train` with a plain PyTorch loop, in patches per second.

    python benchmarks/training_throughput.py --threads 2 --json benchmarks/results/training_throughput.json
    python benchmarks/training_throughput.py --rows 610 --cols 340 --components 15 --threads 2

Three methods train the same network from the same weights, with the same batch size, on a random cube in
float32. This is done for HybridSN without attention, and with SE gates at `fold` and `conv2d`.

- `plain` is a loop as in a tutorial: TensorDataset, DataLoader(shuffle=True) and AdamW, all untuned, without
  a schedule or flips. All patches are in one array `(n, 1, k, p, p)`, cut before the clock starts. It runs
  in its own process, with the allocator's default settings.
- `patches` calls `hsi_se.training.fit.fit` with `vary_by: patch`. Each patch has its own flip and runs
  through the network on its own.
- `shared` calls it with `vary_by: batch`. There is one flip per batch, and the way with fewer counted MACs
  is used.

The methods alternate, once per round. Each time, the first epoch warms up and the others are timed. Before
that, the gradients of one batch are compared in float64, shared against plain. If they differ by 1e-10 of
the largest gradient or more, nothing is timed.

The script prints the patches per second (median and range over the rounds), the ratios to `plain` in the
same round, the machine's matrix-product rate, the MACs of a step (forward and backward), and the fraction
of the product rate that each method reaches. On a machine with other work, use `--clock cpu --threads 1`:
it counts processor time, which is hardly affected.
"""

import argparse
import gc
import json
import math
import platform
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.step_profile import measure_product_rate
from hsi_se.config.model import HybridSN, SqueezeExcite
from hsi_se.config.training import TrainSettings
from hsi_se.models import build_model
from hsi_se.models.network import Network
from hsi_se.progress import EpochRecord, Silent
from hsi_se.sampling.patches import PatchDataset, pad_cube
from hsi_se.sampling.splits import Pixels
from hsi_se.training.fit import fit
from hsi_se.training.shared_step import share_forward
from hsi_se.training.step import Stepper, draw_area

NUM_CLASSES = 16
PLAIN, PATCHES, SHARED = METHODS = ("plain", "patches", "shared")
NETWORKS = {
    "no attention": HybridSN(name="hybridsn"),
    "gates at fold and conv2d": HybridSN(
        name="hybridsn", attention={point: SqueezeExcite(kind="se") for point in ("fold", "conv2d")}
    ),
}
DEFAULTS = {
    "rows": 145,
    "cols": 145,
    "components": 30,
    "pixels": 512,  # training pixels
    "patch": 25,  # rows and cols of a patch, odd
    "batch": 256,
    "rounds": 3,
    "steps": 2,  # timed steps per round, rounded up to whole epochs
}
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
Options = tuple[tuple[str, int], ...]


class EpochClock(Silent):
    """Records the time at which each epoch ends."""

    def __init__(self, clock: str) -> None:
        self.ends: list[float] = []
        self._now = CLOCKS[clock]

    def epoch(self, _: EpochRecord) -> None:
        self.ends.append(self._now())


def cut_patches(cube: NDArray[np.float32], pixels: Pixels, *, patch_size: int) -> NDArray[np.float32]:
    """Returns all patches `(n, 1, k, p, p)`, cut one by one as is common in scripts of this field."""
    margin = patch_size // 2
    padded = np.pad(cube, ((margin, margin), (margin, margin), (0, 0)), mode="reflect")
    patches = np.empty((len(pixels), 1, cube.shape[2], patch_size, patch_size), dtype=np.float32)
    for position, (row, col) in enumerate(pixels):
        patches[position, 0] = padded[row : row + patch_size, col : col + patch_size].transpose(2, 0, 1)
    return patches


@cache
def make_data(options: Options) -> tuple[PatchDataset, TensorDataset]:
    """Returns the same pixels of a random cube twice: as hsi-se's dataset and as an array of patches."""
    sizes = dict(options)
    rng = np.random.default_rng(0)
    shape = (sizes["rows"], sizes["cols"], sizes["components"])
    cube = rng.standard_normal(shape, dtype=np.float32)
    chosen = np.sort(rng.choice(shape[0] * shape[1], size=sizes["pixels"], replace=False))
    pixels = np.stack(np.divmod(chosen, shape[1]), axis=1)
    targets = rng.integers(NUM_CLASSES, size=len(pixels))
    padded = pad_cube(cube, patch_size=sizes["patch"], padding="reflect")
    ours = PatchDataset(padded, pixels, patch_size=sizes["patch"], targets=targets)
    patches = torch.from_numpy(cut_patches(cube, pixels, patch_size=sizes["patch"]))
    return ours, TensorDataset(patches, torch.from_numpy(targets))


def make_network(name: str, options: Options) -> Network:
    sizes = dict(options)
    return build_model(
        NETWORKS[name], num_bands=sizes["components"], patch_size=sizes["patch"], num_classes=NUM_CLASSES, seed=0
    )


def train_ours(model: Network, patches: PatchDataset, settings: TrainSettings, clock: str) -> list[float]:
    """Trains like `hsi-se train`, without validation pixels; returns the end time of each epoch."""
    watch = EpochClock(clock)
    none = PatchDataset(patches.padded, np.empty((0, 2), np.int64), patch_size=patches.patch_size)
    fit(model, train=patches, val=none, num_classes=NUM_CLASSES, settings=settings, seed=0, observer=watch)
    return watch.ends


def train_plainly(model: Network, patches: TensorDataset, settings: TrainSettings, clock: str) -> list[float]:
    """Trains with a plain PyTorch loop; returns the end time of each epoch."""
    loader = DataLoader(patches, batch_size=settings.batch_size, shuffle=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
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
        ends.append(CLOCKS[clock]())
    return ends


def time_round(method: str, network: str, options: Options, *, threads: int, clock: str) -> float:
    """Returns the patches per second of one method in one round; runs in the method's own process."""
    torch.set_num_threads(threads)
    sizes = dict(options)
    epochs = 1 + math.ceil(sizes["steps"] / math.ceil(sizes["pixels"] / sizes["batch"]))
    vary_by = "batch" if method == SHARED else "patch"
    settings = TrainSettings(epochs=epochs, batch_size=sizes["batch"], vary_by=vary_by, precision="float32")
    ours, plain = make_data(options)
    model = make_network(network, options)
    gc.collect()
    ends = train_plainly(model, plain, settings, clock) if method == PLAIN else train_ours(model, ours, settings, clock)
    return (epochs - 1) * sizes["pixels"] / (ends[-1] - ends[0])


def compare_gradients(network: str, options: Options, *, threads: int, num_patches: int = 48) -> float:
    """Returns the largest difference between shared and plain gradients in float64.

    It is relative to the largest gradient. Both passes use the same dropout masks.
    """
    torch.set_num_threads(threads)
    ours, plain = make_data(options)
    index = torch.randperm(len(ours), generator=torch.Generator().manual_seed(0))[:num_patches]
    settings = TrainSettings(epochs=1, flips=False)
    area, corners = draw_area(ours, index, settings=settings, generator=torch.Generator())
    gradients = []
    for forward in (
        lambda model: share_forward(model, area.double(), corners),
        lambda model: model(plain.tensors[0][index].double()),
    ):
        model = make_network(network, options).double().train()
        torch.manual_seed(0)
        F.cross_entropy(forward(model), plain.tensors[1][index]).backward()
        gradients.append([weight.grad for weight in model.parameters()])
    largest = max(float(gradient.abs().max()) for gradient in gradients[1])
    return max(float((one - other).abs().max()) for one, other in zip(*gradients, strict=True)) / largest


def count_step(network: str, options: Options) -> dict[str, Any]:
    """Returns the forward and backward MACs of a step for both ways, and whether sharing is chosen."""
    ours, _ = make_data(options)
    model = make_network(network, options)
    settings = TrainSettings(epochs=1, batch_size=dict(options)["batch"], vary_by="batch")
    step = Stepper(model, train=ours, settings=settings)
    area = (ours.padded.shape[0], ours.padded.shape[1])
    cost = step.estimate(settings.batch_size, area)
    first = next(iter(model.stages))  # its input, the scene, needs no gradient
    patchwise, shared = step.count_macs(settings.batch_size), step.count_macs(settings.batch_size, area)
    return {
        "patchwise_macs": 3 * cost.patchwise_macs - patchwise[first],
        "shared_macs": 3 * cost.shared_macs - shared[first],
        "is_shared": cost.is_shared,
    }


def name_cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def measure(
    network: str, options: Options, pools: dict[str, ProcessPoolExecutor], *, threads: int, clock: str
) -> dict[str, Any]:
    """Returns the patches per second of each method and round, and the rates to compare them with."""
    ours = pools[SHARED]
    difference = ours.submit(compare_gradients, network, options, threads=threads).result()
    if not difference < 1e-10:
        raise SystemExit(
            f"{network}: shared and plain gradients differ by {difference:.1e} of the largest; nothing timed"
        )
    rates: dict[str, list[float]] = {method: [] for method in METHODS}
    product_rates = []
    for _ in range(dict(options)["rounds"]):
        product_rates.append(ours.submit(measure_product_rate, torch.device("cpu"), clock=CLOCKS[clock]).result())
        for method in METHODS:
            submitted = pools[method].submit(time_round, method, network, options, threads=threads, clock=clock)
            rates[method].append(submitted.result())
    ratios = {
        method: [one / plain for one, plain in zip(rates[method], rates[PLAIN], strict=True)] for method in METHODS[1:]
    }
    step = count_step(network, options)
    batch, rate = dict(options)["batch"], statistics.median(product_rates)
    floor = {
        PLAIN: batch * rate / step["patchwise_macs"],
        PATCHES: batch * rate / step["patchwise_macs"],
        SHARED: batch * rate / step["shared_macs" if step["is_shared"] else "patchwise_macs"],
    }
    return {
        "gradient_difference": difference,
        "patches_per_second": rates,
        "ratios_to_plain": ratios,
        "product_macs_per_second": product_rates,
        "step": step,
        "patches_per_second_at_product_rate": floor,
    }


def summarise(values: list[float], *, digits: int) -> str:
    """Returns median and range as `median (least to largest)`."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def print_result(network: str, result: dict[str, Any]) -> None:
    step, rates = result["step"], result["patches_per_second"]
    way = "shared" if step["is_shared"] else "patch by patch"
    product = summarise([rate / 1e9 for rate in result["product_macs_per_second"]], digits=0)
    print(
        f"\n{network}: gradients agree to {result['gradient_difference']:.0e} in float64; MACs per step "
        f"{step['patchwise_macs'] / 1e9:.1f} G patch by patch,\n"
        f"{step['shared_macs'] / 1e9:.1f} G shared; chosen: {way}; matrix product {product} G MACs/s"
    )
    for method in METHODS:
        median = statistics.median(rates[method])
        ratio = summarise(result["ratios_to_plain"][method], digits=2) if method != PLAIN else ""
        share = median / result["patches_per_second_at_product_rate"][method]
        print(
            f"  {method:<8} {summarise(rates[method], digits=0):>18} patches/s  "
            f"{share:4.0%} of the product rate"
            f"{'   × plain: ' + ratio if ratio else ''}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Compares the training throughput of hsi-se with a plain PyTorch loop."
    )
    for name, default in (DEFAULTS | {"threads": torch.get_num_threads()}).items():
        parser.add_argument(f"--{name}", type=int, default=default, help="default %(default)s")
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall", help="default %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results to FILE")
    arguments = parser.parse_args()
    options = tuple((name, getattr(arguments, name)) for name in DEFAULTS)
    torch.set_num_threads(arguments.threads)
    machine = {
        "torch": str(torch.__version__),
        "threads": arguments.threads,
        "cpu": name_cpu(),
        "clock": arguments.clock,
    }
    print(", ".join(f"{name} {value}" for name, value in (machine | dict(options)).items()))

    context = get_context("spawn")
    results = {}
    with ProcessPoolExecutor(1, mp_context=context) as plain, ProcessPoolExecutor(1, mp_context=context) as ours:
        pools = {PLAIN: plain, PATCHES: ours, SHARED: ours}
        for network in NETWORKS:
            results[network] = measure(network, options, pools, threads=arguments.threads, clock=arguments.clock)
            print_result(network, results[network])
    if arguments.json is not None:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        found = {"machine": machine, "settings": dict(options), "networks": results}
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
