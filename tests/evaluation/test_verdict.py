"""What a run shows against both baselines: intervals over groups of pixels, sentences and next steps."""

import itertools
import shlex

import numpy as np
import pytest
from scipy import ndimage, stats

from hsi_se import make_split
from hsi_se.config.experiment import Config
from hsi_se.config.split import BlocksSplit, RandomSplit
from hsi_se.config.yaml_file import load_config
from hsi_se.evaluation.baselines import Candidate
from hsi_se.evaluation.verdict import BaselineComparison, Verdict, compare_on_groups, group_test_pixels, reach_verdict
from hsi_se.sampling.disjoint import Side, number_blocks
from hsi_se.sampling.splits import Split
from hsi_se.scene.scene import GroundTruth
from hsi_se.workflows.gap import _to_folds
from tests.conftest import ROOT, TINY

DEMO = ROOT / "configs" / "demo.yaml"


def configure(*overrides: str) -> Config:
    return load_config(DEMO, [*TINY, *overrides])


def make_truth(labels: np.ndarray) -> GroundTruth:
    names = {int(label): f"class {label}" for label in np.unique(labels[labels > 0])}
    return GroundTruth("hand-made", labels.astype(np.int32), names)


def hold_out(labels: np.ndarray) -> Split:
    """A split that tests every labelled pixel but the first."""
    pixels = np.argwhere(labels > 0)
    return Split(train=pixels[:1], val=pixels[:0], test=pixels[1:])


