"""One classifier of a small scene that lies on the ground, its map with every wish, and one without."""

import json
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import rasterio.features
import rasterio.shutil
from rasterio.transform import Affine
from shapely.geometry import box

import hsi_se
from hsi_se.config.yaml_file import load_config
from hsi_se.errors import HsiError
from hsi_se.maps.folder import MapFolder
from hsi_se.maps.write import write_map
from hsi_se.prediction.bundled import build_bundled_model
from hsi_se.prediction.logits import predict_logits
from hsi_se.progress import Silent
from hsi_se.runs.folder import RunFolder
from hsi_se.system.session import Session
from tests.conftest import CPU, ROOT, TINY

CUBE = "ENMAP01-L2A_20220724T104526Z.tif"
NODATA = -9999
IDS = (1, 10, 12)
NAMES = ("water", "wood, dark", "field {bare} & Straße")
WAVELENGTHS = np.linspace(420, 2300, 18)
TRANSFORM = Affine(30, 0, 365055, 0, -30, 5806125)
SIZE = (14, 11)
LEAST = 0.4  # with three classes of a network of one epoch, some pixels are below
UNCLASSIFIED = 13
AREA = box(*TRANSFORM @ (2.4, 9.6), *TRANSFORM @ (9.4, 0.6))  # (x, y) of its lower left and upper right corner


class Notes(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.total = self.done = 0

    def start(self, task: str, *, total: int, unit: str) -> None:
        assert (task, unit) == ("mapping", "pixels")
        self.total = total

    def advance(self, count: int) -> None:
        self.done += count

    def note(self, text: str) -> None:
        self.notes.append(text)


def write_scene(path: Path, *, rows: int = SIZE[0], seed: int = 0, place: dict | None = None, **changes) -> Path:
    """An 18-band GeoTIFF of which the file says that two bands are bad; one corner is nodata."""
    rng = np.random.default_rng(seed)
    cube = rng.integers(100, 4000, (18, rows, SIZE[1])).astype(np.float32) * changes.get("factor", 1)
    cube[:, :2, :3] = NODATA
    cube = cube[changes.get("bands", slice(None))]
    wavelengths = changes.get("wavelengths", WAVELENGTHS[changes.get("bands", slice(None))])
    place = {"crs": "EPSG:32633", "transform": TRANSFORM} if place is None else place
    with rasterio.open(
        path, "w", driver="GTiff", height=rows, width=SIZE[1], count=len(cube), dtype="float32",
        nodata=NODATA, **place,
    ) as file:  # fmt: skip
        file.write(cube)
        for band in range(len(cube)):
            tags = {"wavelength": str(wavelengths[band]), "wavelength_units": "nm"}
            file.update_tags(band + 1, **tags, bbl="0" if band in changes.get("bad", (4, 5)) else "1")
    return path


@pytest.fixture(scope="package")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("maps")


@pytest.fixture(scope="package")
def run(folder) -> RunFolder:
    cube = write_scene(folder / CUBE)
    np.save(folder / "labels.npy", np.resize(np.array(IDS, np.uint8), SIZE))
    scene = f"scene={{cube: {cube}, labels: {folder}/labels.npy, class_names: {json.dumps(NAMES)}}}"
    changes = [*TINY, scene, "train.epochs=1", "split.train=0.3", "model.attention={fold: {kind: se}}"]
    return hsi_se.train(load_config(ROOT / "configs" / "demo.yaml", changes), out=folder / "run", session=CPU)


def map_again(run: RunFolder, out: Path, **changes) -> tuple[MapFolder, Notes]:
    notes = Notes()
    write_map(run, out=out, session=Session(device="cpu", observer=notes), **changes)
    return MapFolder(out), notes


@pytest.fixture(scope="package")
def result(run, folder) -> MapFolder:
    """A map without any wish but probabilities."""
    return map_again(run, folder / "out", probabilities=True)[0]


@pytest.fixture(scope="package")
def expected(run, folder) -> np.ndarray:
    """Logits of the whole scene at once, from the file itself."""
    with rasterio.open(folder / CUBE) as file:
        cube = np.delete(np.moveaxis(file.read(), 0, 2), [4, 5], axis=2)
    bundle = hsi_se.load_bundle(run)
    components = bundle.reduction.apply(cube, nodata=cube[..., 0] == NODATA)
    padding = bundle.facts.padding
    return predict_logits(build_bundled_model(bundle), components, engine="patches", padding=padding)


def to_labels(logits: np.ndarray) -> np.ndarray:
    labels = np.array(IDS)[logits.argmax(2)]
    labels[:2, :3] = 0
    return labels


@pytest.fixture(scope="package")
def plain(result) -> tuple[np.ndarray, np.ndarray]:
    """The labels without any wish, and the largest probability."""
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
