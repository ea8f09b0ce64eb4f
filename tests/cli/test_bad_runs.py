"""Devices and run folders that cannot be used, and runs that are damaged or foreign: one line, nothing is lost."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hsi_se.runs.folder import RunFolder
from tests.cli.conftest import BANDS, COLS, ROWS, Call, Refuse, train
from tests.conftest import ROOT

pytestmark = pytest.mark.usefixtures("here")

# ------------------------------------------------------------------------- devices and run folders


def test_cuda_without_a_gpu_is_refused_with_the_device_to_write(here: Path) -> None:
    # In a process of its own, where CUDA sees no device even on a machine that has one.
    command = [sys.executable, "-m", "hsi_se", *train(), "--device", "cuda"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "hsi-se: --device cuda: PyTorch found no CUDA device; use --device cpu\n"
    assert not (here / "runs").exists()


def test_unknown_device_is_answered_with_the_choices(refuse: Refuse) -> None:
    assert refuse(*train(), "--device", "foo") == "--device foo: choose from auto, cpu, cuda"


def test_run_folder_that_exists_is_not_touched_without_overwrite(refuse: Refuse, here: Path, trained: Path) -> None:
    shutil.copytree(trained / "run", here / "mine")
    message = refuse(*train(), "--out", "mine")
    assert message == "mine: this run folder already exists; choose another with --out DIR, or add --overwrite"


def test_run_that_fails_leaves_the_one_it_would_have_replaced(refuse: Refuse, here: Path, trained: Path) -> None:
    shutil.copytree(trained / "run", here / "mine")
    refuse(*train("reduction.components=17"), "--out", "mine", "--overwrite")


def test_overwriting_takes_no_file_with_it_that_no_command_wrote(
    refuse: Refuse, call: Call, here: Path, trained: Path
) -> None:
    shutil.copytree(trained / "run", here / "mine")
    for command in (["eval", "mine"], ["map", "mine"], ["report", "mine", "--figures", "svg"]):
        assert call(*command)[0] == 0
    for name in ("model.onnx", "map_pixels.png", "explain.safetensors"):
        (here / "mine" / name).touch()
    for name in ("notes.txt", "figures/mine.svg", "map/notes/today.txt", "drafts/map.png"):
        foreign = here / "mine" / name
        foreign.parent.mkdir(exist_ok=True)
        foreign.write_text("years of work", encoding="utf-8")
        assert refuse(*train(), "--out", "mine", "--overwrite") == (
            f"--overwrite would delete mine/{name}, which hsi-se did not write; move it first"
        )
        foreign.unlink()
    assert call(*train(), "--out", "mine", "--overwrite")[0] == 0


@pytest.mark.parametrize("options", [[], ["--overwrite"]])
def test_folder_that_is_no_run_is_never_replaced(refuse: Refuse, here: Path, options: list[str]) -> None:
    (here / "thesis").mkdir()
    (here / "thesis" / "chapter.tex").write_text("years of work", encoding="utf-8")
    message = refuse(*train(), "--out", "thesis", *options)
    assert message == "thesis: already exists but is not a run folder; choose another with --out DIR"


def test_file_where_the_run_should_go_is_never_replaced(refuse: Refuse) -> None:
    message = refuse(*train(), "--out", "cube.mat", "--overwrite")
    assert message == "cube.mat: already exists but is not a run folder; choose another with --out DIR"


def test_run_below_a_file_is_refused_before_training(refuse: Refuse, here: Path) -> None:
    message = refuse(*train(), "--out", "cube.mat/run")
    assert message == f"cube.mat/run: cannot create a folder in {here / 'cube.mat'}; choose another with --out DIR"


# ---------------------------------------------------------------------------------------- eval


@pytest.fixture
def mine(here: Path, trained: Path) -> Path:
    """A finished run at `mine`, to be damaged."""
    return Path(shutil.copytree(trained / "run", here / "mine"))


def test_run_that_is_missing_is_named(refuse: Refuse) -> None:
    assert refuse("eval", "absent") == "absent: no such run folder; `hsi-se train` prints the path it writes"


def test_file_is_no_run(refuse: Refuse) -> None:
    assert refuse("eval", "cube.mat") == ("cube.mat: is a file; name a run folder (`hsi-se train` prints its path)")


def test_folder_that_is_no_run_is_refused_by_eval(refuse: Refuse, here: Path) -> None:
    (here / "thesis").mkdir()
    message = refuse("eval", "thesis")
    assert message == "thesis: not a run folder (record.json is missing); name one that train wrote"


@pytest.mark.parametrize(
    "runs",
    [("seed-0", "seed-1"), ("blocks", "random"), ("runs/none/seed-0",), ("runs/wet/none/seed-0",)],
    ids=["seeds", "gap", "ablation", "ablation over scenes"],
)
def test_folder_that_holds_runs_is_answered_with_one_of_them(
    refuse: Refuse, here: Path, trained: Path, runs: tuple[str, ...]
) -> None:
    for name in runs:
        shutil.copytree(trained / "run", here / "many" / name)
    message = f"many: contains runs but is not a run itself; name one of them, such as many/{runs[0]}"
    commands = [
        ["map", "many"],
        ["explain", "many"],
        ["export", "many", "--format", "onnx"],
        ["report", "many"],
        ["resume", "many"],
        ["eval", "many", "--scene", "cube.mat"],
        ["eval", "many"],
    ]
    for command in commands:
        assert refuse(*command) == message


@pytest.mark.parametrize("name", ["split.safetensors", "bundle.safetensors", "bundle.json"])
def test_file_missing_from_a_run_is_named(refuse: Refuse, mine: Path, name: str) -> None:
    (mine / name).unlink()
    assert refuse("eval", "mine") == f"mine/{name}: missing from the run folder; train again"


def test_config_missing_from_a_run_is_named(refuse: Refuse, mine: Path) -> None:
    (mine / "config.yaml").unlink()
    assert refuse("eval", "mine").startswith("mine/config.yaml: no such config file; ")


@pytest.mark.parametrize("name", ["record.json", "bundle.json"])
@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        pytest.param(lambda content: content[: len(content) // 2], "Invalid JSON: ", id="truncated"),
        pytest.param(lambda _: b"", "Invalid JSON: ", id="empty"),
        pytest.param(lambda _: b"\x89PNG\xff\xfe", "Invalid JSON: ", id="binary"),
        pytest.param(lambda _: b'{"kind": "another tool"}', "Field required", id="foreign"),
        pytest.param(lambda _: b"[1, 2]", "", id="list"),
        pytest.param(
            lambda content: json.dumps(json.loads(content) | {"mood": "good"}).encode(),
            "mood: Extra inputs are not permitted",
            id="newer",
        ),
    ],
)
def test_damaged_json_of_a_run_is_named_with_what_is_wrong(
    refuse: Refuse, mine: Path, name: str, damage: Callable[[bytes], bytes], problem: str
) -> None:
    path = mine / name
    path.write_bytes(damage(path.read_bytes()))
    message = refuse("eval", "mine")
    assert message.startswith(f"mine/{name}: not what this version writes (")
    assert problem in message
    assert "(: " not in message
    assert message.endswith("); train again")


@pytest.mark.parametrize("name", ["split.safetensors", "bundle.safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_arrays_of_a_run_cut_short_are_named(refuse: Refuse, mine: Path, name: str, share: float) -> None:
    path = mine / name
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    message = refuse("eval", "mine")
    assert message.startswith(f"mine/{name}: damaged (")
    assert message.endswith("); train again")


@pytest.mark.parametrize(
    ("name", "other", "absent"),
    [
        ("split.safetensors", "bundle.safetensors", "train"),
        ("bundle.safetensors", "split.safetensors", "reduction.mean"),
    ],
)
def test_arrays_of_another_kind_are_named_with_what_they_lack(
    refuse: Refuse, mine: Path, name: str, other: str, absent: str
) -> None:
    shutil.copyfile(mine / other, mine / name)
    assert refuse("eval", "mine") == (f"mine/{name}: not what this version writes ({absent} is missing); train again")


def test_weights_of_another_network_are_refused(refuse: Refuse, mine: Path) -> None:
    folder = RunFolder(mine)
    bundle = folder.read_bundle()
    model = bundle.facts.model.model_copy(update={"order": "2d-3d"})
    facts = bundle.facts.model_copy(update={"model": model})
    folder.write_result(folder.read_record(), bundle=replace(bundle, facts=facts))
    message = refuse("eval", "mine")
    assert "the weights do not fit the architecture (" in message
    assert message.endswith("; train again")


def test_damaged_config_of_a_run_is_named_with_its_place(refuse: Refuse, mine: Path) -> None:
    (mine / "config.yaml").write_text("scene: [\n", encoding="utf-8")
    assert refuse("eval", "mine").startswith("mine/config.yaml:2:1: ")


def test_another_scene_than_the_one_trained_on_is_refused(refuse: Refuse, mine: Path) -> None:
    config = (mine / "config.yaml").read_text(encoding="utf-8")
    (mine / "config.yaml").write_text(config.replace("synthetic: 0", "synthetic: 1"), encoding="utf-8")
    message = refuse("eval", "mine")
    assert message.startswith("mine/config.yaml: not what training wrote (digest ")
    assert message.endswith("; put the right file back, or train again with --overwrite")


def test_missing_data_folder_is_named_by_eval(refuse: Refuse, mine: Path) -> None:
    assert refuse("eval", str(mine), "--data", "absent").startswith("--data absent: no such folder; ")


def test_unknown_device_is_refused_by_eval(refuse: Refuse, mine: Path) -> None:
    assert refuse("eval", str(mine), "--device", "foo") == "--device foo: choose from auto, cpu, cuda"


# ---------------------------------------------------------------------------------------- map, export


@pytest.fixture
def trained_here(trained: Path, here: Path) -> str:
    shutil.copytree(trained / "run", here / "run")
    return "run"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--scene", "absent.img"], "scene.cube: no file absent.img in the current folder or below datasets; "),
        (["--scene", "labels.mat"], "labels.mat: no 3-D numeric array; the file contains "),
        (["--scene", "few.npy"], "few.npy: the scene has 12 bands, but the model was trained on 16; "),
        (["--scene", "cube.mat"], "cube.mat: its values range from -3.8"),
        (["--scene", "empty.npy"], "empty.npy: all 576 pixels have no data in at least one band; "),
        (["--engine", "fast"], "--engine fast: choose from dense, patches"),
        (["--device", "tpu"], "--device tpu: did you mean 'cpu'? choose from auto, cpu, cuda"),
        (["--set", "seed=1"], "--set seed=1: only settings of the scene apply here; "),
        (["--set", "scene.scal=1"], "--set scene.scal=1: "),
        (
            ["--out", "taken"],
            "taken/map.png: already exists but is not part of a finished map; choose another folder with --out DIR",
        ),
        (["--out", "cube.mat"], "cube.mat: already exists; check the path"),
    ],
)
def test_a_map_that_cannot_be_made_is_refused(
    refuse: Refuse, here: Path, trained_here: str, options: list[str], message: str
) -> None:
    np.save(here / "few.npy", np.ones((4, 5, 12)))
    np.save(here / "empty.npy", np.full((ROWS, COLS, BANDS), np.nan))
    (here / "taken").mkdir()
    (here / "taken" / "map.png").write_text("mine")
    if options[0] == "--set" and "scal" in options[1]:
        options = ["--scene", "cube.mat", *options]
    assert refuse("map", trained_here, *options).startswith(message)


def test_a_map_of_no_run_is_refused(refuse: Refuse) -> None:
    assert refuse("map", "nowhere").startswith("nowhere: no such run folder; ")
    assert refuse("export", "nowhere", "--format", "onnx").startswith("nowhere: no such run folder; ")


def test_an_export_that_cannot_be_made_is_refused(refuse: Refuse, trained_here: str) -> None:
    assert refuse("export", trained_here, "--format", "h5") == "--format h5: choose from onnx, torch"
    assert refuse("export", trained_here, "--format", "onnx", "--out", "a.pt").startswith("--out a.pt: a file of ")


@pytest.mark.parametrize("words", [("train", "é\udcff.yaml"), ("map", "run", "--out", "\udcff")])
def test_a_name_that_is_not_utf_8_is_refused_before_a_library_fails_on_it(call, words):
    code, out, err = call(*words)
    assert (code, out) == (2, "")
    assert err == f"hsi-se: {words[-1]!a}: is not UTF-8 text; rename the file or folder\n"


def test_a_network_too_large_for_any_memory_is_refused_in_one_line(call):
    config = ROOT / "configs" / "demo.yaml"
    code, _, err = call("info", config, "--set", "reduction.components=99999999999")
    assert code == 2
    assert err.startswith("hsi-se: out of memory (Storage size calculation overflowed")
    assert err.count("\n") == 1
