"""From accuracies to an answer: what is tested, what is said, and how often a chance passes for a finding."""

import re
from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from hsi_se.ablation.file import Ablation
from hsi_se.ablation.record import AblationFolder
from hsi_se.ablation.summary import assemble
from hsi_se.ablation.tables import render
from hsi_se.errors import RunError
from hsi_se.evaluation.statistics import points
from tests.ablation.invented_runs import answer, compare


def say_probabilities(differences: Sequence[float], correlation: float) -> str:
    """Student's t around the mean, whose variance allows for the correlation."""
    n = len(differences)
    scale = np.std(differences, ddof=1) * (1 / n + correlation / (1 - correlation)) ** 0.5
    below, up_to = stats.t.cdf([-0.005, 0.005], n - 1, np.mean(differences), scale)
    shares = (
        f"{name} {share:.0%}" for name, share in (("better", 1 - up_to), ("equal", up_to - below), ("worse", below))
    )
    text = ", ".join(shares).replace("%", " %")
    return f"; probabilities: {re.sub(r'(?<= )0 %', '<1 %', text).replace('100 %', '>99 %')}"


def test_only_runs_of_one_seed_are_pairs():
    report = answer({"none": [0.9, None, 0.8, 0.7], "se": [0.91, 0.99, None, 0.68]})
    found = compare(report, "se")
    assert found.difference.n == 2
    assert found.difference.mean == pytest.approx((0.01 - 0.02) / 2)
    runs = report.scenes[0].variants[1].runs
    assert [run.difference for run in runs] == pytest.approx([0.01, None, -0.02])
    assert [run.mcnemar is None for run in runs] == [False, True, False]
    assert report.num_missing == 2
    assert compare(report, "none") is None


def test_holm_runs_over_the_comparisons_of_all_scenes():
    rng = np.random.default_rng(3)
    tables = {
        scene: {"none": rng.normal(0.9, 0.01, 10), "a": rng.normal(0.91, 0.01, 10), "b": rng.normal(0.9, 0.01, 10)}
        for scene in ("x", "y")
    }
    report = answer(tables)
    found = [variant.comparison for scene in report.scenes for variant in scene.variants if variant.comparison]
    raw = np.array([stats.wilcoxon(t[v] - t["none"], method="exact").pvalue for t in tables.values() for v in "ab"])
    assert [each.p for each in found] == pytest.approx(raw)
    order = np.argsort(raw)
    expected, running = np.empty(4), 0.0
    for place, index in enumerate(order):
        running = max(running, min(1, (4 - place) * raw[index]))
        expected[index] = running
    assert [each.p_holm for each in found] == pytest.approx(expected)


def test_the_sentences_say_what_was_found_and_how_sure_it_is():
    steps = np.array([0.0011, 0.0002, -0.0021, 0.0013, 0.0004, 0.0019, -0.0006, 0.0008, -0.0004, 0.0024])
    report = answer({"none": np.full(10, 0.9), "same": 0.9 + steps, "up": 0.91 + steps, "down": 0.88 + steps})
    low, high = stats.t.interval(0.95, 9, loc=steps.mean(), scale=stats.sem(steps))
    assert compare(report, "same").sentence == (
        f"no difference shown: +0.05 points, 95 % interval {points(low)} to {points(high)}, n=10"
        f"{say_probabilities(steps, 0.25)}"
    )
    assert re.fullmatch(
        r"better: \+1\.05 points, 95 % interval \+0\.\d\d to \+1\.\d\d, n=10, p = 0\.0059 after Holm; probabilities: "
        r"better >99 %, equal <1 %, worse <1 %",
        compare(report, "up").sentence,
    )
    assert compare(report, "down").sentence.startswith("worse: −1.95 points")


def test_below_six_seeds_it_says_that_no_test_can_find_anything():
    accuracies = [0.6, 0.7, 0.8, 0.9, 0.95]
    report = answer({"none": [0.5] * 5, "se": accuracies})
    assert not compare(report, "se").is_shown
    low, high = stats.t.interval(0.95, 4, loc=np.mean(accuracies) - 0.5, scale=stats.sem(accuracies))
    assert low > 0
    assert compare(report, "se").sentence == (
        "the test cannot show a difference with 5 seeds, only with 6 or more: +29.00 points, 95 % interval "
        f"{points(low)} to {points(high)}, n=5{say_probabilities(np.array(accuracies) - 0.5, 0.25)}"
    )
    assert any(
        "With fewer than 6 seeds the two-sided Wilcoxon test cannot give p < 5 %" in caveat
        and "2/2^5 = 0.0625" in caveat
        for caveat in report.caveats
    )
    assert not any("fewer than 6" in text for text in answer({"a": [0.5] * 6, "b": [0.6] * 6}).caveats)


