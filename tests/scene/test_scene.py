"""From files to scenes: names, folders, keys, gaps; the real ones where they are at hand."""

from pathlib import Path

import numpy as np
import pytest
import scipy.io
import spectral

from hsi_se import load_scene
from hsi_se.config.scene import SceneFiles, SyntheticScene
from hsi_se.errors import SceneError
from hsi_se.scene.catalogue import find_known_scene, list_known_scenes
from hsi_se.scene.folders import DEFAULT_DATA_DIR
from hsi_se.scene.scene import Scene, make_palette
from tests.conftest import REAL_SCENES, needs_real_scenes

CUBE = np.random.default_rng(0).integers(0, 9000, (5, 6, 4)).astype(np.uint16)
LABELS = np.array([0, 1, 10, 11] * 7 + [14, 0]).reshape(5, 6).astype(np.uint8)


@pytest.fixture
def data(tmp_path, monkeypatch):
    """An empty data folder, and a working directory without one."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def write_salinas_a(folder, *, cube="SalinasA_corrected.mat", labels="SalinasA_gt.mat"):
    folder.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(folder / cube, {"salinasA_corrected": CUBE})
    scipy.io.savemat(folder / labels, {"salinasA_gt": LABELS})


@pytest.mark.parametrize("alias", ["salinas-a", "SalinasA", "salinas_a", "SALINAS A"])
def test_a_known_scene_is_found_by_any_of_its_names(data, alias):
    write_salinas_a(data)
    scene = load_scene(alias, data)
    np.testing.assert_array_equal(scene.cube, CUBE)
    np.testing.assert_array_equal(scene.labels, LABELS)


@pytest.mark.parametrize(
    ("folder", "names"),
    [
        ("", {}),
        ("salinas_a", {}),
        ("deeper/salinas_a", {}),
        ("x", {"cube": "SALINASA_CORRECTED.MAT", "labels": "salinasa_GT.mat"}),
    ],
)
def test_files_are_found_flat_or_in_folders_whatever_their_case(data, folder, names):
    write_salinas_a(data / folder, **names)
    np.testing.assert_array_equal(load_scene("salinas-a", data).cube, CUBE)


def test_datasets_is_searched_without_being_named(data, monkeypatch):
    monkeypatch.chdir(data)
    write_salinas_a(data / DEFAULT_DATA_DIR / "salinas_a")
    assert load_scene("salinas-a").num_bands == 4


def test_the_data_folder_goes_before_datasets(data, monkeypatch):
    monkeypatch.chdir(data.parent)
    write_salinas_a(data)
    (data.parent / DEFAULT_DATA_DIR).mkdir()
    scipy.io.savemat(data.parent / DEFAULT_DATA_DIR / "SalinasA_corrected.mat", {"other": CUBE + 1})
    np.testing.assert_array_equal(load_scene("salinas-a", data).cube, CUBE)


def test_every_name_and_alias_of_the_catalogue_means_one_scene():
    names = [(name, scene) for scene in list_known_scenes() for name in (scene.name, *scene.aliases)]
    assert len({name for name, _ in names}) == len(names)
    for name, scene in names:
        for spelling in (name, name.lower(), name.upper(), name.replace("-", "_"), name.replace("-", " ")):
            assert find_known_scene(spelling) is scene


BAND_FILE = Path(spectral.__file__).parent / "tests" / "data" / "92AV3C.spc"


@needs_real_scenes
def test_the_wavelengths_of_indian_pines_are_those_of_its_band_file():
    """The published cube lacks the bands 104-108, 150-163 and 220 of this file."""
    centres = np.loadtxt(BAND_FILE, usecols=0, skiprows=2)
    scene = load_scene("indian-pines", REAL_SCENES)
    kept = [nm for band, nm in enumerate(centres, start=1) if not (104 <= band <= 108 or 150 <= band <= 163)][:-1]
    np.testing.assert_allclose(scene.wavelengths_nm, kept, atol=0.0051)
    assert scene.natural_colour == (24, 15, 6)  # 636.8, 547.6 and 458.9 nm


@needs_real_scenes
def test_the_values_of_indian_pines_lie_at_its_wavelengths():
    """The values of pixel (20, 20) are those that spectral's tests give for the whole file of 220 bands."""
    scene = load_scene("indian-pines", REAL_SCENES)
    assert scene.wavelengths_nm is not None
    published = {783.27: 4712, 1282.96: 2817, 1541.59: 2206, 1620.98: 2136, 2122.78: 1377, 2311.35: 1219, 2459.54: 1068}
    for nm, value in published.items():
        (band,) = np.flatnonzero(np.abs(scene.wavelengths_nm - nm) < 0.01)
        assert scene.cube[20, 20, band] == value


def test_a_cube_of_another_number_of_bands_has_no_wavelengths_of_the_catalogue(tmp_path):
    known = find_known_scene("indian-pines")
    assert known is not None
    scipy.io.savemat(tmp_path / known.cube.names[0], {"x": CUBE})
    scipy.io.savemat(tmp_path / known.labels.names[0], {"x": LABELS})
    assert load_scene("indian-pines", tmp_path).wavelengths_nm is None


def test_gapped_ids_keep_their_names_and_colours(data):
    write_salinas_a(data)
    scene = load_scene("salinas-a", data)
    assert scene.class_ids.tolist() == [1, 10, 11, 14]
    assert scene.class_names[14] == "Lettuce_romaine_7wk"
    palette = make_palette(scene.class_ids)
    assert list(palette.values()) == [(0, 0, 0), (86, 180, 233), (213, 94, 0), (240, 228, 66), (0, 114, 178)]
    assert list(palette) == [0, 1, 10, 11, 14]


