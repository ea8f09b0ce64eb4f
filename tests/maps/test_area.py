"""Limits of a map: an area, and a least probability."""

import json
import warnings
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import rasterio.features
import spectral.io.envi
from affine import Affine
from shapely.geometry import Point, box

import hsi_se
from hsi_se.config.yaml_file import load_config
from tests.conftest import CPU, ROOT, TINY
from tests.maps.conftest import (
    AREA,
    LEAST,
    SIZE,
    TRANSFORM,
    UNCLASSIFIED,
    burn,
    find_refusal,
    map_again,
    read_labels,
    write_scene,
)

# --------------------------------------------------------------------------------- limits: area and probability


def test_pixels_below_the_least_probability_have_a_label_a_name_and_a_colour_of_their_own(full, plain):
    labels, likeliest = plain
    expected = np.where((likeliest < LEAST) & (labels > 0), UNCLASSIFIED, labels)
    expected[~burn(AREA)] = 0
    found = read_labels(full[0])
    np.testing.assert_array_equal(found, expected)
    assert 0 < (found == UNCLASSIFIED).sum() < (found > 0).sum()
    header = spectral.io.envi.read_envi_header(str(full[0].header))
    assert header["class names"][UNCLASSIFIED] == f"unclassified (p < {LEAST})"
    assert header["class lookup"][-3:] == ["221", "221", "221"]
    with rasterio.open(full[0].geotiff) as file:
        assert file.colormap(1)[UNCLASSIFIED][:3] == (221, 221, 221)
        assert file.dtypes == ("uint8",)
    facts = json.loads(full[0].facts.read_text())
    assert facts["min_probability"] == LEAST
    assert facts["classes"][-1]["num_pixels"] == (found == UNCLASSIFIED).sum()
    assert any("not calibrated" in note for note in full[1].notes)


def test_probabilities_are_those_without_a_limit_inside_the_area(full, plain):
    with rasterio.open(full[0].probabilities.with_suffix(".tif")) as file:
        found = file.read().max(axis=0)
    np.testing.assert_array_equal(found, np.where(burn(AREA) & (plain[0] > 0), plain[1], -1))


