"""From accuracies to an answer: what is tested, what is said, and how often a chance passes for a finding."""

import csv
import io
import re
from collections.abc import Sequence

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from scipy import stats

from hsi_se.ablation.figures import list_figures, refresh_figures, write_ablation_figures
from hsi_se.ablation.file import Ablation
from hsi_se.ablation.record import AblationFolder, AblationReport, AblationRun, FailedRun, Part
from hsi_se.ablation.summary import _list_caveats, assemble
from hsi_se.ablation.tables import list_tables, render, render_csv
from hsi_se.errors import RunError
from hsi_se.evaluation.statistics import McNemarTest, points
from hsi_se.progress import EpochRecord
from hsi_se.reports.tables import escape_latex
from hsi_se.runs.records import RunRecord
from hsi_se.runs.report import Accuracies

Table = dict[str, Sequence[float | None]]  # the OA of each seed by variant; None where the run is missing


def make_run(variant: str, seed: int, accuracy: float, **changes: object) -> AblationRun:
    run = AblationRun(
        seed=seed,
        folder=f"runs/{variant}/seed-{seed}",
        config_digest=variant,
        split_digest=str(seed),
        precision="float32",
        num_test=1000,
        overall_accuracy=accuracy,
        average_accuracy=accuracy,
        kappa=accuracy,
        unsmoothed=None,
        location_floor=Accuracies(overall_accuracy=0.7, average_accuracy=0.7, kappa=0.7),
        spectral_baseline=Accuracies(overall_accuracy=0.6, average_accuracy=0.6, kappa=0.6),
        outcomes={
            name: "better" if accuracy > baseline else "worse"
            for name, baseline in (("location floor", 0.7), ("spectral baseline", 0.6))
            if name == "location floor" or not (variant == "svm" or (variant == "lda" and seed < 4))
        },
        test_patches_with_train_pixels=0.25,
        producers_accuracy={1: accuracy, 2: None},
        parts=(
            Part(num_train=3000, num_test=1000, overall_accuracy=accuracy, location_floor=0.7, spectral_baseline=0.6),
        ),
        training_s=10.0,
        training_us_per_pixel=100.0,
        training_peak_bytes=10**9,
        mapping_s=1.0,
        mapping_us_per_pixel=5.0,
        mapping_peak_bytes=None,
        difference=None,
        mcnemar=None,
    )
    return run.model_copy(update=changes)


def make_record(scene: str, history: Sequence[EpochRecord]) -> RunRecord:
    return RunRecord(
        name="x", seed=0, config_digest="", scene=scene, scene_digest="",
        image_digests=(), split_digest="", data=None,
        start="", start_from_run="",
        device="cpu", precision="float32", notes=("a note of the split",), num_train=9, num_val=0,
        num_parameters=1234567, macs_per_patch=25_182_992, best_epoch=1, history=tuple(history),
        training_s=1.0, versions={},
    )  # fmt: skip


