#!/usr/bin/env python
"""Checks the package on a GPU, and compares its speed there with a plain PyTorch loop and with batched patches.

    python benchmarks/gpu.py --json benchmarks/results/gpu.json

It takes less than five minutes on one GPU and needs no network: torch, numpy and the package's own light
dependencies suffice, with the checkout on PYTHONPATH. `--device cpu --tiny` runs the same code on small sizes.

First it checks; its exit code is 1 if a check fails:

- logits of both engines against those of the network in float64 on the CPU, for every kind of attention;
- a graphed epoch against an eager one with the same draws: losses in float32 to 1e-4, where dropout, noise and flips
  are drawn on the GPU;
- a run stopped in the middle of an epoch and resumed, against one that was not;
- `convolve` and its gradients against `conv3d` in float64.

Then it times, always after a warm-up, with the methods in turns and medians over the rounds:

- convolutions: forward and backward pass of HybridSN's three 3-D convolutions, by torch's own kernels and with some
  depths of the output computed together. The marked one is what the package uses.
- steps: forward and backward pass of a batch on their own, as a graph.
- training: patches a second of whole steps. `plain` is a loop as in a tutorial: all patches cut before and on the
  device, AdamW, no flips; in float32, with PyTorch's default (TF32 in convolutions), and in bfloat16. `hsi-se` is
  `hsi_se.training.fit.fit` with flips and its schedule.
- maps: seconds for a scene in memory, by batches of patches and by the dense engine, transfers included.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hsi_se.config.model import HybridSN
from hsi_se.config.training import TrainSettings
from hsi_se.models import build_model
from hsi_se.models.convolution import BatchNorm3d, Conv3d, choose_together, convolve
from hsi_se.models.inference import predict_patches, set_tf32
from hsi_se.models.network import Network
from hsi_se.prediction.logits import predict_logits
from hsi_se.progress import EpochRecord, Silent
from hsi_se.sampling.patches import PatchDataset, pad_cube
from hsi_se.training import step as step_module
from hsi_se.training.checkpoint import Keeper
from hsi_se.training.fit import fit
from hsi_se.training.state import TrainingState

NUM_CLASSES = 16
SE = {"kind": "se"}
TWICE = {"fold": SE, "conv2d": SE}
KINDS = ("se", "eca", "cbam", "nonlocal", "strip_pooling", "coordinate", "gather_excite", "simam")
PRECISIONS = ("float32", "tf32", "bfloat16")
TRAINING = [  # components, patch, batch, pixels
    (30, 25, 256, 2560),
    (30, 25, 32, 1024),
    (20, 13, 32, 1025),
]
MAPS = [  # rows, cols, components, attention, seconds to reach on an H200
    (145, 145, 30, TWICE, 0.040),
    (145, 145, 30, {"conv3d_3": SE}, None),
    (145, 145, 30, {"conv2d": SE}, None),
    (145, 145, 30, {"fold": {"kind": "cbam"}}, None),
    (145, 145, 30, {}, 0.015),
    (610, 340, 15, TWICE, 0.120),
    (610, 340, 15, {}, 0.030),
]


def make_network(num_bands: int, patch: int, attention: dict[str, Any], device: torch.device) -> Network:
    settings = HybridSN.model_validate({"name": "hybridsn", "attention": attention})
    model = build_model(settings, num_bands=num_bands, patch_size=patch, num_classes=NUM_CLASSES, seed=0)
    return model.to(device)


def make_plain(model: Network) -> Network:
    """Lets a network use torch's own convolutions and norms."""
    for module in model.modules():
        if isinstance(module, Conv3d):
            module.__class__ = nn.Conv3d
        elif isinstance(module, BatchNorm3d):
            module.__class__ = nn.BatchNorm3d
    return model


