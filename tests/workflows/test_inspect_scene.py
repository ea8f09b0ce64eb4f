"""What `hsi-se scene` says of files, against plain numpy; the config that it writes trains."""

import re
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import scipy.io

from hsi_se.config.scene import SceneFiles
from hsi_se.config.yaml_file import load_config
from hsi_se.errors import SceneError
from hsi_se.scene.catalogue import list_known_scenes
from hsi_se.scene.inspection import inspect_cube
from hsi_se.scene.loading import load_ground_truth, load_scene, open_scene_image
from hsi_se.scene.synthetic import make_synthetic_scene
from hsi_se.workflows.inspect_scene import save_survey_figures, suggest_config, survey_files
from hsi_se.workflows.train import train
from tests.conftest import REAL_SCENES, needs_real_scenes


@pytest.fixture
def inspect(call):
    """Runs `hsi-se scene …` as `call` does."""
    return lambda *arguments: call("scene", *arguments)


@pytest.fixture
def files(tmp_path):
    """A cube with nodata and a NaN, and its labels, as .npy."""
    scene = make_synthetic_scene(seed=0, rows=40, cols=26, bands=20)
    cube = scene.cube.astype(np.float32)
    cube[:2, :3] = -1
    cube[5, 5, 5] = np.nan
    np.save(tmp_path / "cube.npy", cube)
    np.save(tmp_path / "labels.npy", scene.labels)
    return tmp_path / "cube.npy", tmp_path / "labels.npy"


def test_facts_are_those_of_plain_numpy(files):
    cube, labels = (np.load(path) for path in files)
    image = open_scene_image(SceneFiles(cube=str(files[0]), labels="none", nodata=-1))
    facts = inspect_cube(image, natural_colour=(10, 5, 0), labels=labels)
    measured = (cube != -1).all(axis=2)
    assert facts.num_nodata == 6
    assert facts.num_not_finite == 1
    assert facts.lowest == np.nanmin(cube[measured])
    assert facts.highest == np.nanmax(cube[measured])
    usable = measured & np.isfinite(cube).all(axis=2)
    for place, label in enumerate(np.unique(labels[labels > 0])):
        spectra = cube[usable & (labels == label)].astype(np.float64)
        np.testing.assert_allclose(facts.class_means[place], spectra.mean(axis=0))
        np.testing.assert_allclose(facts.class_deviations[place], spectra.std(axis=0, ddof=1), rtol=1e-6)


def test_the_picture_is_stretched_from_the_2nd_to_the_98th_percentile_and_nodata_is_grey(files):
    cube = np.load(files[0])
    image = open_scene_image(SceneFiles(cube=str(files[0]), labels="none", nodata=-1))
    picture = inspect_cube(image, natural_colour=(10, 5, 0)).picture
    values = cube[..., 10][(cube != -1).all(axis=2)]
    black, white = np.percentile(values, [2, 98])
    expected = np.clip(255 * (cube[30, :, 10] - black) / (white - black), 0, 255)
    np.testing.assert_allclose(picture[30, :, 0], expected, atol=1)
    assert (picture[:2, :3] == 128).all()


def test_a_survey_tells_the_cube_from_the_labels_whatever_their_order(files):
    for paths in (files, files[::-1]):
        survey = survey_files(paths, ["scene.nodata=-1"])
        assert (survey.scene.cube, survey.scene.labels) == tuple(map(str, files))


def test_inspect_prints_what_it_sees_and_draws_both_pictures(inspect, files, tmp_path):
    code, out, err = inspect("inspect", *files, "--set", "scene.nodata=-1", "--out", tmp_path / "pictures")
    assert code == 0, err
    for line in (
        r"cube\.npy: \.npy\n",
        r"cube: +40 × 26 pixels, 20 bands, float32",
        r"NaN, inf: +1",
        r"wavelengths: +unknown",
        r"nodata: +-1, in 6 pixels",
        r"CRS: +none",
        r"note: 6 pixels are nodata; \d+ of them are labelled and were excluded",
    ):
        assert re.search(line, out), line
    labels = np.load(files[1])
    labels[:2, :3] = 0
    for label, count in zip(*np.unique(labels[labels > 0], return_counts=True), strict=True):
        assert re.search(rf"│ +{label} │ class {label} +│ +{count} │", out)
    for name in ("cube-quicklook.png", "cube-spectra.png"):
        assert matplotlib.image.imread(tmp_path / "pictures" / name).ndim == 3
        assert f"wrote:  {tmp_path / 'pictures' / name}" in out