def answer(
    table: Table | dict[str, Table],
    *,
    name: str = "study",
    failed: Sequence[FailedRun] = (),
    curves: dict[str, Sequence[Sequence[float | None]]] | None = None,
    reach: float | None = None,
) -> AblationReport:
    """The report of accuracies, of one scene or by scene; the first variant is the baseline.

    `curves` are validation accuracies of each epoch, by variant and seed; the losses are what is left to 1.
    """
    by_scene: dict[str, Table] = table if isinstance(next(iter(table.values())), dict) else {"": table}
    first = next(iter(by_scene.values()))
    runs = {
        (scene, variant, seed): make_run(variant, seed, accuracy)
        for scene, rows in by_scene.items()
        for variant, accuracies in rows.items()
        for seed, accuracy in enumerate(accuracies)
        if accuracy is not None
    }
    seeds = tuple(range(len(next(iter(first.values())))))
    ablation = Ablation(
        name=name,
        digest="0" * 64,
        baseline=next(iter(first)),
        seeds=seeds,
        threads=1,
        variants={variant: {"model.attention": {}} for variant in first},
        scenes=tuple(by_scene),
        runs=tuple([None] * (len(seeds) * len(first) * len(by_scene) + len(failed))),  # only their number counts here
        reach=reach,
    )
    histories = {
        (scene, variant, seed): [
            EpochRecord(
                epoch=epoch, loss=1.0, learning_rate=1.0, patches_per_second=1.0, elapsed_s=1.0,
                validation_accuracy=accuracy, validation_loss=None if accuracy is None else 1 - accuracy,
            )
            for epoch, accuracy in enumerate((curves or {}).get(variant, [()] * len(seeds))[seed], start=1)
        ]
        for scene, variant, seed in runs
    }  # fmt: skip
    return assemble(
        ablation,
        runs,
        records={key: make_record(key[0] or "Indian_Pines", history) for key, history in histories.items()},
        class_names={scene: {1: "corn | maize", 2: "oats"} for scene in by_scene},
        test_pair=lambda *_: McNemarTest(only_baseline=1, only_variant=7, p=0.0703125),
        failed=failed,
    )


def compare(report: AblationReport, variant: str):
    return next(each for each in report.scenes[0].variants if each.name == variant).comparison


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


# ------------------------------------------------------------------------------------- tables and figures


@pytest.fixture
def report() -> AblationReport:
    rng = np.random.default_rng(5)
    table = {name: rng.normal(0.9, 0.01, 4) for name in ("none", "fold_se", "50 @x,y=1")}
    failure = FailedRun(scene="", variant="fold_se", seed=9, error="out of luck", is_users=False)
    return answer(table, name="a_b", failed=[failure])


def test_the_csv_has_a_row_for_every_run_that_reads_back(report):
    rows = list(csv.DictReader(io.StringIO(render_csv(report))))
    assert len(rows) == 12
    for row in rows:
        variant = next(each for each in report.scenes[0].variants if each.name == row["variant"])
        run = next(each for each in variant.runs if each.seed == int(row["seed"]))
        assert float(row["overall_accuracy"]) == run.overall_accuracy
        assert row["mapping_peak_bytes"] == ""
        assert row["mcnemar.only_variant"] == ("" if run.mcnemar is None else "7")


def test_the_markdown_has_every_sentence_and_whole_tables(report, tmp_path):
    text = render("ablation.md", report, AblationFolder(tmp_path))
    for variant in report.scenes[0].variants[1:]:
        assert f"- {variant.name}: {variant.comparison.sentence}" in text
    for caveat in (*report.caveats, *report.scenes[0].notes):
        assert f"- {caveat}" in text
    assert "- fold_se, seed 9: failed: out of luck" in text
    for block in re.findall(r"(?:^\|.*\n)+", text, re.M):
        assert len({line.replace(r"\|", "").count("|") for line in block.splitlines()}) == 1
        assert re.fullmatch(r"[|:-]+", block.splitlines()[1])
    assert len(re.findall(r"(?:^\|.*\n)+", text, re.M)) == 5


def test_latex_escapes_what_is_special_there(report):
    assert escape_latex(r"50 % of a_b & {c} #1 ~^\ $") == (
        r"50 \% of a\_b \& \{c\} \#1 \textasciitilde{}\textasciicircum{}\textbackslash{} \$"
    )
    text = render("ablation.tex", report, AblationFolder("nowhere"))
    body = text.replace(r"\%", "").replace(r"\_", "").replace(r"\&", "")
    table = body[body.index(r"\midrule") : body.index(r"\bottomrule")]
    rows = [line for line in table.splitlines()[1:] if line.strip()]
    assert all(row.count("&") == 8 and row.endswith(r"\\") for row in rows)
    assert len(rows) == 3
    assert "_" not in body
    assert "%" not in body.removeprefix("% needs")
    assert text.isascii()
    assert body.count("{") == body.count("}")
    assert body.count("$") % 2 == 0