def make_data(num_bands: int, patch: int, num_pixels: int, device: torch.device) -> PatchDataset:
    rng = np.random.default_rng(0)
    cube = rng.standard_normal((64, 64, num_bands), dtype=np.float32)
    pixels = np.stack(np.divmod(rng.choice(64 * 64, num_pixels, replace=False), 64), axis=1)
    targets = rng.integers(NUM_CLASSES, size=num_pixels)
    padded = pad_cube(cube, patch_size=patch, padding="reflect").to(device)
    return PatchDataset(padded, pixels, patch_size=patch, targets=targets)


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def time_calls(run: Callable[[], object], device: torch.device, *, rounds: int) -> float:
    """Returns the median of the seconds that a call takes, after two to warm up."""
    seconds = []
    for _ in range(rounds + 2):
        wait(device)
        start = time.perf_counter()
        run()
        wait(device)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[2:])


# ---------------------------------------------------------------------------------------------------- checks


def check_engines(device: torch.device) -> dict[str, float]:
    """Returns the largest difference of logits from float64 on the CPU, relative to the largest, by attention kind."""
    cube = np.random.default_rng(0).standard_normal((18, 20, 16)).astype(np.float32)
    differences = {}
    for kind in ("none", *KINDS):
        attention = {} if kind == "none" else {point: {"kind": kind} for point in ("fold", "conv2d")}
        exact = make_network(16, 11, attention, torch.device("cpu")).double().eval()
        padded = pad_cube(cube, patch_size=11, padding="zero")
        windows = padded.unfold(0, 11, 1).unfold(1, 11, 1).flatten(0, 1).unsqueeze(1)
        with torch.inference_mode():
            expected = exact(windows.double()).view(18, 20, -1).numpy()
        model = make_network(16, 11, attention, device)
        for engine in ("dense", "patches"):
            found = predict_logits(model, cube, engine=engine, padding="zero")  # type: ignore[arg-type]
            differences[f"{kind}, {engine}"] = float(np.abs(found - expected).max() / np.abs(expected).max())
    return differences


class _StopInStep(Keeper):
    """Saves the state after a step and stops training there, or begins with a saved state."""

    def __init__(self, *, after: int | None = None, saved: dict[str, Any] | None = None) -> None:
        self.after, self.saved = after, saved

    def restore(self, state: TrainingState) -> None:
        if self.saved is not None:
            state.load(self.saved)

    def after_step(self, state: TrainingState) -> None:
        if state.steps == self.after:
            saved = state.save()
            self.saved = {**saved, "model": {name: value.clone() for name, value in saved["model"].items()}}
            raise InterruptedError


