"""Files of runs whose parts are missing, or have another type, shape or value: every command ends well or in one line.

`make test` damages a few of them, `make exhaustive` hundreds.
"""

import random
import re
import shutil
import signal
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest
from numpy.typing import NDArray
from torch import Tensor

from hsi_se.cli import watch
from hsi_se.config.model import Lda
from hsi_se.evaluation import baselines
from hsi_se.runs.folder import RunFolder
from hsi_se.system.forms import Form, check_arrays, list_forms
from tests.conftest import ROOT, TINY, set_options
from tests.processes import Command, Moment
from tests.runs.damage import ARRAYS, COMMANDS, call, describe_fault, list_damages

SMALL = (*TINY, "model.width=0.125", "train.epochs=1", "split={kind: random, train: {per_class: 3}, validation: 0.34}")
DEMO = ROOT / "configs" / "demo.yaml"


@pytest.fixture(scope="module", autouse=True)
def _quick():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(baselines, "_CANDIDATES", (Lda(name="lda"),))
        patch.setattr(watch, "_PATIENCE_S", 0.0)
        patch.setattr(watch, "POLL_S", 0.0)
        yield


def run(*arguments: object) -> None:
    code, said = call(*map(str, arguments))
    assert code == 0, said


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A run that is evaluated and explained."""
    path = tmp_path_factory.mktemp("damage") / "run"
    run("train", DEMO, *set_options(*SMALL, "model.attention={fold: {kind: se}}"), "--out", path)
    run("eval", path)
    run("explain", path)
    return path


def list_faults(kind: str, folder: Path, copies: Path, *, most: int) -> list[str]:
    names = [name for name in COMMANDS[kind] if (folder / name).is_file()]
    damages = [(name, *damage) for name in names for damage in list_damages(folder / name)]
    faults, made = [], 0
    for name, what, make in random.Random(0).sample(damages, len(damages)):
        if made == most:
            break
        try:
            content = make()
        except (IndexError, RuntimeError, TypeError):  # an array of which this cannot be made
            continue
        made += 1
        found = describe_fault(kind, folder, name, content, copies=copies)
        faults += [f"{name} {what}: {fault}" for fault in found]
    assert made == most
    return faults


@pytest.mark.slow
def test_damaged_parts_of_a_run_end_in_one_line_or_have_no_effect(folder, tmp_path):
    assert not list_faults("run", folder, tmp_path / "copies", most=8)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_hundreds_of_damaged_parts_of_a_run_end_in_one_line_or_have_no_effect(folder, tmp_path):
    run("map", folder)
    assert not list_faults("run", folder, tmp_path / "copies", most=400)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_damaged_parts_of_an_unfinished_run_end_in_one_line_or_have_no_effect(tmp_path):
    moment = Moment("hsi_se.training.checkpoint:Checkpoints.after_step", signal.SIGTERM, call=2)
    options = set_options(*SMALL, "train.epochs=3", "train.checkpoint_every_s=0")
    command = Command("train", DEMO, *options, "--out", tmp_path / "begun", log=tmp_path / "log", moment=moment)
    assert command.wait() == 128 + signal.SIGTERM
    assert RunFolder(tmp_path / "begun").has_checkpoint
    assert not list_faults("begun", tmp_path / "begun", tmp_path / "copies", most=150)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_damaged_parts_of_folds_and_of_an_ablation_end_in_one_line_or_have_no_effect(tmp_path):
    folds = set_options(*TINY, "model={name: lda}", "split={kind: folds, by: blocks, folds: 2}")
    run("train", DEMO, *folds, "--out", tmp_path / "series")
    run("eval", tmp_path / "series")
    draw = next(path.parent.parent for path in (tmp_path / "series").rglob("fold-1/record.json"))
    assert not list_faults("folds", draw, tmp_path / "copies", most=100)
    shutil.copyfile(DEMO, tmp_path / "base.yaml")
    lines = ["name: a", "base: base.yaml", "seeds: [0, 1]", "baseline: plain", "variants:", "  plain: {}"]
    (tmp_path / "file.yaml").write_text("\n".join([*lines, "  se: {model.attention: {fold: {kind: se}}}"]))
    changes = [change.replace("{epochs: 2, batch_size: 32}", "{epochs: 1, batch_size: 32}") for change in SMALL[:-2]]
    run("ablate", tmp_path / "file.yaml", *set_options(*changes, "model.width=0.125"), "--out", tmp_path / "ablation")
    assert not list_faults("ablation", tmp_path / "ablation", tmp_path / "copies", most=200)


def test_the_corpus_notices_a_traceback(folder, tmp_path, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise KeyError("ours")

    monkeypatch.setattr("hsi_se.reports.explorer.RunFiles.read", fail)
    found = describe_fault("run", folder, "report.json", (folder / "report.json").read_bytes(), copies=tmp_path / "c")
    assert "KeyError" in found[0]


def test_every_file_of_a_run_with_facts_or_arrays_is_in_the_corpus(folder):
    ends = {".json", ".jsonl", ".yaml", ".safetensors"}
    written = {path.name for path in folder.iterdir() if path.suffix in ends}
    assert written - {"mapping_cost.json", "predictions.safetensors"} <= {*COMMANDS["run"]}  # those of folds are there
    assert len(ARRAYS) > 20


class Kind:
    numbers: Annotated[NDArray[np.float32], Form("rows 3", low=0, high="rows")]
    places: Annotated[NDArray[np.int64] | None, Form("n", index_of="rows")] = None
    gamma: Annotated[Tensor, Form("", "float64", has_gaps=True)]


GOOD = {"numbers": np.ones((2, 3), np.float32), "gamma": np.array(np.nan)}


def test_a_form_has_the_type_of_its_annotation():
    assert [form.dtype for form in list_forms(Kind).values()] == ["float32", "int64", "float64"]
    check_arrays(Kind, GOOD, {"rows": 2})


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"numbers": np.ones((2, 3))}, "numbers is float64"),
        ({"numbers": np.ones((2, 4), np.float32)}, "[2, 4] instead of float32 [rows = 2, 3]"),
        ({"numbers": np.ones((1, 2, 3), np.float32)}, "[1, 2, 3]"),
        ({"numbers": np.ones((3, 3), np.float32)}, "[3, 3]"),
        ({"numbers": np.full((2, 3), np.nan, np.float32)}, "not finite"),
        ({"numbers": np.full((2, 3), 2.5, np.float32)}, "outside 0 to 2"),
        ({"places": np.array([0, 2])}, "outside 0 to 1"),
        ({"other": np.ones(1)}, "other is unknown"),
        ({"gamma": None}, "gamma is missing"),
    ],
)
def test_an_array_of_another_form_is_named(change, problem):
    arrays = {name: array for name, array in {**GOOD, **change}.items() if array is not None}
    with pytest.raises(ValueError, match=re.escape(problem)):
        check_arrays(Kind, arrays, {"rows": 2})
