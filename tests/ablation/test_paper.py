"""The tables and the methods that a paper prints: from a run, seeds, folds, `gap`, an ablation, several scenes."""

import csv
import io
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from scipy import stats

from hsi_se.ablation import run as runner
from hsi_se.ablation.file import load_ablation, repeat_over_seeds
from hsi_se.ablation.paper import open_results
from hsi_se.ablation.record import AblationFolder
from hsi_se.ablation.tables import Table
from hsi_se.config.yaml_file import load_config
from hsi_se.reports.tables import escape_latex, render_template
from hsi_se.runs.folder import RunFolder
from tests.ablation.conftest import SET, Log
from tests.conftest import CPU, ROOT, TINY

pytestmark = pytest.mark.usefixtures("quick_baseline")
DEMO = ROOT / "configs" / "demo.yaml"
LATEX = shutil.which("pdflatex")
FOLDS = "split={kind: folds, by: blocks, folds: 2, block_size: 6, buffer: 1}"
STUDY = f"""
base: {DEMO}
seeds: 0-2
set: {{{SET}, split.train: 0.5, model: {{name: lda}}}}
scenes:
  a_1: {{}}
  b_2: {{scene.synthetic: 3}}
variants:
  lda_%: {{}}
  forest: {{model: {{name: random_forest, trees: 10}}}}
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> AblationFolder:
    path = tmp_path_factory.mktemp("paper") / "two_scenes.yaml"
    path.write_text(STUDY.replace("lda_%", "lda_all"))
    return runner.run_ablation(load_ablation(path), out=path.parent / "out", session=CPU, watcher=Log())[0]


def load_lda(*overrides: str):
    return load_config(DEMO, [*TINY, "model={name: lda}", *overrides])


@pytest.fixture(scope="module")
def draws(tmp_path_factory) -> AblationFolder:
    ablation = repeat_over_seeds(load_lda(FOLDS), [0, 1])
    return runner.run_ablation(ablation, out=tmp_path_factory.mktemp("draws") / "out", session=CPU, watcher=Log())[0]


@pytest.fixture(scope="module")
def gap(study, draws, tmp_path_factory) -> Path:
    """A folder as `hsi-se gap` writes it."""
    folder = tmp_path_factory.mktemp("gap")
    shutil.copytree(study.run_of("lda_all", 0, scene="a_1"), folder / "random")
    shutil.copytree(draws.run_of("demo", 0), folder / "folds")
    return folder


def read_tables(call, *folders) -> tuple[str, str, list[dict[str, str]]]:
    """The LaTeX, the Markdown and the rows of the CSV, as the command writes them into the first folder."""
    code, out, err = call("report", *folders, "--tables")
    assert (code, err) == (0, "")
    paths = [Path(line.removeprefix("table:").strip()) for line in out.splitlines() if line.startswith("table:")]
    assert [path.name for path in paths] == ["accuracy.tex", "accuracy.md", "accuracy.csv"]
    assert {path.parent for path in paths} == {Path(folders[0], "tables")}
    latex, markdown, numbers = (path.read_text() for path in paths)
    return latex, markdown, list(csv.DictReader(io.StringIO(numbers)))


def count_by_hand(run: RunFolder, column: str) -> dict[str, float]:
    """The producer's accuracy of each class by its label, OA and AA, from what was predicted."""
    found = load_file(run.predictions)
    truth, is_correct = found["truth"], found[column] == found["truth"]
    classes = {str(label): float(is_correct[truth == label].mean()) for label in np.unique(truth).tolist()}
    return classes | {"OA": float(is_correct.mean()), "AA": float(np.mean(list(classes.values())))}


COLUMNS = {"location floor": "by_location", "spectral baseline": "by_spectrum"}


def check_numbers(rows: list[dict[str, str]], runs: list[RunFolder], method: str) -> None:
    by_hand = [count_by_hand(run, COLUMNS.get(method, "predicted")) for run in runs]
    of_method = [row for row in rows if row["method"] == method]
    assert len(of_method) >= 3 + 8
    for row in of_method:
        values = [each[row["label"] or row["class"]] for each in by_hand if (row["label"] or row["class"]) in each]
        if row["class"] == "κ":
            continue
        assert int(row["n"]) == len(values), row
        assert float(row["mean"]) == pytest.approx(np.mean(values))
        assert row["std"] == "" if len(values) == 1 else float(row["std"]) == pytest.approx(np.std(values, ddof=1))


