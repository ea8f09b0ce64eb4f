"""Real EnMAP tiles with points of the land cover: trained over several images, tested image by image, and mapped."""

import re

import numpy as np
import pytest
import rasterio

import hsi_se
from tests.conftest import REAL_SCENES, needs_real_scenes

TILES = ("128_128", "128_96", "160_96", "96_96")
CONFIG = {
    "scene": {
        "cube": [f"images/enmap_potsdam_tile_{tile}.tif" for tile in TILES],
        "labels": {"file": "landcover_points.gpkg", "field": "level_2"},
    },
    "split": {"kind": "folds", "by": "images", "folds": 4, "buffer": 0, "validation": 0},
    "reduction": {"kind": "none"},
    "patch": {"size": 1},
    "model": {"name": "svm", "penalty": 10, "gamma": 0.005},
    "train": {"epochs": 1},
    "prediction": {"calibration": "none"},
}


@needs_real_scenes
@pytest.mark.slow
@pytest.mark.usefixtures("quick_baseline")
def test_points_train_over_tiles_that_are_tested_whole_and_mapped_with_names_and_colours(tmp_path):
    session = hsi_se.Session(data=REAL_SCENES / "enmap_potsdam", device="cpu")
    run = hsi_se.train(CONFIG, out=tmp_path / "run", session=session)
    found = hsi_se.evaluate(run, session=session)
    truth = hsi_se.load_scene(CONFIG["scene"], REAL_SCENES / "enmap_potsdam")
    assert found.num_test == (truth.labels > 0).sum() == 12
    where = np.zeros(truth.labels.shape, dtype=int)
    for number, image in enumerate(truth.images):
        where[image.window] = number
    for fold in run.folds:
        split = fold.read_split()
        tested, trained = (set(where[tuple(pixels.T)]) for pixels in (split.test, split.train))
        assert len(tested) == 1
        assert not tested & trained
    files = hsi_se.write_map(run.fold(1), session=session)
    maps = [file for file in files if file.name == "map.tif"]
    assert [file.parent.name for file in maps] == [f"enmap_potsdam_tile_{tile}" for tile in TILES]
    for tile, file in zip(TILES, maps, strict=True):
        with (
            rasterio.open(file) as found,
            rasterio.open(session.data / CONFIG["scene"]["cube"][TILES.index(tile)]) as cube,
        ):
            assert (found.crs, found.transform, found.shape) == (cube.crs, cube.transform, cube.shape)
            assert found.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
            assert set(found.read(1).flat) <= truth.class_names.keys()
            colours = found.colormap(1)
        assert len({colours[label] for label in truth.class_names}) == len(truth.class_names)
        names = re.findall("<Category>(.*)</Category>", file.with_name("map.tif.aux.xml").read_text())
        assert names[1:] == list(truth.class_names.values())
