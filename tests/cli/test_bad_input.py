"""A user's mistake ends in exit code 2 and one line that says what to change; nothing is written."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from numpy.typing import NDArray

from hsi_se.cli import main as cli
from hsi_se.runs.folder import RunFolder
from tests.conftest import ROOT

ROWS, COLS, BANDS = 24, 24, 16
CONFIG = """\
scene: {synthetic: 0, rows: 24, cols: 24, bands: 16}
split: {kind: random, train: {per_class: 3}, validation: 0.34}
reduction: {kind: pca, components: 13, fit_on: train}
patch: {size: 9}
model: {name: hybridsn}
train: {epochs: 1, batch_size: 8}
"""
FILES = "scene={cube: cube.mat, labels: labels.mat}"

Run = Callable[..., tuple[int, str, str]]
Refuse = Callable[..., str]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `config.yaml` and a finished run of it, `run`; copy it before you damage it."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "config.yaml").write_text(CONFIG, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["hsi-se", "train", str(folder / "config.yaml"), "--out", str(folder / "run")])
        with pytest.raises(SystemExit) as caught:
            cli.main()
    assert caught.value.code == 0
    return folder


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """The working folder of `run`: a good config and a good scene of two files, and no run."""
    (tmp_path / "config.yaml").write_text(CONFIG, encoding="utf-8")
    _save(tmp_path / "cube.mat", cube=_make_cube())
    _save(tmp_path / "labels.mat", labels=_make_labels())
    return tmp_path


@pytest.fixture
def run(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line in `here`; returns its exit code, standard output and standard error."""
    monkeypatch.chdir(here)

    def run_command(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["hsi-se", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            cli.main()
        code = caught.value.code
        assert isinstance(code, int)
        return code, *capsys.readouterr()

    return run_command


@pytest.fixture
def refuse(here: Path, run: Run) -> Refuse:
    """Returns the one line with which a command is refused; no file or folder has come or gone."""

    def refuse_command(*arguments: str) -> str:
        before = _list_files(here)
        code, out, err = run(*arguments)
        assert code == 2
        assert out == ""
        assert err.startswith("hsi-se: ")
        assert err.count("\n") == 1
        assert err.endswith("\n")
        assert "Traceback" not in err
        assert _list_files(here) == before
        return err.removeprefix("hsi-se: ").removesuffix("\n")

    return refuse_command


def _list_files(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def _make_cube() -> NDArray[np.float64]:
    return np.random.default_rng(0).normal(size=(ROWS, COLS, BANDS))


def _make_labels() -> NDArray[np.float64]:
    """Three classes in vertical stripes, the first column unlabelled."""
    labels = np.tile(1.0 + np.arange(COLS) // 8, (ROWS, 1))
    labels[:, 0] = 0
    return labels


def _save(path: str | Path, **arrays: Any) -> None:
    scipy.io.savemat(path, arrays)


def _with(array: NDArray[np.float64], *changes: tuple[tuple[int, ...], float]) -> NDArray[np.float64]:
    for index, value in changes:
        array[index] = value
    return array


def _train(*overrides: str) -> list[str]:
    return ["train", "config.yaml", *(part for override in overrides for part in ("--set", override))]


# ----------------------------------------------------------------------- what the tests stand on


def test_the_good_config_trains_on_the_good_files(run: Run, here: Path) -> None:
    """So that each refusal below has its one cause."""
    code, out, err = run(*_train(FILES, "split.train=0.1"), "--out", "runs/files")
    assert code == 0, err
    assert "run folder: runs/files" in out
    assert [path.name for path in (here / "runs").iterdir()] == ["files"]


# -------------------------------------------------------------------------------------- config


def test_missing_config_is_named(refuse: Refuse) -> None:
    assert refuse("train", "absent.yaml") == "absent.yaml: no such config file; check the path"


def test_misspelt_setting_is_named_with_its_line_and_the_nearest_name(refuse: Refuse, here: Path) -> None:
    (here / "config.yaml").write_text(CONFIG.replace("epochs: 1", "epoch: 1"), encoding="utf-8")
    assert refuse(*_train()).startswith(
        "config.yaml:6:9: train.epoch = 1: unknown setting; did you mean 'epochs'? choose from epochs, "
    )


def test_unknown_setting_is_named_with_its_line_and_the_choices(refuse: Refuse, here: Path) -> None:
    (here / "config.yaml").write_text(CONFIG + "colour: red\n", encoding="utf-8")
    assert refuse(*_train()) == (
        "config.yaml:7:1: colour = 'red': unknown setting; choose from "
        "name, seed, scene, split, reduction, patch, model, train, prediction"
    )


def test_message_with_a_line_break_in_it_is_still_one_line(refuse: Refuse) -> None:
    assert "patch.size" in refuse(*_train("patch.size=8\n"))


@pytest.mark.parametrize("command", ["train", "info"])
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("patch.size=8", "patch.size = 8: a patch needs a centre pixel, so its size must be odd; write 7 or 9"),
        (
            "patch.size=7",
            "patch.size = 7: four 3 × 3 convolutions without padding need at least 9; write patch.size: 9 or more",
        ),
        (
            "reduction.components=12",
            "reduction.components = 12: spectral kernels 7, 5 and 3 deep need at least 13; "
            "keep more bands, or write model.order: 2d-3d",
        ),
        (
            "model.attention={conv3d_4: {kind: se}}",
            "model.attention.conv3d_4: unknown point; did you mean 'conv3d_3'? "
            "choose from conv3d_1, conv3d_2, conv3d_3, fold, conv2d",
        ),
        (
            "split.train=1.4",
            "split.train = 1.4: a fraction must lie in (0, 1); write 0.1, or {per_class: 50} for counts",
        ),
    ],
)
def test_setting_that_cannot_work_is_refused_before_any_data_is_read(
    refuse: Refuse, command: str, override: str, message: str
) -> None:
    arguments = [command, "config.yaml", "--set", "scene={cube: absent.mat, labels: absent.mat}", "--set", override]
    assert refuse(*arguments) == f"--set {override}: {message}"


@pytest.mark.parametrize("kind", ["pca", "mnf"])
def test_more_components_than_bands_are_refused_with_the_most_there_can_be(refuse: Refuse, kind: str) -> None:
    assert refuse(*_train(f"reduction={{kind: {kind}, components: 17, fit_on: train}}")) == (
        "reduction.components = 17: the scene has 16 bands and the fit 18 pixels; use at most 16"
    )


def test_too_few_neighbours_for_the_noise_are_refused(refuse: Refuse) -> None:
    changes = "reduction={kind: mnf, components: 2, fit_on: train}", "model={name: svm}", "split.train={per_class: 1}"
    wide = "scene={synthetic: 0, rows: 32, cols: 32, bands: 60}"
    message = refuse(*_train(*changes, wide))
    assert re.fullmatch(
        r"reduction\.kind = mnf: 3\d pairs of neighbouring pixels are too few for the noise of 60 bands; "
        r"write reduction\.fit_on: scene, or reduction\.kind: pca",
        message,
    )  # at most four of each of nine training pixels


def test_more_components_than_training_pixels_are_refused(refuse: Refuse) -> None:
    message = refuse(*_train("split.train={per_class: 1}"))
    assert message == (
        "reduction.components = 13: the scene has 16 bands and the fit 9 pixels; "
        "write reduction.fit_on: scene, or use at most 8"
    )


def test_too_few_bands_for_the_kernels_are_refused_where_nothing_reduces_them(refuse: Refuse) -> None:
    _save("cube.mat", cube=_make_cube()[:, :, :12])
    message = refuse(*_train(FILES, "reduction={kind: none}"))
    assert "= 12: spectral kernels 7, 5 and 3 deep need at least 13" in message
    assert "model.order: 2d-3d" in message


def test_count_per_class_that_leaves_no_test_pixel_is_refused_with_the_class(refuse: Refuse) -> None:
    assert refuse(*_train(FILES, "split.train={per_class: 168}")) == (
        "split.train.per_class = 168: class 1 (class 1) has 168 labelled pixels, "
        "so none would be left for testing; use at most 167"
    )


def test_loss_that_diverges_names_the_learning_rate(run: Run, here: Path) -> None:
    code, out, err = run(*_train("train={epochs: 2, batch_size: 8, learning_rate: 1e30}"))
    assert code == 2
    assert out == ""
    *progress, last = err.splitlines()
    assert all(line.startswith("training ") for line in progress)
    assert last.startswith(
        "hsi-se: train.learning_rate = 1e+30: training diverged: loss or weights became NaN or infinite "
    )
    assert last.endswith("lower the learning rate, for example to 0.001, or check the scale of the cube")
    assert not (here / "runs").exists()


# ----------------------------------------------------------------------------- scenes and files


@pytest.mark.parametrize(
    ("name", "hint"), [("indian-pine", "did you mean indian-pines? "), ("PaviaX", "did you mean "), ("zzz", "")]
)
def test_unknown_scene_is_answered_with_the_nearest_names_and_all_others(refuse: Refuse, name: str, hint: str) -> None:
    message = refuse(*_train(f"scene={name}"))
    assert message.startswith(f"scene = {name!r}: unknown scene; {hint}")
    assert message.endswith(
        "known scenes: indian-pines, pavia-university, pavia-centre, salinas, salinas-a, ksc, botswana, "
        "houston-2013, whu-hi-longkou, whu-hi-hanchuan, whu-hi-honghu; "
        "for your own data give {cube: FILE, labels: FILE}"
    )


@pytest.mark.parametrize("setting", ["cube", "labels"])
def test_missing_scene_file_is_named_with_the_setting_and_where_it_was_searched(
    refuse: Refuse, here: Path, setting: str
) -> None:
    (here / "mine").mkdir()
    message = refuse(*_train(FILES, f"scene.{setting}=absent.mat"), "--data", "mine")
    assert message == (
        f"scene.{setting}: no file absent.mat in the current folder or below mine, datasets; "
        "put it there, or give its folder with --data DIR"
    )


NO_CUBE = "folder: contains no cube and no TIFF files with a band each; name the cube's file"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["train", "folder"], "folder: is a folder; give a YAML config file in it"),
        (["ablate", "folder"], "folder: is a folder; give a YAML config file in it"),
        (_train("scene={cube: folder, labels: labels.mat}"), NO_CUBE),
        (_train("scene={cube: cube.mat, labels: folder}"), "scene.labels: folder is a folder; give a file in it"),
        (
            _train(FILES, "split={kind: masks, partition: folder}"),
            "split.partition: folder is a folder; give a file in it",
        ),
        (["scene", "inspect", "folder"], NO_CUBE),
        (["map", "run", "--scene", "folder"], NO_CUBE),
        (["eval", "run", "--scene", "folder"], NO_CUBE),
        (
            ["split", "config.yaml", "--out", "a.png", "--out", "folder"],
            "--out folder: name a file that ends in .png, .pdf, .svg, .json, .mat, .npz",
        ),
        (["export", "run", "--format", "onnx", "--out", "folder"], "--out folder: a file of format onnx ends in .onnx"),
        (["report", "run", "--out", "folder"], "--out folder: name a file that ends in .html"),
    ],
)
def test_folder_where_a_file_should_be_is_said_to_be_one(
    refuse: Refuse, here: Path, trained: Path, command: list[str], message: str
) -> None:
    (here / "folder").mkdir()
    shutil.copytree(trained / "run", here / "run")
    assert refuse(*command) == message


