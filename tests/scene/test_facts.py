"""What files say of themselves is compared with what they contain: names of known scenes, grids, units, orders."""

import numpy as np
import pytest
import rasterio
import scipy.io
import spectral.io.envi
from affine import Affine
from rasterio.crs import CRS

from hsi_se.config.scene import SceneFiles
from hsi_se.config.yaml_file import load_config
from hsi_se.errors import SceneError
from hsi_se.scene.catalogue import digest_labels, find_known_scene, list_known_scenes, recognise_labels
from hsi_se.scene.formats import open_file
from hsi_se.scene.loading import load_ground_truth, load_scene
from hsi_se.scene.synthetic import make_synthetic_scene
from hsi_se.scene.wavelengths import to_nanometres
from hsi_se.workflows.inspect_scene import suggest_config, survey_files
from tests.conftest import REAL_SCENES, needs_real_scenes
from tests.scene.conftest import COLS, ROWS, change_header, save, write_raw

GRID = Affine(30, 0, 365055, 0, -30, 5806125)


# ------------------------------------------------------------------------- names of known scenes


def test_a_scene_of_a_known_size_takes_no_names_and_the_config_suggests_them(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    labels = np.resize([1, 2, 3, 0], (145, 145)).astype(np.uint8)
    save(tmp_path, rng.random((145, 145, 50)).astype(np.float32), labels)
    code, out, err = call("scene", "inspect", "cube.npy", "labels.npy", "--write-config", "my.yaml")
    assert code == 0, err
    assert "Alfalfa" not in out + (tmp_path / "my.yaml").read_text()
    assert "note: the size is that of Indian Pines" in out
    assert load_scene(load_config("my.yaml").scene).class_names == {n: f"class {n}" for n in (1, 2, 3)}
    text = (tmp_path / "my.yaml").read_text()
    assert "\n  # class_names: indian-pines  # the size is that of Indian Pines" in text
    (tmp_path / "mine.yaml").write_text(text.replace("  # class_names", "  class_names"))
    assert load_scene(load_config("mine.yaml").scene).class_names[2] == "Corn-notill"


@needs_real_scenes
@pytest.mark.parametrize("kind", ["npy", "mat", "tif"])
def test_published_labels_are_known_in_any_format(tmp_path, kind):
    labels = scipy.io.loadmat(REAL_SCENES / "salinas" / "Salinas_gt.mat")["salinas_gt"]
    path = tmp_path / f"drawn.{kind}"
    match kind:
        case "npy":
            np.save(path, labels.astype(np.int64))
        case "mat":
            scipy.io.savemat(path, {"classes": labels.astype(float)}, do_compression=True)
        case "tif":
            with rasterio.open(
                path, "w", driver="GTiff", height=512, width=217, count=1, dtype="int16", transform=GRID
            ) as file:
                file.write(labels.astype(np.int16), 1)
    survey = survey_files([path])
    assert survey.scene.class_names == "salinas"
    assert survey.truth is not None
    assert survey.truth.class_names[16] == "Vinyard_vertical_trellis"
    assert "these are the labels of Salinas (AVIRIS, 1998), a known scene: salinas" in survey.truth.notes


@needs_real_scenes
def test_other_labels_of_the_same_size_are_not_known(tmp_path):
    labels = scipy.io.loadmat(REAL_SCENES / "salinas" / "Salinas_gt.mat")["salinas_gt"]
    drawn = labels.copy()
    drawn[0, 0] = 1 if labels[0, 0] != 1 else 2
    for others in (drawn, labels[::-1], labels.T):
        likely = find_known_scene("salinas") if others.shape == labels.shape else None
        assert recognise_labels(others) == (None, likely)
    np.save(tmp_path / "drawn.npy", drawn)
    survey = survey_files([tmp_path / "drawn.npy"])
    assert survey.scene.class_names is None
    assert survey.likely is find_known_scene("salinas")


@needs_real_scenes
def test_the_catalogues_digests_are_those_of_the_published_labels():
    known_digests = 0
    for known in list_known_scenes():
        for path in REAL_SCENES.rglob("*.mat"):
            if path.name in known.labels.names:
                labels = sum(scipy.io.loadmat(path)[key].astype(np.int32) for key in known.labels.keys)
                assert digest_labels(labels) == known.labels_digest
                known_digests += 1
    assert known_digests == sum(known.labels_digest is not None for known in list_known_scenes()) == 8


def test_a_known_scene_that_lacks_a_label_cannot_name_them(tmp_path, whole):
    labels = np.where(whole.labels == 2, 40, whole.labels)
    with pytest.raises(SceneError, match=r"scene\.class_names = IP: has no names for the labels 40 of"):
        load_scene(save(tmp_path, whole.cube, labels, class_names="IP"))


def test_other_labels_under_a_known_name_are_said(tmp_path):
    labels = np.resize([1, 10, 0], (6, 5))
    scipy.io.savemat(tmp_path / "SalinasA_gt.mat", {"salinasA_gt": labels})
    truth = load_ground_truth("salinas-a", tmp_path)
    assert truth.notes == ("SalinasA_gt.mat differs from the published labels of SalinasA (AVIRIS, 1998)",)


# --------------------------------------------------------------------------- grids of two rasters


def write_tif(path, array, transform, crs="EPSG:32633"):
    array = array if array.ndim == 3 else array[..., None].astype(np.uint8)
    rows, cols, bands = array.shape
    with rasterio.open(
        path, "w", driver="GTiff", height=rows, width=cols, count=bands, dtype=array.dtype,
        crs=crs and CRS.from_user_input(crs), transform=transform,
    ) as image:  # fmt: skip
        image.write(np.moveaxis(array, 2, 0))
    return path


def test_a_known_scene_with_two_label_maps_keeps_the_georeference_of_its_cube(tmp_path):
    known = find_known_scene("houston-2013")
    cube = np.random.default_rng(0).random((6, 8, 5)).astype(np.float32)
    write_tif(tmp_path / known.cube.names[0], cube, GRID)
    train = np.resize([0, 1, 2], (6, 8))
    maps = dict(zip(known.labels.keys, (train, np.where(train == 0, 3, 0)), strict=True))
    scipy.io.savemat(tmp_path / known.labels.names[0], maps)
    assert load_scene("houston-2013", tmp_path).georeference.transform == tuple(GRID)[:6]


# --------------------------------------------------------------------------- what else is compared


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.float32])
@pytest.mark.parametrize("is_wrong", [False, True])
def test_a_byte_order_that_makes_noise_of_smooth_spectra_is_said(tmp_path, dtype, is_wrong):
    cube = make_synthetic_scene(seed=0, rows=ROWS, cols=COLS, bands=64).cube.astype(dtype)
    path = write_raw(tmp_path, cube, **({"byte_order": 1} if is_wrong else {}))
    notes = open_file(path).rasters[""].notes
    assert bool(notes) == is_wrong
    assert all("check byte order in header or config" in note for note in notes)


