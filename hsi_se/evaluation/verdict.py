"""Compares a classifier with the location floor and the spectral baseline, and says what that shows.

The differences are of accuracies on the same test pixels. Neighbouring pixels tend to be right or wrong
together, so the intervals are over groups of test pixels, not over pixels.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from hsi_se.config.experiment import Config
from hsi_se.config.model import Network, Svm
from hsi_se.config.split import BlocksSplit, MasksSplit
from hsi_se.evaluation.statistics import LEVEL, points
from hsi_se.sampling.disjoint import number_blocks, number_fields
from hsi_se.sampling.splits import Split
from hsi_se.scene.scene import GroundTruth

FEWEST_GROUPS = 6  # as seeds of an ablation: with fewer, an interval depends on its assumptions alone
_BLOCK_SIZE = 16  # of the blocks laid over fields that are too few

Correct = NDArray[np.bool_]  # (n,) which test pixels were classified correctly
Outcome = Literal["worse", "no difference shown", "better"]  # in this order


@dataclass(frozen=True)
class BaselineComparison:
    """A classifier compared with a baseline on the same test pixels; differences of OA, as fractions.

    Attributes:
        difference: OA of the classifier minus that of the baseline.
        low, high: ends of the 95 % interval; None with fewer than `FEWEST_GROUPS` groups.
        unit: what the groups of test pixels are.
        num_units: number of groups.
        outcome: "worse" or "better" only if the interval excludes 0.
    """

    difference: float
    low: float | None
    high: float | None
    unit: str
    num_units: int
    outcome: Outcome


@dataclass(frozen=True)
class Verdict:
    """What a run shows.

    Attributes:
        against_floor: the comparison with the location floor.
        against_baseline: the comparison with the spectral baseline; None for a run of that very classifier.
        findings: what was found, in sentences.
        next_step: what to do next: a clause with one command.
    """

    against_floor: BaselineComparison
    against_baseline: BaselineComparison | None
    findings: str
    next_step: str


def compare_on_groups(
    correct: Correct, baseline: Correct, groups: NDArray[np.int64], *, unit: str
) -> BaselineComparison:
    """Returns the difference of two accuracies with an interval over groups of test pixels.

    The difference is a ratio of group totals. Its variance is the cluster-robust CR2 estimate, and its
    degrees of freedom are Satterthwaite's (Bell & McCaffrey 2002, *Bias reduction in standard errors for
    linear regression with multi-stage samples*; Imbens & Kolesár 2016, REStat 98, eqs. 10-12), here for a
    regression on a constant. They allow for few groups of unequal size; equal sizes give Student's interval
    of the groups' means.

    Args:
        correct, baseline: the classifier's and the baseline's, at the same pixels.
        groups: `(n,)` the group of each pixel, 0 or more.
        unit: the name of a group, in the plural.
    """
    differences = correct.astype(np.float64) - baseline
    mean = float(differences.mean())
    group_of = np.unique(groups, return_inverse=True)[1]
    share = np.bincount(group_of) / len(groups)  # (G,)
    if len(share) < FEWEST_GROUPS:
        return BaselineComparison(mean, None, None, unit, len(share), "no difference shown")
    residuals = np.bincount(group_of, differences - mean) / len(groups)
    variance = (residuals**2 / (1 - share)).sum()
    scale = 1 / np.sqrt(1 - share)
    moments = np.outer(scale, scale) * (np.diag(share) - np.outer(share, share))
    margin = float(t.ppf(1 - LEVEL / 2, np.trace(moments) ** 2 / (moments**2).sum()) * np.sqrt(variance))
    low, high = max(mean - margin, -1.0), min(mean + margin, 1.0)
    outcome: Outcome = "better" if low > 0 else "worse" if high < 0 else "no difference shown"
    return BaselineComparison(mean, low, high, unit, len(share), outcome)


def group_test_pixels(truth: GroundTruth, split: Split, config: Config) -> tuple[NDArray[np.int64], str]:
    """Returns the group `(n,)` of each test pixel, and what the groups are.

    They are the blocks of a blocks split, and otherwise the connected fields of the label map. Where fewer
    than `FEWEST_GROUPS` fields have test pixels, square blocks divide them. Labels of single pixels, such
    as points, are fields of one pixel.

    Args:
        truth: the labels used by the split (`Split.relabel`).
        split: its test pixels are grouped.
        config: its split and seed place the blocks.
    """
    settings, rows, cols = config.split, *split.test.T
    rng = np.random.default_rng(config.seed if settings.seed is None else settings.seed)
    if isinstance(settings, BlocksSplit):
        blocks = number_blocks(split.test, block_size=settings.block_size, rng=rng)
        return blocks, f"test blocks of {settings.block_size} × {settings.block_size} pixels"
    fields = number_fields(truth)[rows, cols].astype(np.int64)
    num_fields = len(np.unique(fields))
    if num_fields == len(fields):
        return fields, "single pixels"
    if num_fields >= FEWEST_GROUPS:
        return fields, "fields"
    side = max(_BLOCK_SIZE, config.window_size)
    blocks = number_blocks(split.test, block_size=side, rng=rng)
    return fields * (blocks.max() + 1) + blocks, f"parts of fields, in blocks of {side} × {side} pixels"


def reach_verdict(
    correct: Correct,
    *,
    floor: Correct,
    baseline: Correct,
    groups: tuple[NDArray[np.int64], str],
    config: Config,
    leaking: float,
) -> Verdict:
    """Returns what a run shows and what to do next.

    Args:
        correct, floor, baseline: of the run, the location floor and the spectral baseline.
        groups: from `group_test_pixels`.
        config: the run's.
        leaking: the fraction of test patches that contain training pixels.
    """
    numbers, unit = groups
    against_floor = compare_on_groups(correct, floor, numbers, unit=unit)
    model, is_smoothed = config.model, config.prediction.smoothing is not None
    is_baseline = isinstance(model, Svm) and model.penalty is model.gamma is None and not is_smoothed
    against_baseline = None if is_baseline else compare_on_groups(correct, baseline, numbers, unit=unit)
    name = "network" if isinstance(model, Network) else "classifier"
    parts = [_describe(name, against_floor, "location floor", float(floor.mean()))]
    if against_floor.outcome == "worse":
        parts.append(
            f"Row and column alone do better, so the accuracy does not show that the {name} uses the spectra."
        )
    if against_baseline is None:
        parts.append("The classifier is the spectral baseline itself.")
    else:
        parts.append(_describe(name, against_baseline, "spectral baseline", float(baseline.mean())))
    parts.append(
        f"{100 * leaking:.1f} % of the test patches contain training pixels: the accuracy measures how well "
        "the map is filled in between known pixels, not how well unseen areas are classified."
        if leaking > 0
        else "No test patch contains a training pixel."
    )
    step = _advise(config, against_floor, against_baseline, is_leaking=leaking > 0)
    return Verdict(against_floor, against_baseline, " ".join(parts), step)


def _describe(name: str, found: BaselineComparison, other: str, accuracy: float) -> str:
    values = f"{100 * (accuracy + found.difference):.2f} % against {100 * accuracy:.2f} %"
    values += f", {points(found.difference)} points"
    if found.low is None:
        return (
            f"No difference from the {other} can be shown: {values}, without an interval, because the number "
            f"of {found.unit} is {found.num_units} and an interval needs {FEWEST_GROUPS}."
        )
    values += (
        f" (95 % interval {points(found.low)} to {points(found.high)}, over {found.num_units:,} {found.unit})"
    )
    if found.outcome == "no difference shown":
        return f"No difference from the {other} is shown: {values}."
    return f"The {name} is {found.outcome} than the {other}: {values}."


def _advise(
    config: Config,
    against_floor: BaselineComparison,
    against_baseline: BaselineComparison | None,
    *,
    is_leaking: bool,
) -> str:
    split = config.split
    if against_baseline is not None and against_baseline.outcome == "worse":
        plain = "" if config.prediction.smoothing is None else ' --set "prediction={}"'
        svm = f'`hsi-se train CONFIG --set "model={{name: svm}}"{plain}`'
        return f"train the support vector machine on single pixels: {svm}"
    if is_leaking and isinstance(split, BlocksSplit):
        return (
            "widen the buffer between training and test pixels: "
            f"`hsi-se train CONFIG --set split.buffer={config.default_buffer}`"
        )
    if is_leaking:
        share = isinstance(split, MasksSplit) or not isinstance(split.train, float)
        blocks = ' --set "split={kind: blocks, train: 0.1}"' if share else ""
        return f"measure the accuracy on unseen areas: `hsi-se gap CONFIG{blocks}`"
    if against_floor.low is None:
        if isinstance(split, BlocksSplit) and split.block_size > 1:
            return (
                "divide the scene into smaller blocks: "
                f"`hsi-se train CONFIG --set split.block_size={split.block_size // 2}`"
            )
        return f"label pixels in more fields, so that {FEWEST_GROUPS} or more have test pixels"
    return "see whether this holds for other splits and seeds: `hsi-se train CONFIG --seeds 0-9`"