def test_missing_file_to_evaluate_on_is_answered_with_where_it_was_searched(
    refuse: Refuse, here: Path, trained: Path
) -> None:
    shutil.copytree(trained / "run", here / "run")
    assert refuse("eval", "run", "--scene", "absent.mat").startswith(
        "scene.labels: no file absent.mat in the current folder or "
    )
    assert refuse("eval", "run", "--scene", "a.yaml") == "a.yaml: no such config file; check the path"
    assert "did you mean indian-pines?" in refuse("eval", "run", "--scene", "indian-pine")


def test_mask_without_a_byte_order_is_answered_with_the_line_for_its_header(refuse: Refuse, here: Path) -> None:
    (here / "mask.hdr").write_text(
        f"ENVI\nsamples = {COLS}\nlines = {ROWS}\nbands = 1\ndata type = 2\ninterleave = bsq\n"
    )
    (here / "mask.img").write_bytes(np.ones((ROWS, COLS), "<i2").tobytes())
    message = refuse(*_train(FILES, "split={kind: masks, partition: mask.img}"))
    assert message.startswith("mask.hdr: the header does not state the byte order; ")
    assert message.endswith("for a mask, add byte order = 0 (little) or 1 (big) to the header")


def test_missing_file_of_a_known_scene_is_named(refuse: Refuse) -> None:
    message = refuse(*_train("scene=salinas-a"))
    assert message.startswith(
        "scene salinas-a: no file SalinasA_corrected.mat in the current folder or below datasets; "
    )
    assert message.endswith("; run `hsi-se scene fetch salinas-a`, or give its folder with --data DIR")


