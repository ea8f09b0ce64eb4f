"""The files of a map: the same for every tile, and readable in other programs."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

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
from hsi_se.errors import RunError
from hsi_se.maps import layers as writers
from hsi_se.maps.folder import MapFolder
from hsi_se.maps.layers import Classes, Layer, write_envi_header, write_geotiff
from hsi_se.maps.write import write_map
from hsi_se.prediction.bundled import TilePredictor, TileSource, predict_tiles
from hsi_se.prediction.logits import list_tiles
from hsi_se.prediction.target import open_target
from hsi_se.progress import Silent
from hsi_se.runs.folder import RunFolder
from hsi_se.sampling.patches import pad_cube
from hsi_se.scene.georeference import Georeference
from hsi_se.scene.loading import open_scene_image
from hsi_se.scene.scene import Scene
from tests.conftest import CPU, ROOT, give_temperature
from tests.maps.conftest import CUBE, IDS, NAMES, NODATA, SIZE, TRANSFORM, Notes, map_again, to_labels, write_scene

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
    found = hsi_se.map_scene(run, folder / CUBE, tile_rows=7).labels
    assert np.array_equal(found, to_labels(expected))


def test_a_tile_of_many_bands_has_fewer_rows_whatever_a_gpu_holds(run, monkeypatch):
    predictor = TilePredictor(run.read_bundle(), engine="dense")
    monkeypatch.setattr(predictor._rows, "choose_tile_rows", lambda _: 10**6)
    rows = predictor.choose_tile_rows(1200)
    assert rows * 1200 * predictor._num_bands * 8 <= 2**29 < (rows + 1) * 1200 * predictor._num_bands * 8


def test_a_loaded_scene_a_file_and_its_path_give_one_map(run, folder, expected):
    loaded = hsi_se.load_scene(run.read_config().scene)
    for scene in (loaded, folder / CUBE, str(folder / CUBE)):
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
        with rasterio.open(folder / CUBE) as file:
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
    files = {"cube": str(folder / CUBE), "labels": str(result.header)}
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

    _, notes = map_again(run, tmp_path / "other", probabilities=True, scene=folder / CUBE)
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
