"""The verdict of a run where a user meets it: the terminal, both reports, the page; and its next step."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from hsi_se.cli.tables import _print_classes, print_finding
from hsi_se.config.yaml_file import load_config
from hsi_se.evaluation.metrics import Evaluation
from hsi_se.reports.finding import describe_finding
from hsi_se.runs.folder import RunFolder
from hsi_se.scene.synthetic import make_synthetic_scene
from hsi_se.workflows.train import train
from tests.conftest import CPU, ROOT

SETTINGS = (
    "split={kind: blocks, train: 0.3, block_size: 8}",
    "reduction={kind: pca, components: 13, fit_on: train}",
    "patch.size=9",
    "train={epochs: 1, batch_size: 64, learning_rate: 1e-6}",
)


NAMES = {"svm": "SVM", "extra_trees": "extra trees", "lda": "shrinkage LDA"}


@pytest.fixture(scope="module", params=["prediction={}", "prediction={smoothing: {spatial: 1, range: 0.5}}"])
def untrained(request, tmp_path_factory) -> Path:
    """A run on blocks whose network has learned next to nothing, and its scene; smoothed or not."""
    folder = tmp_path_factory.mktemp("verdict")
    scene = make_synthetic_scene(seed=3, rows=64, cols=48, bands=24)
    np.save(folder / "cube.npy", scene.cube)
    np.save(folder / "labels.npy", scene.labels)
    files = f"scene={{cube: {folder / 'cube.npy'}, labels: {folder / 'labels.npy'}}}"
    config = load_config(ROOT / "configs" / "demo.yaml", [files, *SETTINGS, request.param])
    train(config, out=folder / "run", session=CPU)
    return folder / "run"


@pytest.fixture
def evaluated(untrained, call) -> tuple[RunFolder, str]:
    code, out, err = call("eval", untrained, "--device", "cpu")
    assert (code, "Traceback" in err) == (0, False)
    return RunFolder(untrained), out


def test_a_network_far_below_the_spectral_baseline_is_worse_wherever_the_verdict_is_shown(evaluated):
    folder, out = evaluated
    report = json.loads(folder.report.read_text())
    found = report["against_spectral_baseline"]
    baseline = report["spectral_baseline"]["overall_accuracy"]
    assert baseline - report["overall_accuracy"] > 0.3
    assert found["outcome"] == "worse"
    assert found["difference"] == pytest.approx(report["overall_accuracy"] - baseline)
    assert found["unit"] == "test blocks of 8 × 8 pixels"
    assert found["num_units"] >= 6
    name = folder.read_report().spectral_baseline.chosen.name
    assert name == f"{NAMES[report['spectral_baseline']['chosen']['classifier']]} on 24 standardised bands"
    values = f"{100 * report['overall_accuracy']:.2f} % against {100 * baseline:.2f} %"
    sentence = f"The network is worse than the spectral baseline, {name}: {values}"
    for text in (out, report["verdict"], folder.report_text.read_text(), folder.page.read_text()):
        assert sentence in text
    if report["against_location_floor"]["outcome"] != "worse":
        assert "Row and column alone" not in report["verdict"]
    assert '<p class="verdict failed">' in folder.page.read_text()
    chosen = f"--set &#34;model={{name: {report['spectral_baseline']['chosen']['classifier']}}}&#34;"
    step = f"<code>hsi-se train {folder.config} {chosen} --set &#34;reduction={{kind: none}}&#34;"
    assert step in folder.page.read_text()


def test_the_terminal_says_the_finding_first_in_whole_words_and_in_the_colour_of_its_outcome(
    evaluated, monkeypatch, capfd
):
    folder, out = evaluated
    report = folder.read_report()
    finding = describe_finding(report, folder.read_config())
    assert out.splitlines()[:2] == [finding, report.verdict]
    assert not re.search(r"\b(OA|AA|F1)\b|κ", finding)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "400")
    for outcome, colour in (("worse", 31), ("better", 32), ("no difference shown", 33)):
        found = report.against_spectral_baseline
        changed = type(found)(**{**vars(found), "outcome": outcome})
        update = {"against_spectral_baseline": changed, "against_location_floor": changed}
        other = report.model_copy(update=update)
        monkeypatch.setattr(RunFolder, "read_report", lambda _, other=other: other)
        print_finding(folder)
        expected = describe_finding(other, folder.read_config())
        assert capfd.readouterr().out == f"\x1b[1;{colour}m{expected}\x1b[0m\n"


def test_both_reports_list_every_candidate_with_its_cross_validated_accuracy(evaluated):
    folder, _ = evaluated
    found = folder.read_report().spectral_baseline
    assert [(each.classifier, each.reduction) for each in found.candidates] == [
        (classifier, reduction) for classifier in NAMES for reduction in ("none", "pca")
    ]
    assert found.chosen == max(found.candidates, key=lambda each: each.accuracy)
    for each in found.candidates:
        accuracy = f"{100 * each.accuracy:.2f}"
        assert f"| {each.description} | {accuracy} |" in folder.report_text.read_text()
        assert f'<th scope="row">{each.description}</th><td>{accuracy}</td>' in folder.page.read_text()


def test_the_next_step_on_the_terminal_trains_the_baseline_that_was_better(evaluated, call, tmp_path):
    folder, out = evaluated
    (line,) = [line for line in out.splitlines() if line.startswith("next: ")]
    (command,) = re.findall("`hsi-se (.*)`", line)
    words = shlex.split(command)
    assert words[:2] == ["train", str(folder.config)]
    assert call(*words, "--out", tmp_path / "run")[0] == 0
    code, out, _ = call("eval", tmp_path / "run")
    assert code == 0
    report, before = RunFolder(tmp_path / "run").read_report(), folder.read_report()
    baseline = before.spectral_baseline
    assert report.split_digest == before.split_digest
    assert report.overall_accuracy == pytest.approx(baseline.overall_accuracy, abs=0.002)
    assert report.spectral_baseline.chosen == baseline.chosen
    assert report.against_spectral_baseline is None
    assert f"The spectral baseline is the same classifier, {baseline.chosen.name}, so the two are not compared" in out


def test_all_that_eval_prints_on_a_terminal_fits_80_columns_in_whole_words(untrained, call, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = call("eval", untrained, "--device", "cpu")
    assert code == 0
    lines = re.sub(r"\x1b\[[\d;?]*\w", "", out).splitlines()
    for line in lines:
        assert len(line) <= 80 or str(untrained) in line, "only a path may be longer"
    report = RunFolder(untrained).read_report()
    (headings,) = [line for line in lines if "overall accuracy" in line and line.startswith("┃")]
    assert re.findall(r"\w+ ?\w+", headings) == ["overall accuracy", "average accuracy", "kappa"]
    for name, found in (("network", report), ("location floor", report.location_floor)):
        values = (
            f"{100 * found.overall_accuracy:.2f} %",
            f"{100 * found.average_accuracy:.2f} %",
            f"{found.kappa:.4f}",
        )
        assert any(all(value in line for value in (f"│ {name} ", *values)) for line in lines)
    assert not any(re.search(r"\b(OA|AA)\b|κ", line) for line in lines)


def test_tables_of_long_names_and_many_folds_break_in_names_and_never_in_numbers(capsys):
    confusion = np.full((16, 16), 1_234_567)
    names = tuple(f"Buildings-Grass-Trees-Drives {number}" for number in range(16))
    found = Evaluation(confusion, tuple(range(1, 17)), names)
    _print_classes("test pixels", found, {"floor\n%": ["100.00"] * 16})
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert out.count(str(16 * 1_234_567)) == 16
    assert out.count("100.00 ") == 16