@pytest.mark.parametrize("command", ["train", "info"])
def test_missing_data_folder_is_named(refuse: Refuse, command: str) -> None:
    message = refuse(command, "config.yaml", "--data", "absent")
    assert message == "--data absent: no such folder; give the folder that contains the scenes"


HDF5_HEADER = (
    b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Mon Jan  1 00:00:00 2024 HDF5 schema 1.00 .".ljust(116)
    + bytes(8)
    + b"\x00\x02IM"
    + bytes(384)
    + b"\x89HDF\r\n\x1a\n"
    + bytes(500)
)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param(b"", "unknown file format (", id="empty"),
        pytest.param(b"a sentence\n", "unknown file format (", id="short text"),
        pytest.param(b"x,y\n" + b"1,2\n" * 99, "unknown file format (", id="text"),
        pytest.param(b"\x03\x04 old" + bytes(900), "unknown file format", id="other"),
        pytest.param(bytes(900), "unknown file format (", id="zeros"),
        pytest.param(HDF5_HEADER, "not a readable HDF5 or MATLAB v7.3 file (", id="v7.3"),
    ],
)
@pytest.mark.parametrize("setting", ["cube", "labels"])
def test_file_in_no_known_format_is_named(
    refuse: Refuse, here: Path, setting: str, content: bytes, problem: str
) -> None:
    (here / f"{setting}.mat").write_bytes(content)
    message = refuse(*_train(FILES))
    assert message.startswith(f"{setting}.mat: {problem}")
    assert message.endswith(("; give another file", "; get the file again"))


