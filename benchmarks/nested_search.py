#!/usr/bin/env python
"""Compares settings inside the training set of a config, so that no test pixel takes part in their choice.

    python benchmarks/nested_search.py configs/indian_pines_se_fixed.yaml --data DIR --json OUT.json \\
        --variant "as it is:" --variant "no shift: train.shift=0" --smoothing "{spatial: 2, passes: 4}"

The training and validation pixels are divided into folds with the same shares of the classes. Each variant, which is
a name and settings after a colon (with quotes as in a shell), trains on all folds but one and predicts the pixels of
that one, once for every seed. The script prints the overall and the average accuracy over all held-out pixels: not
smoothed, with the config's own smoothing, and with each other one that is given. `--spatial` holds out the areas on
which the package tunes its spectral baseline instead, as is right where the config's own split is spatial.
"""

import argparse
import json
import shlex
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter
from ruamel.yaml import YAML
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from sklearn.model_selection import StratifiedKFold

from hsi_se.config.prediction import Smoothing
from hsi_se.config.yaml_file import load_config
from hsi_se.models.inference import pick_device
from hsi_se.prediction.logits import average_symmetries, predict_logits
from hsi_se.prediction.smoothing import smooth_logits
from hsi_se.progress import Silent
from hsi_se.sampling.folds import divide_into_folds
from hsi_se.workflows.preparation import Prepared, prepare

Parts = list[tuple[NDArray[np.intp], NDArray[np.intp]]]


def list_parts(given: Prepared, *, num_folds: int, seed: int, is_spatial: bool) -> Parts:
    """Returns for each fold the positions of the training pixels that are trained on, and of those held out."""
    if is_spatial:
        folds = divide_into_folds(given.scene, given.split, given.config.split, seed=seed)
        return [(np.flatnonzero(inside), np.flatnonzero(held)) for inside, held in folds.parts]
    classes = given.scene.labels[tuple(given.split.training_side.T)]
    # A class with fewer pixels than folds is missing in some of them, which is as it should be.
    splitter = StratifiedKFold(num_folds, shuffle=True, random_state=seed)
    return list(splitter.split(classes, np.where(np.isin(classes, _list_rare(classes, num_folds)), 0, classes)))


def _list_rare(classes: NDArray[np.int32], num_folds: int) -> NDArray[np.int32]:
    labels, counts = np.unique(classes, return_counts=True)
    return labels[counts < num_folds]


def predict_held_out(
    given: Prepared, parts: Parts, smoothings: dict[str, Smoothing | None], *, seed: int
) -> dict[str, NDArray[np.int64]]:
    """Returns the predicted class of every training pixel by the networks that did not see it, for each smoothing."""
    pixels, settings = given.split.training_side, given.config.prediction
    predicted = {name: np.full(len(pixels), -1) for name in smoothings}
    scale = given.components[given.scene.valid].std(0)
    for number, (inside, held) in enumerate(parts):
        model = given.fit_again(
            pixels[np.sort(inside)], epochs=given.config.train.epochs, seed=100 * seed + number, observer=Silent()
        )
        logits = average_symmetries(
            partial(predict_logits, model, padding=given.config.patch.padding),
            given.components,
            num_passes=settings.num_passes,
        )
        rows, cols = pixels[held].T
        for name, smoothing in smoothings.items():
            smoothed = logits
            if smoothing is not None:
                missing = ~given.scene.valid
                smoothed = smooth_logits(
                    logits, components=given.components, missing=missing, settings=smoothing, scale=scale
                )
            predicted[name][held] = smoothed[rows, cols].argmax(1)
    return predicted


def search(options: argparse.Namespace) -> None:
    rows: list[dict[str, Any]] = []
    for variant in options.variant or ["as it is:"]:
        name, _, changes = variant.partition(":")
        given = prepare(
            load_config(options.config, shlex.split(changes)), data=options.data, device=pick_device(options.device)
        )
        smoothings = {"none": None, "the config's": given.config.prediction.smoothing}
        read = TypeAdapter(Smoothing).validate_python
        smoothings |= {text: read(YAML(typ="safe").load(text)) for text in options.smoothing}
        truth = np.searchsorted(given.scene.class_ids, given.scene.labels[tuple(given.split.training_side.T)])
        found: dict[str, list[tuple[float, float]]] = {}
        for seed in range(options.seeds):
            parts = list_parts(given, num_folds=options.folds, seed=seed, is_spatial=options.spatial)
            for smoothing, classes in predict_held_out(given, parts, smoothings, seed=seed).items():
                known = classes >= 0
                scores = accuracy_score, balanced_accuracy_score
                found.setdefault(smoothing, []).append(
                    tuple(100 * score(truth[known], classes[known]) for score in scores)
                )
        for smoothing, values in found.items():
            overall, average = np.mean(values, axis=0)
            rows.append({"variant": name, "settings": shlex.split(changes), "smoothing": smoothing, "scores": values})
            print(f"{name:>24}  smoothing {smoothing:<44}  OA {overall:.2f}  AA {average:.2f}", flush=True)
        if options.json:
            options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--data", type=Path, help="folder of scenes")
    parser.add_argument("--variant", action="append", help='"NAME: SETTING=VALUE …"; can be repeated')
    parser.add_argument("--smoothing", action="append", default=[], help="another smoothing to try; can be repeated")
    parser.add_argument("--folds", type=int, default=3, help="default 3")
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds; default 1")
    parser.add_argument("--spatial", action="store_true", help="hold out areas, not single pixels")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    options = parser.parse_args()
    search(options)


if __name__ == "__main__":
    main()