def write_pair(data, cube, labels):
    scipy.io.savemat(data / "a.mat", cube)
    scipy.io.savemat(data / "b.mat", labels)
    return {"cube": str(data / "a.mat"), "labels": str(data / "b.mat")}


def test_the_sole_arrays_of_the_users_own_files_are_picked(data):
    files = write_pair(data, {"x": CUBE, "wavelengths": np.arange(4.0), "note": "hello"}, {"y": LABELS, "z": CUBE})
    scene = load_scene(SceneFiles(**files))
    np.testing.assert_array_equal(scene.cube, CUBE)
    np.testing.assert_array_equal(scene.labels, LABELS)
    assert scene.name == "a"
    assert scene.class_names == {1: "class 1", 10: "class 10", 11: "class 11", 14: "class 14"}


def test_one_file_may_hold_both(data):
    scipy.io.savemat(data / "both.mat", {"cube": CUBE, "labels": LABELS})
    scene = load_scene(SceneFiles(cube="both.mat", labels="both.mat"), data)
    np.testing.assert_array_equal(scene.labels, LABELS)


def test_among_several_arrays_the_key_picks_one_and_the_error_lists_them(data):
    files = write_pair(data, {"raw": CUBE, "corrected": CUBE + 1}, {"y": LABELS})
    with pytest.raises(SceneError, match=r"2 3-D arrays \(raw, corrected\); choose one with scene\.cube_key"):
        load_scene(SceneFiles(**files))
    scene = load_scene(SceneFiles(**files, cube_key="corrected"))
    np.testing.assert_array_equal(scene.cube, CUBE + 1)


def test_class_names_are_given_in_ascending_order_of_label(data):
    files = write_pair(data, {"x": CUBE}, {"y": LABELS})
    scene = load_scene(SceneFiles(**files, class_names=("a", "b", "c", "d")))
    assert scene.class_names == {1: "a", 10: "b", 11: "c", 14: "d"}
    with pytest.raises(SceneError, match=r"class_names: 1 names for 4 labels \(1, 10, 11, 14\)"):
        load_scene(SceneFiles(**files, class_names=("a",)))


def test_class_names_can_be_those_of_a_known_scene(data):
    files = write_pair(data, {"x": CUBE}, {"y": LABELS})
    assert load_scene(SceneFiles(**files, class_names="SalinasA")).class_names[1] == "Brocoli_green_weeds_1"


def test_integer_cubes_keep_their_type(data):
    files = write_pair(data, {"x": CUBE}, {"y": LABELS})
    assert load_scene(SceneFiles(**files)).cube.dtype == np.uint16


def test_the_synthetic_scene_is_made_of_its_settings():
    scene = load_scene(SyntheticScene(synthetic=3, rows=30, cols=26, bands=17))
    assert scene.cube.shape == (30, 26, 17)
    assert scene.digest == load_scene(SyntheticScene(synthetic=3, rows=30, cols=26, bands=17)).digest


def test_the_digest_changes_with_any_value(small_scene):
    cube, labels = small_scene.cube.copy(), small_scene.labels.copy()
    cube[3, 4, 5] += 1
    labels[0, 0] = 1 if labels[0, 0] != 1 else 2
    digests = {
        Scene("x", other, small_scene.class_names, one).digest
        for one in (small_scene.cube, cube)
        for other in (small_scene.labels, labels)
    }
    assert len(digests) == 4
    assert small_scene.digest in digests


@needs_real_scenes
def test_the_real_salinas_a_loads_by_name():
    scene = load_scene("SalinasA", REAL_SCENES)
    assert scene.cube.shape == (83, 86, 204)
    assert scene.class_ids.tolist() == [1, 10, 11, 12, 13, 14]
    assert (scene.labels > 0).sum() == 5348


@needs_real_scenes
@pytest.mark.parametrize(("cube", "bands"), [("Indian_pines_mnf20.mat", 20), ("Indian_pines_filled.mat", 200)])
def test_the_real_indian_pines_cubes_load_with_their_labels(cube, bands):
    files = SceneFiles(cube=cube, labels="indian_pines_gt.mat", class_names="IP")
    scene = load_scene(files, REAL_SCENES)
    assert scene.cube.shape == (145, 145, bands)
    assert (scene.labels > 0).sum() == 10249
    assert scene.class_names[16] == "Stone-Steel-Towers"


@needs_real_scenes
def test_the_catalogue_agrees_with_every_real_ground_truth():
    checked = 0
    for known in list_known_scenes():
        for path in REAL_SCENES.rglob("*.mat"):
            if path.name in known.labels.names:
                arrays = scipy.io.loadmat(path)
                labels = sum(arrays[key] for key in known.labels.keys)
                assert labels.shape == known.shape[:2]
                assert set(np.unique(labels[labels > 0]).tolist()) == set(known.class_names)
                checked += 1
    assert checked == 8


@needs_real_scenes
@pytest.mark.parametrize(
    ("cube", "labels", "vegetation"),
    [
        ("Indian_pines_filled.mat", "Indian_pines_gt.mat", 14),  # woods
        ("SalinasA_corrected.mat", "SalinasA_gt.mat", 14),  # lettuce of seven weeks
    ],
)
def test_vegetation_is_no_redder_than_green_in_the_natural_colour_of_aviris(cube, labels, vegetation):
    files = {"cube": cube, "labels": labels, "class_names": "indian-pines"}
    if cube.startswith("Indian"):
        files["cube_key"] = "indian_pines_corrected"
    else:
        files["class_names"] = "salinas-a"
    scene = load_scene(SceneFiles(**files), REAL_SCENES)
    red, green, _ = scene.natural_colour
    spectrum = scene.cube[scene.labels == vegetation].mean(axis=0)
    assert spectrum[red] < spectrum[green] < spectrum[43]
