"""Every argument, option and setting has an effect or is refused, in our own words."""

import re
from pathlib import Path

import numpy as np
import pytest

from hsi_se.config.experiment import Config
from hsi_se.config.yaml_file import list_settings, load_config
from hsi_se.errors import ConfigError
from tests.cli.conftest import DEMO
from tests.conftest import ROOT, needs_cases

pytestmark = pytest.mark.usefixtures("plain_files")

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
    message = refuse("scene", "fetch", "salinas-a", "--out", ".")
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