def test_the_table_of_a_run_has_its_classes_and_both_references(study, call):
    run = study.run_of("lda_all", 0, scene="a_1")
    latex, markdown, rows = read_tables(call, run)
    for method in ("classifier", *COLUMNS):
        check_numbers(rows, [run], method)
    assert "| class | classifier | location floor | spectral baseline |" in markdown
    assert "one run" in markdown
    assert "±" not in markdown
    assert r"\label{tab:accuracy-lda-all}" in latex


def test_the_table_of_an_ablation_over_scenes_has_a_block_for_each_and_a_column_for_each_variant(study, call):
    latex, markdown, rows = read_tables(call, study)
    scenes = {scene.name: scene for scene in study.read_report().scenes}
    for scene, name in zip(scenes, ("a_1", "b_2"), strict=True):
        mine = [row for row in rows if row["scene"] == study.run_of("forest", 0, scene=name).read_record().scene]
        for method in ("lda_all", "forest", *COLUMNS):
            variant = method if method not in COLUMNS else "forest"
            check_numbers(mine, [study.run_of(variant, seed, scene=name) for seed in range(3)], method)
        assert {row["method"] for row in mine} == {"lda_all", "forest", *COLUMNS}, scene
    assert "| class | lda_all | forest | location floor | spectral baseline |" in markdown
    assert len(re.findall(r"^\|\s+\| OA \|", markdown, re.M)) == 2
    assert latex.count(r"\multicolumn{6}{l}{\emph{") == 2
    assert latex.count(r"\midrule") == 4
    assert "over 3 seeds" in markdown


def test_in_each_row_the_best_is_bold_where_the_corrected_test_shows_it_against_every_other(study, call):
    latex, markdown, rows = read_tables(call, study)
    num_bold = 0
    for name in ("a_1", "b_2"):
        runs = {
            method: [study.run_of(method, seed, scene=name) for seed in range(3)] for method in ("lda_all", "forest")
        }
        scene = runs["forest"][0].read_record().scene
        values = {method: [count_by_hand(run, "predicted") for run in mine] for method, mine in runs.items()}
        values |= {method: [count_by_hand(run, column) for run in runs["forest"]] for method, column in COLUMNS.items()}
        report = runs["forest"][0].read_report()
        ratio = report.num_test / (report.num_train + report.num_val)
        for key in values["forest"][0]:
            columns = {method: np.array([each[key] for each in mine]) for method, mine in values.items()}
            best = max(columns, key=lambda method: columns[method].mean())
            p = []
            for other in columns.keys() - {best}:
                steps = columns[best] - columns[other]
                scale = max(steps.std(ddof=1) * (1 / 3 + ratio) ** 0.5, 1e-12)
                p.append(2 * stats.t.sf(abs(steps.mean()) / scale, 2))
            is_shown = all(each * (3 - place) <= 0.05 for place, each in enumerate(sorted(p)))
            marked = [
                row["method"]
                for row in rows
                if (row["scene"], row["label"] or row["class"], row["is_best"]) == (scene, key, "1")
            ]
            assert marked == ([best] if is_shown else []), key
            num_bold += is_shown
    of_kappa = sum(row["is_best"] == "1" for row in rows if row["class"] == "κ")
    assert latex.count(r"\textbf{") == num_bold + of_kappa > 0
    assert len(re.findall(r" \*\*[\d.]+ ± [\d.]+\*\* ", markdown)) == num_bold + of_kappa


def test_folds_have_deviations_over_the_folds_and_draws_over_the_draws(gap, draws, call):
    folds = RunFolder(gap / "folds")
    _, markdown, rows = read_tables(call, folds)
    check_numbers(rows, folds.folds, "classifier")
    check_numbers(rows, folds.folds, "location floor")
    assert "over 2 folds" in markdown
    _, markdown, rows = read_tables(call, draws)
    check_numbers(rows, [draws.run_of("demo", seed) for seed in (0, 1)], "classifier")
    assert "over 2 draws of 2 folds" in markdown
    test = open_results([draws.path])[0].test("classifier", "location floor", lambda found: found.overall_accuracy)
    assert test.n == 4


def test_the_table_of_gap_has_both_splits(gap, call):
    _, markdown, rows = read_tables(call, gap)
    check_numbers([row for row in rows if row["split"] == "random split"], [RunFolder(gap / "random")], "classifier")
    check_numbers(
        [row for row in rows if row["split"] == "spatial folds"], RunFolder(gap / "folds").folds, "classifier"
    )
    assert "seed 0, lda_all, random split: one run; synthetic farmland, seed 0, demo, spatial folds: mean" in markdown


