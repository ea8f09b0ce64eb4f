#!/usr/bin/env python
"""Measures how often tests of two classifiers err over runs that share pixels, where there is no difference.

    python benchmarks/correlated_runs.py --json benchmarks/results/correlated_runs.json

Each simulated study has labelled pixels of two noisy Gaussian classes. Of their features, the first classifier sees one
half and the second the other, which is as informative: they differ by chance alone. Both are nearest-class-mean
classifiers, trained and tested on the same splits. The rate is the fraction of studies whose test over the runs gives
p ≤ 5 %: by Student's paired t test, which takes runs to be independent, and by the corrected t test.
"""

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

LEVEL = 0.05
_PIXELS, _FEATURES, _SHIFT = 200, 4, 0.6  # features of each classifier; half the distance of the classes along each


@dataclass(frozen=True)
class Design:
    """How runs are made: random splits with a fraction of training pixels, or draws of folds."""

    runs: int
    train: float
    folds: int = 0

    @property
    def num_splits(self) -> int:
        return self.runs * max(self.folds, 1)


RATES = {
    "10 random splits, 10 % training": Design(10, 0.1),
    "10 random splits, 50 % training": Design(10, 0.5),
    "10 random splits, 90 % training": Design(10, 0.9),
    "1 draw of 10 folds": Design(1, 0.9, folds=10),
    "6 draws of 5 folds": Design(6, 0.8, folds=5),
}


@dataclass(frozen=True, eq=False)
class Rates:
    """The fractions of studies in which a test shows a difference, and the differences `(studies, splits)`."""

    uncorrected: float
    corrected: float
    correlation: float
    differences: NDArray[np.float64]


def draw_tested(design: Design, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Returns which pixels each split tests, `(splits, pixels)`; the others train."""
    ranks = np.argsort(rng.random((design.runs, _PIXELS)), axis=1)
    if not design.folds:
        return np.asarray(ranks >= round(design.train * _PIXELS))
    fold_of = ranks % design.folds
    return np.concatenate([fold_of == fold for fold in range(design.folds)])


def measure_rates(name: str, *, repeats: int, seed: int) -> Rates:
    """Returns the rates of a design of `RATES` over so many simulated studies."""
    design, rng = RATES[name], np.random.default_rng(seed)
    tested = np.stack([draw_tested(design, rng) for _ in range(repeats)])  # (studies, splits, pixels)
    truth = np.where(rng.random((repeats, _PIXELS)) < 0.5, 1.0, -1.0)
    correct = []
    for _ in range(2):
        features = rng.normal(_SHIFT * truth[..., None], 1.0, (repeats, _PIXELS, _FEATURES))
        trains = (~tested).astype(np.float64)
        up, down = trains * (truth > 0)[:, None], trains * (truth < 0)[:, None]
        means = [each @ features / np.maximum(each.sum(axis=2, keepdims=True), 1) for each in (up, down)]
        weight, offset = means[0] - means[1], (means[0] ** 2 - means[1] ** 2).sum(axis=2, keepdims=True) / 2
        score = weight @ features.transpose(0, 2, 1) - offset  # (studies, splits, pixels)
        correct.append((score > 0) == (truth > 0)[:, None])
    gained = (correct[0].astype(np.float64) - correct[1]) * tested
    differences = gained.sum(axis=2) / tested.sum(axis=2)
    num, share = design.num_splits, float(tested.mean())
    spread = np.maximum(differences.std(axis=1, ddof=1), 1e-12)
    rates = []
    for correlation in (0.0, share):
        scale = spread * np.sqrt(1 / num + correlation / (1 - correlation))
        p = 2 * t.sf(np.abs(differences.mean(axis=1)) / scale, num - 1)
        rates.append(float((p <= LEVEL).mean()))
    return Rates(*rates, correlation=share, differences=differences)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20000, help="simulated studies per design (default 20000)")
    parser.add_argument("--json", type=Path, help="file to write")
    options = parser.parse_args()
    found = {}
    for name, design in RATES.items():
        parts = [measure_rates(name, repeats=500, seed=seed) for seed in range(options.repeats // 500)]
        rates = {key: float(np.mean([getattr(each, key) for each in parts])) for key in ("uncorrected", "corrected")}
        found[name] = {**asdict(design), **rates}
        print(
            f"{name:<34} uncorrected {100 * rates['uncorrected']:5.1f} %   corrected {100 * rates['corrected']:4.1f} %"
        )
    if options.json:
        command = "python benchmarks/correlated_runs.py --json benchmarks/results/correlated_runs.json"
        options.json.write_text(
            json.dumps({"command": command, "repeats": options.repeats, "rates": found}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
