"""The files of an ablation's report: tables, figures and a record that reads back."""

import csv
import io
import re

import numpy as np
import pytest
from matplotlib.collections import LineCollection

from hsi_se.ablation.figures import list_figures, refresh_figures, write_ablation_figures
from hsi_se.ablation.record import AblationFolder, AblationReport, FailedRun
from hsi_se.ablation.summary import _list_caveats
from hsi_se.ablation.tables import render, render_csv
from hsi_se.errors import RunError
from hsi_se.reports.tables import escape_latex
from tests.ablation.invented_runs import answer, compare, make_run


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
