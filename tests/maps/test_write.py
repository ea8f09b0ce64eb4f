"""Maps of whole scenes: equal for every tile, refused where they would be untrue, readable elsewhere."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import rasterio
import rasterio.shutil
import spectral.io.envi
import torch
from rasterio.transform import Affine

import hsi_se
from hsi_se.config.yaml_file import load_config
from hsi_se.errors import ConfigError, RunError, SceneError
from hsi_se.maps import layers as writers
from hsi_se.maps.folder import MapFolder
from hsi_se.maps.layers import Classes, Layer, write_envi_header, write_geotiff
from hsi_se.maps.write import write_map
from hsi_se.prediction.bundled import TilePredictor, TileSource, build_bundled_model, predict_tiles
from hsi_se.prediction.logits import list_tiles, predict_logits
from hsi_se.prediction.target import open_target
from hsi_se.progress import Silent
from hsi_se.runs.folder import RunFolder
from hsi_se.sampling.patches import pad_cube
from hsi_se.scene.georeference import Georeference
from hsi_se.scene.loading import open_scene_image
from hsi_se.scene.scene import Scene
from hsi_se.system.session import Session
from tests.conftest import CPU, ROOT, TINY, give_temperature

NODATA = -9999
IDS = (1, 10, 12)
NAMES = ("water", "wood, dark", "field {bare} & Straße")
WAVELENGTHS = np.linspace(420, 2300, 18)
TRANSFORM = Affine(30, 0, 365055, 0, -30, 5806125)
SIZE = (14, 11)


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


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("maps")


@pytest.fixture(scope="module")
def run(folder) -> RunFolder:
    cube = write_scene(folder / "scene.tif")
    np.save(folder / "labels.npy", np.resize(np.array(IDS, np.uint8), SIZE))
    scene = f"scene={{cube: {cube}, labels: {folder}/labels.npy, class_names: {json.dumps(NAMES)}}}"
    changes = [*TINY, scene, "train.epochs=1", "split.train=0.3", "model.attention={fold: {kind: se}}"]
    return hsi_se.train(load_config(ROOT / "configs" / "demo.yaml", changes), out=folder / "run", session=CPU)


def map_again(run: RunFolder, out: Path, **changes) -> tuple[MapFolder, Notes]:
    notes = Notes()
    write_map(run, out=out, session=Session(device="cpu", observer=notes), **changes)
    return MapFolder(out), notes


@pytest.fixture(scope="module")
def result(run, folder) -> MapFolder:
    return map_again(run, folder / "out", probabilities=True)[0]


@pytest.fixture(scope="module")
def expected(run, folder) -> np.ndarray:
    """Logits of the whole scene at once, from the file itself."""
    with rasterio.open(folder / "scene.tif") as file:
        cube = np.delete(np.moveaxis(file.read(), 0, 2), [4, 5], axis=2)
    bundle = hsi_se.load_bundle(run)
    components = bundle.reduction.apply(cube, nodata=cube[..., 0] == NODATA)
    padding = bundle.facts.padding
    return predict_logits(build_bundled_model(bundle), components, engine="patches", padding=padding)


def to_labels(logits: np.ndarray) -> np.ndarray:
    labels = np.array(IDS)[logits.argmax(2)]
    labels[:2, :3] = 0
    return labels


# ------------------------------------------------------------------------------------------ tiles


@pytest.mark.parametrize("padding", ["zero", "reflect"])
@pytest.mark.parametrize("rows", [1, 2, 3, 14])
@pytest.mark.parametrize("height", [1, 2, 5, 40])
def test_tiles_are_padded_as_the_whole_scene_is(run, padding, rows, height):
    bundle = hsi_se.load_bundle(run)
    bundle = replace(bundle, facts=bundle.facts.model_copy(update={"patch_size": 9, "padding": padding}))
    reduction = bundle.reduction
    cube = np.random.default_rng(0).normal(1000, 300, (rows, 5, reduction.num_bands))
    scene = Scene("s", np.ones((rows, 5), np.int32), {1: "a"}, cube=cube)
    source = TileSource(open_scene_image(scene), bundle)
    whole = pad_cube(reduction.apply(cube), patch_size=9, padding=padding).numpy()
    for tile in list_tiles(rows, height):
        read = source.read(tile)
        np.testing.assert_allclose(read.padded, whole[tile.start : tile.stop + 8], rtol=1e-5, atol=1e-5)
        assert read.missing.shape == (len(tile), 5)
        assert not read.missing.any()


def test_tiles_cover_every_row_once():
    for rows, height in [(1, 1), (7, 1), (7, 3), (7, 7), (7, 100)]:
        tiles = list_tiles(rows, height)
        assert [row for tile in tiles for row in tile] == list(range(rows))
        assert max(map(len, tiles)) <= height


@pytest.mark.parametrize("engine", ["dense", "patches"])
@pytest.mark.parametrize("height", [1, 3, 14, 100])
def test_the_map_is_the_same_for_every_height_of_a_tile(run, expected, engine, height):
    bundle = hsi_se.load_bundle(run)
    target = open_target(bundle, run.read_config().scene)
    predictor = TilePredictor(bundle, engine=engine)
    tiles = list_tiles(SIZE[0], height)
    found = list(predict_tiles(bundle, target.image, predictor, tiles, observer=Silent()))
    logits = np.concatenate([logits for _, logits, _ in found])
    np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max())
    class_map = hsi_se.map_scene(run, run.read_config().scene, engine=engine, tile_rows=height)
    np.testing.assert_array_equal(class_map.labels, to_labels(expected))
    assert class_map.class_names == dict(zip(IDS, NAMES, strict=True))


def test_the_map_is_the_same_if_tiles_are_read_ahead_as_on_a_gpu(run, expected, folder, monkeypatch):
    make = TilePredictor.__init__

    def make_ahead(predictor: TilePredictor, *arguments: object, **named: object) -> None:
        make(predictor, *arguments, **named)
        predictor.device = torch.device("cuda")

    monkeypatch.setattr(TilePredictor, "__init__", make_ahead)
    found = hsi_se.map_scene(run, folder / "scene.tif", tile_rows=7).labels
    assert np.array_equal(found, to_labels(expected))


def test_a_tile_of_many_bands_has_fewer_rows_whatever_a_gpu_holds(run, monkeypatch):
    predictor = TilePredictor(run.read_bundle(), engine="dense")
    monkeypatch.setattr(predictor._rows, "choose_tile_rows", lambda _: 10**6)
    rows = predictor.choose_tile_rows(1200)
    assert rows * 1200 * predictor._num_bands * 8 <= 2**29 < (rows + 1) * 1200 * predictor._num_bands * 8


def test_a_loaded_scene_a_file_and_its_path_give_one_map(run, folder, expected):
    loaded = hsi_se.load_scene(run.read_config().scene)
    for scene in (loaded, folder / "scene.tif", str(folder / "scene.tif")):
        np.testing.assert_array_equal(hsi_se.map_scene(run, scene).labels, to_labels(expected))


MEASURE = """
import sys
import numpy as np, torch
from hsi_se.maps.write import write_map
from hsi_se.prediction.bundled import map_scene
from hsi_se.system.session import Session
torch.set_num_threads(1)
cpu = Session(device="cpu")
write_map(sys.argv[1], scene=sys.argv[2], out=sys.argv[3], session=cpu, tile_rows=16, probabilities=True)
status = open("/proc/self/status").read()  # ru_maxrss would count the process that forked this one
print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")))
"""


@pytest.mark.slow
def test_memory_depends_on_the_tile_and_not_on_the_scene(run, folder, tmp_path):
    peaks = []
    for rows in (200, 2000):
        with rasterio.open(folder / "scene.tif") as file:
            tall = np.resize(np.moveaxis(file.read(), 0, 2), (rows, 200, 18))
        header = tmp_path / f"{rows}.hdr"
        spectral.io.envi.save_image(
            str(header), tall, dtype=np.float32, interleave="bsq",
            metadata={"bbl": [1] * 18, "data ignore value": NODATA},
        )  # fmt: skip
        del tall
        command = [sys.executable, "-c", MEASURE, run.path, header, tmp_path / str(rows)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        peaks.append(int(done.stdout))
    assert peaks[1] < 1.1 * peaks[0]


# ---------------------------------------------------------------------------------------- formats


def test_the_geotiff_reads_back_with_its_place_nodata_and_colours(result, run, expected):
    palette = hsi_se.load_bundle(run).facts.palette
    with rasterio.open(result.geotiff) as file:
        np.testing.assert_array_equal(file.read(1), to_labels(expected))
        assert file.crs.to_epsg() == 32633
        assert file.transform == TRANSFORM
        assert file.nodata == 0
        assert file.dtypes == ("uint8",)
        colours = file.colormap(1)
    assert {label: colours[label][:3] for label in IDS} == {label: palette[label] for label in IDS}


def test_gdal_reads_the_class_names_from_the_sidecar(result, tmp_path):
    """What GDAL writes beside a copy in another format is what it, and so QGIS, knows of the file."""
    for path in (result.geotiff, result.geotiff_facts):  # GDAL adds statistics to what it has copied
        shutil.copy(path, tmp_path)
    rasterio.shutil.copy(tmp_path / "map.tif", tmp_path / "copy.png", driver="PNG")
    text = (tmp_path / "copy.png.aux.xml").read_text(encoding="utf-8")
    assert "<Category>wood, dark</Category>" in text
    assert "<Category>field {bare} &amp; Straße</Category>" in text
    assert text.count("<Row ") == 1 + len(IDS)


def test_the_envi_image_reads_back_with_names_colours_place_and_nodata(result, run, expected):
    image = spectral.io.envi.open(str(result.header), str(result.image))
    np.testing.assert_array_equal(np.asarray(image[:, :, 0])[..., 0], to_labels(expected))
    header = image.metadata
    names = dict(enumerate(header["class names"]))
    assert {label: names[label] for label in (0, *IDS)} == {
        0: "nodata", 1: "water", 10: "wood; dark", 12: "field (bare) & Straße",
    }  # fmt: skip
    assert int(header["classes"]) == len(names) == 13
    lookup = np.array(header["class lookup"], int).reshape(-1, 3)
    palette = hsi_se.load_bundle(run).facts.palette
    assert [tuple(lookup[label].tolist()) for label in IDS] == [palette[label] for label in IDS]
    assert header["data ignore value"] == "0"
    with rasterio.open(result.image) as file:
        assert file.crs.to_epsg() == 32633 or "UTM zone 33N" in file.crs.to_wkt().replace("_", " ")
        assert file.transform == TRANSFORM
        assert file.nodata == 0


def test_a_map_can_be_the_labels_of_a_scene(result, expected, folder):
    files = {"cube": str(folder / "scene.tif"), "labels": str(result.header)}
    config = load_config(ROOT / "configs" / "demo.yaml", [f"scene={json.dumps(files)}"])
    scene = hsi_se.load_scene(config.scene)
    np.testing.assert_array_equal(scene.labels, to_labels(expected))
    assert {scene.class_names[label] for label in scene.class_ids} <= {*NAMES}, "those of the style beside it"


def test_probabilities_and_entropy_are_those_of_the_logits(result, expected):
    shares = torch.from_numpy(expected).double().softmax(2).numpy()
    entropy = -(shares * np.log(shares)).sum(2)
    shares[:2, :3] = entropy[:2, :3] = -1
    image = spectral.io.envi.open(str(result.probabilities.with_suffix(".hdr")), str(result.probabilities))
    np.testing.assert_allclose(np.asarray(image.load()), shares, atol=1e-3)
    assert image.metadata["data ignore value"] == "-1"
    assert image.metadata["band names"][0] == "water"
    for path, values in (
        (result.probabilities.with_suffix(".tif"), np.moveaxis(shares, 2, 0)),
        (result.entropy.with_suffix(".tif"), entropy[None]),
        (result.entropy, entropy[None]),
    ):
        with rasterio.open(path) as file:
            np.testing.assert_allclose(file.read(), values, atol=1e-3)
            assert file.nodata == -1
            assert file.transform == TRANSFORM
    with rasterio.open(result.probabilities.with_suffix(".tif")) as file:
        assert file.descriptions == NAMES


def read_statements(result: MapFolder, notes: Notes) -> list[str]:
    """All that a map says of its probabilities: notes, facts, and the metadata of both layers."""
    texts = [*notes.notes, json.loads(result.facts.read_text())["probabilities"]]
    for path in (result.probabilities, result.entropy):
        texts.append(path.with_suffix(".hdr").read_text().replace("\n", " "))
        with rasterio.open(path.with_suffix(".tif")) as file:
            texts.append(file.tags()["TIFFTAG_IMAGEDESCRIPTION"])
    return [text for text in texts if "the probabilities" in text]


def test_probabilities_are_at_the_temperature_of_the_bundle_and_every_file_says_so(run, expected, folder, tmp_path):
    run = RunFolder(shutil.copytree(run.path, tmp_path / "run"))
    out = tmp_path / "out"
    plain, notes = map_again(run, out, probabilities=True)
    assert json.loads(plain.facts.read_text())["temperature"] == 1
    statements = read_statements(plain, notes)
    assert len(statements) == 6
    assert all("not calibrated: prediction.calibration is none" in text for text in statements)

    temperature = 2.5
    give_temperature(run, temperature)
    scaled, notes = map_again(run, out, probabilities=True)
    statements = read_statements(scaled, notes)
    assert len(statements) == 6
    fit = "T = 2.50; fitted on 140 training pixels by cross-fitting; gain in log-likelihood +0.500 per pixel"
    for text in statements:  # ENVI headers take no commas
        assert fit in text.replace(",", ";")
    assert json.loads(scaled.facts.read_text())["temperature"] == temperature
    with rasterio.open(scaled.probabilities) as file:
        shares = np.moveaxis(file.read(), 0, 2)[2:]
    wanted = torch.from_numpy(expected / temperature).double().softmax(2).numpy()[2:]
    np.testing.assert_allclose(shares, wanted, atol=1e-3)

    _, notes = map_again(run, tmp_path / "other", probabilities=True, scene=folder / "scene.tif")
    assert any("fitted on the scene of the training and may not hold on this one" in x for x in notes.notes)
    unasked, notes = map_again(run, tmp_path / "classes")
    assert json.loads(unasked.facts.read_text())["temperature"] is None
    assert not any("temperature" in note for note in notes.notes)


def test_a_map_of_another_file_with_the_same_name_is_not_replaced(run, tmp_path, monkeypatch):
    run = RunFolder(shutil.copytree(run.path, tmp_path / "run"))
    for folder in ("east", "west"):
        (tmp_path / folder).mkdir()
        write_scene(tmp_path / folder / "flight.tif")
    monkeypatch.chdir(tmp_path)
    written = write_map(run, scene="east/flight.tif", session=CPU)
    assert {path.parent for path in written} == {run.path / "map-flight"}
    with pytest.raises(RunError, match=r"map-flight: contains the map of .*east/flight.tif; choose another folder"):
        write_map(run, scene="west/flight.tif", session=CPU)
    monkeypatch.chdir("east")
    assert write_map(run, scene="flight.tif", session=CPU) == written
    assert write_map(run, scene="../west/flight.tif", session=CPU, out="../west/map")


def test_the_picture_shows_the_class_colours(result, run, expected):
    palette = hsi_se.load_bundle(run).facts.palette
    pixels = (255 * matplotlib.image.imread(result.figure)[..., :3]).round().astype(int)
    shown = {tuple(colour) for colour in np.unique(pixels.reshape(-1, 3), axis=0).tolist()}
    assert {palette[label] for label in np.unique(to_labels(expected)).tolist()} <= shown


def test_the_legend_of_the_picture_calls_nodata_so(run, tmp_path, monkeypatch):
    names = []
    monkeypatch.setattr("hsi_se.maps.folder.save_map", lambda class_map, *_, **__: names.append(class_map.class_names))
    map_again(run, tmp_path / "out")
    assert names == [{0: "nodata", **dict(zip(IDS, NAMES, strict=True))}]


def test_a_scene_without_a_place_gives_a_plain_tiff_and_says_so(run, tmp_path):
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        write_scene(tmp_path / "loose.tif", place={})
    result, notes = map_again(run, tmp_path / "out", scene=tmp_path / "loose.tif")
    assert "loose.tif has no georeference, so the map has none" in notes.notes
    assert "map info" not in result.header.read_text()
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        file = rasterio.open(result.geotiff)
    with file:
        assert file.crs is None
        assert file.nodata == 0


NOT_SQUARE = TRANSFORM @ Affine.scale(1, 0.5)


@pytest.mark.parametrize(
    "grid",
    [
        *(TRANSFORM @ Affine.rotation(angle) for angle in (20, 90, -120, 180)),
        NOT_SQUARE @ Affine.rotation(20),
        TRANSFORM @ Affine.scale(1, -1),  # rows run north
        Affine(0.01, 0, 13, 0, -0.01, 52) @ Affine.rotation(45),
    ],
)
def test_gdal_places_both_files_of_a_rotated_scene_alike(tmp_path, grid):
    layer = Layer(tmp_path / "map.img", (3, 4, 1), "uint8", 0, ("class",))
    layer.create()
    epsg = 4326 if grid.c == 13 else 32633
    place = Georeference(f"EPSG:{epsg}", tuple(grid)[:6])
    classes = Classes({1: "a"}, {1: (1, 2, 3)})
    write_envi_header(layer, place, about=classes)
    write_geotiff(layer, place, about=classes)
    for path in (layer.path, layer.path.with_suffix(".tif")):
        with rasterio.open(path) as file:
            np.testing.assert_allclose(tuple(file.transform), tuple(grid), atol=1e-6)
            assert (file.crs.is_geographic, "WGS 84" in file.crs.to_wkt()) == (epsg == 4326, True)


def test_a_rotated_scene_is_mapped_without_a_word(run, tmp_path):
    turned = TRANSFORM @ Affine.rotation(20)
    path = write_scene(tmp_path / "turned.tif", place={"crs": "EPSG:32633", "transform": turned})
    result, notes = map_again(run, tmp_path / "out", scene=path)
    assert not any("rotated" in note or "ENVI" in note for note in notes.notes)
    assert "rotation=-20}" in result.header.read_text()


@pytest.mark.parametrize("grid", [Affine.rotation(20) @ NOT_SQUARE, TRANSFORM @ Affine.scale(-1, 1)])
def test_a_grid_that_envi_cannot_express_is_in_the_geotiff_alone(run, tmp_path, grid):
    path = write_scene(tmp_path / "turned.tif", place={"crs": "EPSG:32633", "transform": grid})
    result, notes = map_again(run, tmp_path / "out", scene=path)
    assert (
        "the scene is sheared or mirrored, which an ENVI header cannot express; the GeoTIFF is georeferenced"
        in notes.notes
    )
    assert "map info" not in result.header.read_text()
    with rasterio.open(result.geotiff) as file:
        assert file.transform.almost_equals(grid)


def test_without_rasterio_there_is_no_geotiff_and_a_word_how_to_get_it(run, tmp_path, monkeypatch):
    image = open_scene_image(run.read_config().scene)  # which needs rasterio itself
    monkeypatch.setattr("hsi_se.prediction.target.open_scene_image", lambda *_, **__: image)
    monkeypatch.setattr("hsi_se.maps.folder.has_rasterio", lambda: False)
    monkeypatch.setattr(writers, "has_rasterio", lambda: False)
    result, notes = map_again(run, tmp_path / "out")
    assert any("pip install '.[geo]'" in note for note in notes.notes)
    assert not result.geotiff.exists()
    assert not result.geotiff_facts.exists()
    assert "class names" in result.header.read_text()


@pytest.mark.parametrize(
    ("crs", "words"),
    [("EPSG:32733", "UTM, 1, 1, 10, 20, 2, 3, 33, South, WGS-84"), ("EPSG:4326", "Geographic Lat/Lon, 1, 1")],
)
def test_map_info_names_a_known_system_without_rasterio(monkeypatch, crs, words):
    monkeypatch.setattr(writers, "has_rasterio", lambda: False)
    found = writers._describe_place(Georeference(crs, (2, 0, 10, 0, -3, 20)))
    assert words in found["map info"]


# --------------------------------------------------------------------------------------- refusals


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


# --------------------------------------------------------------------------------- killed, resumed

MAP_SLOWLY = """
import sys, time
from hsi_se.maps import write as cartography
from hsi_se.system.session import Session
predict = cartography.predict_tiles
def slowly(*arguments, **named):
    for tile in predict(*arguments, **named):
        time.sleep(0.3)
        yield tile
