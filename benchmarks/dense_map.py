#!/usr/bin/env python
"""Compares whole-scene maps by the dense engine with batched patches, with the same weights and threads.

    python benchmarks/dense_map.py --threads 2 --json benchmarks/results/dense_map.json
    python benchmarks/dense_map.py --threads 2 --memory --json benchmarks/results/dense_map_memory.json
    python benchmarks/dense_map.py --threads 1 --networks --sample 128 --rounds 2 \\
        --json benchmarks/results/dense_map_networks.json

The scenes are random, with 25 × 25 patches and 16 classes. The two methods:

- `dense` maps the whole scene. Its time includes the preparation of the weights.
- `patches` is `hsi_se.models.inference.predict_patches`: batches of 128 gathered from the padded scene, in
  inference mode. It runs on `--sample` consecutive pixels from a random start, and its time is scaled to
  the number of pixels in the scene. With `--full` it runs on all pixels.

Both warm up first and then alternate, once per round. For each network the script prints:

- the seconds of both (median over the rounds);
- the ratio of the times (median and range over the rounds), and the ratio required;
- the largest difference of logits, relative to the largest logit, and the number of pixels whose class
  differs;
- the memory of a process that only maps the scene with the dense engine: its peak, and what it used before.

Times are wall-clock seconds. The ratio of processor seconds is printed too: it is less affected by other
work on the machine, but does not count the time that threads wait for each other.

`--networks` compares the other networks that share stages, instead of HybridSN. Networks with padded convolutions from
the first stage on (`se_resnet`, `res2net`, `se_inception`) are not listed: both engines run their patches.

`--profile` prints where the dense engine spends its time instead, and the machine's matrix-product rate.

`--memory` instead maps scenes of 145 and 1450 rows from a file, tile by tile, and prints the peak memory
and the time per pixel of both.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter

from hsi_se import build_model, predict_logits
from hsi_se.config.model import ModelSettings
from hsi_se.models.hybridsn import HybridSN
from hsi_se.models.inference import predict_patches
from hsi_se.models.network import Network
from hsi_se.prediction.dense import DenseEngine
from hsi_se.sampling.patches import PatchDataset, pad_cube

PATCH_SIZE, NUM_CLASSES = 25, 16
SE, CBAM = {"kind": "se"}, {"kind": "cbam"}


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Attributes:
        name: title of the row.
        rows, cols, bands: size of the scene.
        attention: blocks by their position in the network.
        least: required ratio of the times.
        network: `model.name` of a config.
    """

    name: str
    rows: int
    cols: int
    bands: int
    attention: dict[str, dict[str, str]]
    least: float
    network: str = "hybridsn"

    def build(self) -> Network:
        settings = TypeAdapter(ModelSettings).validate_python({"name": self.network, "attention": self.attention})
        return build_model(settings, num_bands=self.bands, patch_size=PATCH_SIZE, num_classes=NUM_CLASSES).eval()

    def make_cube(self) -> NDArray[np.float32]:
        shape = (self.rows, self.cols, self.bands)
        return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


CASES = (
    Case("SE at fold and conv2d", 145, 145, 30, {"fold": SE, "conv2d": SE}, 15),
    Case("none", 145, 145, 30, {}, 60),
    Case("SE at conv2d", 145, 145, 30, {"conv2d": SE}, 50),
    Case("SE at conv3d_3", 145, 145, 30, {"conv3d_3": SE}, 25),
    Case("CBAM at fold", 145, 145, 30, {"fold": CBAM}, 2),
    Case("SE at fold and conv2d, 610 × 340", 610, 340, 15, {"fold": SE, "conv2d": SE}, 10),
)
NETWORK_CASES = (
    Case("cnn3d", 145, 145, 30, {}, 100, "cnn3d"),
    Case("cnn3d, SE at conv3d_3", 145, 145, 30, {"conv3d_3": SE}, 100, "cnn3d"),
    Case("cnn3d, SE at conv3d_2", 20, 145, 30, {"conv3d_2": SE}, 1.2, "cnn3d"),
    Case("ssrn", 40, 145, 30, {}, 8, "ssrn"),
    Case("ssrn, SE at spatial_1", 40, 145, 30, {"spatial_1": SE}, 8, "ssrn"),
    Case("ssrn, SE at spectral_2", 20, 145, 30, {"spectral_2": SE}, 1.2, "ssrn"),
    Case("ssftt", 40, 145, 30, {}, 1.2, "ssftt"),
    Case("spectrum_first", 145, 145, 30, {}, 40, "spectrum_first"),
    Case("spectrum_first, SE at spectral_2", 40, 145, 30, {"spectral_2": SE}, 1.5, "spectrum_first"),
)


