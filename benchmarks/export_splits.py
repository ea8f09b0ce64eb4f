#!/usr/bin/env python
"""Exports the splits of the shipped protocols on Indian Pines, so that others can use and cite them.

    python benchmarks/export_splits.py --data DIR

Writes `configs/splits/*.npz`, one partition map per seed as `seed_N` (1 training, 3 test; of spatial folds, the fold
that tests each pixel) or the label maps `train` and `test`, and `hsi_se/sampling/known_splits.toml`, the digests by
which `hsi-se split` knows them.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hsi_se.config.yaml_file import load_config
from hsi_se.sampling.splits import number_pixels
from hsi_se.workflows.preview import audit_config

ROOT = Path(__file__).parents[1]
SPLITS, KNOWN = ROOT / "configs" / "splits", ROOT / "hsi_se" / "sampling" / "known_splits.toml"
PROTOCOLS = {  # file: what it is, config, seeds
    "indian_pines_random10": ("10 % at random", "indian_pines_se", range(10)),
    "indian_pines_50": ("50 pixels a class at random, half of smaller classes", "indian_pines_se_50", range(10)),
    "indian_pines_fixed": ("the common fixed split, 695 training pixels", "indian_pines_se_fixed", range(1)),
    "indian_pines_folds": ("5 spatial folds, blocks of 16, buffer 6", "indian_pines_new_ground", range(5)),
}


def export(data: Path | None) -> tuple[dict[str, dict[str, NDArray[np.uint8]]], str]:
    """Returns the maps of each file, and the text of `known_splits.toml`."""
    files: dict[str, dict[str, NDArray[np.uint8]]] = {}
    lines = ["# What `hsi-se split` says of a split with one of these digests. Written by benchmarks/export_splits.py."]
    for file, (what, config, seeds) in PROTOCOLS.items():
        maps = files[file] = {}
        for seed in seeds:
            settings = load_config(ROOT / "configs" / f"{config}.yaml", [f"seed={seed}"])
            truth, audit, splits = audit_config(settings, data=data)
            which, keys = f"{what}, seed {seed}", f"seed_{seed}"
            if splits[0].labels is not None:  # the split changes labels of the scene, so it consists of two label maps
                for name, pixels in (("train", splits[0].train), ("test", splits[0].test)):
                    maps[name] = np.zeros(truth.shape, np.uint8)
                    maps[name][tuple(pixels.T)] = splits[0].labels[tuple(pixels.T)]
                which, keys = what, "train and test"
            else:
                maps[keys] = number_pixels(splits, truth.shape).astype(np.uint8)
            lines.append(f'{audit.digest} = "Indian Pines, {which} (configs/splits/{file}.npz, {keys})"')
    return files, "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of scenes")
    files, known = export(parser.parse_args().data)
    SPLITS.mkdir(exist_ok=True)
    for name, maps in files.items():
        np.savez_compressed(SPLITS / f"{name}.npz", **maps)
    KNOWN.write_text(known, encoding="utf-8")


if __name__ == "__main__":
    main()
