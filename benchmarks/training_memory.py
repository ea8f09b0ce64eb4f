#!/usr/bin/env python
"""Measures the peak memory of `hsi_se.train` on a scene as large as Pavia University, in GB (10⁹ bytes).

    python benchmarks/training_memory.py --limit-gb 1.5

The scene is random, with 610 × 340 pixels and 103 bands of uint16. Its nine classes have as many labelled
pixels as those of the real scene (42,776 in total), and it is read from compressed .mat files as well. 10 %
of the labelled pixels are used for training, with 15 components, 25 × 25 patches and batches of 256. The
training runs in its own process.

The script prints the peak resident memory of that process (VmHWM, Linux only): at the end, after importing
torch and hsi_se, and before the first batch. For comparison it also prints the size of one array with all
labelled patches. The exit code is 1 if the peak exceeds `--limit-gb`.
"""

import argparse
import json
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import scipy.io
import torch

from hsi_se import load_config, train
from hsi_se.progress import Silent
from hsi_se.system.session import Session

ROWS, COLS, BANDS = 610, 340, 103
CLASS_SIZES = (6631, 18649, 2099, 3064, 1345, 5029, 1330, 3682, 947)  # of Pavia University
NUM_LABELLED = sum(CLASS_SIZES)
BLOCK = 10  # rows and cols of the blocks that form the classes; divides both sides of the scene

CONFIG = """\
scene: pavia-university
split: {{kind: random, train: 0.1}}
reduction: {{kind: pca, components: {components}, fit_on: {fit_on}}}
patch: {{size: {patch}}}
model:
  name: hybridsn
  attention:
    fold: {{kind: se}}
    conv2d: {{kind: se}}
train: {{epochs: {epochs}, batch_size: {batch}}}
"""


@dataclass(frozen=True)
class Peaks:
    """Peak resident memory of the training process in bytes, up to three points of the run.

    Attributes:
        imported: after importing torch and hsi_se.
        before_training: before the first batch.
        finished: at the end.
        threads: number of torch's threads.
    """

    imported: int
    before_training: int
    finished: int
    threads: int


class StartObserver(Silent):
    """Records the peak memory before the first batch."""

    before_training = 0

    def start(self, task: str, *, total: int, unit: str) -> None:  # noqa: ARG002
        self.before_training = read_peak()


def read_peak() -> int:
    """Returns this process's peak resident memory in bytes.

    `getrusage` is unsuitable because a child process inherits the peak of the parent that forked it.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status: has no entry VmHWM; run this on Linux")


def write_scene(folder: Path) -> None:
    """Writes the random scene as PaviaU.mat and PaviaU_gt.mat."""
    rng = np.random.default_rng(0)
    flat = np.arange(ROWS * COLS).reshape(ROWS // BLOCK, BLOCK, COLS // BLOCK, BLOCK)
    by_block = rng.permutation(flat.swapaxes(1, 2).reshape(-1, BLOCK**2)).flatten()
    labels = np.zeros(ROWS * COLS, dtype=np.uint8)
    labels[by_block[:NUM_LABELLED]] = np.repeat(np.arange(1, len(CLASS_SIZES) + 1), CLASS_SIZES)
    spectra = rng.uniform(1500, 5000, size=(len(CLASS_SIZES) + 1, BANDS))
    cube = (spectra[labels] + rng.normal(0, 200, size=(len(labels), BANDS))).astype(np.uint16)
    arrays = {"paviaU": cube.reshape(ROWS, COLS, BANDS), "paviaU_gt": labels.reshape(ROWS, COLS)}
    for name, key in (("PaviaU.mat", "paviaU"), ("PaviaU_gt.mat", "paviaU_gt")):
        scipy.io.savemat(folder / name, {key: arrays[key]}, do_compression=True)


def measure_training(folder: Path) -> Peaks:
    """Trains with `folder/config.yaml` and returns the peaks; must run in a new process."""
    imported = read_peak()
    observer = StartObserver()
    config = load_config(folder / "config.yaml")
    train(config, session=Session(data=folder, device="cpu", observer=observer), out=folder / "run")
    return Peaks(imported, observer.before_training, read_peak(), torch.get_num_threads())


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Measures the peak memory of hsi_se.train on a scene as large as Pavia University."
    )
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--components", type=int, default=15)
    parser.add_argument("--patch", type=int, default=25, help="rows and cols of a patch, odd")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument(
        "--fit-on", choices=("train", "scene"), default="train", help="pixels that the PCA is fitted on"
    )
    parser.add_argument("--limit-gb", type=float, default=1.5, help="exit with code 1 above this peak")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results to FILE")
    arguments = parser.parse_args()
    names = ("epochs", "components", "patch", "batch", "fit_on")
    settings = {name: getattr(arguments, name) for name in names}

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_scene(folder)
        (folder / "config.yaml").write_text(CONFIG.format(**settings), encoding="utf-8")
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            peaks = pool.submit(measure_training, folder).result()

    num_values = NUM_LABELLED * arguments.components * arguments.patch**2
    sizes = {
        f"peak (limit {arguments.limit_gb:g} GB)": peaks.finished,
        "  after the imports": peaks.imported,
        "  before the first batch": peaks.before_training,
        f"all {NUM_LABELLED:,} patches, float64": 8 * num_values,
        f"all {NUM_LABELLED:,} patches, float32": 4 * num_values,
    }
    print(f"torch {torch.__version__}, {peaks.threads} threads, scene {ROWS} × {COLS} × {BANDS} uint16")
    print(", ".join(f"{name} {value}" for name, value in settings.items()))
    for name, size in sizes.items():
        print(f"{name + ':':<30}{size / 1e9:5.2f} GB")
    if arguments.json is not None:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        results = {
            "settings": settings,
            "torch": str(torch.__version__),
            "peaks": asdict(peaks),
            "materialised": {"float64": 8 * num_values, "float32": 4 * num_values},
        }
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    if peaks.finished > arguments.limit_gb * 1e9:
        print(f"training needs more than {arguments.limit_gb:g} GB", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