def test_several_folders_are_one_table_and_differ_by_their_names(study, call):
    first, second = (study.run_of(name, 0, scene="a_1") for name in ("lda_all", "forest"))
    _, markdown, rows = read_tables(call, first, second)
    assert {row["run"] for row in rows} == {"lda_all", "forest"}
    assert "**synthetic farmland, seed 0, forest**" in markdown
    assert not list(Path(second).glob("tables"))
    assert first.find_foreign() is None, "train --overwrite may replace what the commands wrote"


def test_a_baseline_that_differs_between_variants_has_a_column_for_each(study):
    (found, _) = open_results([study.path])
    name = "spectral baseline"
    assert name in found.methods
    runs = {"lda_all": found.runs["lda_all"], "other": {0: study.run_of("forest", 0, scene="b_2")}}
    mixed = type(found)(found.name, runs)
    assert {"spectral baseline (lda_all)", "spectral baseline (other)"} <= set(mixed.methods)


HOSTILE = ("50 %_a & {b}", "Böden, naß", "玉米", "$x$ #1 ~ ^ \\", "α")


@pytest.mark.skipif(LATEX is None, reason="no LaTeX here (`apt-get install texlive-latex-recommended`)")
def test_latex_sets_the_tables(study, gap, tmp_path, call):
    table = Table(
        "± − µ κ × – of 100 %", ("", "class", *"abcdefgh"), [("1", name, *["1 ± 2"] * 8) for name in HOSTILE], 2
    )
    texts = [
        read_tables(call, study)[0], read_tables(call, gap)[0], study.latex.read_text(),
        render_template("paper.tex", table=table),
    ]  # fmt: skip
    head = "\\documentclass{article}\n\\usepackage{booktabs,graphicx}\n\\begin{document}\n"
    (tmp_path / "paper.tex").write_text(f"{head}{''.join(texts)}\n\\end{{document}}\n", encoding="utf-8")
    command = [LATEX, "-interaction=nonstopmode", "-halt-on-error", "-draftmode", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]
    assert b"Overfull" not in done.stdout
    assert b"multiply defined" not in done.stdout


def test_letters_that_latex_lacks_are_spelled():
    assert escape_latex("玉米 ü α") == "YuMi ü a"
    assert escape_latex("丗_") == r"Sa\_" or escape_latex("丗_").isascii()


# ------------------------------------------------------------------------------------------- figures


def test_the_figures_of_an_ablation_are_a_column_wide_and_drawn_for_each_scene(study, call, tmp_path):
    folder = AblationFolder(shutil.copytree(study.path, tmp_path / "study"))
    code, out, err = call("report", folder, "--figures", "svg")
    assert (code, err) == (0, "")
    written = {line.rpartition("/")[2] for line in out.splitlines() if line.startswith("figure:")}
    of_scenes = {f"{name}_{scene}.svg" for name in ("maps", "confusion", "reliability") for scene in (1, 2)}
    assert written == {"seeds.svg", "pairs.svg", *of_scenes}
    for name in written:
        text = (folder.figures / name).read_text()
        assert float(re.search(r'<svg [^>]*width="([\d.]+)pt"', text)[1]) == pytest.approx(3.5 * 72, abs=1), name
        assert min(map(float, re.findall(r"font(?:-size)?: ([\d.]+)px", text))) >= 7, name
        assert "lda all" in text, name
        assert "lda_all" not in text.partition("</metadata>")[2], "underscores become spaces"
    reports = [study.run_of("forest", seed, scene="a_1").read_report() for seed in range(3)]
    text = (folder.figures / "reliability_1.svg").read_text()
    error = np.mean([report.calibration.expected_calibration_error_scaled for report in reports])
    assert f"forest: ECE {100 * error:.2f} %" in text
    (folder.figures / "maps_3.svg").write_text("of an earlier report")
    (folder.figures / "maps_mine.svg").write_text("of the user")
    call("report", folder, "--figures", "svg")
    assert {path.name for path in folder.figures.iterdir()} == {*written, "maps_mine.svg"}


# ------------------------------------------------------------------------------------------- methods


def describe(call, *folders) -> str:
    code, out, err = call("report", *folders, "--methods")
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 88
    return " ".join(out.split())


