"""What a map is handed over as: GeoTIFFs for the cloud, styles, tables, polygons and a STAC item."""

import csv
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree

import geopandas
import matplotlib.image
import numpy as np
import pystac
import pystac.validation
import pytest
import rasterio
import rasterio.features
from affine import Affine
from matplotlib.figure import Figure
from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar
from pystac.extensions.classification import ClassificationExtension
from pystac.extensions.projection import ProjectionExtension
from shapely.geometry import box, shape

import hsi_se
from hsi_se.maps.folder import MapFolder
from hsi_se.maps.layers import Classes, Layer, write_geotiff
from hsi_se.reports.place import draw_place
from hsi_se.scene.georeference import Georeference
from tests.maps.conftest import (
    IDS,
    LEAST,
    NAMES,
    SIZE,
    TRANSFORM,
    UNCLASSIFIED,
    find_refusal,
    map_again,
    read_labels,
    write_scene,
)

# ------------------------------------------------------------------------------- the rasters, for the cloud


def test_every_geotiff_has_the_layout_of_a_cloud_optimised_one(full):
    for path in (full[0].geotiff, full[0].probabilities.with_suffix(".tif"), full[0].entropy.with_suffix(".tif")):
        with rasterio.open(path) as file:
            assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert b"LAYOUT=IFDS_BEFORE_DATA" in path.read_bytes()[:1000]
    assert not list(full[0].path.glob("*.vrt"))


def test_overviews_of_classes_are_by_mode_and_those_of_values_by_mean(tmp_path):
    labels = np.repeat(np.repeat(np.random.default_rng(0).integers(1, 5, (325, 300)), 4, 0), 2, 1).astype(np.uint16)
    labels[::2, ::2] = np.where(labels[::2, ::2] == 4, 1, labels[::2, ::2])  # so that a class has three of four pixels
    layer = Layer(tmp_path / "map.img", (*labels.shape, 1), "uint16", 0, ("class",))
    values = Layer(tmp_path / "p.img", (*labels.shape, 2), "float32", -1, ("a & b", "c"))
    numbers = np.random.default_rng(1).random((*labels.shape, 2)).astype(np.float32)
    classes = Classes({number: f"<{number}>" for number in (1, 2, 3, 4)}, {4: (9, 8, 7)})
    place = Georeference("EPSG:32633", tuple(TRANSFORM)[:6])
    for each, content, about in ((layer, labels[..., None], classes), (values, numbers, "sure & <true>")):
        each.create()
        each.write(0, content)
        write_geotiff(each, place, about=about)
    with rasterio.open(tmp_path / "map.tif", overview_level=0) as file:
        small = file.read(1)
        assert file.colormap(1)[4][:3] == (9, 8, 7)
    blocks = labels.reshape(650, 2, 300, 2).swapaxes(1, 2).reshape(650, 300, 4)
    counts = (blocks[..., None] == np.arange(5)).sum(axis=2)
    is_clear = counts.max(axis=2) > 2
    assert is_clear.mean() > 0.9
    np.testing.assert_array_equal(small[is_clear], counts.argmax(axis=2)[is_clear])
    with rasterio.open(tmp_path / "p.tif", overview_level=0) as file:
        expected = numbers.reshape(650, 2, 300, 2, 2).mean(axis=(1, 3))
        np.testing.assert_allclose(np.moveaxis(file.read(), 0, 2), expected, atol=1e-6)
    with rasterio.open(tmp_path / "p.tif") as file:
        assert file.descriptions == ("a & b", "c")
        assert file.tags()["TIFFTAG_IMAGEDESCRIPTION"] == "sure & <true>"
    assert "<Category>&lt;1&gt;</Category>" in (tmp_path / "map.tif.aux.xml").read_text()


# -------------------------------------------------------------------------------- styles, tables and picture


def test_the_style_and_the_table_have_the_classes_of_the_map(full, run):
    labels, palette = read_labels(full[0]), run.read_facts().palette
    names = {**dict(zip(IDS, NAMES, strict=True)), UNCLASSIFIED: f"unclassified (p < {LEAST})"}
    colours = {**{label: "#{:02x}{:02x}{:02x}".format(*palette[label]) for label in IDS}, UNCLASSIFIED: "#dddddd"}
    (renderer,) = ElementTree.parse(full[0].style).iter("rasterrenderer")
    assert renderer.get("type") == "paletted"
    found = {int(each.get("value")): (each.get("label"), each.get("color")) for each in renderer.iter("paletteEntry")}
    assert found == {label: (names[label], colours[label]) for label in names}
    with full[0].table.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["label", "name", "colour", "pixels", "hectares"]
    for row, label in zip(rows, names, strict=True):
        assert (int(row["label"]), row["name"], row["colour"]) == (label, names[label], colours[label])
        assert int(row["pixels"]) == (labels == label).sum()
        assert float(row["hectares"]) == pytest.approx(0.09 * (labels == label).sum())