def test_the_figures_are_those_the_report_allows(report, tmp_path):
    folder = AblationFolder(tmp_path)
    folder.figures.mkdir()
    (folder.figures / "critical_difference.png").write_bytes(b"of an earlier report")
    (folder.figures / "cost.pdf").write_bytes(b"in another format")
    (folder.figures / "mine.png").write_bytes(b"of the user")
    written = write_ablation_figures(report, folder, file_format="png")
    names = {"seeds.png", "pairs.png", "cost.png"}
    assert {path.name for path in written} == names
    assert {path.name for path in folder.figures.iterdir()} == {*names, "cost.pdf", "mine.png"}
    nothing = answer({"none": [None], "se": [None]})
    assert write_ablation_figures(nothing, folder, file_format="png") == []
    assert {path.name for path in folder.figures.iterdir()} == {"cost.pdf", "mine.png"}
    refresh_figures(report, folder)
    assert (folder.figures / "cost.pdf").read_bytes().startswith(b"%PDF")
    found = {path.name for path in folder.figures.iterdir()}
    assert found == {"seeds.pdf", "pairs.pdf", "cost.pdf", "mine.png"}


@pytest.mark.parametrize("file_format", ["png", "pdf", "svg"])
def test_the_same_report_gives_the_same_figures_to_the_byte(report, tmp_path, file_format):
    folders = [AblationFolder(tmp_path / name) for name in "ab"]
    written = [write_ablation_figures(report, folder, file_format=file_format) for folder in folders]
    drawn = [[path.read_bytes() for path in paths] for paths in written]
    assert drawn[0] == drawn[1]
    start = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[file_format]
    assert all(content.startswith(start) for content in drawn[0])


@pytest.mark.parametrize(
    ("table", "names"),
    [
        ({"none": [0.9, 0.8], "se": [0.85, 0.86]}, ["seeds", "cost", "pairs"]),
        ({"none": [0.9, 0.8]}, ["seeds"]),
        ({"none": [0.9, 0.8], "se": [None, None]}, ["seeds"]),
        ({"none": [None, None], "se": [None, None]}, []),
        (
            {str(n): {"none": [0.8 + n / 100], "a": [0.9], "b": [0.7]} for n in range(6)},
            ["seeds", "cost", "pairs", "critical_difference"],
        ),
    ],
    ids=["pairs", "seeds", "no pairs", "nothing", "ranks"],
)
def test_the_markdown_links_the_figures_that_are_in_the_folder(table, names, tmp_path):
    report, folder = answer(table), AblationFolder(tmp_path)
    assert [figure.name for figure in list_figures(report)] == names
    assert not re.search(r"!\[", render("ablation.md", report, folder))
    folder.figures.mkdir()
    for name in names:
        (folder.figures / f"{name}.svg").touch()
    links = re.findall(r"!\[.+\]\((.+)\)", render("ablation.md", report, folder))
    assert sorted(links) == sorted(f"figures/{name}.svg" for name in names)


def test_intervals_end_where_their_numbers_do_in_record_tables_and_figures(tmp_path):
    report, folder = answer({"none": [0.5, 0.99], "se": [0.95, 0.6]}), AblationFolder(tmp_path)
    for variant in report.scenes[0].variants:
        summaries = variant.summaries
        assert (summaries["overall_accuracy"].low, summaries["overall_accuracy"].high) == (0, 1)
        assert (summaries["kappa"].low, summaries["kappa"].high) == (-1, 1)
    found = compare(report, "se")
    assert (found.difference.low, found.difference.high) == (-1, 1)
    assert "95 % interval −100.00 to +100.00" in found.sentence
    assert "| −100.00 to +100.00 |" in render("ablation.md", report, folder)
    assert "(−100.00, +100.00)".replace("−", "$-$") in render("ablation.tex", report, AblationFolder("nowhere"))
    num_bars = 0
    for figure in list_figures(report):
        across = 0 if figure.name == "seeds" else 1
        for axes in figure.draw().axes:
            bars = [bars for bars in axes.collections if isinstance(bars, LineCollection)]
            ends = [point[across] for each in bars for segment in each.get_segments() for point in segment]
            assert not ends or (min(ends), max(ends)) == pytest.approx((0, 100), abs=1e-9)
            num_bars += len(ends) > 0
    assert num_bars == 2  # of the seeds, and against cost