cartography.predict_tiles = slowly
cpu = Session(device="cpu")
cartography.write_map(sys.argv[1], out=sys.argv[2], session=cpu, tile_rows=1, probabilities=True)
"""


@contextmanager
def mapping_slowly(run: RunFolder, out: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Yields another process that has done some rows; it is killed at the latest when the block ends."""
    process = subprocess.Popen([sys.executable, "-c", MAP_SLOWLY, run.path, out])
    journal = out / ".unfinished" / "journal"
    try:
        deadline = time.monotonic() + 120
        while not (journal.is_file() and len(journal.read_text().splitlines()) > 4):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.wait()


def kill_halfway(run: RunFolder, out: Path) -> None:
    with mapping_slowly(run, out) as process:
        os.kill(process.pid, signal.SIGKILL)


def test_a_killed_map_looks_unfinished_and_goes_on_where_it_stopped(run, result, tmp_path):
    out = tmp_path / "out"
    kill_halfway(run, out)
    assert {path.name for path in out.iterdir()} == {".unfinished", ".lock"}
    assert not list(out.rglob("*.hdr")), "an ENVI image without a header opens nowhere"
    with (out / ".unfinished" / "journal").open("a") as stream:
        stream.write("range(13, 1")  # of a line that was torn
    num_done = len((out / ".unfinished" / "journal").read_text().splitlines()) - 2
    assert 4 <= num_done < SIZE[0]
    again, notes = map_again(run, out, probabilities=True, tile_rows=1)
    assert f"going on with a map of which {num_done} of 14 rows are done" in notes.notes
    assert notes.done == notes.total == (SIZE[0] - num_done) * SIZE[1]
    assert again.image.read_bytes() == result.image.read_bytes()
    assert not list(out.glob(".*"))