def test_without_a_metric_place_the_table_has_no_hectares(run, tmp_path):
    grid = Affine(0.001, 0, 13, 0, -0.001, 52)
    path = write_scene(tmp_path / "degrees.tif", place={"crs": "EPSG:4326", "transform": grid})
    result, _ = map_again(run, tmp_path / "out", scene=path, polygons=tmp_path / "areas.gpkg")
    with result.table.open(encoding="utf-8", newline="") as stream:
        assert {row["hectares"] for row in csv.DictReader(stream)} == {""}
    assert geopandas.read_file(tmp_path / "areas.gpkg").area_ha.isna().all()


@pytest.mark.parametrize(
    ("crs", "grid", "names", "metres"),
    [
        ("EPSG:32633", TRANSFORM, ("easting, m", "northing, m"), 30),
        ("EPSG:32633", TRANSFORM @ Affine.rotation(30), ("easting, m", "northing, m"), 30),
        ("EPSG:32633", TRANSFORM @ Affine.rotation(90), ("northing, m", "easting, m"), 30),
        ("EPSG:32633", TRANSFORM @ Affine.scale(1, -1), ("easting, m", "northing, m"), 30),
        ("EPSG:2263", TRANSFORM, ("easting, US survey foot", "northing, US survey foot"), 30 * 1200 / 3937),
        ("EPSG:4326", Affine(0.001, 0, 13, 0, -0.001, 60), ("longitude, °", "latitude, °"), 55.7),
        (None, TRANSFORM, ("x", "y"), None),
    ],
)
def test_coordinates_north_and_scale_of_the_picture_are_those_of_the_scene(crs, grid, names, metres):
    rows, cols, step = 80, 60, 2
    axes = Figure().add_subplot()
    axes.imshow(np.zeros((rows, cols)))
    draw_place(axes, Georeference(crs, tuple(grid @ Affine.scale(step))[:6]), shape=(rows, cols))
    assert (axes.get_xlabel(), axes.get_ylabel()) == names
    for axis, other, is_x in ((axes.xaxis, rows, True), (axes.yaxis, 0, False)):
        texts = [text.get_text() for text in axis.get_ticklabels()]
        assert len(texts) >= 2
        for at, text in zip(axis.get_ticklocs(), texts, strict=True):
            here = grid @ tuple(step * value for value in ((at + 0.5, other) if is_x else (other, at + 0.5)))
            is_northing = names[not is_x].startswith(("northing", "latitude", "y"))
            assert float(text.replace(",", "").replace("−", "-")) == pytest.approx(here[is_northing], abs=1e-6)
    bars = [artist for artist in axes.artists if isinstance(artist, AnchoredSizeBar)]
    assert len(bars) == (metres is not None)
    for bar in bars:
        number, unit = bar.txt_label.get_text().split()
        length = float(number) * {"m": 1, "km": 1000}[unit]
        assert bar.size_bar.get_children()[0].get_width() * metres * step == pytest.approx(length, rel=0.01)
        assert 0.12 < length / (cols * metres * step) <= 0.34
    (arrow,) = axes.texts
    across, up = arrow.get_position()  # from the tail to the letter
    there = np.array(grid @ (across, -up)) - np.array(grid @ (0, 0))
    assert (arrow.get_text(), there[1] > 0) == ("N", True)
    assert abs(there[0]) < 1e-6 * there[1]


def test_the_picture_of_a_map_has_its_place_and_the_colour_of_what_is_unclassified(run, full, tmp_path, monkeypatch):
    pixels = (255 * matplotlib.image.imread(full[0].figure)[..., :3]).round().astype(int)
    shown = {tuple(colour) for colour in np.unique(pixels.reshape(-1, 3), axis=0).tolist()}
    assert (221, 221, 221) in shown
    places = []
    monkeypatch.setattr("hsi_se.reports.figures.draw_place", lambda _, place, **sizes: places.append((place, sizes)))
    map_again(run, tmp_path)
    ((place, sizes),) = places
    assert place.transform == tuple(TRANSFORM)[:6]
    assert sizes == {"shape": SIZE}


# ------------------------------------------------------------------------------------------------- polygons