def test_the_methods_of_a_run_have_the_numbers_of_its_record(call, over_seeds):
    run = over_seeds.run_of("demo", 1)
    text, record, report = describe(call, run), run.read_record(), run.read_report()
    for part in (
        "synthetic farmland, seed 0, had 24 × 24 pixels and 16 bands; 387 pixels were labelled with 9 classes.",
        "The labelled pixels of each class were divided at random.",
        f"There were {report.num_train} training, {report.num_val} validation and {report.num_test} test pixels.",
        f"{report.leakage.min_distance} pixel apart, and {100 * report.leakage.test_patches_with_train_pixels:.2f} %",
        "reduced to 13 components by principal component analysis, whitened and fitted on the training pixels.",
        "Patches of 9 × 9 pixels were the input of the network: HybridSN (Roy et al. 2020)",
        "squeeze-and-excitation (Hu et al. 2018) at fold and squeeze-and-excitation (Hu et al. 2018) at conv2d",
        f"{record.num_parameters:,} parameters and {record.macs_per_patch / 1e6:.2f} million",
        "trained for 1 epoch with AdamW (peak learning rate 0.001, one-cycle schedule, weight decay 0.01, 32 patches",
        f"the validation pixels was kept (epoch {record.best_epoch}).",
        "a joint bilateral filter (Kang et al. 2014) with standard deviations of 1.0 pixels and 0.5, in 1 pass.",
        f"with hsi-se {record.versions['hsi_se']} and PyTorch {record.versions['torch']}, with {record.precision}",
        "One seed (1) was run, so that 1 classifier was trained.",
        "Test pixels took no part in training or selection.",
        f"(spectral baseline: {report.spectral_baseline.chosen.name}).",
    ):
        assert part in text, part
    assert "correlation" not in text
    text = describe(call, over_seeds)
    assert "repeated with 3 seeds (0, 1, 2), each on a split of its own, so that 3 classifiers were trained" in text
    ratio = report.num_test / (report.num_test + report.num_train + report.num_val)
    assert f"with a correlation of {ratio:.2f} between runs, the share of test pixels" in text


def test_the_methods_of_folds_gap_and_an_ablation_say_what_was_looked_at(gap, study, draws, call):
    text = describe(call, gap)
    assert text.count("The scene, synthetic farmland, seed 0, had") == 2
    assert (
        "2 folds tested every labelled pixel once, by square blocks of 6 × 6 pixels, with a buffer of 1 pixel" in text
    )
    assert "The classifier was fitted once, to the training and validation pixels." in text
    assert "linear discriminant analysis of each patch's centre pixel" in text
    assert "2 seeds (0, 1), each on a split of its own, with 2 folds each, so that 4 classifiers" in describe(
        call, draws
    )
    text = describe(call, study)
    assert "This describes the variant lda_all, the first of 2. The variant forest " in text
    assert "The variant forest changed the model to random forest (Breiman 2001)." in text
    assert "All 2 variants were looked at on the test pixels" in text


def test_every_number_in_the_methods_changes_with_the_record(study, call, tmp_path):
    run = RunFolder(shutil.copytree(study.run_of("lda_all", 0, scene="a_1"), tmp_path / "run"))
    before = describe(call, run)
    report = run.read_report()
    leakage = type(report.leakage)(**{**vars(report.leakage), "min_distance": 77, "reduction_saw_test": True})
    run.write(run.report, report.model_copy(update={"num_train": 1234, "num_val": 567, "leakage": leakage}))
    after = describe(call, run)
    for part in ("1,234 training, 567 validation", "77 pixels apart", "The reduction was fitted on test pixels too"):
        assert part in after
        assert part not in before


# ------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--methods", "--tables"], "--tables: has no effect with --methods, which only prints; leave it out"),
        (
            ["--methods", "--figures", "pdf"],
            "--figures pdf: has no effect with --methods, which only prints; leave it out",
        ),
    ],
)
def test_an_option_without_an_effect_is_refused(study, call, options, message):
    assert call("report", study, *options) == (2, "", f"hsi-se: {message}\n")


def test_several_folders_need_an_option_that_takes_them(study, gap, call):
    code, out, err = call("report", study, gap, study)
    assert (code, out) == (2, "")
    assert err.endswith("3 folders have no page in common; name two, or add --tables or --methods\n")
    code, _, err = call("report", study, gap, "--tables", "--open")
    assert (code, err) == (2, "hsi-se: --open: has no effect with several runs; leave it out\n")


def test_a_folder_without_results_is_one_line(tmp_path, call):
    for option in ("--tables", "--methods"):
        code, out, err = call("report", tmp_path, option)
        assert (code, out, err.count("\n")) == (2, "", 1)
    assert not list(tmp_path.iterdir())