def test_seven_comparisons_need_nine_seeds_and_it_says_so():
    rng = np.random.default_rng(0)
    table = {str(variant): rng.random(8) for variant in range(8)}
    said = "for 7 comparisons none can reach 5 % with fewer than 9 seeds"
    assert any(said in text for text in answer(table).caveats)


def test_one_seed_has_a_difference_and_no_interval():
    found = compare(answer({"none": [0.5], "se": [0.6]}), "se")
    assert found.sentence == (
        "the test cannot show a difference with 1 seed, only with 6 or more: +10.00 points, no interval, n=1"
    )
    assert np.isnan([found.difference.low, found.effect_size]).all()
    assert found.difference.n == 1


@pytest.mark.parametrize("num_seeds", range(1, 9))
@pytest.mark.parametrize("num_variants", [1, 2, 7])
def test_a_sentence_says_no_difference_shown_only_where_one_could_have_been(num_seeds, num_variants):
    steps = 0.01 * (1 + np.arange(num_seeds))
    table = {"none": np.full(num_seeds, 0.5)} | {f"v{place}": 0.6 + steps for place in range(num_variants)}
    for variant in answer(table).scenes[0].variants[1:]:
        found = variant.comparison
        least = num_variants * 2 * 0.5**num_seeds  # all signs equal, after Holm
        assert found.is_shown == (least <= 0.05)
        assert ("cannot show" in found.sentence) == (least > 0.05)
        assert "no difference shown" not in found.sentence  # the interval is above 0 everywhere


def test_a_pair_that_holm_leaves_within_reach_is_not_said_to_be_out_of_reach():
    rng = np.random.default_rng(0)
    few = [*rng.normal(0.9, 0.01, 6), *[None] * 4]
    report = answer({"none": np.full(10, 0.5), "all": np.full(10, 0.6), "few": few})
    assert compare(report, "few").is_shown  # the second of two tests: its p counts once


def test_a_test_and_an_interval_that_disagree_are_both_named():
    outlier = [0.01, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01, 0.4]
    found = compare(answer({"none": [0.5] * 8, "se": 0.5 + np.array(outlier)}), "se")
    assert found.is_shown
    assert found.difference.low < 0
    assert found.sentence.partition("; probabilities")[0].endswith(
        "after Holm, by ranks; the interval of the mean includes 0"
    )

    mixed = np.array([-0.001, 0.05, 0.05, 0.05, 0.05, 0.05, -0.002])
    found = compare(answer({"none": [0.5] * 7, "se": 0.5 + mixed}), "se")
    assert not found.is_shown
    assert found.difference.low > 0
    assert re.fullmatch(
        r"not shown by the signed-rank test \(p = 0.\d+, 0.\d+ after Holm\), although the interval of the "
        r"mean excludes 0: \+3.53 points, 95 % interval \+\d.\d\d to \+\d.\d\d, n=7; probabilities: better \d\d %.*",
        found.sentence,
    )


def test_without_a_baseline_there_is_nothing_to_compare():
    report = answer({"none": [None, None], "se": [0.5, 0.6]})
    assert compare(report, "se") is None
    assert "nothing to compare" in report.caveats[0]


def test_every_variant_is_compared_with_the_location_floor_and_the_spectral_baseline():
    steps = 0.001 * np.arange(9)
    report = answer({"none": 0.9 + steps, "se": 0.65 + steps})
    found = report.scenes[0].variants[1].against
    assert list(found) == ["location floor", "spectral baseline"]
    assert found["location floor"].difference.mean == pytest.approx(0.65 + steps.mean() - 0.7)
    assert found["spectral baseline"].difference.mean == pytest.approx(0.65 + steps.mean() - 0.6)
    assert found["location floor"].p_holm == pytest.approx(4 * 2 / 2**9)
    notes = "\n".join(report.scenes[0].notes)
    assert "se against the location floor: worse: −4.60 points, 95 % interval −4.81 to −4.39, n=9" in notes
    assert "se against the spectral baseline: better: +5.40 points" in notes
    assert "none against the location floor: better: +20.40 points" in notes
    assert notes.count("; by each run's own verdict, 9 × better") == 3
    assert notes.count("; by each run's own verdict, 9 × worse") == 1
    assert any("adjusted by Holm for 4 comparisons" in caveat for caveat in report.caveats)