def test_polygons_are_the_areas_of_the_map(full, folder):
    frame = geopandas.read_file(folder / "areas.gpkg")
    labels = read_labels(full[0])
    assert list(frame.columns) == ["label", "name", "area_ha", "geometry"]
    assert frame.crs.to_epsg() == 32633
    np.testing.assert_array_equal(
        rasterio.features.rasterize(zip(frame.geometry, frame.label, strict=True), out_shape=SIZE, transform=TRANSFORM),
        labels,
    )
    names = {**dict(zip(IDS, NAMES, strict=True)), UNCLASSIFIED: f"unclassified (p < {LEAST})"}
    assert dict(zip(frame.label, frame.name, strict=True)).items() <= names.items()
    for label, hectares in frame.groupby("label").area_ha.sum().items():
        assert hectares == pytest.approx(0.09 * (labels == label).sum())
    assert geopandas.list_layers(folder / "areas.gpkg").name.tolist() == ["areas"]


@pytest.mark.parametrize("ending", [".shp", ".geojson"])
def test_polygons_in_another_format_lie_at_the_same_place(run, tmp_path, ending):
    path = tmp_path / f"areas{ending}"
    map_again(run, tmp_path / "out", polygons=path)
    frame = geopandas.read_file(path)
    assert frame.crs.to_epsg() == (4326 if ending == ".geojson" else 32633)
    west, south, east, north = frame.to_crs("EPSG:32633").total_bounds
    corners = (*TRANSFORM @ (0, 14), *TRANSFORM @ (11, 0))
    np.testing.assert_allclose((west, south, east, north), corners, atol=0.01)
    assert set(frame.name) <= set(NAMES)
    assert {each.name for each in tmp_path.iterdir() if each.name.startswith(".")} == set()
    again, _ = map_again(run, tmp_path / "out", polygons=path)
    assert again.facts.is_file(), "a map of its own is replaced"


def test_polygons_replace_no_file_of_somebody_else(run, tmp_path):
    path = tmp_path / "mine.gpkg"
    path.write_text("mine")
    assert (
        find_refusal(run, out=tmp_path / "out", polygons=path)
        == f"--polygons {path}: already exists; name another file"
    )
    assert path.read_text() == "mine"
    assert not (tmp_path / "out").exists()
    assert "name a file that ends in .gpkg, .geojson, .shp" in find_refusal(run, polygons=tmp_path / "a.kml")
    assert "there is no folder" in find_refusal(run, polygons=tmp_path / "no" / "a.shp")


def test_without_a_place_there_are_no_polygons_and_no_item(run, tmp_path):
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        path = write_scene(tmp_path / "loose.tif", place={})
    for wish, option in (({"stac": True}, "--stac"), ({"polygons": tmp_path / "a.gpkg"}, "--polygons")):
        text = find_refusal(run, scene=path, out=tmp_path / "out", **wish)
        problem = f"{path} has no georeference in a known coordinate system"
        assert text == f"{option}: {problem}; add it to the file, or leave {option} out"


