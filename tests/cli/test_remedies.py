"""The remedy that a message names is taken at its word and run; every file and option is used or refused."""

import bz2
import gzip
import lzma
import os
import re
import shlex
import shutil
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

from hsi_se.config.experiment import Config
from hsi_se.config.yaml_file import list_settings, load_config
from hsi_se.errors import ConfigError
from tests.conftest import ROOT

CASES = ROOT.parent / "shared" / "cases"
needs_cases = pytest.mark.skipif(
    not CASES.is_dir() and not os.environ.get("CI"), reason="the public cases are not here"
)
QUICK = ("--set", "train={epochs: 1, batch_size: 64}", "--device", "cpu")


@pytest.fixture
def refuse(call):
    """Returns the one line with which a command is refused."""

    def refuse_command(*words: object) -> str:
        code, out, err = call(*words)
        assert (code, out, err.count("\n")) == (2, "", 1), (out, err)
        assert "Traceback" not in err
        return str(err.removeprefix("hsi-se: ").rstrip("\n"))

    return refuse_command


@pytest.fixture
def accept(call):
    def accept_command(*words: object) -> str:
        code, out, err = call(*words)
        assert code == 0, err
        return str(out)

    return accept_command


@pytest.fixture
def case(tmp_path, monkeypatch):
    """Copies a public case to a folder of its own, which becomes the working folder."""

    def enter(name: str) -> Path:
        folder = tmp_path / name
        shutil.copytree(next(CASES.glob(f"{name}*")), folder, copy_function=shutil.copyfile)
        monkeypatch.chdir(folder)
        return folder

    return enter