def test_the_support_vector_machine_is_not_compared_with_itself():
    report = answer({"none": [0.9] * 9, "svm": [0.6] * 9})
    assert list(report.scenes[0].variants[1].against) == ["location floor"]
    assert any("adjusted by Holm for 3 comparisons" in caveat for caveat in report.caveats)


def test_a_classifier_that_is_the_baseline_of_some_seeds_is_compared_over_all_seeds():
    """Only the seeds in which another one was chosen would be a selection."""
    accuracies = [0.6] * 4 + [0.59] * 5
    report = answer({"none": [0.9] * 9, "lda": accuracies})
    found = report.scenes[0].variants[1].against["spectral baseline"].difference
    assert (found.n, found.mean) == (9, pytest.approx(np.mean(accuracies) - 0.6))


def test_two_seeds_show_nothing_against_the_floor_or_the_spectral_baseline():
    notes = answer({"none": [0.9, 0.9], "se": [0.6, 0.65]}).scenes[0].notes
    said = [note for note in notes if " against the " in note]
    assert len(said) == 4
    assert all("the test cannot show a difference with 2 seeds, only with 8 or more: " in note for note in said)


def test_one_seed_is_not_said_to_have_a_spread():
    assert any("There is one seed" in note for note in answer({"none": [0.9]}).scenes[0].notes)


def test_runs_on_different_pixels_are_refused_as_pairs():
    report = answer({"none": [0.9], "se": [0.9]})
    baseline, other = (variant.runs[0] for variant in report.scenes[0].variants)
    ablation = Ablation("s", "0", "none", (0,), 1, {"none": {}, "se": {}}, ("",), ())
    runs = {("", "none", 0): baseline, ("", "se", 0): other.model_copy(update={"split_digest": "other"})}
    with pytest.raises(RunError, match="has another split than runs/none/seed-0"):
        assemble(ablation, runs, records={}, class_names={}, test_pair=lambda *_: None)


# ------------------------------------------------------------------------------------- how often it errs


def simulate(effects: Sequence[float], *, seeds: int, repeats: int) -> float:
    """The share of simulated ablations in which any difference is shown.

    A seed shifts all variants alike; each run's own deviation is such that a difference of two has a
    standard deviation of one point. Effects are in these.
    """
    rng = np.random.default_rng(2024)
    num_shown = 0
    for _ in range(repeats):
        shift = rng.normal(0.9, 0.02, seeds)
        table = {"none": shift + rng.normal(0, 0.01 / 2**0.5, seeds)}
        for place, effect in enumerate(effects):
            table[f"v{place}"] = shift + 0.01 * effect + rng.normal(0, 0.01 / 2**0.5, seeds)
        shown = [each.comparison.is_shown for each in answer(table).scenes[0].variants if each.comparison]
        num_shown += any(shown)
    return num_shown / repeats


@pytest.mark.exhaustive
@pytest.mark.parametrize(("variants", "seeds"), [(1, 10), (4, 10), (7, 12)])
def test_without_a_true_difference_at_most_one_ablation_in_twenty_shows_one(variants, seeds):
    assert simulate([0.0] * variants, seeds=seeds, repeats=400) <= 0.05


@pytest.mark.exhaustive
def test_a_true_difference_of_one_standard_deviation_at_ten_seeds_is_mostly_shown():
    assert simulate([1.0], seeds=10, repeats=400) > 0.7
    assert simulate([1.0, 0.0], seeds=10, repeats=400) > 0.5  # Holm's price


# ------------------------------------------------------------------------------------- over scenes


def test_the_ranks_over_scenes_need_scenes_and_are_of_the_means():
    rng = np.random.default_rng(0)
    tables = {str(scene): {name: rng.normal(level, 0.001, 3) for name, level in
              (("none", 0.90), ("a", 0.92), ("b", 0.91))} for scene in range(6)}  # fmt: skip
    found = answer(tables).friedman
    assert found.average_ranks == {"none": 3.0, "a": 1.0, "b": 2.0}
    assert found.chi_square == pytest.approx(12)
    assert found.groups == (("a", "b"), ("b", "none"))  # 1 apart, and the critical difference is 1.35
    text = render("ablation.md", answer(tables), AblationFolder("."))
    assert "shows no difference between any of the variants" not in text
    noise = {scene: {name: rng.permutation(each["a"]) for name in each} for scene, each in tables.items()}
    assert answer(noise).friedman.p > 0.05  # equal means
    text = render("ablation.md", answer(noise), AblationFolder("."))
    assert "Friedman's test shows no difference between any of the variants." in text
    alone = answer(tables["0"])
    assert alone.friedman is None
    assert "3 variants need at least 5 scenes, this comparison has 1" in alone.no_friedman