def test_without_a_library_a_line_says_how_to_get_it(run, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert find_refusal(run, stac=True) == "--stac: needs pystac; in the clone of hsi-se, pip install '.[geo]'"


# ------------------------------------------------------------------------------------------------ STAC items


def test_a_stac_item_describes_the_map_in_the_words_of_its_extensions(full, run):
    item = pystac.Item.from_file(full[0].item)
    pystac.validation.validate_dict(item.to_dict(), extensions=[])
    assert item.stac_extensions == [
        f"https://stac-extensions.github.io/{name}/schema.json"
        for name in ("projection/v2.0.0", "classification/v2.0.0", "processing/v1.2.0")
    ]
    assert item.datetime == datetime(2022, 7, 24, 10, 45, 26, tzinfo=UTC), "of the scene's name"
    assert datetime.now(UTC) - item.common_metadata.created < timedelta(hours=1)
    place = ProjectionExtension.ext(item)
    assert (place.code, place.shape, place.transform) == ("EPSG:32633", list(SIZE), list(TRANSFORM)[:6])
    assert place.bbox == [*TRANSFORM @ (0, 14), *TRANSFORM @ (11, 0)]
    here = geopandas.GeoSeries([box(*place.bbox)], crs="EPSG:32633").to_crs("EPSG:4326")[0]
    assert shape(item.geometry).symmetric_difference(here).area < 1e-12
    assert item.bbox == pytest.approx(here.bounds)
    assert shape(item.geometry).exterior.is_ccw
    assert item.properties["processing:software"] == {"hsi-se": hsi_se.__version__}
    assert (
        "was classified by hsi-se: ENMAP01-L2A_20220724T104526Z, mapped by demo (hybridsn)"
        in item.properties["processing:lineage"]
    )
    assert set(item.assets) == {"map", "probabilities", "entropy", "style", "classes", "overview"}
    for asset in item.assets.values():
        assert Path(asset.get_absolute_href()).is_file()
    classes = {each.value: each for each in ClassificationExtension.ext(item.assets["map"]).classes}
    assert [each.to_dict()["title"] for each in classes.values()] == ["nodata", *NAMES, f"unclassified (p < {LEAST})"]
    assert classes[12].name == "field-bare-Strasse"
    assert classes[1].color_hint == "{:02X}{:02X}{:02X}".format(*run.read_facts().palette[1])
    assert [value for value, each in classes.items() if each.to_dict()["nodata"]] == [0]


def test_a_stac_item_meets_what_the_extensions_ask(full):
    """Written after their schemas, which cannot be fetched here: types, forms and required fields."""
    fields = {
        "projection/v2.0.0": {"proj:code": r"[A-Z]+:\d+", "proj:wkt2": "PROJCRS"},
        "processing/v1.2.0": {"processing:lineage": ".+", "processing:level": "L4", "processing:datetime": r"\d{4}-"},
    }
    described = {"value": {"type": "integer"}, "name": {"pattern": "^[0-9A-Za-z_-]+$"}, "title": {"type": "string"}}
    described |= {
        "color_hint": {"pattern": "^[0-9A-F]{6}$"},
        "nodata": {"type": "boolean"},
        "description": {"type": "string"},
    }
    classes = {
        "type": "array",
        "minItems": 1,
        "uniqueItems": True,
        "items": {"required": ["value", "name"], "properties": described},
    }
    schemas = {
        f"https://stac-extensions.github.io/{name}/schema.json": {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "$id": f"https://stac-extensions.github.io/{name}/schema.json",
            "properties": {
                "properties": {
                    "required": list(texts),
                    "properties": {key: {"type": "string", "pattern": text} for key, text in texts.items()},
                }
            },
        }
        for name, texts in fields.items()
    }
    uri = "https://stac-extensions.github.io/classification/v2.0.0/schema.json"
    asset = {"required": ["classification:classes"], "properties": {"classification:classes": classes}}
    schemas[uri] = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$id": uri,
        "properties": {"assets": {"properties": {"map": asset}}},
    }
    validator = pystac.validation.JsonSchemaSTACValidator()
    validator.schema_cache |= schemas
    item = json.loads(full[0].item.read_text(encoding="utf-8"))
    assert len(pystac.validation.validate_dict(item, validator=validator)) == 4
    item["assets"]["map"]["classification:classes"][1]["name"] = "wood, dark"
    with pytest.raises(pystac.STACValidationError):
        pystac.validation.validate_dict(item, validator=validator)


@pytest.mark.parametrize(
    ("name", "stated", "expected"),
    [
        ("PRS_L2D_STD_20200701102040_20200701102044_0001.img", None, datetime(2020, 7, 1, 10, 20, 40, tzinfo=UTC)),
        ("ang20160910t185702_rfl.img", None, datetime(2016, 9, 10, 18, 57, 2, tzinfo=UTC)),
        ("field.img", "2014-06-05T11:22:33.5Z", datetime(2014, 6, 5, 11, 22, 33, tzinfo=UTC)),
        ("DT0000002446_20220799T104526Z.img", None, None),
        ("field.img", None, None),
    ],
)
def test_an_item_has_the_time_of_the_scene_if_its_file_or_its_name_states_it(tmp_path, name, stated, expected):
    from hsi_se.maps.products import _find_time

    path = write_scene(tmp_path / "scene.tif")
    rasterio.shutil.copy(path, tmp_path / name, driver="ENVI")
    with (tmp_path / name).with_suffix(".hdr").open("a") as header:
        header.write("" if stated is None else f"acquisition time = {stated}\n")
    found = _find_time(tmp_path / name)
    assert (found and datetime.fromisoformat(found)) == expected


# ----------------------------------------------------------------------------------------------- the command


def test_the_command_writes_all_that_is_asked_for(call, run, folder, full, tmp_path):
    options = [
        "--mask",
        folder / "area.geojson",
        "--min-probability",
        LEAST,
        "--polygons",
        tmp_path / "a.shp",
        "--stac",
    ]
    code, out, err = call("map", run, "--out", tmp_path / "out", *options, "--device", "cpu")
    assert code == 0, err
    written = [line.removeprefix("wrote:  ") for line in out.splitlines()]
    assert [str(Path(path).relative_to(tmp_path)) for path in written] == [
        "out/map.img", "out/map.hdr", "out/map.tif", "out/map.tif.aux.xml", "out/map.qml", "out/classes.csv",
        "out/map.png", "out/map.stac.json", "out/map.json", "a.shp",
    ]  # fmt: skip
    np.testing.assert_array_equal(read_labels(MapFolder(tmp_path / "out")), read_labels(full[0]))
    code, _, err = call("map", run, "--out", tmp_path / "out", "--min-probability", 1.4)
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("hsi-se: --min-probability 1.4: must lie between 0 and 1")