def check_training(device: torch.device, *, num_pixels: int) -> dict[str, float]:
    """Returns how far the loss of an epoch of graphed steps is from eager ones, the same again, and a resumed epoch.

    cuDNN is restricted to kernels that repeat their results, because training amplifies differences of rounding.
    """
    settings = TrainSettings(epochs=1, batch_size=32, noise=0.1, shift=1, weight_averaging=0.9, precision="float32")
    watch = _Clock()

    def train(keeper: Keeper | None = None) -> float:
        data, none = make_data(20, 13, num_pixels, device), make_data(20, 13, 0, device)
        model = make_network(20, 13, TWICE, device)
        options: dict[str, Any] = {"num_classes": NUM_CLASSES, "settings": settings, "seed": 0, "observer": watch}
        cudnn = torch.backends.cudnn
        with cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            return fit(model, train=data, val=none, keeper=keeper, **options).history[0].loss

    graphed, again, stop = train(), train(), _StopInStep(after=max(1, num_pixels // 64))
    try:
        train(stop)
    except InterruptedError:
        resumed = train(_StopInStep(saved=stop.saved))
    if watch.notes:
        raise SystemExit(watch.notes[0])
    chosen, step_module.can_capture = step_module.can_capture, lambda _: False
    try:
        eager = train()
    finally:
        step_module.can_capture = chosen
    others = {"eager": eager, "graphed again": again, "resumed": resumed}
    return {f"graphed and {name}": abs(loss - graphed) / graphed for name, loss in others.items()}


def check_convolution(device: torch.device) -> dict[str, float]:
    """Returns the largest difference of values and gradients from `conv3d` in float64, relative to the largest."""
    torch.manual_seed(0)
    x = torch.randn(4, 8, 14, 11, 11, dtype=torch.float64, device=device)
    weight = torch.randn(16, 8, 5, 3, 3, dtype=torch.float64, device=device)
    given = [value.requires_grad_() for value in (x, weight, torch.randn(16, dtype=torch.float64, device=device))]
    results = []
    for together in (None, 1, 2, 5, 10):
        y = convolve(*given, together=together)
        results.append([y.detach(), *torch.autograd.grad(y.square().sum(), given)])
    return {
        f"{count} depths together": max(
            float((one - other).abs().max() / other.abs().max()) for one, other in zip(some, results[0], strict=True)
        )
        for count, some in zip((1, 2, 5, 10), results[1:], strict=True)
    }


# ---------------------------------------------------------------------------------------------------- timings


def time_convolutions(
    num_bands: int, patch: int, batch: int, device: torch.device, *, rounds: int
) -> list[dict[str, Any]]:
    """Times the forward and backward pass of the three 3-D convolutions in each precision, in milliseconds."""
    rows = []
    for precision in PRECISIONS:
        depth_in, side = num_bands, patch
        for channels, num_out, depth in ((1, 8, 7), (8, 16, 5), (16, 32, 3)):
            num_depths = depth_in - depth + 1
            x = torch.randn(batch, channels, depth_in, side, side, device=device, requires_grad=channels > 1)
            weight = torch.randn(num_out, channels, depth, 3, 3, device=device, requires_grad=True)
            after = torch.randn(batch, num_out, num_depths, side - 2, side - 2, device=device)
            chosen = choose_together(x, weight)
            ways: list[int | None] = [None, *sorted({1, 2, 4, num_depths, chosen or 1})]
            times = {}
            for together in ways:
                if together is not None and num_depths % together:
                    continue
                run = _make_pass(x, weight, after, together, precision)
                with set_tf32(precision == "tf32"):
                    times[str(together or "conv3d")] = 1e3 * _time_graph(run, device, rounds=rounds)
            rows.append(
                {
                    "shape": f"{channels} -> {num_out}, {depth}x3x3, {num_depths} depths, {batch} patches of {patch}",
                    "precision": precision,
                    "chosen": str(chosen or "conv3d"),
                    "ms": times,
                }
            )
            depth_in, side = num_depths, side - 2
    return rows


def _make_pass(
    x: Tensor, weight: Tensor, after: Tensor, together: int | None, precision: str
) -> Callable[[], tuple[Tensor, ...]]:
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    orders = {None: (0, 1, 2, 3, 4), 1: (0, 2, 3, 4, 1)}
    order = orders.get(together, (0, 3, 4, 2, 1))
    back = [order.index(axis) for axis in range(5)]
    x, after = (value.detach().to(dtype).permute(order).contiguous().permute(back) for value in (x, after))
    x.requires_grad_(x.shape[1] > 1)

    def run() -> tuple[Tensor, ...]:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
            y = convolve(x, weight, None, together=together)
        return torch.autograd.grad(y, [value for value in (x, weight) if value.requires_grad], after)

    return run


def _time_graph(run: Callable[[], object], device: torch.device, *, rounds: int) -> float:
    """Returns the median seconds of a call, as a graph where there are graphs."""
    if device.type == "cpu":
        return time_calls(run, device, rounds=rounds)
    for _ in range(2):
        run()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = run()
    seconds = time_calls(graph.replay, device, rounds=rounds)
    del kept
    return seconds


def time_steps(sizes: tuple[int, int, int, int], device: torch.device, *, rounds: int) -> dict[str, Any]:
    """Times the forward and backward pass of a batch, as a graph, in milliseconds: what a step cannot fall below."""
    num_bands, patch, batch, _ = sizes
    data, model = make_data(num_bands, patch, batch, device), make_network(num_bands, patch, TWICE, device).train()
    patches = data.gather(torch.arange(batch))

    def run(precision: str) -> tuple[Tensor, ...]:
        with set_tf32(precision == "tf32"):
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                logits = model(patches)
            loss = F.cross_entropy(logits.float(), data.targets)
            return torch.autograd.grad(loss, list(model.parameters()))

    times = {name: 1e3 * _time_graph(partial(run, name), device, rounds=rounds) for name in PRECISIONS}
    return {"components": num_bands, "patch": patch, "batch": batch, "ms": times}


class _Clock(Silent):
    def __init__(self) -> None:
        self.ends: list[float] = []
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def epoch(self, _: EpochRecord) -> None:
        self.ends.append(time.perf_counter())


def train_plainly(data: PatchDataset, attention: dict[str, Any], *, batch: int, precision: str, epochs: int) -> float:
    """Returns the patches a second of a plain loop, over all epochs but the first."""
    device, num_bands, patch = data.device, data.padded.shape[2], data.patch_size
    model = make_plain(make_network(num_bands, patch, attention, device)).train()
    patches = data.gather(torch.arange(len(data))).contiguous()
    optimizer = torch.optim.AdamW(model.parameters())
    ends = []
    cudnn = torch.backends.cudnn
    with cudnn.flags(enabled=True, benchmark=False, deterministic=False, allow_tf32=precision != "float32"):
        for _ in range(epochs):
            for index in torch.randperm(len(data)).split(batch):
                index = index.to(device)
                with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                    logits = model(patches[index])
                loss = F.cross_entropy(logits.float(), data.targets[index])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            wait(device)
            ends.append(time.perf_counter())
    return (epochs - 1) * len(data) / (ends[-1] - ends[0])


def train_ours(data: PatchDataset, attention: dict[str, Any], *, batch: int, precision: str, epochs: int) -> float:
    """Returns the patches a second of `fit`, over all epochs but the first, in which graphs are captured."""
    none = PatchDataset(data.padded, np.empty((0, 2), np.int64), patch_size=data.patch_size)
    settings = TrainSettings.model_validate({"epochs": epochs, "batch_size": batch, "precision": precision})
    model, watch = make_network(data.padded.shape[2], data.patch_size, attention, data.device), _Clock()
    fit(model, train=data, val=none, num_classes=NUM_CLASSES, settings=settings, seed=0, observer=watch)
    return (epochs - 1) * len(data) / (watch.ends[-1] - watch.ends[0])


def time_training(
    sizes: tuple[int, int, int, int], device: torch.device, *, rounds: int, epochs: int
) -> dict[str, Any]:
    num_bands, patch, batch, num_pixels = sizes
    data = make_data(num_bands, patch, num_pixels, device)
    rates: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, train in (("plain", train_plainly), ("hsi-se", train_ours)):
            for precision in PRECISIONS:
                rate = train(data, TWICE, batch=batch, precision=precision, epochs=epochs)
                rates.setdefault(f"{name} {precision}", []).append(rate)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return {"components": num_bands, "patch": patch, "batch": batch, "patches_per_s": medians}


def time_map(
    rows: int, cols: int, num_bands: int, attention: dict[str, Any], device: torch.device, *, patch: int, rounds: int
) -> dict[str, Any]:
    """Returns the seconds of a map by batches of patches and by the dense engine, and how far their logits differ."""
    cube = np.random.default_rng(0).standard_normal((rows, cols, num_bands)).astype(np.float32)
    model = make_network(num_bands, patch, attention, device)
    results = {}

    def run_dense() -> None:
        results["dense"] = predict_logits(model, cube)

    def run_patches(batch: int) -> None:
        padded = pad_cube(cube, patch_size=patch, padding="zero").to(device)
        pixels = np.argwhere(np.ones((rows, cols), dtype=bool))
        logits = predict_patches(model, PatchDataset(padded, pixels, patch_size=patch), batch_size=batch)
        results["patches"] = logits.view(rows, cols, -1).cpu().numpy()

    times = {f"patches of {batch}": time_calls(partial(run_patches, batch), device, rounds=1) for batch in (128, 1024)}
    times["dense"] = time_calls(run_dense, device, rounds=rounds)
    difference = np.abs(results["dense"] - results["patches"]).max() / np.abs(results["patches"]).max()
    where = ", ".join(f"{block['kind']} at {point}" for point, block in attention.items()) or "none"
    return {"scene": f"{rows} x {cols} x {num_bands}", "attention": where, "s": times, "difference": float(difference)}


# ---------------------------------------------------------------------------------------------------- the script


def measure(device: torch.device, *, is_tiny: bool) -> dict[str, Any]:
    checks: dict[str, dict[str, float]] = {}
    failures: list[str] = []
    for name, check, limit in (
        ("engines against float64 on the CPU", check_engines, 1e-4),
        ("losses of an epoch", partial(check_training, num_pixels=48 if is_tiny else 1025), 1e-4),
        ("convolve against conv3d in float64", check_convolution, 1e-10),
    ):
        checks[name] = check(device)
        worst = max(checks[name], key=checks[name].__getitem__)
        print(f"{name}: at most {checks[name][worst]:.1e} ({worst})", flush=True)
        if not checks[name][worst] <= limit:
            failures.append(f"{name}, {worst}: differ by {checks[name][worst]:.1e}, more than {limit:.0e}")
    rounds = 1 if is_tiny else 5
    convolutions = []
    for num_bands, patch, batch in [(14, 9, 2)] if is_tiny else [(30, 25, 256), (20, 13, 32)]:
        convolutions += time_convolutions(num_bands, patch, batch, device, rounds=rounds)
    for row in convolutions:
        times = "  ".join(f"{way}{'*' if way == row['chosen'] else ''} {value:.3f}" for way, value in row["ms"].items())
        print(f"{row['shape']:>48}  {row['precision']:8}  ms: {times}", flush=True)
    steps = []
    for sizes in [(14, 9, 4, 16)] if is_tiny else TRAINING:
        row = time_steps(sizes, device, rounds=rounds)
        steps.append(row)
        rates = "  ".join(f"{name} {value:.3f} ({1e3 * sizes[2] / value:,.0f}/s)" for name, value in row["ms"].items())
        print(f"K={sizes[0]} P={sizes[1]} batch {sizes[2]}, forward and backward, ms: {rates}", flush=True)
    training = []
    for sizes in [(14, 9, 4, 16)] if is_tiny else TRAINING:
        row = time_training(sizes, device, rounds=1 if is_tiny else 2, epochs=2 if is_tiny else 5)
        training.append(row)
        rates = "  ".join(f"{name} {value:,.0f}" for name, value in row["patches_per_s"].items())
        print(f"K={row['components']} P={row['patch']} batch {row['batch']}, patches/s: {rates}", flush=True)
    maps = []
    for rows, cols, num_bands, attention, goal in MAPS:
        size = (rows // 16, cols // 16, 14) if is_tiny else (rows, cols, num_bands)
        row = time_map(*size, attention, device, patch=11 if is_tiny else 25, rounds=rounds)
        maps.append(row)
        times = "  ".join(f"{name} {value:.4f}" for name, value in row["s"].items())
        print(f"{row['scene']}, {row['attention']}, s: {times}" + (f" (goal {goal})" if goal else ""), flush=True)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {
        "device": name,
        "torch": str(torch.__version__),
        "checks": checks,
        "failures": failures,
        "convolutions": convolutions,
        "steps": steps,
        "training": training,
        "maps": maps,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda or cpu; default cuda")
    parser.add_argument("--tiny", action="store_true", help="small sizes, to see that everything runs")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    options = parser.parse_args()
    results = measure(torch.device(options.device), is_tiny=options.tiny)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if results["failures"]:
        raise SystemExit("\n".join(results["failures"]))


if __name__ == "__main__":
    main()
