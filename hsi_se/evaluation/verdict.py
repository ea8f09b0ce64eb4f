"""Compares a classifier with the location floor and the spectral baseline on the same test pixels.

Neighbouring pixels tend to be right or wrong together, so the intervals are over groups of pixels.
"""

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hsi_se.config.experiment import Config
from hsi_se.config.model import Network
from hsi_se.config.scene import InMemoryScene
from hsi_se.config.split import BlocksSplit, FoldsSplit
from hsi_se.evaluation.baselines import Candidate
from hsi_se.evaluation.statistics import estimate_group_mean, points
from hsi_se.sampling.disjoint import number_blocks, number_fields
from hsi_se.sampling.splits import Split
from hsi_se.scene.scene import GroundTruth
from hsi_se.system.files import fill_template

FEWEST_GROUPS = 6  # as seeds of an ablation
_BLOCK_SIZE = 16  # of the parts of fields

Correct = NDArray[np.bool_]  # (n,) which test pixels were classified correctly
Groups = tuple[NDArray[np.int64], str]  # (n,) the group of each test pixel, and what the groups are
Outcome = Literal["worse", "no difference shown", "better"]  # in this order


@dataclass(frozen=True)
class BaselineComparison:
    """OA minus that of a baseline, as a fraction, with its 95 % interval over `num_units` groups of pixels.

    There is no interval with fewer than `FEWEST_GROUPS` groups. The outcome is "worse" or "better" only where
    the interval excludes 0.
    """

    difference: float
    low: float | None
    high: float | None
    unit: str
    num_units: int
    outcome: Outcome


@dataclass(frozen=True)
class Verdict:
    """What a run shows, and what to do next; `against_baseline` is None for a run of that very classifier."""

    against_floor: BaselineComparison
    against_baseline: BaselineComparison | None
    findings: str
    next_step: str


def compare_on_groups(correct: Correct, baseline: Correct, groups: Groups) -> BaselineComparison:
    """Returns the difference of two accuracies on the same pixels, with an interval over groups."""
    numbers, unit = groups
    differences, num_groups = correct.astype(np.float64) - baseline, len(np.unique(numbers))
    if num_groups < FEWEST_GROUPS:
        return BaselineComparison(float(differences.mean()), None, None, unit, num_groups, "no difference shown")
    mean, margin = estimate_group_mean(differences, numbers)
    low, high = max(mean - margin, -1.0), min(mean + margin, 1.0)
    outcome: Outcome = "better" if low > 0 else "worse" if high < 0 else "no difference shown"
    return BaselineComparison(mean, low, high, unit, num_groups, outcome)


def group_test_pixels(truth: GroundTruth, split: Split, config: Config) -> Groups:
    """Returns the blocks of a blocks split, what was dealt to folds, or else the connected fields of `truth`.

    Square blocks divide the fields where fewer than `FEWEST_GROUPS` have test pixels or one has most of them.
    """
    settings = config.split
    if isinstance(settings, FoldsSplit) and split.groups is not None:
        is_block, side = settings.by == "blocks", settings.block_size
        return split.groups, f"test blocks of {side} × {side} pixels" if is_block else f"test {settings.by}"
    rng = np.random.default_rng(config.seed if settings.seed is None else settings.seed)
    if isinstance(settings, BlocksSplit):
        blocks = number_blocks(split.test, block_size=settings.block_size, rng=rng)
        return blocks, f"test blocks of {settings.block_size} × {settings.block_size} pixels"
    fields = number_fields(truth)[split.test[:, 0], split.test[:, 1]].astype(np.int64)
    sizes = np.unique(fields, return_counts=True)[1]
    if sizes.max() == 1:
        return fields, "single pixels"
    if len(sizes) >= FEWEST_GROUPS and 2 * sizes.max() <= len(fields):
        return fields, "fields"
    side = max(_BLOCK_SIZE, config.window_size)
    blocks = number_blocks(split.test, block_size=side, rng=rng)
    return fields * (blocks.max() + 1) + blocks, f"parts of fields, in blocks of {side} × {side} pixels"


def reach_verdict(
    correct: Correct,
    *,
    floor: Correct,
    baseline: Correct,
    chosen: Candidate,
    groups: Groups,
    config: Config,
    leaking: float,
) -> Verdict:
    """Returns what a run shows; `leaking` is the fraction of test patches that contain training pixels."""
    model, is_smoothed = config.model, config.prediction.smoothing is not None
    is_its_kind = chosen.classifier == model.name and model == type(model).model_validate({"name": model.name})
    is_its_input = chosen.reduction == config.reduction.kind and not chosen.chosen_by
    is_baseline = is_its_kind and is_its_input and not is_smoothed
    against_floor = compare_on_groups(correct, floor, groups)
    against_baseline = None if is_baseline else compare_on_groups(correct, baseline, groups)
    is_worse = against_baseline is not None and against_baseline.outcome == "worse"
    values = {
        "name": "network" if isinstance(model, Network) else "classifier",
        "against_floor": against_floor,
        "floor": float(floor.mean()),
        "against_baseline": against_baseline,
        "baseline": float(baseline.mean()),
        "chosen": chosen,
        "better": chosen if is_worse else None,
        "leaking": leaking,
        "config": config,
        "areas": getattr(config.split, "by", config.split.kind),
        "fewest_groups": FEWEST_GROUPS,
        "points": points,
    }
    texts = [fill_template("hsi_se.evaluation", f"{name}.txt", **values) for name in ("verdict", "next_step")]
    if isinstance(config.scene, InMemoryScene):
        texts[1] = re.sub(r":\s*`.*`", "", texts[1], flags=re.DOTALL)  # no command reads arrays
    return Verdict(against_floor, against_baseline, *(" ".join(text.split()) for text in texts))
