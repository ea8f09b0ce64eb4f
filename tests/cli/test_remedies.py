"""The remedy that a message names is taken at its word and run."""

import bz2
import gzip
import lzma
import os
import re
import shlex
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import rasterio
import scipy.io
from PIL import Image

from tests.cli.conftest import DEMO
from tests.conftest import needs_cases

pytestmark = pytest.mark.usefixtures("plain_files")

QUICK = ("--set", "train={epochs: 1, batch_size: 64}", "--device", "cpu")


def run_shell(command: str) -> None:
    """Runs a command as the user would, with the tools of this environment first."""
    bin_folder = Path(sys.executable).parent
    path = f"{bin_folder}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(command, shell=True, check=True, capture_output=True, env={**os.environ, "PATH": path})


def evaluate(expression: str, **names: object) -> np.ndarray:
    """Returns the value of an expression of NumPy that a message names."""
    return np.asarray(eval(expression, {"np": np, **names}))


def quoted(message: str) -> str:
    """The command between backticks, without the name of the program."""
    found = re.search("`hsi-se (.*?)`", message)
    assert found is not None, message
    return found[1]


# ------------------------------------------------------------------ what a file is, and the way out


@pytest.mark.parametrize(("ending", "kind"), [("jpg", "JPEG")])
def test_pictures_with_losses_are_converted(refuse, ending, kind):
    Image.fromarray(np.load("labels.npy")).save(f"labels.{ending}")
    message = refuse("scene", "inspect", "cube.npy", f"labels.{ending}")
    assert message.startswith(f"labels.{ending}: is a {kind} picture; convert it: ")
    run_shell(message.partition("convert it: ")[2])
    with rasterio.open("labels.tif") as image:
        assert image.shape == (24, 26)


@needs_cases
def test_minus_one_is_answered_with_the_setting_that_reads_it(case, refuse, accept):
    case("06")
    message = refuse("train", "run.yaml", "--set", "scene.labels=minus_one.npy")
    assert message.endswith("if it marks unlabelled pixels, write scene.unlabelled: -1")
    setting = message.partition(" write ")[2].replace(": ", "=")
    accept("train", "run.yaml", "--set", "scene.labels=minus_one.npy", "--set", setting, *QUICK)


def test_minus_one_in_a_table_is_answered_with_the_setting_too(refuse, accept):
    lines = [f"{row},{col},{-1 if row > 20 else 1 + col // 14}" for row in range(24) for col in range(26)]
    Path("labels.csv").write_text("\n".join(["row,col,label", *lines]))
    message = refuse("scene", "inspect", "cube.npy", "labels.csv")
    setting = re.search("if it marks unlabelled pixels, write (scene.unlabelled: -1)", message)[1]
    accept("scene", "inspect", "cube.npy", "labels.csv", "--set", setting.replace(": ", "="))


@needs_cases
@pytest.mark.parametrize(
    ("cube", "labels", "right"),
    [
        ("bands_first.npy", "labels.npy", "bands-rows-cols"),
        ("bands_first.npy", "labels.npy", "bands-first"),
        ("cube.npz", "labels_transposed.npy", "cols-rows-bands"),
    ],
)
def test_another_order_of_axes_that_fits_is_named_and_read(case, refuse, accept, cube, labels, right):
    case("08")
    changes = ("--set", f"scene.cube={cube}", "--set", f"scene.labels={labels}")
    for words in (["train", "run.yaml", *changes], ["scene", "inspect", cube, labels]):
        message = refuse(*words)
    assert "another order of the axes fits: set scene.axes: " in message
    assert right in ("bands-first", *re.findall(r"set scene\.axes: ([a-z-]+)", message))
    accept("scene", "inspect", cube, labels, "--set", f"scene.axes={right}")


@needs_cases
def test_transposed_labels_are_called_so(case, refuse, accept):
    case("08")
    message = refuse("scene", "inspect", "cube.npz", "labels_transposed.npy")
    assert message.endswith(" or transpose the labels (labels.T)")
    np.save("fixed.npy", np.load("labels_transposed.npy").T)
    accept("scene", "inspect", "cube.npz", "fixed.npy")


@needs_cases
def test_a_cube_of_bands_by_pixels_is_read_with_the_setting_named(case, refuse, accept):
    case("07")
    for words in (["urban_like.mat"], ["urban_like.mat", "labels.mat"]):
        message = refuse("scene", "inspect", *words)
        assert message.endswith("for a cube of bands × pixels, set scene.shape: [ROWS, COLS]")
    accept("scene", "inspect", "urban_like.mat", "labels.mat", "--set", "scene.shape=[48, 40]")
    message = refuse("split", DEMO, "--set", "scene={cube: urban_like.mat, labels: labels.mat, shape: [48, 41]}")
    assert message.startswith("urban_like.mat: scene.shape = [48, 41]: no array of bands × pixels has 1,968 pixels; ")