def test_the_quick_look_shows_the_labels_over_the_image(inspect, files, tmp_path):
    labels = np.zeros((40, 26), dtype=np.uint8)
    labels[5:20, 3:12] = 1
    np.save(files[1], labels)
    pictures = {}
    for name, arguments in (("alone", files[:1]), ("labelled", files)):
        colour = ("--set", "scene.palette=[[255, 0, 255]]") if name == "labelled" else ()
        assert inspect("inspect", *arguments, *colour, "--out", tmp_path / name)[0] == 0
        pictures[name] = matplotlib.image.imread(tmp_path / name / "cube-quicklook.png")[..., :3]
    is_pink = {name: (np.abs(picture - [1, 0, 1]) < 0.01).all(axis=2) for name, picture in pictures.items()}
    assert not is_pink["alone"].any()
    rows, cols = np.nonzero(is_pink["labelled"][:, : is_pink["labelled"].shape[1] * 3 // 5])
    assert np.ptp(rows) / np.ptp(cols) == pytest.approx(15 / 9, rel=0.05)  # the outline, in square pixels


def test_labels_with_settings_are_inspected_and_written_to_the_config(inspect, files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    labels = np.load(files[1])
    chosen = np.argwhere(labels > 0)[::7].tolist()
    lines = [f"{row},{col},{'ab'[labels[row, col] % 2]},s{row % 3}" for row, col in chosen]
    Path("points.csv").write_text("\n".join(["row,col,crop,species", *lines]))
    code, _, err = inspect("inspect", files[0], "points.csv")
    assert code == 2
    assert "points.csv: set scene.labels.field to the attribute with the classes; choose from crop (2 values)" in err
    field = ("--set", "scene.labels.field=crop")
    code, out, err = inspect("inspect", files[0], "points.csv", *field, "--write-config", "my.yaml")
    assert code == 0, err
    assert "points.csv: a table of labels" in out
    scene = load_ground_truth(load_config("my.yaml").scene)
    assert scene.class_names == {1: "a", 2: "b"}
    assert (scene.labels > 0).sum() == len(chosen)
    np.savez("masks.npz", odd=labels % 2 == 1)
    np.save("even.npy", (labels % 2 == 0) & (labels > 0))
    masks = ("--set", "scene.labels={odd: masks.npz, even: even.npy}")
    code, out, err = inspect("inspect", files[0], *masks, "--out", tmp_path / "out")
    assert code == 0, err
    assert re.search(rf"│ +1 │ even +│ +{((labels % 2 == 0) & (labels > 0)).sum()} │", out)
    for wrong in ((files[1], *masks), (files[0], *field), (files[0], files[1], *masks)):
        code, _, err = inspect("inspect", *wrong)
        assert (code, err.count("\n")) == (2, 1)


def test_a_picture_of_classes_is_taken_for_the_labels_of_a_cube(inspect, files, tmp_path):
    labels = np.load(files[1])
    palette = (
        np.random.default_rng(0).integers(1, 255, (labels.max() + 1, 3), dtype=np.uint8)
        * (np.arange(labels.max() + 1) > 0)[:, None]
    )
    matplotlib.image.imsave(tmp_path / "classes.png", palette[labels].astype(np.uint8))
    code, out, err = inspect("inspect", tmp_path / "classes.png", files[0], "--out", tmp_path / "out")
    assert code == 0, err
    assert len(re.findall("#[0-9a-f]{6} +│", out)) == len(np.unique(labels)) - 1


def test_the_written_config_trains_on_the_files(inspect, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scene = make_synthetic_scene(seed=0, rows=30, cols=30, bands=16)
    scipy.io.savemat("cube.mat", {"a": scene.cube, "raw": scene.cube})
    np.save("labels.npy", np.where(scene.labels == 0, 255, scene.labels))
    settings = ("--set", "scene.cube_key=raw", "--set", "scene.unlabelled=255", "--set", "scene.drop_bands=[3]")
    code, _, err = inspect("inspect", "labels.npy", "cube.mat", *settings, "--write-config", "my.yaml")
    assert code == 0, err
    config = load_config("my.yaml", ["train.epochs=1"])
    assert config.name == "my"
    np.testing.assert_array_equal(load_scene(config.scene).labels, scene.labels)
    bundle = train(config.list_folds()[0], out="run").read_bundle()
    assert bundle.facts.dropped_bands == {3: "dropped by the config"}
    code, _, err = inspect("inspect", "labels.npy", "cube.mat", *settings, "--write-config", "my.yaml")
    assert code == 2
    assert "my.yaml: already exists; name another file" in err


@pytest.mark.parametrize("missing", ["cube", "label map"])
def test_half_a_scene_is_inspected_but_gets_no_config(files, missing, tmp_path):
    survey = survey_files([files[0] if missing == "label map" else files[1]])
    assert (survey.cube is None) == (missing == "cube")
    assert len(save_survey_figures(survey, tmp_path / "out")) == (0 if missing == "cube" else 1)
    with pytest.raises(SceneError, match=f": training also needs a {missing}; name both files"):
        suggest_config(survey)


@pytest.mark.parametrize("arguments", [["absent.mat"], ["--set", "scene.unlabeled=1"], ["--set", "nodata=1"]])
def test_a_mistake_in_inspect_is_one_line(inspect, files, arguments, tmp_path):
    code, _, err = inspect("inspect", *files, *arguments, "--out", tmp_path / "out")
    assert code == 2
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_list_and_show_tell_every_scene(inspect):
    code, out, _ = inspect("list")
    assert code == 0
    for known in list_known_scenes():
        assert known.name in out
        code, shown, _ = inspect("show", known.aliases[0])
        assert code == 0
        assert known.title in shown
        assert known.credit in shown
        for file in (*known.cube.forms, *known.labels.forms):
            assert all(name in shown for name in file.names)
            assert all(url in shown for url in file.sources)
            assert file.sha256 is None or file.sha256 in shown
        assert known.registration is None or known.registration in shown
        assert all(name in shown for name in known.class_names.values())


def test_fetch_of_a_scene_behind_a_registration_exits_with_2(inspect):
    code, out, err = inspect("fetch", "houston-2013")
    assert (code, out) == (2, "")
    assert "download them there and put 2013_IEEE_GRSS_DF_Contest_CASI.tif and houston_gt.mat into datasets" in err


@needs_real_scenes
def test_fetch_from_a_folder_ends_with_the_files_and_what_to_write(inspect, tmp_path, monkeypatch):
    monkeypatch.setenv("HSI_SE_MIRROR", (REAL_SCENES / "salinas_a").resolve().as_uri())
    code, out, _ = inspect("fetch", "SalinasA", "--out", tmp_path)
    assert code == 0
    next_command = "hsi-se train configs/demo.yaml --set scene=salinas-a"
    assert out.splitlines()[-1] == f"next:  {next_command} --data {tmp_path}"
    assert load_scene("salinas-a", tmp_path).num_bands == 204


@needs_real_scenes
@pytest.mark.parametrize(
    ("name", "bands"),
    [
        ("enmap_potsdam_tile.tif", (43, 27, 8)),
        ("gamsberg_subset.hdr", (21, 12, 3)),
        ("isofit_ang20160910t185702_2rdn_img", (53, 35, 17)),
    ],
)
def test_the_real_files_are_shown_in_the_bands_nearest_to_red_green_and_blue(name, bands):
    survey = survey_files([REAL_SCENES / "formats" / name])
    assert survey.picture_bands is not None
    assert survey.picture_bands[0] == bands
    assert survey.image is not None
    assert survey.image.wavelengths_nm is not None
    nearest = np.abs(survey.image.wavelengths_nm[list(bands)] - (640, 550, 460))
    assert nearest.max() < 6


@needs_real_scenes
def test_the_published_labels_take_the_known_names():
    survey = survey_files([REAL_SCENES / "salinas_a" / "SalinasA_gt.mat"])
    assert survey.truth is not None
    assert survey.truth.class_names[14] == "Lettuce_romaine_7wk"
    assert survey.scene.class_names == "salinas-a"


def test_a_scene_whose_first_rows_are_empty_is_inspected(inspect, tmp_path):
    """As of a flight line that lies askew in its raster."""
    cube = np.random.default_rng(0).random((70, 6, 5)).astype(np.float32)
    cube[:40] = -9999
    labels = np.zeros((70, 6), np.uint8)
    labels[50:] = 1
    labels[60:] = 2
    np.save(tmp_path / "cube.npy", cube)
    np.save(tmp_path / "labels.npy", labels)
    code, out, err = inspect("inspect", tmp_path / "cube.npy", tmp_path / "labels.npy", "--set", "scene.nodata=-9999")
    assert (code, err) == (0, "")
    assert "240" in out


@pytest.mark.parametrize("override", ["scene=indian-pines", "patch.size=99", "train.epochs=7"])
def test_inspect_takes_settings_of_the_scene_alone(inspect, files, override):
    code, _, err = inspect("inspect", *files, "--set", override)
    assert code == 2
    assert err == f"hsi-se: --set {override}: inspect takes only settings of the scene; write scene.key=value\n"


def test_files_of_two_scenes_are_refused(inspect, files, tmp_path):
    np.save(tmp_path / "small.npy", np.ones((7, 9), np.uint8))
    code, _, err = inspect("inspect", files[0], tmp_path / "small.npy")
    assert code == 2
    assert "the cube has 40 × 26 pixels and the labels have 7 × 9 (rows × cols); give two files of the" in err
    np.save(tmp_path / "other.npy", np.ones((40, 26, 3), np.float32))
    code, _, err = inspect("inspect", files[0], tmp_path / "other.npy")
    assert code == 2
    assert "are both cubes; inspect them one at a time" in err
