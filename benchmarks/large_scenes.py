#!/usr/bin/env python
"""Measures the memory and the time that training, evaluation and mapping need on large scenes.

    python benchmarks/large_scenes.py --out benchmarks/results/large_scenes.json
    python benchmarks/large_scenes.py --sparse --out benchmarks/results/sparse_scenes.json

It writes files in the structures of EMIT L2A (1,280 × 1,242 × 285, netCDF) and PRISMA L2D (1,000 × 1,000 × 234, HDF5),
with invented spectra of six classes and 2,000 labelled pixels, into a temporary folder (up to 2 GB at one time).
`hsi-se train` and `hsi-se map` then run in processes of their own, on the CPU; their peak resident memory and wall time
are printed.

With `--sparse`, the scenes have 5,000 × 5,000 pixels and 100 bands in sparse files, which need little room on the disk:
all values are 0, except in squares around 5,000 labelled pixels. `hsi-se train` and `hsi-se eval` then run. Besides the
peak resident memory, which contains pages of files and libraries that the system can drop, the highest anonymous memory
is given, read from `/proc` every 20 ms.

With `--tiny`, the files have some rows and columns only, to try the script.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np

Rows = Callable[[int, int], np.ndarray]  # spectra (rows, cols, bands) of rows `first..last-1`

CONFIG = """\
scene: {{cube: {cube}, labels: {labels}}}
split: {{kind: random, train: 0.5}}
reduction: {{kind: mnf, components: 20, fit_on: scene}}
patch: {{size: 9}}
model: {{name: hybridsn, attention: {{conv2d: {{kind: se}}}}}}
train: {{epochs: 2, batch_size: 128}}
prediction: {{calibration: none}}
"""
NUM_CLASSES, NUM_LABELLED, FIELD = 6, 2000, 32


def invent(rows: int, cols: int, bands: int) -> tuple[np.ndarray, Rows]:
    """Returns the classes `(rows, cols)`, from 1, of square fields, and their spectra with noise."""
    rng = np.random.default_rng(0)
    means = rng.normal(0.3, 0.1, (NUM_CLASSES, bands)).astype(np.float32)
    coarse = rng.integers(NUM_CLASSES, size=(-(-rows // FIELD), -(-cols // FIELD)))
    classes = np.kron(coarse, np.ones((FIELD, FIELD), int))[:rows, :cols]
    noise = rng.normal(0, 0.02, (64, cols, bands)).astype(np.float32)

    def read(first: int, last: int) -> np.ndarray:
        return (means[classes[first:last]] + noise[: last - first, rng.permutation(cols)]).clip(0.001, 0.999)

    return classes + 1, read


def write_emit(path: Path, shape: tuple[int, int, int], read: Rows) -> None:
    with h5py.File(path, "w") as file:
        chunks = tuple(min(size, side) for size, side in zip((256, 256, 32), shape, strict=True))
        cube = file.create_dataset(
            "reflectance", shape, np.float32, chunks=chunks, compression="gzip", compression_opts=1
        )
        cube.attrs["_FillValue"] = np.float32(-9999)
        for first in range(0, shape[0], 64):
            cube[first : first + 64] = read(first, min(first + 64, shape[0]))
        bands = file.create_group("sensor_band_parameters")
        bands["wavelengths"] = np.linspace(381, 2493, shape[2]).astype(np.float32)
        bands["wavelengths"].attrs["units"] = "nm"
        bands["fwhm"] = np.full(shape[2], 8.5, np.float32)
        bands["good_wavelengths"] = np.ones(shape[2], np.float32)


def write_prisma(path: Path, shape: tuple[int, int, int], read: Rows) -> None:
    rows, cols, bands = shape
    vnir = bands * 63 // 234
    centres = np.concatenate([np.linspace(407, 970, vnir), np.linspace(975, 2497, bands - vnir)])
    parts = {"Vnir": slice(vnir - 1, None, -1), "Swir": slice(bands - 1, vnir - 1, -1)}  # from long to short
    with h5py.File(path, "w") as file:
        for name, part in parts.items():
            size = len(centres[part])
            place = f"HDFEOS/SWATHS/PRS_L2D_HCO/Data Fields/{name.upper()}_Cube"
            chunks = (min(16, rows), size, min(128, cols))
            cube = file.create_dataset(place, (rows, size, cols), np.uint16, chunks=chunks, compression="gzip")
            for first in range(0, rows, 64):
                values = np.rint(65535 * read(first, min(first + 64, rows))[..., part])
                cube[first : first + 64] = values.transpose(0, 2, 1)
            file.attrs[f"List_Cw_{name}"], file.attrs[f"List_Fwhm_{name}"] = centres[part], np.full(size, 12.0)
            file.attrs[f"L2Scale{name}Min"], file.attrs[f"L2Scale{name}Max"] = 0.0, 1.0


PRODUCTS = {
    "EMIT L2A": ("EMIT_L2A_RFL_001_20230316T045133.nc", (1280, 1242, 285), write_emit),
    "PRISMA L2D": ("PRS_L2D_STD_20230101.he5", (1000, 1000, 234), write_prisma),
}


SPARSE = (5000, 5000, 100)
SQUARE, NUM_SQUARES, LABELLED_SIDE = 32, 50, 10  # pixels with values; of these, those with labels: 50 × 10 × 10
SPARSE_CLASSES = 8
SPARSE_CONFIG = """\
scene: {{cube: {cube}, labels: {labels}, {scene}}}
split: {{{split}}}
reduction: {{kind: {reduction}, components: 15, fit_on: scene}}
patch: {{size: 9}}
model: {{name: hybridsn, width: 0.25, attention: {{conv2d: {{kind: se}}}}}}
train: {{epochs: 2, batch_size: 128}}
prediction: {{calibration: {calibration}}}
"""
RANDOM, FOLDS = "kind: random, train: 0.2", "kind: folds, by: blocks, folds: 5, fold: 1, block_size: 64, buffer: 9"
CASES = {  # the file, and the settings that take another way through the program
    "ENVI, MNF, random": ("cube.img", "nodata: none", RANDOM, "mnf", "none"),
    "ENVI, MNF, folds, drop_bands": ("cube.img", "nodata: none, drop_bands: [1, 50-60]", FOLDS, "mnf", "none"),
    ".npy, PCA, random, calibrated": ("cube.npy", "nodata: none", RANDOM, "pca", "cross-fit"),
    ".npy, PCA, folds, nodata: 0": ("cube.npy", "nodata: 0", FOLDS, "pca", "none"),
}


def write_sparse(folder: Path, file: str, shape: tuple[int, int, int]) -> int:
    """Writes a sparse cube, as ENVI by lines or as .npy, and its labels, and returns the number of labelled pixels."""
    rng, (rows, cols, bands) = np.random.default_rng(0), shape
    means = rng.integers(500, 3000, (SPARSE_CLASSES, bands))
    cube: np.ndarray
    if file.endswith(".npy"):
        cube = np.lib.format.open_memmap(folder / file, "w+", np.int16, shape)
    else:
        cube = np.memmap(folder / file, np.uint16, "w+", shape=(rows, bands, cols)).swapaxes(1, 2)
        header = f"samples = {cols}\nlines = {rows}\nbands = {bands}\ndata type = 12\ninterleave = bil\nbyte order = 0"
        (folder / file).with_suffix(".hdr").write_text(
            f"ENVI\n{header}\nheader offset = 0\nfile type = ENVI Standard\n"
        )
    labels = np.zeros((rows, cols), np.uint8)
    across = cols // SQUARE
    for number, place in enumerate(rng.choice(rows // SQUARE * across, NUM_SQUARES, replace=False).tolist()):
        row, col = (SQUARE * each for each in divmod(place, across))
        values = means[number % SPARSE_CLASSES] + rng.normal(0, 200, (SQUARE, SQUARE, bands))
        cube[row : row + SQUARE, col : col + SQUARE] = values.clip(1, 5000)
        inside = slice(row + 8, row + 8 + LABELLED_SIDE), slice(col + 8, col + 8 + LABELLED_SIDE)
        labels[inside] = 1 + number % SPARSE_CLASSES
    np.save(folder / "labels.npy", labels)
    return int(np.count_nonzero(labels))


def measure_sparse(case: str, *, is_tiny: bool) -> dict[str, object]:
    file, scene, split, reduction, calibration = CASES[case]
    shape = (300, 320, SPARSE[2]) if is_tiny else SPARSE
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        num_labelled = write_sparse(folder, file, shape)
        config, out, log = folder / "sparse.yaml", folder / "run", folder / "log.txt"
        settings = {"scene": scene, "split": split, "reduction": reduction, "calibration": calibration}
        config.write_text(SPARSE_CONFIG.format(cube=folder / file, labels=folder / "labels.npy", **settings))
        found = {"shape": shape, "file_mib": round((folder / file).stat().st_size / 2**20), "labelled": num_labelled}
        trained = run(["train", str(config), "--out", str(out), "--device", "cpu"], log)
        return {**found, "train": trained, "eval": run(["eval", str(out), "--device", "cpu"], log)}


def run(command: list[str], log: Path) -> dict[str, float]:
    """Returns the peak memory in MiB and the wall time of `hsi-se` with these arguments.

    The peaks are read while it runs: hsi-se resets the system's record of its highest memory.
    """
    start, peaks, is_over = time.perf_counter(), {"VmHWM": 0, "RssAnon": 0}, threading.Event()

    def watch(status: Path) -> None:
        while not is_over.wait(0.02):
            with suppress(OSError):
                facts = dict(line.split(":", 1) for line in status.read_text().splitlines())
                for name, highest in peaks.items():
                    peaks[name] = max(highest, int(facts.get(name, "0").split()[0]))

    with log.open("w") as stream:
        process = subprocess.Popen([sys.executable, "-m", "hsi_se", *command], stdout=stream, stderr=stream)
        watcher = threading.Thread(target=watch, args=(Path(f"/proc/{process.pid}/status"),))
        watcher.start()
        is_failed = process.wait()
        is_over.set()
        watcher.join()
    if is_failed:
        raise SystemExit(log.read_text())
    peak, anonymous = (round(each / 1024) for each in peaks.values())
    return {"peak_mib": peak, "anonymous_mib": anonymous, "wall_s": round(time.perf_counter() - start, 1)}


def measure(name: str, *, is_tiny: bool) -> dict[str, object]:
    file, shape, write = PRODUCTS[name]
    shape = (40, 36, shape[2]) if is_tiny else shape
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        classes, read = invent(*shape)
        write(folder / file, shape, read)
        labels, rng = np.zeros(shape[:2], np.uint8), np.random.default_rng(1)
        at = rng.choice(labels.size, min(NUM_LABELLED, labels.size // 2), replace=False)
        labels.flat[at] = classes.flat[at]
        np.save(folder / "labels.npy", labels)
        config, out, log = folder / "large.yaml", folder / "run", folder / "log.txt"
        config.write_text(CONFIG.format(cube=folder / file, labels=folder / "labels.npy"))
        size = (folder / file).stat().st_size / 2**20
        found = {"shape": shape, "file_mib": round(size), "labelled": len(at)}
        trained = run(["train", str(config), "--out", str(out), "--device", "cpu"], log)
        return {**found, "train": trained, "map": run(["map", str(out), "--device", "cpu"], log)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--sparse", action="store_true", help="measure sparse files of 5,000 × 5,000 pixels")
    parser.add_argument("--case", action="append", choices=[*PRODUCTS, *CASES], help="measure these only")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    cases, step = (CASES, "eval") if options.sparse else (PRODUCTS, "map")
    take = measure_sparse if options.sparse else measure
    print(f"| scene | size | train: peak MiB | s | {step}: peak MiB | s |\n|:---|:---|---:|---:|---:|---:|")
    found = {}
    for name in [case for case in cases if case in (options.case or cases)]:
        found[name] = each = take(name, is_tiny=options.tiny)
        cells = [each[kind][key] for kind in ("train", step) for key in ("peak_mib", "wall_s")]
        print(f"| {name} | {' × '.join(map(str, each['shape']))} | {' | '.join(map(str, cells))} |", flush=True)
    if options.out:
        command = f"python benchmarks/large_scenes.py{' --sparse' * options.sparse}"
        options.out.write_text(json.dumps({"command": command, "products": found}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