@needs_cases
@pytest.mark.parametrize(
    ("number", "name"), [("07", "muufl_like.mat"), ("01", "PRS_L2D_STD_small.he5"), ("01", "tanager_basic_small.h5")]
)
def test_structs_and_products_are_read_as_they_are(case, refuse, accept, number, name):
    case(number)
    labels = "labels.mat" if number == "07" else "labels.npy"
    accept("scene", "inspect", name, labels)
    message = refuse("scene", "inspect", name, labels, "--set", "scene.cube_key=a")
    accept(
        "scene",
        "inspect",
        name,
        labels,
        "--set",
        f"scene.cube_key={message.rpartition('choose from ')[2]}".partition(", ")[0],
    )


def test_a_struct_of_matlab_73_is_read_by_its_field(accept):
    with h5py.File("new.mat", "w", userblock_size=512) as file:
        file["hsi/Data"] = np.load("cube.npy").transpose(2, 1, 0)  # as MATLAB stores it
        file["#refs#/a"] = [1.0]
    accept("split", DEMO, "--set", "scene={cube: new.mat, cube_key: hsi.Data, labels: labels.npy}")


@needs_cases
def test_gzip_is_called_so_and_unpacked_by_the_command_named(case, refuse, accept):
    case("11")
    for words in (["packed2.hdr", "labels.npy"], ["packed2.img.gz", "labels.npy"]):
        message = refuse("scene", "inspect", *words)
        assert message == "packed2.img.gz: is compressed with gzip; unpack it: gunzip -k packed2.img.gz"
    run_shell(message.partition("unpack it: ")[2])
    accept("scene", "inspect", "packed2.hdr", "labels.npy")


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz", "zip", "tar"])
@pytest.mark.parametrize("command", ["inspect", "train"])
def test_other_packed_files_are_unpacked_by_the_command_named(refuse, accept, kind, command):
    scipy.io.savemat("cube.mat", {"cube": np.load("cube.npy")})
    content = Path("cube.mat").read_bytes()
    packed = Path(f"cube.mat.{kind}")
    if kind == "zip":
        with zipfile.ZipFile(packed, "w") as archive:
            archive.write("cube.mat")
    elif kind == "tar":
        with tarfile.open(packed, "w") as archive:
            archive.add("cube.mat")
    else:
        packed.write_bytes({"gz": gzip, "bz2": bz2, "xz": lzma}[kind].compress(content))
    Path("cube.mat").unlink()
    scene = f"scene={{cube: {packed}, labels: labels.npy}}"
    words = ["scene", "inspect", packed, "labels.npy"] if command == "inspect" else ["train", DEMO, "--set", scene]
    message = refuse(*words)
    assert "unknown file format" not in message
    run_shell(re.search(r"unpack it(?:: | \()((?:\w+ )+(?:-\w+ )?[^;,)]+)", message)[1])
    accept("scene", "inspect", "cube.mat", "labels.npy")


@needs_cases
@pytest.mark.parametrize("name", ["library.hdr", "library.sli"])
def test_a_spectral_library_is_called_one(case, refuse, name):
    case("11")
    message = refuse("scene", "inspect", name)
    assert message == "library.hdr: is a spectral library, without pixels; give an image and its labels"


@pytest.mark.parametrize(
    ("head", "name", "words"),
    [
        (b"\x0e\x03\x13\x01", "a.hdf", "is HDF4"), (b"CDF\x01", "a.nc", "is netCDF 3"),
        (b"\x80\x04K\x01.", "a.pkl", "is a Python pickle"), (b"<?xml ?>", "METADATA.XML", "is XML"),
        (b"\0\0\0\x0cjP  ", "a.jp2", "is a JPEG 2000 image"), (b"EHFA_HEADER_TAG", "a.img", "is an ERDAS"),
        (b"7z\xbc\xaf\x27\x1c", "a.7z", "is a 7-Zip archive"), (b"scene: x", "a.yaml", "is a config"),
        (b"NROWS 3", "a.hdr", "is not an ENVI header"), (bytes(900), "a.raw", "unknown file format"),
    ],
)  # fmt: skip
def test_a_file_is_called_by_its_right_name(refuse, head, name, words):
    Path(name).write_bytes(head)
    assert refuse("scene", "inspect", "cube.npy", name).startswith(f"{name}: {words}")


# ------------------------------------------------------------------------- the wrong thing in place


