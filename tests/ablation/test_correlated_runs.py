"""How much the runs of an ablation share, and what the corrected test makes of it."""

import numpy as np
import pytest

from hsi_se.ablation.file import Ablation
from hsi_se.ablation.record import Part
from hsi_se.ablation.summary import assemble
from hsi_se.evaluation.statistics import compare_correlated
from tests.ablation.invented_runs import answer, compare, make_record, make_run

OURS, THEIRS = [0.91, 0.93, 0.95, 0.92], [0.90, 0.90, 0.93, 0.93]


def compare_runs(parts: dict[str, list[list[float]]], *, splits: list[str]):
    """The comparison of `se` with `none`, from the OA of each part of each seed's run."""
    runs = {
        ("", name, seed): make_run(
            name, seed, float(np.mean(accuracies)), split_digest=splits[seed],
            parts=tuple(
                Part(num_train=60, num_test=20, overall_accuracy=each, location_floor=0.7, spectral_baseline=0.6)
                for each in accuracies
            ),
        )
        for name, of_seeds in parts.items()
        for seed, accuracies in enumerate(of_seeds)
    }  # fmt: skip
    seeds = tuple(range(len(splits)))
    names: dict[str, dict] = {"none": {}, "se": {}}
    ablation = Ablation("s", "0", "none", seeds, 1, names, ("",), tuple([None] * len(runs)))
    records = {key: make_record("", ()) for key in runs}
    report = assemble(ablation, runs, records=records, class_names={"": {1: "a"}}, test_pair=lambda *_: None)
    return compare(report, "se")


def test_random_splits_correlate_by_their_share_of_test_pixels():
    found = compare(answer({"none": THEIRS, "se": OURS}), "se").corrected
    expected = compare_correlated(np.subtract(OURS, THEIRS), correlation=1000 / 4000)
    assert vars(found) == pytest.approx(vars(expected))


def test_runs_of_one_split_differ_by_their_training_alone():
    both = {"none": [[each] for each in THEIRS], "se": [[each] for each in OURS]}
    assert compare_runs(both, splits=["a", "b", "c", "d"]).corrected.correlation == 0.25
    assert compare_runs(both, splits=["a"] * 4).corrected.correlation == 0


def test_folds_count_one_by_one_and_those_of_one_draw_once():
    ours, theirs = np.random.default_rng(0).normal([[[0.92]], [[0.9]]], 0.01, (2, 2, 3))
    both = {"none": theirs.tolist(), "se": ours.tolist()}
    drawn = compare_runs(both, splits=["a", "b"]).corrected
    assert vars(drawn) == pytest.approx(vars(compare_correlated((ours - theirs).ravel(), correlation=0.25)))
    repeated = compare_runs(both, splits=["a", "a"]).corrected
    assert vars(repeated) == pytest.approx(vars(compare_correlated((ours - theirs).mean(axis=0), correlation=0.25)))
    once = compare_runs({name: each[:1] for name, each in both.items()}, splits=["a"])
    assert once.corrected.n == 3
    assert "n=1; probabilities: better " in once.sentence


def test_p_is_adjusted_by_holm():
    rng = np.random.default_rng(1)
    table = {"none": [0.9] * 6, **{name: rng.normal(0.905, 0.003, 6) for name in "ab"}}
    report = answer(table)
    raw = sorted(compare_correlated(table[name] - 0.9, correlation=0.25).p for name in "ab")
    found = sorted(compare(report, name).corrected.p for name in "ab")
    assert found == pytest.approx([min(2 * raw[0], 1), max(2 * raw[0], raw[1])])