def test_the_record_reads_back_as_it_was_written(report, tmp_path):
    folder = AblationFolder(tmp_path)
    folder.write(folder.report, report)
    assert AblationFolder.open(tmp_path).read_report() == report
    folder.report.write_text("{}")
    with pytest.raises(RunError, match="not what this version writes"):
        folder.read_report()


def test_runs_of_two_precisions_are_named_as_a_caveat():
    table = {"none": [0.5, 0.6], "se": [0.6, 0.7]}
    assert not any("bfloat16" in caveat for caveat in answer(table).caveats)
    found = _list_caveats("none", [[make_run("none", 0, 0.5), make_run("none", 1, 0.5, precision="bfloat16")]])
    assert "bfloat16" in found[-1]


def test_what_ranks_and_the_mean_see_differently_is_said():
    """Thirteen seeds a little better, one much worse."""
    base = np.full(14, 0.5)
    gains = np.array([0.001 * n for n in range(1, 14)] + [-0.5])
    sentence = compare(answer({"none": base, "se": base + gains}), "se").sentence
    assert sentence.startswith("better for most seeds, though lower on average: −2.92 points")
    sentence = compare(answer({"none": base, "se": base - gains}), "se").sentence
    assert sentence.startswith("worse for most seeds, though higher on average: +2.92 points")


def test_scenes_rank_variants_by_the_seeds_that_all_of_them_have():
    """Seed 1 is a hard split everywhere; who has not run it yet is no better for that."""
    tables = {f"scene {place}": {"none": [0.90, 0.50], "a": [0.91, 0.51], "b": [0.89, None]} for place in range(5)}
    ranks = answer(tables).friedman.average_ranks
    assert ranks == {"none": 2, "a": 1, "b": 3}


# ------------------------------------------------------------------------------------------ convergence

CURVES = {
    "none": [(0.2, 0.5, 0.80), (0.2, 0.6, 0.90), (0.2, 0.7, 0.85)],
    "se": [(0.5, 0.9, 0.95), (0.4, 0.8, 0.80), (0.3, 0.8, 0.92)],
}
TESTED = {"none": [0.8, 0.9, 0.85], "se": [0.95, 0.8, 0.92]}


def test_the_epochs_until_an_accuracy_are_counted_and_runs_that_miss_it_are_censored():
    scene = answer(TESTED, curves=CURVES, reach=0.85).scenes[0]
    none, se = (variant.convergence for variant in scene.variants)
    assert scene.target == 0.85
    assert (none.epochs, none.num_reached, none.num_runs, none.median_epochs) == ((None, 3, 3), 2, 3, 3)
    assert (se.epochs, se.num_reached, se.num_runs, se.median_epochs) == ((2, None, 3), 2, 3, 3)
    rare = answer(TESTED, curves=CURVES, reach=0.88).scenes[0]
    none, se = (variant.convergence for variant in rare.variants)
    assert (none.epochs, none.num_reached, none.median_epochs) == ((None, 3, None), 1, None)
    assert (se.epochs, se.median_epochs) == ((2, None, 3), 3), "a dropped run would make it 2.5"
    rows = {row[0]: row[2:] for row in list_tables(rare)[-1].rows}
    assert rows == {"none": ("1 of 3", "> 3"), "se": ("2 of 3", "3")}


def test_without_reach_the_target_is_the_lowest_of_the_best_means():
    report = answer(TESTED, curves=CURVES)
    scene = report.scenes[0]
    assert scene.target == pytest.approx(0.85)  # of `none`, in its last epoch
    assert [variant.convergence.best for variant in scene.variants] == pytest.approx([0.85, 0.89])
    assert any("85.00 %, is the lowest of the variants' best means; reach: in the" in each for each in scene.notes)
    of_seeds = answer({"run": TESTED["se"]}, curves={"run": CURVES["se"]}).scenes[0]
    assert of_seeds.target is None
    assert len(list_tables(of_seeds)) == 2, "no epochs"
    assert of_seeds.variants[0].convergence.epochs == ()