@pytest.mark.slow
def test_a_second_process_on_the_same_map_is_refused_and_the_first_loses_nothing(run, result, tmp_path):
    out = tmp_path / "out"
    with mapping_slowly(run, out) as first:
        first.send_signal(signal.SIGSTOP)
        second = [sys.executable, "-m", "hsi_se", "map", run.path, "--out", out, "--device", "cpu"]
        done = subprocess.run(second, capture_output=True, text=True, check=False)
        first.send_signal(signal.SIGCONT)
        assert done.returncode == 2
        refusal = "another process is making a map there; let it finish, or choose another folder"
        assert done.stderr == f"hsi-se: {out}: {refusal}\n"
        assert first.wait(timeout=120) == 0
    assert (out / "map.img").read_bytes() == result.image.read_bytes()
    assert not list(out.glob(".*"))


@pytest.mark.parametrize("num_moved", range(5))
def test_a_map_that_is_killed_while_its_files_move_is_not_made_again(run, result, tmp_path, monkeypatch, num_moved):
    out = tmp_path / "out"
    map_again(run, out)  # another map is there, with other files than the new one
    moved, replace = [], Path.replace

    def stop(path: Path, target: Path) -> Path:
        if target.parent == out:
            if len(moved) == num_moved:
                raise KeyboardInterrupt
            moved.append(path.name)
        return replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", stop)
        with pytest.raises(KeyboardInterrupt):
            map_again(run, out, probabilities=True)
    assert not (out / "map.json").exists(), "it looks finished"
    again, notes = map_again(run, out, probabilities=True)
    assert notes.notes == ["the map was complete, and only its files are moved into place"]
    assert not list(out.glob(".*"))
    assert {path.name for path in out.iterdir()} == {path.name for path in result.path.iterdir()}
    for path in (again.image, again.entropy, again.geotiff):
        assert path.read_bytes() == (result.path / path.name).read_bytes()