@pytest.fixture(autouse=True)
def _plain_files(tmp_path, monkeypatch) -> None:
    """The working folder has `cube.npy` and `labels.npy`."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    np.save("cube.npy", rng.integers(1, 4000, size=(24, 26, 16), dtype=np.int16))
    np.save("labels.npy", np.tile(np.arange(26) // 7, (24, 1)).astype(np.uint8))


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


DEMO = ROOT / "configs" / "demo.yaml"


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


# -------------------------------------------------------------------- every argument has an effect


@needs_cases
def test_every_file_is_used_or_refused_by_inspect(case, refuse):
    case("06")
    masks = ["mask_beet.tif", "mask_maize.tif", "mask_soil.tif"]
    assert refuse("scene", "inspect", "cube.npz", *masks).startswith(f"{' and '.join(masks)} are label maps; ")
    assert "are both label maps; inspect them one at a time" in refuse("scene", "inspect", *masks[:2])
    assert refuse("scene", "inspect", "cube.npz", masks[0], masks[0]).endswith(": names a file twice; leave one out")


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        ("cube.npy", "labels_key=a", "scene.labels_key: has no effect on the files named"),
        ("cube.npy", "unlabelled=3", "scene.unlabelled: has no effect on the files named"),
        ("cube.npy", "class_names=[a, b]", "scene.class_names: has no effect on the files named"),
        ("cube.npy", "palette=[[1, 2, 3]]", "scene.palette: has no effect on the files named"),
        ("labels.npy", "cube_key=a", "scene.cube_key: has no effect on the files named"),
        ("labels.npy", "drop_bands=[3]", "scene.drop_bands: has no effect on the files named"),
        ("labels.npy", "nodata=3", "scene.nodata: has no effect on the files named"),
        ("labels.npy", "scale=3", "scene.scale: has no effect on the files named"),
        ("labels.npy", "wavelengths=[3]", "scene.wavelengths: has no effect on the files named"),
        ("labels.npy", "name=x", "scene.name: has no effect on the files named"),
        ("labels.npy", "byte_order=big", "scene.byte_order = 'big': has no effect"),
        ("cube.npy labels.npy", "byte_order=big", "scene.byte_order = 'big': has no effect"),
        ("cube.npy labels.npy", "cube=x", "--set scene.cube=x: inspect takes files as its arguments"),
        ("cube.npy labels.npy", "labels=x", "--set scene.labels: inspect then takes a cube and no other file"),
        ("cube.npy labels.npy", "synthetic=1", "--set scene.synthetic=1: inspect takes files as its arguments"),
        ("cube.npy labels.npy", "cube_key=x", "cube.npy: scene.cube_key = 'x': the array in this file has no name"),
        ("cube.npy labels.npy", "labels_key=x", "labels.npy: scene.labels_key = 'x': the array in this file has"),
        ("cube.npy labels.npy", "unlabelled=9", "labels.npy: scene.unlabelled = 9: no pixel has this value"),
    ],
)
def test_every_setting_is_used_or_refused_by_inspect_and_train(refuse, accept, files, options, message):
    assert refuse("scene", "inspect", *files.split(), "--set", f"scene.{options}").startswith(message)
    accept("scene", "inspect", *files.split())  # which is the remedy: leave it out
    if len(files.split()) == 2 and "inspect" not in message:
        scene = ("--set", "scene={cube: cube.npy, labels: labels.npy}", "--set", f"scene.{options}")
        assert refuse("train", DEMO, *scene).startswith(message)


def test_pictures_are_promised_only_where_something_is_drawn(refuse):
    assert refuse("scene", "inspect", "labels.npy", "--out", "x").startswith("--out x: has no effect without a cube")


def test_a_byte_order_that_one_of_two_files_needs_has_an_effect(accept):
    header = "ENVI\nsamples = 26\nlines = 24\nbands = 16\ndata type = 2\ninterleave = bip\n"
    Path("flight.hdr").write_text(header)
    Path("flight.img").write_bytes(np.load("cube.npy").astype(">i2").tobytes())
    out = accept("scene", "inspect", "flight.hdr", "labels.npy", "--set", "scene.byte_order=big")
    cube = np.load("cube.npy")
    assert f"values:       {cube.min()} to {cube.max()}" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("train DEMO --out a --out b", "--out: is given twice; leave one of them out"),
        ("train DEMO --overwrite --overwrite", "--overwrite: is given twice; leave one of them out"),
        ("train DEMO --device cpu --device auto", "--device: is given twice; leave one of them out"),
        ("split DEMO --out a.png --out a.png", "--out: is given twice; leave one of them out"),
        ("map x --scene a --scene b", "--scene: is given twice; leave one of them out"),
        ("info DEMO --set train.epochs=1 --set train.epochs=2",
         "--set train.epochs=1: is replaced by --set train.epochs=2; leave one of them out"),
        ("gap DEMO --set train.epochs=1 --set train={epochs: 2}",
         "--set train.epochs=1: is replaced by --set train={epochs: 2}; leave one of them out"),
        ("map x --set scene.scale=1 --set scene.scale=2",
         "--set scene.scale=1: is replaced by --set scene.scale=2; leave one of them out"),
        ("train DEMO --seeds 0,1 --set seed=3",
         "--set seed=3: has no effect with --seeds; leave one of them out"),
        ("train DEMO --seeds 0-3,2", "--seeds 0-3,2: names seed 2 twice; write 0-9, or 0,3,5"),
        ("ablate ABLATION --dry-run --device cpu",
         "--device: has no effect with --dry-run; leave one of them out"),
        ("ablate ABLATION --dry-run --set name=x",
         "--set name=x: name: has no effect; a run has the name of its variant"),
    ],
)  # fmt: skip
def test_an_option_that_would_have_no_effect_is_refused(refuse, words, message):
    files = {"DEMO": DEMO, "ABLATION": ROOT / "configs" / "ablations" / "placement.yaml"}
    arguments = [files.get(word, word) for word in re.split(r" (?!2})", words)]
    assert refuse(*arguments) == message


def test_an_override_that_refines_another_has_an_effect(accept):
    out = accept("info", DEMO, "--set", "model.attention={}", "--set", "model.attention.fold={kind: se}")
    assert "se" in out


def test_a_data_folder_is_a_place_to_search_and_need_not_be_needed(accept):
    """So that one command line serves every scene: it names no file that would have to be read."""
    accept("split", DEMO, "--data", Path.cwd())


def test_a_map_reads_no_labels(refuse, accept):
    scene = ("--set", "scene={cube: cube.npy, labels: labels.npy}")
    accept("train", DEMO, *scene, "--set", "model={name: svm}", "--set", "patch.size=9", "--out", "run")
    for setting in ("labels_key=a", "class_names=[a]", "palette=[[1, 2, 3]]", "name=b"):
        message = refuse("map", "run", "--scene", "cube.npy", "--set", f"scene.{setting}")
        assert message == f"--set scene.{setting}: has no effect on this command; leave it out"
    message = refuse("map", "run", "--scene", "cube.npy", "--set", "scene.byte_order=big")
    assert message.startswith("scene.byte_order = 'big': has no effect, as the files state their own")
    accept("map", "run", "--scene", "cube.npy")


def test_a_patch_larger_than_the_scene_is_refused(refuse):
    message = refuse("train", DEMO, "--set", "patch.size=101")
    assert message == "patch.size = 101: is larger than the scene, 72 × 72; use a smaller one"


def test_a_mirror_that_is_no_url_is_named(refuse, monkeypatch):
    monkeypatch.setenv("HSI_SE_MIRROR", "http://[")
    message = refuse("scene", "fetch", "salinas-a", "--out", "files")
    assert message.startswith("HSI_SE_MIRROR = http://[: is not a URL (")
    assert message.endswith("; correct or unset it")


# ---------------------------------------------------------------------- nobody else's words


WRONG = ("x", "-1", "1e9", "0", "true", "[1]", "[]", "{a: 1}", "{}", ".nan", "1.5", "")


@pytest.mark.parametrize("setting", list_settings(Config))
def test_no_setting_is_answered_in_pydantics_words(setting):
    """Every setting with every kind of wrong value: what is wrong and what to write are our own words."""
    for value in WRONG:
        try:
            load_config(DEMO, [f"{setting}={value}"])
        except ConfigError as error:
            message = str(error)
            assert not re.search(r"[Ii]nput|valid |instance of|unable to|another kind", message), message
            assert "\n" not in message
