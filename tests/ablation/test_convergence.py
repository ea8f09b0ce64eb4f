"""Epochs until an accuracy is reached, and the mean curve of each variant."""

import csv
import io

import numpy as np
import pytest
from scipy import stats

from hsi_se.ablation.figures import list_figures
from hsi_se.ablation.record import AblationFolder
from hsi_se.ablation.tables import list_tables, render, render_csv
from tests.ablation.invented_runs import answer

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