def read_status(key: str) -> int:
    """Returns an entry of this process's status in bytes; `VmHWM` is its peak resident memory."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status: has no entry {key}; run this on Linux")


def run_alone(function: Callable[..., object], *arguments: object) -> object:
    """Runs a function in a new process and returns its result."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def measure_memory(case: Case, threads: int) -> tuple[int, int]:
    """Returns the resident memory in bytes once scene and network are loaded, and the peak when mapping."""
    torch.set_num_threads(threads)
    model, cube = case.build(), case.make_cube()
    before = read_status("VmRSS")
    predict_logits(model, cube)
    return before, read_status("VmHWM")


def take_time(function: Callable[[], object]) -> tuple[float, float]:
    """Returns the wall-clock and processor seconds of a call."""
    wall, processor = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - wall, time.process_time() - processor


def compare(case: Case, options: argparse.Namespace) -> dict[str, object]:
    """Returns times, ratios, differences and memory of both methods for one case."""
    model, cube = case.build(), case.make_cube()
    num_pixels = case.rows * case.cols
    sample = num_pixels if options.full else min(options.sample, num_pixels)
    first = int(np.random.default_rng(1).integers(num_pixels - sample + 1))
    pixels = np.stack(np.divmod(np.arange(first, first + sample), case.cols), axis=1)
    padded = pad_cube(cube, patch_size=PATCH_SIZE, padding="zero")
    patches = PatchDataset(padded, pixels, patch_size=PATCH_SIZE)
    results: dict[str, NDArray[np.float32]] = {}

    def run_dense() -> None:
        results["dense"] = predict_logits(model, cube).reshape(-1, NUM_CLASSES)[first : first + sample]

    def run_patches() -> None:
        results["patches"] = predict_patches(model, patches).numpy()

    predict_logits(model, cube[:PATCH_SIZE])
    predict_patches(model, PatchDataset(padded, pixels[:256], patch_size=PATCH_SIZE))
    rounds = []
    for _ in range(options.rounds):
        dense = take_time(run_dense)
        by_patch = [seconds * num_pixels / sample for seconds in take_time(run_patches)]
        rounds.append((dense, by_patch))
        print(f"  dense {dense[0]:.1f} s, patches {by_patch[0]:.1f} s", file=sys.stderr, flush=True)
    ratios = sorted(by_patch[0] / dense[0] for dense, by_patch in rounds)
    expected = results["patches"]
    before, peak = run_alone(measure_memory, case, options.threads)
    return {
        "case": asdict(case),
        "sampled_pixels": sample,
        "dense_s": statistics.median(dense[0] for dense, _ in rounds),
        "patches_s": statistics.median(by_patch[0] for _, by_patch in rounds),
        "ratio": statistics.median(ratios),
        "ratio_range": [ratios[0], ratios[-1]],
        "processor_ratio": statistics.median(by_patch[1] / dense[1] for dense, by_patch in rounds),
        "logit_difference": float(np.abs(results["dense"] - expected).max() / np.abs(expected).max()),
        "other_class": int((results["dense"].argmax(1) != expected.argmax(1)).sum()),
        "memory_before": before,
        "memory_peak": peak,
    }