@pytest.mark.parametrize("do_compression", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.002, 0.01, 0.5, 0.99])
def test_mat_file_cut_short_is_named(refuse: Refuse, here: Path, do_compression: bool, share: float) -> None:
    path = here / "cube.mat"
    scipy.io.savemat(path, {"cube": _make_cube()}, do_compression=do_compression)
    header_size = 128
    content = path.read_bytes()
    path.write_bytes(content[: header_size + int(share * (len(content) - header_size))])
    message = refuse(*_train(FILES))
    assert message.startswith("cube.mat: ")
    assert message.endswith(("; give a .mat file", "; give another file", "; get the file again"))


def test_file_without_a_3d_array_is_answered_with_what_it_holds(refuse: Refuse) -> None:
    _save("cube.mat", flat=np.ones((4, 5)), text="hello", many={"a": 1})
    message = refuse(*_train(FILES))
    assert message == (
        "cube.mat: no 3-D numeric array; the file contains flat 4×5 double, text 1 char, many 1×1 struct; "
        "this may be a label map in place of a cube; for a cube of bands × pixels, set "
        "scene.shape: [ROWS, COLS]"
    )


def test_several_3d_arrays_are_listed_with_the_setting_that_picks_one(refuse: Refuse, run: Run) -> None:
    _save("cube.mat", raw=_make_cube(), corrected=_make_cube())
    message = refuse(*_train(FILES))
    assert message == "cube.mat: 2 3-D arrays (raw, corrected); choose one with scene.cube_key"
    code, _, err = run("info", "config.yaml", "--set", FILES, "--set", "scene.cube_key=corrected")
    assert code == 0, err


def test_several_label_maps_are_listed_with_the_setting_that_picks_one(refuse: Refuse) -> None:
    _save("labels.mat", gt=_make_labels(), mask=_make_labels())
    message = refuse(*_train(FILES))
    assert message == "labels.mat: 2 2-D arrays (gt, mask); choose one with scene.labels_key"


@pytest.mark.parametrize(
    ("setting", "num_axes", "listing"), [("cube", 3, "cube 24×24×16 double"), ("labels", 2, "labels 24×24 double")]
)
def test_wrong_key_is_answered_with_what_the_file_holds(
    refuse: Refuse, setting: str, num_axes: int, listing: str
) -> None:
    assert refuse(*_train(FILES, f"scene.{setting}_key=wrong")) == (
        f"{setting}.mat: scene.{setting}_key = 'wrong' is not a {num_axes}-D numeric array; "
        f"the file contains {listing}; choose from {setting}"
    )


def test_complex_cube_is_refused(refuse: Refuse) -> None:
    _save("cube.mat", cube=_make_cube() * 1j)
    assert refuse(*_train(FILES)) == "cube.mat: cube is complex; give real values"


def test_cube_and_labels_of_different_size_are_refused_with_both_sizes(refuse: Refuse) -> None:
    _save("labels.mat", labels=_make_labels()[:, :20])
    message = refuse(*_train(FILES))
    assert message == (
        "scene cube: the cube has 24 × 24 pixels and the labels have 24 × 20 (rows × cols); "
        "give two files of the same scene"
    )


def test_scene_without_a_labelled_pixel_is_refused(refuse: Refuse) -> None:
    _save("labels.mat", labels=np.zeros((ROWS, COLS)))
    assert refuse(*_train(FILES)) == (
        "scene cube: all 576 labels are 0, which means unlabelled; give a label map with at least one class"
    )


