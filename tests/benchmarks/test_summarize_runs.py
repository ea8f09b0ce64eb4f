"""A summary of runs says with which settings they were made."""

import json
import shutil
import sys

import pytest

import hsi_se
from benchmarks.summarize_runs import list_settings, main
from hsi_se.ablation.file import load_ablation
from hsi_se.config.yaml_file import load_config
from hsi_se.runs.folder import RunFolder
from tests.conftest import CPU, ROOT, TINY

DEMO = ROOT / "configs" / "demo.yaml"


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[RunFolder]:
    folder = tmp_path_factory.mktemp("runs")
    changes = [["train.epochs=1"], ["train.epochs=1", "model.width=0.5"]]
    made = []
    for number, change in enumerate(changes):
        run = hsi_se.train(load_config(DEMO, [*TINY, *change]), out=folder / str(number), session=CPU)
        hsi_se.evaluate(run)
        made.append(run)
    return made


def summarize(monkeypatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["summarize_runs.py", *map(str, arguments)])
    main()


def test_a_summary_holds_all_settings_of_the_first_variant_and_what_the_others_change(
    runs, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "out.json"
    summarize(monkeypatch, out, "--command", "a command", f"wide={runs[0]}", f"half={runs[1]}")
    stored = json.loads(out.read_text(encoding="utf-8"))
    assert stored["command"] == "a command"
    assert stored["settings"] == list_settings(runs[0].read_config())
    assert stored["settings"]["model.width"] == 1.0
    assert "seed" not in stored["settings"]
    assert stored["variants"]["wide"]["differs"] == {}
    assert stored["variants"]["half"]["differs"] == {"model.width": 0.5}
    (row,) = stored["variants"]["half"]["runs"]
    assert row["overall_accuracy"] == round(runs[1].read_report().overall_accuracy, 6)
    assert "| half | 1 |" in capsys.readouterr().out


def test_the_settings_of_an_ablation_are_added_to_its_result(tmp_path, monkeypatch):
    out, plan = tmp_path / "placement.json", ROOT / "configs" / "ablations" / "placement.yaml"
    shutil.copy(ROOT / "benchmarks" / "results" / "placement.json", out)
    before = json.loads(out.read_text(encoding="utf-8"))
    out.write_text(json.dumps({key: value for key, value in before.items() if key != "settings"}))
    summarize(monkeypatch, out, "--settings-of", plan)
    after = json.loads(out.read_text(encoding="utf-8"))
    assert after == before
    assert after["settings"] == list_settings(load_ablation(plan).runs[0].config)


def test_without_runs_there_is_nothing_to_summarize(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        summarize(monkeypatch, tmp_path / "out.json", "--command", "a command")
    assert "give runs or --settings-of" in capsys.readouterr().err
