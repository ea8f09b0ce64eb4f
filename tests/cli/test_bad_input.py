"""A user's mistake ends in exit code 2 and one line that says what to change; nothing is written."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io

from tests.cli.conftest import COLS, CONFIG, FILES, ROWS, Call, Refuse, make_cube, make_labels, put, save, train

pytestmark = pytest.mark.usefixtures("here")

# ----------------------------------------------------------------------- what the tests stand on


def test_the_good_config_trains_on_the_good_files(call: Call, here: Path) -> None:
    """So that each refusal below has its one cause."""
    code, out, err = call(*train(FILES, "split.train=0.1"), "--out", "runs/files")
    assert code == 0, err
    assert "run folder: runs/files" in out
    assert [path.name for path in (here / "runs").iterdir()] == ["files"]


# -------------------------------------------------------------------------------------- config


def test_missing_config_is_named(refuse: Refuse) -> None:
    assert refuse("train", "absent.yaml") == "absent.yaml: no such config file; check the path"


def test_misspelt_setting_is_named_with_its_line_and_the_nearest_name(refuse: Refuse, here: Path) -> None:
    (here / "config.yaml").write_text(CONFIG.replace("epochs: 1", "epoch: 1"), encoding="utf-8")
    assert refuse(*train()).startswith(
        "config.yaml:6:9: train.epoch = 1: unknown setting; did you mean 'epochs'? choose from epochs, "
    )


def test_unknown_setting_is_named_with_its_line_and_the_choices(refuse: Refuse, here: Path) -> None:
    (here / "config.yaml").write_text(CONFIG + "colour: red\n", encoding="utf-8")
    assert refuse(*train()) == (
        "config.yaml:7:1: colour = 'red': unknown setting; choose from "
        "name, seed, scene, split, reduction, patch, model, train, prediction"
    )


def test_message_with_a_line_break_in_it_is_still_one_line(refuse: Refuse) -> None:
    assert "patch.size" in refuse(*train("patch.size=8\n"))


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
    assert refuse(*train(f"reduction={{kind: {kind}, components: 17, fit_on: train}}")) == (
        "reduction.components = 17: the scene has 16 bands and the fit 18 pixels; use at most 16"
    )


def test_too_few_neighbours_for_the_noise_are_refused(refuse: Refuse) -> None:
    changes = "reduction={kind: mnf, components: 2, fit_on: train}", "model={name: svm}", "split.train={per_class: 1}"
    wide = "scene={synthetic: 0, rows: 32, cols: 32, bands: 60}"
    message = refuse(*train(*changes, wide))
    assert re.fullmatch(
        r"reduction\.kind = mnf: 3\d pairs of neighbouring pixels are too few for the noise of 60 bands; "
        r"write reduction\.fit_on: scene, or reduction\.kind: pca",
        message,
    )  # at most four of each of nine training pixels


def test_more_components_than_training_pixels_are_refused(refuse: Refuse) -> None:
    message = refuse(*train("split.train={per_class: 1}"))
    assert message == (
        "reduction.components = 13: the scene has 16 bands and the fit 9 pixels; "
        "write reduction.fit_on: scene, or use at most 8"
    )


def test_too_few_bands_for_the_kernels_are_refused_where_nothing_reduces_them(refuse: Refuse) -> None:
    save("cube.mat", cube=make_cube()[:, :, :12])
    message = refuse(*train(FILES, "reduction={kind: none}"))
    assert "= 12: spectral kernels 7, 5 and 3 deep need at least 13" in message
    assert "model.order: 2d-3d" in message


def test_count_per_class_that_leaves_no_test_pixel_is_refused_with_the_class(refuse: Refuse) -> None:
    assert refuse(*train(FILES, "split.train={per_class: 168}")) == (
        "split.train.per_class = 168: class 1 (class 1) has 168 labelled pixels, "
        "so none would be left for testing; use at most 167"
    )


def test_loss_that_diverges_names_the_learning_rate(call: Call, here: Path) -> None:
    code, out, err = call(*train("train={epochs: 2, batch_size: 8, learning_rate: 1e30}"))
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
    message = refuse(*train(f"scene={name}"))
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
    message = refuse(*train(FILES, f"scene.{setting}=absent.mat"), "--data", "mine")
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
        (train("scene={cube: folder, labels: labels.mat}"), NO_CUBE),
        (train("scene={cube: cube.mat, labels: folder}"), "scene.labels: folder is a folder; give a file in it"),
        (
            train(FILES, "split={kind: masks, partition: folder}"),
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
    message = refuse(*train(FILES, "split={kind: masks, partition: mask.img}"))
    assert message.startswith("mask.hdr: the header does not state the byte order; ")
    assert message.endswith("for a mask, add byte order = 0 (little) or 1 (big) to the header")


def test_missing_file_of_a_known_scene_is_named(refuse: Refuse) -> None:
    message = refuse(*train("scene=salinas-a"))
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
    message = refuse(*train(FILES))
    assert message.startswith(f"{setting}.mat: {problem}")
    assert message.endswith(("; give another file", "; get the file again"))


@pytest.mark.parametrize("do_compression", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.002, 0.01, 0.5, 0.99])
def test_mat_file_cut_short_is_named(refuse: Refuse, here: Path, do_compression: bool, share: float) -> None:
    path = here / "cube.mat"
    scipy.io.savemat(path, {"cube": make_cube()}, do_compression=do_compression)
    header_size = 128
    content = path.read_bytes()
    path.write_bytes(content[: header_size + int(share * (len(content) - header_size))])
    message = refuse(*train(FILES))
    assert message.startswith("cube.mat: ")
    assert message.endswith(("; give a .mat file", "; give another file", "; get the file again"))


def test_file_without_a_3d_array_is_answered_with_what_it_holds(refuse: Refuse) -> None:
    save("cube.mat", flat=np.ones((4, 5)), text="hello", many={"a": 1})
    message = refuse(*train(FILES))
    assert message == (
        "cube.mat: no 3-D numeric array; the file contains flat 4×5 double, text 1 char, many 1×1 struct; "
        "this may be a label map in place of a cube; for a cube of bands × pixels, set "
        "scene.shape: [ROWS, COLS]"
    )


def test_several_3d_arrays_are_listed_with_the_setting_that_picks_one(refuse: Refuse, call: Call) -> None:
    save("cube.mat", raw=make_cube(), corrected=make_cube())
    message = refuse(*train(FILES))
    assert message == "cube.mat: 2 3-D arrays (raw, corrected); choose one with scene.cube_key"
    code, _, err = call("info", "config.yaml", "--set", FILES, "--set", "scene.cube_key=corrected")
    assert code == 0, err


def test_several_label_maps_are_listed_with_the_setting_that_picks_one(refuse: Refuse) -> None:
    save("labels.mat", gt=make_labels(), mask=make_labels())
    message = refuse(*train(FILES))
    assert message == "labels.mat: 2 2-D arrays (gt, mask); choose one with scene.labels_key"


@pytest.mark.parametrize(
    ("setting", "num_axes", "listing"), [("cube", 3, "cube 24×24×16 double"), ("labels", 2, "labels 24×24 double")]
)
def test_wrong_key_is_answered_with_what_the_file_holds(
    refuse: Refuse, setting: str, num_axes: int, listing: str
) -> None:
    assert refuse(*train(FILES, f"scene.{setting}_key=wrong")) == (
        f"{setting}.mat: scene.{setting}_key = 'wrong' is not a {num_axes}-D numeric array; "
        f"the file contains {listing}; choose from {setting}"
    )


def test_complex_cube_is_refused(refuse: Refuse) -> None:
    save("cube.mat", cube=make_cube() * 1j)
    assert refuse(*train(FILES)) == "cube.mat: cube is complex; give real values"


def test_cube_and_labels_of_different_size_are_refused_with_both_sizes(refuse: Refuse) -> None:
    save("labels.mat", labels=make_labels()[:, :20])
    message = refuse(*train(FILES))
    assert message == (
        "scene cube: the cube has 24 × 24 pixels and the labels have 24 × 20 (rows × cols); "
        "give two files of the same scene"
    )


def test_scene_without_a_labelled_pixel_is_refused(refuse: Refuse) -> None:
    save("labels.mat", labels=np.zeros((ROWS, COLS)))
    assert refuse(*train(FILES)) == (
        "scene cube: all 576 labels are 0, which means unlabelled; give a label map with at least one class"
    )


@pytest.mark.parametrize(
    ("value", "shown"), [(-3, "-3"), (0.5, "0.5"), (np.inf, "inf"), (-np.inf, "-inf"), (1e12, "1e+12")]
)
def test_label_that_is_no_whole_number_from_0_up_is_refused_with_its_place(
    refuse: Refuse, value: float, shown: str
) -> None:
    save("labels.mat", labels=put(make_labels(), ((5, 6), value), ((7, 2), value)))
    remedy = {
        -3: "if it marks unlabelled pixels, write scene.unlabelled: -3",
        1e12: "if it marks unlabelled pixels, write scene.unlabelled: 1000000000000",
    }.get(value, "give a label map")
    assert refuse(*train(FILES)) == (
        "labels.mat: 2 labels are not non-negative integers up to 65535, "
        f"the first is {shown} at row 5, col 6; {remedy}"
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_cube_with_a_value_that_is_not_finite_is_refused_with_how_many_and_where(
    refuse: Refuse, value: float, kind: type[np.floating[Any]]
) -> None:
    cube = put(make_cube(), ((2, 3, 4), value), ((2, 3, 5), value), ((20, 0, 0), value))
    save("cube.mat", cube=cube.astype(kind))
    assert refuse(*train(FILES)) == (
        "scene cube: 3 values of the cube are NaN or infinite, the first at row 2, col 3, band 4; "
        "if they mark missing data, set scene.nodata (e.g. nan); otherwise replace them"
    )


def test_wrong_number_of_class_names_is_refused_with_the_labels(refuse: Refuse) -> None:
    message = refuse(*train(FILES, "scene.class_names=[corn, woods]"))
    assert message == "scene.class_names: 2 names for 3 labels (1, 2, 3); give one name for each"