@pytest.mark.parametrize(
    ("value", "shown"), [(-3, "-3"), (0.5, "0.5"), (np.inf, "inf"), (-np.inf, "-inf"), (1e12, "1e+12")]
)
def test_label_that_is_no_whole_number_from_0_up_is_refused_with_its_place(
    refuse: Refuse, value: float, shown: str
) -> None:
    _save("labels.mat", labels=_with(_make_labels(), ((5, 6), value), ((7, 2), value)))
    remedy = {
        -3: "if it marks unlabelled pixels, write scene.unlabelled: -3",
        1e12: "if it marks unlabelled pixels, write scene.unlabelled: 1000000000000",
    }.get(value, "give a label map")
    assert refuse(*_train(FILES)) == (
        "labels.mat: 2 labels are not non-negative integers up to 65535, "
        f"the first is {shown} at row 5, col 6; {remedy}"
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_cube_with_a_value_that_is_not_finite_is_refused_with_how_many_and_where(
    refuse: Refuse, value: float, kind: type[np.floating[Any]]
) -> None:
    cube = _with(_make_cube(), ((2, 3, 4), value), ((2, 3, 5), value), ((20, 0, 0), value))
    _save("cube.mat", cube=cube.astype(kind))
    assert refuse(*_train(FILES)) == (
        "scene cube: 3 values of the cube are NaN or infinite, the first at row 2, col 3, band 4; "
        "if they mark missing data, set scene.nodata (e.g. nan); otherwise replace them"
    )


def test_wrong_number_of_class_names_is_refused_with_the_labels(refuse: Refuse) -> None:
    message = refuse(*_train(FILES, "scene.class_names=[corn, woods]"))
    assert message == "scene.class_names: 2 names for 3 labels (1, 2, 3); give one name for each"


# ------------------------------------------------------------------------- devices and run folders


def test_cuda_without_a_gpu_is_refused_with_the_device_to_write(here: Path) -> None:
    # In a process of its own, where CUDA sees no device even on a machine that has one.
    command = [sys.executable, "-m", "hsi_se", *_train(), "--device", "cuda"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "hsi-se: --device cuda: PyTorch found no CUDA device; use --device cpu\n"
    assert not (here / "runs").exists()


def test_unknown_device_is_answered_with_the_choices(refuse: Refuse) -> None:
    assert refuse(*_train(), "--device", "foo") == "--device foo: choose from auto, cpu, cuda"


def test_run_folder_that_exists_is_not_touched_without_overwrite(refuse: Refuse, here: Path, trained: Path) -> None:
    shutil.copytree(trained / "run", here / "mine")
    message = refuse(*_train(), "--out", "mine")
    assert message == "mine: this run folder already exists; choose another with --out DIR, or add --overwrite"


def test_run_that_fails_leaves_the_one_it_would_have_replaced(refuse: Refuse, here: Path, trained: Path) -> None:
    shutil.copytree(trained / "run", here / "mine")
    refuse(*_train("reduction.components=17"), "--out", "mine", "--overwrite")


def test_overwriting_takes_no_file_with_it_that_no_command_wrote(
    refuse: Refuse, run: Run, here: Path, trained: Path
) -> None:
    shutil.copytree(trained / "run", here / "mine")
    for command in (["eval", "mine"], ["map", "mine"], ["report", "mine", "--figures", "svg"]):
        assert run(*command)[0] == 0
    (here / "mine" / "model.onnx").touch()
    for name in ("notes.txt", "figures/mine.svg", "map/notes/today.txt", "drafts/map.png"):
        foreign = here / "mine" / name
        foreign.parent.mkdir(exist_ok=True)
        foreign.write_text("years of work", encoding="utf-8")
        assert refuse(*_train(), "--out", "mine", "--overwrite") == (
            f"--overwrite would delete mine/{name}, which hsi-se did not write; move it first"
        )
        foreign.unlink()
    assert run(*_train(), "--out", "mine", "--overwrite")[0] == 0


@pytest.mark.parametrize("options", [[], ["--overwrite"]])
def test_folder_that_is_no_run_is_never_replaced(refuse: Refuse, here: Path, options: list[str]) -> None:
    (here / "thesis").mkdir()
    (here / "thesis" / "chapter.tex").write_text("years of work", encoding="utf-8")
    message = refuse(*_train(), "--out", "thesis", *options)
    assert message == "thesis: already exists but is not a run folder; choose another with --out DIR"


def test_file_where_the_run_should_go_is_never_replaced(refuse: Refuse) -> None:
    message = refuse(*_train(), "--out", "cube.mat", "--overwrite")
    assert message == "cube.mat: already exists but is not a run folder; choose another with --out DIR"


def test_run_below_a_file_is_refused_before_training(refuse: Refuse, here: Path) -> None:
    message = refuse(*_train(), "--out", "cube.mat/run")
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