@pytest.mark.parametrize(
    ("values", "unit"), [((0.4, 2.5), "nanometers"), ((400, 2500), "micrometers"), ((400, 2500), "mm")]
)
def test_wavelengths_that_their_unit_makes_impossible_are_not_used(values, unit):
    found, notes = to_nanometres(values, unit=unit, bands=2)
    assert found is None
    assert f"{values[0]:g} to {values[1]:g}, cannot be in {unit}; set scene.wavelengths" in notes[0]


def test_reflectances_that_are_divided_once_more_are_said(tmp_path, whole):
    path = write_raw(tmp_path, (whole.cube / 1e4).astype(np.float32), reflectance_scale_factor=10000)
    np.save(tmp_path / "labels.npy", whole.labels)
    files = SceneFiles(cube=str(path), labels=str(tmp_path / "labels.npy"))
    assert any("are divided by 10000; if they are reflectances already" in n for n in load_scene(files).notes)
    np.testing.assert_allclose(load_scene(files.model_copy(update={"scale": 1})).cube, whole.cube / 1e4, rtol=1e-6)


def test_a_header_with_more_classes_than_names_is_said(tmp_path, whole):
    np.save(tmp_path / "cube.npy", whole.cube)
    facts = {"classes": 9, "class names": ["Unclassified", "Corn"]}
    labels = whole.labels.astype(np.uint8)[..., None]
    spectral.io.envi.save_image(str(tmp_path / "labels.hdr"), labels, metadata=facts)
    files = SceneFiles(cube=str(tmp_path / "cube.npy"), labels=str(tmp_path / "labels.hdr"))
    assert load_scene(files).notes == ("labels.hdr: the header declares 9 classes, but names 2",)


def test_an_unlabelled_value_that_occurs_nowhere_is_refused(tmp_path, whole):
    files = save(tmp_path, whole.cube, whole.labels, unlabelled=255)
    with pytest.raises(SceneError, match=r"scene\.unlabelled = 255: no pixel has this value"):
        load_scene(files)
    np.save(files.labels, np.where(whole.labels == 0, 255, whole.labels))
    assert load_scene(files).notes == ()


def test_a_map_info_that_contradicts_the_coordinate_system_is_said(tmp_path, whole):
    wkt = CRS.from_epsg(32632).to_wkt()
    path = write_raw(tmp_path, whole.cube.astype(np.float32))
    info = "{UTM, 1, 1, 365055, 5806125, 30, 30, %d, North, WGS-84}"
    change_header(path, map_info=info % 33, coordinate_system_string=f"{{{wkt}}}")
    assert "the header's map info is EPSG:32633" in open_file(path).rasters[""].notes[0]
    change_header(path, map_info=info % 32)
    assert open_file(path).rasters[""].notes == ()


def test_the_suggested_names_are_only_a_comment(tmp_path):
    labels = np.resize(np.arange(3), (83, 86))
    save(tmp_path, np.random.default_rng(0).random((83, 86, 30)), labels)
    survey = survey_files([tmp_path / "cube.npy", tmp_path / "labels.npy"])
    assert survey.likely is None  # SalinasA has no class 2
    assert "class_names" not in suggest_config(survey)
