"""Where a map lies: on the ground grid of a swath, and in a folder for each of several images."""

from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine

import hsi_se
from hsi_se.config.scene import SceneFiles
from hsi_se.config.yaml_file import load_config
from hsi_se.errors import ConfigError
from hsi_se.maps.write import write_map
from hsi_se.runs.folder import RunFolder
from hsi_se.runs.opened import open_run
from hsi_se.scene.loading import load_scene
from tests.conftest import CPU, ROOT, TINY
from tests.scene.products import COLS, NORTH_UP, ROWS, write_dlr, write_emit

SVM = ("model={name: svm, penalty: 10}", "patch.size=1", "reduction={kind: none}", "split={kind: random, train: 0.5}")
HALVES = np.where(np.arange(ROWS)[:, None] < 4, 1, 2) * np.ones((1, COLS), int)  # two classes, above and below


def save_labels(path: Path, labels: np.ndarray, *, crs: str, transform: Affine) -> Path:
    rows, cols = labels.shape
    facts = {"width": cols, "height": rows, "count": 1, "dtype": "uint8", "crs": crs, "transform": transform}
    with rasterio.open(path, "w", driver="GTiff", **facts) as file:
        file.write(labels.astype(np.uint8), 1)
    return path


@pytest.fixture(scope="module")
def swath(tmp_path_factory: pytest.TempPathFactory) -> SceneFiles:
    """A product on the grid of its sensor, and labels on the ground."""
    folder = tmp_path_factory.mktemp("emit")
    on_ground = np.vstack([np.zeros((1, ROWS), int), np.rot90(HALVES)])
    grid = Affine.from_gdal(-117.1, 5e-4, 0, 35.1, 0, -5e-4)
    labels = save_labels(folder / "labels.tif", on_ground, crs="EPSG:4326", transform=grid)
    return SceneFiles(cube=str(write_emit(folder)), labels=str(labels))


def train(scene: str, out: Path) -> RunFolder:
    return hsi_se.train(load_config(ROOT / "configs" / "demo.yaml", [*TINY, *SVM, scene]), out=out, session=CPU)


@pytest.fixture(scope="module")
def run_on_swath(swath: SceneFiles, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return train(f"scene={{cube: {swath.cube}, labels: {swath.labels}}}", tmp_path_factory.mktemp("runs") / "emit")


def test_labels_on_the_ground_are_taken_to_the_swath(swath: SceneFiles) -> None:
    scene = load_scene(swath)
    np.testing.assert_array_equal(scene.labels, np.where(scene.valid, HALVES, 0))


def test_labels_in_the_rows_of_the_swath_are_read_as_they_are(swath: SceneFiles, tmp_path: Path) -> None:
    np.save(tmp_path / "labels.npy", HALVES)
    scene = load_scene(swath.model_copy(update={"labels": str(tmp_path / "labels.npy")}))
    np.testing.assert_array_equal(scene.labels, np.where(scene.valid, HALVES, 0))


def test_the_map_of_a_swath_is_put_on_the_ground(run_on_swath: RunFolder, tmp_path: Path) -> None:
    write_map(run_on_swath, out=tmp_path / "map", stac=True, session=CPU)
    wanted = hsi_se.map_scene(run_on_swath.read_bundle(), open_run(run_on_swath).config.scene, session=CPU).labels
    for name in ("map.tif", "map.img"):
        with rasterio.open(tmp_path / "map" / name) as file:
            assert file.crs.is_geographic
            assert file.transform.to_gdal() == pytest.approx((-117.1, 5e-4, 0, 35.1, 0, -5e-4))
            np.testing.assert_array_equal(file.read(1), np.vstack([np.zeros((1, ROWS)), np.rot90(wanted)]))


@pytest.fixture(scope="module")
def run_on_images(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Two products side by side, trained together."""
    folder, images = tmp_path_factory.mktemp("enmap"), []
    for name in ("west", "east"):
        (folder / name).mkdir()
        cube = write_dlr(folder / name, "EnMAP")
        np.save(folder / name / "labels.npy", HALVES)
        images.append(f"{{cube: {cube}, labels: {folder / name / 'labels.npy'}, name: {name}}}")
    return train(f"scene={{images: [{', '.join(images)}]}}", folder / "run")


def test_each_of_several_images_gets_a_map_of_its_own(run_on_images: RunFolder) -> None:
    paths = write_map(run_on_images, session=CPU)
    found = {path.parent.name for path in paths}
    assert found == {"west", "east"}
    for image in open_run(run_on_images).config.scene.images:
        alone = hsi_se.map_scene(run_on_images.read_bundle(), Path(image.cube), session=CPU).labels
        with rasterio.open(run_on_images.path / "map" / str(image.name) / "map.tif") as file:
            np.testing.assert_array_equal(file.read(1), alone)
            assert file.crs.to_epsg() == 32633


def test_polygons_of_several_images_are_refused(run_on_images: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the scene has 2 images, and their polygons would be in one file"):
        write_map(run_on_images, polygons=tmp_path / "map.gpkg", session=CPU)


def test_an_image_outside_the_mask_is_not_mapped(run_on_images: RunFolder, tmp_path: Path) -> None:
    grid = Affine(*NORTH_UP)
    inside, nowhere = (tmp_path / f"{name}.geojson" for name in ("inside", "nowhere"))
    for path, (x, y) in ((inside, (0, 0)), (nowhere, (5000, 5000))):
        corners = [grid @ (x + col, y + row) for col, row in ((0, 0), (3, 0), (3, 3), (0, 3))]
        geopandas.GeoSeries([shapely.Polygon(corners)], crs=32633).to_file(path, engine="pyogrio")
    paths = write_map(run_on_images, mask=inside, out=tmp_path / "map", session=CPU)
    assert {path.parent.name for path in paths} == {"west", "east"}
    with pytest.raises(ConfigError, match="no pixel of the 2 images is inside; give an area that overlaps them"):
        write_map(run_on_images, mask=nowhere, out=tmp_path / "none", session=CPU)


def test_a_mask_on_the_ground_is_taken_to_the_swath(run_on_swath: RunFolder, tmp_path: Path) -> None:
    on_ground = np.zeros((COLS + 1, ROWS), int)
    on_ground[1:4] = 1
    grid = Affine.from_gdal(-117.1, 5e-4, 0, 35.1, 0, -5e-4)
    mask = save_labels(tmp_path / "mask.tif", on_ground, crs="EPSG:4326", transform=grid)
    write_map(run_on_swath, out=tmp_path / "map", mask=mask, session=CPU)
    with rasterio.open(tmp_path / "map" / "map.tif") as file:
        assert not file.read(1)[on_ground == 0].any()
        assert file.read(1)[on_ground == 1].any()