@needs_cases
@pytest.mark.parametrize("name", ["headwall.hdr", "headwall.raw"])
def test_data_in_place_of_a_config_are_answered_with_the_command_that_writes_one(case, refuse, accept, name):
    case("11")
    for command in ("train", "split", "info", "gap", "ablate"):
        message = refuse(command, name)
    words = shlex.split(quoted(message).replace("LABELS", "labels.npy"))
    accept(*words)
    accept("split", "my.yaml")


def test_a_run_a_config_and_an_ablation_are_told_apart(refuse, accept):
    Path("config.yaml").write_text(
        "scene: {synthetic: 0, rows: 24, cols: 24, bands: 16}\nsplit: {kind: random, train: 0.2}\n"
        "reduction: {kind: pca, components: 13, fit_on: train}\npatch: {size: 9}\nmodel: {name: svm}\n"
        "train: {epochs: 1}\n"
    )
    message = refuse("eval", "config.yaml")
    assert message == "config.yaml: is a file; name a run folder (`hsi-se train config.yaml` prints its path)"
    run = re.search("run folder: (.*)", accept(*shlex.split(quoted(message))))[1]
    message = refuse("train", run)
    assert message == f"{run}: is a folder; give a YAML config file in it, such as {run}/config.yaml"
    accept("split", message.rpartition("such as ")[2])
    message = refuse("map", f"{run}/bundle.json")
    assert message == f"{run}/bundle.json: is a file in a run folder; name the folder, {run}"
    accept("map", message.rpartition(", ")[2])
    message = refuse("ablate", "config.yaml")
    assert quoted(message) == "train config.yaml"
    Path("study.yaml").write_text("base: config.yaml\nseeds: 0-1\nvariants: {a: {}, b: {model.penalty: 2}}\n")
    accept(*shlex.split(quoted(refuse("train", "study.yaml"))), "--dry-run")


def test_swapped_files_are_recognised_and_swapping_them_helps(refuse, accept):
    swapped, right = ("scene={cube: labels.npy, labels: cube.npy}", "scene={cube: cube.npy, labels: labels.npy}")
    assert "this may be a label map in place of a cube" in refuse("split", DEMO, "--set", swapped)
    both = "scene={cube: cube.npy, labels: cube.npy}"
    assert "this may be a cube in place of a label map" in refuse("split", DEMO, "--set", both)
    accept("split", DEMO, "--set", right)


def test_a_split_from_files_is_answered_with_the_section_to_write(refuse, accept):
    message = refuse("split", DEMO, "--set", "split.kind=masks")
    section = re.search('--set "(.*)"$', message)[1]
    np.save("partition.npy", np.tile([1, 3], (24, 13)) * (np.load("labels.npy") > 0))
    scene = "scene={cube: cube.npy, labels: labels.npy}"
    accept("split", DEMO, "--set", scene, "--set", section.replace("FILE", "partition.npy"))


@needs_cases
def test_several_images_train_one_classifier(case, accept):
    case("14")
    accept("train", "list.yaml", *QUICK)
    accept("train", "list.yaml", "--set", "scene={cube: 'tile?.tif', labels: 'tile?_labels.tif'}", *QUICK)


@needs_cases
def test_two_pixels_a_class_train_with_the_reduction_of_the_scene(case, refuse, accept):
    case("15")
    message = refuse("train", "two_each.yaml")
    assert message.endswith("; write reduction.fit_on: scene, or use at most 3")
    setting = re.search("write (.*?),", message)[1].replace(": ", "=")
    accept("train", "two_each.yaml", "--set", setting, *QUICK)


@needs_cases
def test_bands_left_out_at_training_are_left_out_by_their_wavelengths(case, accept):
    case("09")
    accept("train", "run.yaml", *QUICK, "--out", "run")
    accept("map", "run", "--scene", "full_40.tif")
    accept("eval", "run", "--scene", "{cube: full_40.tif, labels: labels.npy}")


def test_fewer_bands_than_at_training_still_ask_for_the_sensor(refuse, accept):
    scene = "scene={cube: cube.npy, labels: labels.npy}"
    accept("train", DEMO, "--set", scene, "--set", "reduction.components=13", "--set", "patch.size=9", *QUICK,
           "--out", "run")  # fmt: skip
    np.save("few.npy", np.load("cube.npy")[..., :9])
    assert refuse("map", "run", "--scene", "few.npy").endswith("; give a scene of the same sensor")
    np.save("many.npy", np.concatenate([np.load("cube.npy")] * 2, axis=2))
    assert refuse("map", "run", "--scene", "many.npy").endswith("; leave out 16 bands with --set scene.drop_bands=[…]")
    accept("map", "run", "--scene", "many.npy", "--set", "scene.drop_bands=[17-32]")