def test_the_curve_is_the_mean_of_each_epoch_with_students_interval():
    convergence = answer(TESTED, curves=CURVES).scenes[0].variants[1].convergence
    assert len(convergence.validation_accuracy) == len(convergence.validation_loss) == 3
    values = [run[1] for run in CURVES["se"]]
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    found = convergence.validation_accuracy[1]
    assert (found.n, found.mean, found.low, found.high) == pytest.approx((3, np.mean(values), low, min(high, 1)))
    assert convergence.validation_loss[1].mean == pytest.approx(1 - np.mean(values))


def test_the_report_has_the_epochs_in_all_its_forms(tmp_path):
    report = answer(TESTED, curves=CURVES, reach=0.91)
    title = "Epochs until a validation accuracy of 91.00 %"
    text = render("ablation.md", report, AblationFolder(tmp_path))
    assert f"{title}:\n\n| variant | best validation OA % |" in text
    assert "| se | 89.00 | 2 of 3 | 3 |" in text
    assert "| none | 85.00 | 0 of 3 | > 3 |" in text
    rows = list(csv.DictReader(io.StringIO(render_csv(report))))
    assert [row["epochs_to_target"] for row in rows] == ["", "", "", "3", "", "3"]
    latex = render("ablation.tex", report, AblationFolder("nowhere"))
    assert r"epochs until a validation accuracy of 91.00 \%." in latex
    assert r"se & 89.00 & 2 of 3 & 3 \\" in latex
    page = render("ablation.html", report, AblationFolder(tmp_path))
    assert f"<h3>{title}</h3>" in page
    assert 'aria-label="Mean validation accuracy and loss after each epoch' in page


def test_the_convergence_figure_has_a_mean_and_an_interval_for_each_variant():
    report = answer(TESTED, curves=CURVES, reach=0.91)
    drawn = {figure.name: figure for figure in list_figures(report)}["convergence"].draw()
    above, below = drawn.axes
    lines = {line.get_label(): line.get_ydata() for line in above.lines}
    assert lines["se"] == pytest.approx(100 * np.mean(CURVES["se"], axis=0))
    assert above.lines[-1].get_ydata() == pytest.approx([91, 91])
    assert below.lines[0].get_ydata() == pytest.approx(1 - np.mean(CURVES["none"], axis=0))
    assert [len(axes.collections) for axes in (above, below)] == [2, 2]
    assert [text.get_text() for text in below.get_legend().get_texts()] == ["none", "se"]
    points = above.collections[1].get_paths()[0].vertices
    assert points[:, 1].max() == 100, "intervals end at 100 %"


def test_runs_without_validation_pixels_have_no_curve_and_the_report_says_so():
    scene = answer(TESTED, curves={"none": [(None, None)] * 3, "se": CURVES["se"]}, reach=0.5).scenes[0]
    assert scene.variants[0].convergence is None
    assert scene.variants[1].convergence.num_runs == 3
    assert any(note.startswith("none: no curve of the validation accuracy") for note in scene.notes)
    report = answer(TESTED, reach=0.5)
    assert report.scenes[0].target is None
    assert "convergence" not in [figure.name for figure in list_figures(report)]
    assert "Epochs until" not in render("ablation.md", report, AblationFolder("nowhere"))


def test_a_run_that_is_missing_counts_in_no_mean():
    table = {"none": TESTED["none"], "se": [0.95, None, 0.92]}
    found = answer(table, curves=CURVES, reach=0.9).scenes[0].variants[1].convergence
    assert (found.num_runs, found.epochs) == (2, (2, 3))
    assert found.median_epochs == 2.5
    assert found.validation_accuracy[0].mean == pytest.approx(0.4)