def map_file(case: Case, threads: int, path: Path) -> tuple[int, float]:
    """Maps a scene from a file tile by tile; returns the peak memory in bytes and the seconds."""
    torch.set_num_threads(threads)
    model = case.build()
    assert isinstance(model, HybridSN)
    engine = DenseEngine(model)
    row_size, margin = case.cols * case.bands, PATCH_SIZE // 2
    height = engine.choose_tile_rows(case.cols)
    start = time.perf_counter()
    with path.with_suffix(".logits").open("wb") as target:
        for first in range(0, case.rows, height):
            last = min(first + height, case.rows)
            top, bottom = max(0, first - margin), min(case.rows, last + margin)
            values = np.fromfile(path, np.float32, (bottom - top) * row_size, offset=4 * top * row_size)
            tile = values.reshape(-1, case.cols, case.bands)
            edges = (margin - (first - top), margin - (bottom - last))
            padded = np.pad(tile, (edges, (margin, margin), (0, 0)))
            engine.predict_rows(torch.from_numpy(padded)).numpy().tofile(target)
    return read_status("VmHWM"), time.perf_counter() - start


def compare_heights(options: argparse.Namespace) -> list[dict[str, object]]:
    """Prints and returns peak memory and time per pixel for a short and a tall scene."""
    results: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        for rows in (145, 1450):
            case = Case(f"{rows} × 145, SE at fold and conv2d", rows, 145, 30, CASES[0].attention, 0)
            path = Path(folder) / f"{rows}.raw"
            case.make_cube().tofile(path)
            peak, seconds = run_alone(map_file, case, options.threads, path)
            per_pixel = seconds / (rows * case.cols)
            results.append({"case": asdict(case), "peak": peak, "seconds_per_pixel": per_pixel})
            print(f"{case.name}: peak {peak / 1e6:.0f} MB, {1e6 * per_pixel:.0f} µs per pixel", flush=True)
    return results


def profile(options: argparse.Namespace) -> None:
    """Prints the rate of matrix products, and the operations that take the dense engine most time."""
    size = 2048
    a, b = torch.rand(size, size), torch.rand(size, size)
    rates = [2e-9 * size**3 / take_time(lambda: a @ b)[0] for _ in range(9)]
    print(f"matrix products {size} × {size}: {statistics.median(rates):.0f} GFLOP/s")
    for case in CASES[: options.rounds]:
        model, cube = case.build(), case.make_cube()
        predict_logits(model, cube[:PATCH_SIZE])
        with torch.profiler.profile() as profiler:
            predict_logits(model, cube)
        print(case.name, profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=8), sep="\n")


def write_results(results: list[dict[str, object]], options: argparse.Namespace) -> None:
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        settings = {name: str(value) for name, value in vars(options).items()}
        results_file = {
            "command": " ".join(["python", *sys.argv]),
            "torch": str(torch.__version__),
            "settings": settings,
        }
        options.json.write_text(json.dumps(results_file | {"results": results}, indent=2) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description="Compares the dense engine with batched patches.")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="default %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="default %(default)s")
    parser.add_argument("--sample", type=int, default=2048, help="pixels to run `patches` on; default %(default)s")
    parser.add_argument("--only", default="", metavar="NAME", help="run only cases whose name contains NAME")
    parser.add_argument("--networks", action="store_true", help="compare the other networks instead of HybridSN")
    parser.add_argument("--full", action="store_true", help="run `patches` on every pixel")
    parser.add_argument("--memory", action="store_true", help="measure peak memory by scene height")
    parser.add_argument("--profile", action="store_true", help="print where the time is spent")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results to FILE")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.profile:
        profile(options)
        return 0
    results: list[dict[str, object]] = []
    print(f"torch {torch.__version__}, {options.threads} threads")
    if options.memory:
        results = compare_heights(options)
    else:
        cases = NETWORK_CASES if options.networks else CASES
        for case in [case for case in cases if options.only in case.name]:
            result = compare(case, options)
            low, high = result["ratio_range"]
            print(
                f"{case.name}: dense {result['dense_s']:.1f} s, patches {result['patches_s']:.0f} s, "
                f"ratio {result['ratio']:.1f} ({low:.1f} to {high:.1f}; required {case.least:g}), "
                f"processor-time ratio {result['processor_ratio']:.1f}; "
                f"logits differ by {result['logit_difference']:.0e}, classes of {result['other_class']} "
                f"pixels; memory {result['memory_before'] / 1e6:.0f} MB, "
                f"peak {result['memory_peak'] / 1e6:.0f} MB",
                flush=True,
            )
            results.append(result)
            write_results(results, options)  # after every case, so that an interruption loses little
    write_results(results, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
