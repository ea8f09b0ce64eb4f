"""A map with every wish, and one without, of a small scene that lies on the ground."""

import json
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import rasterio.features
from shapely.geometry import box

import hsi_se
from hsi_se.config.yaml_file import load_config
from hsi_se.errors import HsiError
from hsi_se.maps.folder import MapFolder
from hsi_se.maps.write import write_map
from hsi_se.runs.folder import RunFolder
from tests.conftest import CPU, ROOT, TINY
from tests.maps.test_write import IDS, NAMES, SIZE, TRANSFORM, Notes, map_again, write_scene

LEAST = 0.345  # with three classes of a network of one epoch, some pixels are below
UNCLASSIFIED = 13
AREA = box(*TRANSFORM @ (2.4, 9.6), *TRANSFORM @ (9.4, 0.6))  # (x, y) of its lower left and upper right corner


@pytest.fixture(scope="package")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("products")


@pytest.fixture(scope="package")
def run(folder) -> RunFolder:
    cube = write_scene(folder / "ENMAP01-L2A_20220724T104526Z.tif")
    np.save(folder / "labels.npy", np.resize(np.array(IDS, np.uint8), SIZE))
    scene = f"scene={{cube: {cube}, labels: {folder}/labels.npy, class_names: {json.dumps(NAMES)}}}"
    changes = [*TINY, scene, "train.epochs=1", "split.train=0.3"]
    return hsi_se.train(load_config(ROOT / "configs" / "demo.yaml", changes), out=folder / "run", session=CPU)


@pytest.fixture(scope="package")
def plain(run, folder) -> np.ndarray:
    """The labels without any wish, and the largest probability."""
    result, _ = map_again(run, folder / "plain", probabilities=True)
    with rasterio.open(result.probabilities.with_suffix(".tif")) as file:
        likeliest = file.read().max(axis=0)
    return read_labels(result), likeliest


@pytest.fixture(scope="package")
def full(run, folder) -> tuple[MapFolder, Notes]:
    """A map with every wish."""
    frame = geopandas.GeoDataFrame(geometry=[AREA], crs="EPSG:32633").to_crs("EPSG:4326")
    frame.to_file(folder / "area.geojson")
    vectors = folder / "areas.gpkg"
    wishes = {"mask": folder / "area.geojson", "min_probability": LEAST, "polygons": vectors, "stac": True}
    return map_again(run, folder / "full", probabilities=True, **wishes)


def read_labels(result: MapFolder) -> np.ndarray:
    with rasterio.open(result.geotiff) as file:
        return file.read(1)


def burn(geometry) -> np.ndarray:
    return rasterio.features.rasterize([geometry], out_shape=SIZE, transform=TRANSFORM) == 1


def find_refusal(run: RunFolder, **wishes) -> str:
    with pytest.raises(HsiError) as caught:
        write_map(run, session=CPU, **wishes)
    assert "\n" not in str(caught.value)
    return str(caught.value)
