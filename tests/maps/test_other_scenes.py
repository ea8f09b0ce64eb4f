"""Maps of other scenes than the one trained on: refused with what they lack, or read as the classifier needs them."""

from dataclasses import replace

import numpy as np
import pytest
import rasterio
import rasterio.shutil

import hsi_se
from hsi_se.config.yaml_file import load_config
from hsi_se.errors import ConfigError, SceneError
from hsi_se.maps.write import write_map
from hsi_se.prediction.target import open_target
from hsi_se.system.session import Session
from tests.conftest import ROOT, TINY
from tests.maps.conftest import NODATA, SIZE, WAVELENGTHS, Notes, map_again, to_labels, write_scene


def test_other_scenes_that_do_not_fit_are_refused_with_what_they_lack(run, tmp_path):
    def refused(**changes):
        path = write_scene(tmp_path / "other.tif", **changes)
        with pytest.raises(SceneError) as caught:
            write_map(run, scene=path, out=tmp_path / "out")
        assert not (tmp_path / "out").exists()
        return str(caught.value).removeprefix(f"{path}: ")

    assert refused(bands=slice(0, 17)).startswith(
        "has no band for 1 of the model's 16 within half a band (2300.0 nm, nearest 2189.4); "
    )
    moved = np.where(WAVELENGTHS > 2200, 2356, WAVELENGTHS)
    assert refused(wavelengths=moved).startswith(
        "has no band for 1 of the model's 16 within half a band (2300.0 nm, nearest 2356.0); "
    )
    text = refused(factor=1e-4)
    assert text.startswith("its values range from 0.01")
    assert "those of the training pixels from 1" in text


def test_wavelengths_less_than_half_a_band_apart_are_taken(run, tmp_path):
    path = write_scene(tmp_path / "other.tif", wavelengths=WAVELENGTHS + 50)
    hsi_se.map_scene(run, path)


def test_the_bands_that_training_left_out_are_left_out_by_number(run, tmp_path, expected):
    """Whatever the new file says of its own bands; or the file may hold just the bands that are used."""
    path = write_scene(tmp_path / "other.tif", bad=(7,))
    target = open_target(hsi_se.load_bundle(run), run.read_config().scene.model_copy(update={"cube": str(path)}))
    assert target.image.bands.tolist() == [band for band in range(18) if band not in (4, 5)]
    assert any("bands 8 of other.tif are used as in training, although" in note for note in target.notes)
    short = write_scene(tmp_path / "short.tif", bands=np.delete(np.arange(18), [4, 5]), bad=())
    np.testing.assert_array_equal(hsi_se.map_scene(run, short).labels, to_labels(expected))


def test_a_scene_in_another_unit_is_mapped_once_its_scale_is_given(run, tmp_path, expected):
    path = write_scene(tmp_path / "other.tif", factor=100)
    result, _ = map_again(run, tmp_path / "out", scene=path, overrides=["scene.scale=100"])
    with rasterio.open(result.geotiff) as file:
        np.testing.assert_array_equal(file.read(1)[3:], to_labels(expected)[3:])


def test_another_file_or_scale_of_the_runs_own_scene_is_compared_too(run, tmp_path):
    path = write_scene(tmp_path / "other.tif", factor=1e-4)
    for override in (f"scene.cube={path}", "scene.scale=10000"):
        with pytest.raises(SceneError, match="bring them to one scale"):
            write_map(run, overrides=[override], out=tmp_path / "out")


@pytest.mark.parametrize("order", ["C", "F"])
def test_nodata_is_masked_in_any_order_of_the_values_in_the_file(run, tmp_path, expected, order):
    """MATLAB's, and so `scipy.io.loadmat`'s, runs down the columns."""
    cube = np.array(hsi_se.load_scene(run.read_config().scene).cube, order=order)
    cube[:2, :3] = NODATA
    cube[12, 9] = np.nan
    np.save(tmp_path / "cube.npy", cube)
    result, _ = map_again(run, tmp_path / "out", scene=tmp_path / "cube.npy", overrides=[f"scene.nodata={NODATA}"])
    labels = np.fromfile(result.image, np.uint8).reshape(SIZE)
    assert np.argwhere(labels == 0).tolist() == [*np.argwhere(to_labels(expected) == 0).tolist(), [12, 9]]


def test_values_that_are_not_finite_stay_nodata(run):
    scene = hsi_se.load_scene(run.read_config().scene)
    cube = scene.cube.copy()
    odd = replace(scene, nodata=None)  # whose constructor saw finite values
    cube[12, 9, 3] = np.nan
    object.__setattr__(odd, "cube", cube)
    notes = Notes()
    labels = hsi_se.map_scene(run, odd, session=Session(observer=notes)).labels
    assert labels[12, 9] == 0
    assert (labels == 0).sum() == 1
    assert any(note.startswith("1 pixels contain non-finite values") for note in notes.notes)


def test_votes_are_not_sold_as_probabilities(tmp_path):
    changes = [*TINY, "model={name: svm, penalty: 1, gamma: 0.1}"]
    run = hsi_se.train(load_config(ROOT / "configs" / "demo.yaml", changes), out=tmp_path / "run")
    with pytest.raises(ConfigError, match=r"--probabilities: .* are votes"):
        write_map(run, probabilities=True)
    result, _ = map_again(run, tmp_path / "out")
    assert result.image.stat().st_size == 24 * 24