@pytest.mark.parametrize("max_bytes", [100, 1000, 2000, 10_000])
def test_a_full_disk_is_one_line_and_the_map_goes_on_later(run, result, tmp_path, max_bytes):
    """It fills up at a layer, at a GeoTIFF, at the picture."""
    out, limits = tmp_path / "out", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (max_bytes, limits[1]))
    try:
        with pytest.raises(RunError) as caught:
            map_again(run, out, probabilities=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(caught.value).startswith(f"{out}/.unfinished")
    assert str(caught.value).endswith(
        "; check its rights and the room on the disk, then rerun the same command to resume (finished work is kept)"
    )
    again, notes = map_again(run, out, probabilities=True)
    assert notes.total == (0 if max_bytes >= 2000 else SIZE[0] * SIZE[1])
    assert {path.name: path.read_bytes() for path in out.glob("*.tif")} == {
        path.name: path.read_bytes() for path in result.path.glob("*.tif")
    }
    assert again.image.read_bytes() == result.image.read_bytes()


def test_a_geotiff_that_is_cut_short_as_it_is_closed_is_not_published(run, tmp_path, monkeypatch):
    """GDAL says nothing then."""

    copy = rasterio.shutil.copy

    def truncate(source: Path, path: Path, **options: object) -> None:
        copy(source, path, **options)
        os.truncate(path, path.stat().st_size - 100)

    monkeypatch.setattr("rasterio.shutil.copy", truncate)
    with pytest.raises(RunError, match=r"map.tif: GDAL could not write it; "):
        map_again(run, tmp_path / "out")
    assert not (tmp_path / "out" / "map.json").exists()


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_a_layer_that_has_lost_its_end_is_made_again(run, result, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("hsi_se.maps.layers.write_geotiff", interrupt)
        with pytest.raises(KeyboardInterrupt):
            map_again(run, tmp_path / "out")
    os.truncate(tmp_path / "out" / ".unfinished" / "map.img", 3)
    again, _ = map_again(run, tmp_path / "out")
    assert again.image.read_bytes() == result.image.read_bytes()


def test_half_a_geotiff_of_a_killed_map_is_written_again(run, result, tmp_path, monkeypatch):
    def stop(layer: Layer, *_: object, **__: object) -> None:
        layer.path.with_suffix(".tif").write_bytes(result.geotiff.read_bytes()[:200])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("hsi_se.maps.layers.write_geotiff", stop)
        with pytest.raises(KeyboardInterrupt):
            map_again(run, tmp_path / "out")
    again, _ = map_again(run, tmp_path / "out")
    assert again.geotiff.read_bytes() == result.geotiff.read_bytes()


def test_a_map_is_on_the_disk_before_it_takes_another_ones_place(run, tmp_path, monkeypatch):
    synced, sync, replace_ = [], os.fsync, Path.replace

    def note(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        sync(descriptor)

    def check(path: Path, target: Path) -> Path:
        if target.parent == tmp_path / "out":
            moved.append(path.name)
            assert path.name in synced[synced.index("journal") :]
        return replace_(path, target)

    moved: list[str] = []
    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(Path, "replace", check)
    map_again(run, tmp_path / "out")
    rasters = ["map.img", "map.hdr", "map.tif", "map.tif.aux.xml"]
    assert moved == [*rasters, "map.qml", "classes.csv", "map.png", "map.json"]


def test_a_scene_of_the_same_values_at_another_place_is_mapped_anew(run, tmp_path, monkeypatch):
    path = write_scene(tmp_path / "scene.tif")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", interrupt)
        with pytest.raises(KeyboardInterrupt):
            map_again(run, tmp_path / "out", scene=path)
    moved = TRANSFORM @ Affine.translation(10, 0)
    write_scene(path, place={"crs": "EPSG:32633", "transform": moved})
    again, _ = map_again(run, tmp_path / "out", scene=path)
    with rasterio.open(again.geotiff) as file:
        assert file.transform == moved


def test_another_setting_starts_over(run, result, tmp_path):
    out = tmp_path / "out"
    kill_halfway(run, out)
    _, notes = map_again(run, out, tile_rows=1)
    assert notes.total == SIZE[0] * SIZE[1]
    assert not (out / "probabilities.img").exists()
    assert (out / "map.img").read_bytes() == result.image.read_bytes()


def test_a_new_map_takes_the_place_of_an_earlier_one_and_of_nothing_else(run, tmp_path):
    folder, _ = map_again(run, tmp_path / "out", probabilities=True)
    assert folder.entropy.exists()
    folder, _ = map_again(run, tmp_path / "out")
    assert not folder.entropy.exists(), "it would be taken for this map's"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "map.tif").write_text("mine")
    with pytest.raises(
        RunError, match=r"map.tif: already exists but is not part of a finished map; choose another folder"
    ):
        map_again(run, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["map.tif"]