def test_another_threshold_does_not_go_on_with_an_unfinished_map(run, tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("hsi_se.maps.layers.write_geotiff", stop)
        with pytest.raises(KeyboardInterrupt):
            map_again(run, tmp_path, min_probability=0.34)
    again, notes = map_again(run, tmp_path, min_probability=0.9)
    assert notes.total == SIZE[0] * SIZE[1]
    assert set(np.unique(read_labels(again))) == {0, UNCLASSIFIED}


@pytest.mark.parametrize(
    ("least", "words"),
    [
        (0, "must lie between 0 and 1"),
        (1, "must lie between"),
        (float("nan"), "must lie"),
        (0.3, "write more than 0.333"),
    ],
)
def test_a_least_probability_without_a_meaning_is_refused(run, least, words):
    assert words in find_refusal(run, min_probability=least)


def test_the_votes_of_a_support_vector_machine_have_no_least_probability(tmp_path):
    changes = [*TINY, "model={name: svm, penalty: 1, gamma: 0.1}"]
    run = hsi_se.train(load_config(ROOT / "configs" / "demo.yaml", changes), out=tmp_path / "run", session=CPU)
    assert find_refusal(run, min_probability=0.6) == (
        "--min-probability: the scores of model.name = svm are votes; map it without"
    )


def test_an_area_is_burnt_by_pixel_centre_wherever_its_file_says_it_lies(full):
    inside = burn(AREA)
    assert (inside.sum(), inside[1:10, 2:9].all()) == (63, True), "the centres of 9 × 7 pixels"
    num_outside = SIZE[0] * SIZE[1] - 63
    assert any(
        f"{num_outside} of 154 pixels are outside" in note and "nodata in the map" in note for note in full[1].notes
    )
    assert json.loads(full[0].facts.read_text())["mask"].endswith("area.geojson")


def test_rows_without_a_pixel_of_the_area_are_not_classified(run, folder, full, tmp_path):
    result, notes = map_again(run, tmp_path, mask=f"{folder}/area.geojson", tile_rows=1)
    assert notes.total == notes.done == 9 * SIZE[1]
    np.testing.assert_array_equal(read_labels(result) > 0, (read_labels(full[0]) > 0))


def write_mask(path: Path, mask: np.ndarray, **place) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        kinds = {"driver": "GTiff", "height": mask.shape[0], "width": mask.shape[1], "count": 1, "dtype": "uint8"}
        with rasterio.open(path, "w", **kinds, **place) as file:
            file.write(mask.astype(np.uint8), 1)
    return path


def write_masks(folder: Path) -> dict[str, Path]:
    """The same area in files of every kind."""
    inside, files = burn(AREA), {}
    np.save(folder / "mask.npy", inside.astype(np.uint8))
    files["array"] = folder / "mask.npy"
    np.save(folder / "signed.npy", np.where(inside, -0.5, np.nan))
    files["fractions and NaN"] = folder / "signed.npy"
    np.savez(folder / "two.npz", inside=inside.astype(np.uint8), other=np.ones(SIZE, np.uint8))
    files["array of several"] = Path(f"{folder}/two.npz|layername=inside")
    files["same grid"] = write_mask(folder / "same.tif", inside, crs="EPSG:32633", transform=TRANSFORM)
    fine = np.zeros((60, 60), bool)  # of thirds of a pixel, from another corner
    fine[6:33, 9:30] = True
    corner = TRANSFORM @ Affine.translation(-1, -1) @ Affine.scale(1 / 3)
    files["finer"] = write_mask(folder / "fine.tif", fine, crs="EPSG:32633", transform=corner)
    files["no system"] = write_mask(folder / "loose.tif", fine, transform=corner)
    files["no place"] = write_mask(folder / "pixels.tif", inside)
    files["filled"] = write_mask(
        folder / "filled.tif", np.where(inside, 1, 255), crs="EPSG:32633", transform=TRANSFORM, nodata=255
    )
    frame = geopandas.GeoDataFrame(geometry=[AREA], crs="EPSG:32633")
    frame.to_file(folder / "area.shp")
    frame.to_file(folder / "two.gpkg", layer="area")
    geopandas.GeoDataFrame(geometry=[AREA.centroid], crs="EPSG:32633").to_file(folder / "two.gpkg", layer="points")
    with pytest.warns(UserWarning, match="crs"):
        frame.set_crs(None, allow_override=True).to_file(folder / "bare.gpkg")
    files |= {"shapefile": folder / "area.shp", "layer": Path(f"{folder}/two.gpkg|layername=area")}
    files["bare"] = folder / "bare.gpkg"
    return files


def test_an_area_may_be_a_raster_or_a_vector_file_of_any_grid(run, tmp_path):
    from hsi_se.maps.write import read_area
    from hsi_se.scene.loading import open_scene_image

    image = open_scene_image(run.read_config().scene)
    for kind, path in write_masks(tmp_path).items():
        inside, notes = read_area(str(path), image)
        np.testing.assert_array_equal(inside, burn(AREA), err_msg=kind)
        assert any("coordinate system" in note for note in notes) == (kind in ("bare", "no system")), kind


def test_an_area_that_is_none_is_refused(run, tmp_path):
    write_masks(tmp_path)
    far = geopandas.GeoDataFrame(geometry=[box(0, 0, 9, 9)], crs="EPSG:32633")
    far.to_file(tmp_path / "far.gpkg")
    geopandas.GeoDataFrame(geometry=[box(*TRANSFORM @ (0, 2), *TRANSFORM @ (3, 0))], crs="EPSG:32633").to_file(
        tmp_path / "nodata.gpkg"
    )
    geopandas.GeoDataFrame(geometry=[Point(1, 2)], crs="EPSG:32633").to_file(tmp_path / "points.gpkg")
    np.save(tmp_path / "small.npy", np.ones((3, 4), np.uint8))
    (tmp_path / "text.txt").write_text("an area")
    assert find_refusal(run, mask=tmp_path / "far.gpkg").endswith("is inside; give an area that overlaps the scene")
    assert "that has data is inside" in find_refusal(run, mask=tmp_path / "nodata.gpkg")
    assert "contains no polygons; give" in find_refusal(run, mask=tmp_path / "points.gpkg")
    assert f'choose one with --mask "{tmp_path}/two.npz|layername=NAME"' in find_refusal(run, mask=tmp_path / "two.npz")
    assert "choose from inside, other" in find_refusal(run, mask=f"{tmp_path}/two.npz|layername=outside")
    assert "no such file" in find_refusal(run, mask=tmp_path / "absent.gpkg")
    assert "has 3 × 4 pixels and the scene 14 × 11" in find_refusal(run, mask=tmp_path / "small.npy")
    assert "text.txt" in find_refusal(run, mask=tmp_path / "text.txt")
    text = find_refusal(run, mask=tmp_path / "two.gpkg")
    choices = (f'"{tmp_path}/two.gpkg|layername={layer}"' for layer in ("area", "points"))
    assert text.endswith(f"has 2 layers; choose one with --mask {' or '.join(choices)}")
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        loose = write_scene(tmp_path / "loose.tif", place={})
    assert "has no georeference, so that polygons cannot" in find_refusal(run, scene=loose, mask=tmp_path / "far.gpkg")