def by_matrices(differences: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """CR2 and Satterthwaite's degrees of freedom by their matrices, for a regression on a constant."""
    n = len(differences)
    x = np.ones((n, 1))
    hat = x @ np.linalg.inv(x.T @ x) @ x.T
    residuals = differences - differences.mean()
    variance, columns = 0.0, []
    for group in np.unique(groups):
        inside = np.flatnonzero(groups == group)
        values, vectors = np.linalg.eigh(np.eye(len(inside)) - hat[np.ix_(inside, inside)])
        root = vectors @ np.diag(values**-0.5) @ vectors.T
        variance += (np.ones(len(inside)) @ root @ residuals[inside] / n) ** 2
        columns.append((np.eye(n) - hat)[:, inside] @ root @ np.ones(len(inside)) / n)
    moments = np.array(columns) @ np.array(columns).T
    degrees = np.trace(moments) ** 2 / np.trace(moments @ moments)
    margin = stats.t.ppf(0.975, degrees) * variance**0.5
    return differences.mean() - margin, differences.mean() + margin


def test_groups_of_equal_size_have_students_interval_of_their_means():
    rng = np.random.default_rng(0)
    correct, baseline = rng.random(120) < 0.8, rng.random(120) < 0.6
    groups = np.repeat(np.arange(12), 10)
    found = compare_on_groups(correct, baseline, (groups, "fields"))
    means = (correct.astype(float) - baseline).reshape(12, 10).mean(axis=1)
    expected = stats.t.interval(0.95, 11, loc=means.mean(), scale=stats.sem(means))
    assert (found.low, found.high) == pytest.approx(expected)
    assert (found.unit, found.num_units) == ("fields", 12)


def test_groups_of_unequal_size_have_the_interval_of_the_cluster_robust_matrices():
    rng = np.random.default_rng(1)
    groups = rng.permutation(np.repeat(np.arange(7), [1, 2, 3, 5, 8, 20, 40])) * 3
    correct, baseline = rng.random(len(groups)) < 0.8, rng.random(len(groups)) < 0.6
    found = compare_on_groups(correct, baseline, (groups, "fields"))
    expected = by_matrices(correct.astype(float) - baseline, groups)
    assert (found.low, found.high) == pytest.approx(expected)


def test_the_interval_covers_the_difference_of_fields_that_are_right_or_wrong_as_a_whole():
    rng = np.random.default_rng(2)
    repeats, covered, by_pixel = 600, 0, 0
    for _ in range(repeats):
        sizes = np.maximum(1, np.exp(rng.normal(2.5, 0.8, 12)).astype(int))
        groups = np.repeat(np.arange(12), sizes)
        correct, baseline = (np.repeat(rng.random(12) < 0.7, sizes) for _ in range(2))
        found = compare_on_groups(correct, baseline, (groups, "fields"))
        covered += found.low <= 0 <= found.high
        naive = compare_on_groups(correct, baseline, (np.arange(len(groups)), "single pixels"))
        by_pixel += naive.low <= 0 <= naive.high
    assert covered / repeats > 0.93
    assert by_pixel / repeats < 0.6  # intervals over pixels would find differences that are not there


def test_nothing_is_worse_or_better_unless_its_interval_excludes_zero():
    groups = np.repeat(np.arange(8), 5)
    right, wrong = np.ones(40, dtype=bool), np.zeros(40, dtype=bool)
    some = groups < 4
    cases = [(right, wrong, "better"), (wrong, right, "worse"), (right, right, "no difference shown")]
    for correct, baseline, outcome in [*cases, (some, ~some, "no difference shown")]:
        found = compare_on_groups(correct, baseline, (groups, "fields"))
        assert found.outcome == outcome
        assert found.low <= found.difference <= found.high
    same = compare_on_groups(right, right, (groups, "fields"))
    assert (same.difference, same.low, same.high) == (0, 0, 0)


@pytest.mark.parametrize("num_groups", [1, 2, 5])
def test_fewer_than_six_groups_have_no_interval_and_show_nothing(num_groups):
    groups = np.arange(60) % num_groups
    found = compare_on_groups(groups >= 0, groups < 0, (groups, "fields"))
    assert found == BaselineComparison(1.0, None, None, "fields", num_groups, "no difference shown")


def test_the_groups_of_a_blocks_split_are_its_own_blocks(small_scene):
    settings = BlocksSplit(kind="blocks", train=0.3, block_size=4, buffer=0)
    config = configure("split={kind: blocks, train: 0.3, block_size: 4, buffer: 0}", "seed=5")
    split = make_split(small_scene, settings, seed=5)
    groups, unit = group_test_pixels(small_scene, split, config)
    assert unit == "test blocks of 4 × 4 pixels"
    pixels = np.argwhere(small_scene.labels > 0)
    blocks = number_blocks(pixels, block_size=4, rng=np.random.default_rng(5))
    is_train = split.to_sides(small_scene.shape)[tuple(pixels.T)] != Side.TEST
    trains = {*blocks[is_train].tolist()}
    assert not trains & {*blocks[~is_train].tolist()}  # no block is in both sets
    assert len(np.unique(groups)) == len(np.unique(blocks)) - len(trains)
    shifted = number_blocks(pixels, block_size=4, rng=np.random.default_rng(6))
    assert {*shifted[is_train].tolist()} & {*shifted[~is_train].tolist()}


def test_otherwise_the_groups_are_fields_of_one_class_connected_by_edge_or_corner():
    labels = np.zeros((9, 20), dtype=int)
    labels[0:2, 0:2] = labels[2:4, 2:4] = 1  # joined at a corner
    labels[0:2, 2:4] = 2_000_000_000  # touches class 1
    for place in range(5):
        labels[6:8, 4 * place : 4 * place + 3] = 1
    truth, split = make_truth(labels), hold_out(labels)
    groups, unit = group_test_pixels(truth, split, configure())
    assert unit == "fields"
    of = {(row, col): group for (row, col), group in zip(split.test.tolist(), groups, strict=True)}
    assert of[0, 1] == of[3, 3] != of[0, 2]
    assert len({*groups.tolist()}) == 7


def test_a_random_split_leaves_fields_whole(small_scene):
    split = make_split(small_scene, RandomSplit(kind="random", train=0.7), seed=0)
    groups, _ = group_test_pixels(small_scene, split, configure())
    sides = split.to_sides(small_scene.shape)
    pieces = [
        ndimage.label((small_scene.labels == label) & (sides == Side.TEST), structure=np.ones((3, 3)))[1]
        for label in small_scene.class_ids
    ]
    assert len(np.unique(groups)) < sum(pieces)


def test_points_are_units_of_their_own_and_large_fields_are_divided():
    points = np.zeros((12, 12), dtype=int)
    points[::2, ::2] = 1 + np.arange(36).reshape(6, 6) % 3
    groups, unit = group_test_pixels(make_truth(points), hold_out(points), configure())
    assert (unit, len(np.unique(groups))) == ("single pixels", 35)

    labels = np.kron(np.eye(8, dtype=int), np.ones((3, 3), dtype=int))  # joined at corners
    labels[18:, :6] = labels[:6, 18:] = 2
    for column in range(6):
        labels[14, 2 * column] = 3
    assert group_test_pixels(make_truth(labels), hold_out(labels), configure())[1] == "fields"
    labels[18:, :6] = labels[:6, 18:] = 0  # one field has most test pixels
    assert group_test_pixels(make_truth(labels), hold_out(labels), configure())[1].startswith("parts")

    halves = np.repeat([[1, 2]], 64, axis=0).repeat(32, axis=1)
    groups, unit = group_test_pixels(make_truth(halves), hold_out(halves), configure())
    assert unit == "parts of fields, in blocks of 16 × 16 pixels"
    assert 16 <= len(np.unique(groups)) <= 30  # 16 if the grid lies on the scene's corner
    for group in np.unique(groups):
        inside = hold_out(halves).test[groups == group]
        assert (np.ptp(inside, axis=0) < 16).all()
        assert len(np.unique(halves[tuple(inside.T)])) == 1


def test_a_test_set_of_one_class_is_compared_too(small_scene):
    pixels = np.argwhere(small_scene.labels > 0)
    is_first = small_scene.labels[tuple(pixels.T)] == small_scene.class_ids[0]
    split = Split(train=pixels[~is_first], val=pixels[:0], test=pixels[is_first])
    groups, _ = group_test_pixels(small_scene, split, configure())
    right = np.ones(len(split.test), dtype=bool)
    found = compare_on_groups(right, right, (groups, ""))
    assert (found.difference, found.outcome) == (0, "no difference shown")


# ------------------------------------------------------------------------------------------ in words


SVM = Candidate("svm", "pca", 13, {"penalty": 100.0, "gamma": 0.05}, 0.9)
LDA = Candidate("lda", "none", 16, {}, 0.9)
TREES = Candidate("extra_trees", "none", 16, {}, 0.9)


def judge(
    *overrides: str,
    network: float,
    floor: float,
    svm: float,
    leaking: float = 0.0,
    num_groups: int = 20,
    chosen: Candidate = SVM,
) -> Verdict:
    """The verdict on shares of correct pixels that vary a little from group to group."""
    groups = np.repeat(np.arange(num_groups), 100)

    def make(share: float, seed: int) -> np.ndarray:
        return np.random.default_rng(seed).random(len(groups)) < share

    return reach_verdict(
        make(network, 0),
        floor=make(floor, 1),
        baseline=make(svm, 2),
        chosen=chosen,
        groups=(groups, "fields"),
        config=configure(*overrides),
        leaking=leaking,
    )


BLOCKS = "split={kind: blocks, train: 0.2, block_size: 8}"
FOLDS = "split={kind: folds, by: blocks, block_size: 8}"


def test_a_network_above_the_floor_and_far_below_the_support_vector_machine_is_worse():
    verdict = judge(BLOCKS, network=0.53, floor=0.39, svm=0.96)
    assert (verdict.against_floor.outcome, verdict.against_baseline.outcome) == ("better", "worse")
    assert "The network is worse than the spectral baseline, SVM on 13 PCA components: 5" in verdict.findings
    assert "over 20 fields)" in verdict.findings
    assert verdict.next_step == (
        'train the spectral baseline, SVM on 13 PCA components: `hsi-se train CONFIG --set "model={name: svm}"`'
    )


def test_row_and_column_are_said_to_do_better_only_where_the_interval_says_so():
    said = "Row and column alone do better"
    assert said in judge(network=0.5, floor=0.7, svm=0.3).findings
    assert said not in judge(network=0.7, floor=0.7, svm=0.3).findings
    assert said not in judge(network=0.5, floor=0.9, svm=0.3, num_groups=4).findings
    assert "No difference from the location floor is shown" in judge(network=0.7, floor=0.7, svm=0.3).findings


def test_what_leaking_patches_mean_depends_on_the_split():
    fields = judge("split={kind: fields, train: 0.3}", network=0.7, floor=0.3, svm=0.3, leaking=0.25)
    assert "25.0 % of the test patches contain training pixels" in fields.findings
    assert "unseen fields beside known ones" in fields.findings
    folds = judge("split={kind: folds, by: fields, buffer: 0}", network=0.7, floor=0.3, svm=0.3, leaking=0.25)
    assert "unseen fields beside known ones" in folds.findings
    assert "in between known pixels" in judge(network=0.7, floor=0.3, svm=0.3, leaking=1.0).findings
    assert "No test patch contains a training pixel." in judge(BLOCKS, network=0.7, floor=0.3, svm=0.3).findings


def test_too_few_groups_are_said_to_allow_no_interval():
    verdict = judge(BLOCKS, network=0.5, floor=0.4, svm=0.9, num_groups=4)
    assert "No difference from the spectral baseline, SVM on 13 PCA components, can be shown" in verdict.findings
    assert "because the number of fields is 4 and an interval needs 6" in verdict.findings
    assert "better" not in verdict.findings
    assert "worse" not in verdict.findings


@pytest.mark.parametrize(
    ("chosen", "model", "reduction", "is_same"),
    [
        (SVM, "{name: svm}", "pca", True),
        (SVM, "{name: svm}", "none", False),
        (SVM, "{name: svm, penalty: 1.0}", "pca", False),
        (SVM, "{name: random_forest}", "pca", False),
        (SVM, "{name: lda}", "pca", False),
        (LDA, "{name: lda}", "none", True),
        (LDA, "{name: lda}", "pca", False),
        (LDA, "{name: lda, shrinkage: 0.5}", "none", False),
        (LDA, "{name: svm}", "none", False),
        (TREES, "{name: extra_trees}", "none", True),
        (TREES, "{name: extra_trees, trees: 10}", "none", False),
        (TREES, "{name: random_forest}", "none", False),
    ],
)
def test_the_baseline_is_not_compared_with_itself(chosen, model, reduction, is_same):
    changes = [f"model={model}", *(["reduction={kind: none}"] if reduction == "none" else [])]
    verdict = judge(*changes, network=0.9, floor=0.5, svm=0.5, chosen=chosen)
    assert (verdict.against_baseline is None) == is_same
    assert (f"The spectral baseline is the same classifier, {chosen.name}" in verdict.findings) == is_same
    assert "network" not in verdict.findings
    smoothed = judge(*changes, "prediction={smoothing: {spatial: 2, range: 0.3}}", network=0.9, floor=0.5, svm=0.5)
    assert smoothed.against_baseline is not None


def test_a_baseline_that_only_knows_one_class_is_not_advised():
    constant = Candidate("constant", "none", 16, {}, None)
    verdict = judge(BLOCKS, network=0.5, floor=0.4, svm=0.9, chosen=constant)
    assert "worse than the spectral baseline, the only class of the training set: " in verdict.findings
    assert "model=" not in verdict.next_step


STEPS = {
    "svm": (judge(BLOCKS, network=0.5, floor=0.4, svm=0.9), "--set model={name: svm}"),
    "svm, unsmoothed": (
        judge(BLOCKS, "prediction={smoothing: {spatial: 2, range: 0.3}}", network=0.5, floor=0.4, svm=0.9),
        "--set model={name: svm} --set prediction={} --set split.buffer=13",
    ),
    "lda on bands": (judge(BLOCKS, network=0.5, floor=0.4, svm=0.9, chosen=LDA),
                     "--set model={name: lda} --set reduction={kind: none}"),
    "trees on bands already": (
        judge(BLOCKS, "reduction={kind: none}", network=0.5, floor=0.4, svm=0.9, chosen=TREES),
        "--set model={name: extra_trees}",
    ),
    "svm, calibrated on validation pixels": (
        judge("prediction={calibration: validation}", network=0.5, floor=0.4, svm=0.9),
        "--set model={name: svm} --set prediction={}",
    ),
    "svm, smoothed on a random split": (
        judge("prediction={smoothing: {spatial: 2, range: 0.3}, calibration: validation}", network=0.5, floor=0.4,
              svm=0.9),
        "--set model={name: svm} --set prediction={}",
    ),
    "gap": (judge(network=0.9, floor=0.4, svm=0.8, leaking=0.7), "gap CONFIG"),
    "gap, counts": (
        judge("split={kind: random, train: {per_class: 9}}", network=0.9, floor=0.4, svm=0.8, leaking=0.7),
        "gap CONFIG",
    ),
    "gap, masks": (
        judge("split={kind: masks, train: a, test: b}", network=0.9, floor=0.4, svm=0.8, leaking=0.7),
        "gap CONFIG",
    ),
    "gap, fields": (
        judge("split={kind: fields, train: 0.2}", network=0.9, floor=0.4, svm=0.8, leaking=0.7),
        "gap CONFIG",
    ),
    "buffer": (
        judge(f"{BLOCKS[:-1]}, buffer: 0}}", network=0.9, floor=0.4, svm=0.8, leaking=0.7),
        "--set split.buffer=9",
    ),
    "blocks": (judge(BLOCKS, network=0.9, floor=0.4, svm=0.8, num_groups=5), "--set split.block_size=4"),
    "seeds": (judge(BLOCKS, network=0.9, floor=0.4, svm=0.8), "train CONFIG --seeds 0-9"),
    "folds": (judge(FOLDS, network=0.9, floor=0.4, svm=0.8), "train CONFIG --set split.repeats=5"),
    "folds, one": (judge(f"{FOLDS[:-1]}, fold: 2}}", network=0.9, floor=0.4, svm=0.8), "train CONFIG --seeds 0-9"),
    "folds, buffer": (
        judge(f"{FOLDS[:-1]}, buffer: 0}}", network=0.9, floor=0.4, svm=0.8, leaking=0.7),
        "--set split.buffer=5",
    ),
    "folds, blocks": (judge(FOLDS, network=0.9, floor=0.4, svm=0.8, num_groups=5), "--set split.block_size=4"),
}  # fmt: skip


@pytest.mark.parametrize("name", STEPS)
def test_each_next_step_is_one_command_that_exists_and_fits(name):
    verdict, expected = STEPS[name]
    (command,) = verdict.next_step.split("`")[1::2]
    words = shlex.split(command)
    assert " ".join(words).endswith(expected)
    overrides = [value for option, value in itertools.pairwise(words) if option == "--set"]
    split = {"gap, counts": "split={kind: random, train: {per_class: 9}}", "buffer": f"{BLOCKS[:-1]}, buffer: 0}}"}
    before = {"svm, calibrated on validation pixels": "prediction={calibration: validation}"}
    chosen = split.get(name, FOLDS if name.startswith("folds") else BLOCKS)
    config = configure(chosen, *([before[name]] if name in before else []), *overrides)
    if words[1] == "gap":
        folds = _to_folds(config)
        assert (folds.kind, folds.buffer) == ("folds", config.window_size // 2 + 1)
