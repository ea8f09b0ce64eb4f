"""Labels drawn as polygons, points or regions, and tables of points, on the grid of a cube."""

import shutil
import sys
import zipfile
from pathlib import Path

import geopandas
import numpy as np
import pandas
import pytest
import rasterio
import rasterio.warp
import shapely
from affine import Affine

from hsi_se.config.scene import SceneFiles
from hsi_se.config.split import FieldsSplit, FoldsSplit, MasksSplit
from hsi_se.errors import SceneError, SplitError
from hsi_se.sampling.disjoint import number_fields
from hsi_se.sampling.splits import make_split
from hsi_se.scene.folders import Folders
from hsi_se.scene.loading import SceneSource, load_ground_truth, load_scene

ROWS, COLS = 12, 10
GRID = Affine(30, 0, 362175, 0, -30, 5809965)
CRS = "EPSG:32633"
# Rows, columns, crop: rectangles of whole pixels, less a tenth on each side. Two fields of maize touch.
FIELDS = (
    (0, 3, 0, 5, "maize"),
    (3, 7, 0, 5, "maize"),
    (0, 4, 6, 10, "beet"),
    (6, 9, 6, 9, "beet"),
    (9, 12, 2, 6, "soil"),
)
EXPECTED, NUMBERS = np.zeros((2, ROWS, COLS), dtype=int)
for number, (top, bottom, left, right, crop) in enumerate(FIELDS, start=1):
    EXPECTED[top:bottom, left:right] = ["beet", "maize", "soil"].index(crop) + 1
    NUMBERS[top:bottom, left:right] = number


def to_ground(col, row):
    return GRID @ (col, row)


def draw(top, bottom, left, right, margin=0.1):
    corners = [(left + margin, top + margin), (right - margin, top + margin), (right - margin, bottom - margin),
               (left + margin, bottom - margin)]  # fmt: skip
    return shapely.Polygon([to_ground(*corner) for corner in corners])


def make_fields(**columns):
    crops = [crop for *_, crop in FIELDS]
    return geopandas.GeoDataFrame({"crop": crops, **columns}, geometry=[draw(*box) for *box, _ in FIELDS], crs=CRS)


@pytest.fixture(autouse=True)
def _in_a_folder_with_a_cube(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_cube("cube.tif")


def write_cube(name, transform=GRID, crs=CRS):
    cube = np.random.default_rng(0).random((4, ROWS, COLS)).astype(np.float32)
    with rasterio.open(name, "w", driver="GTiff", height=ROWS, width=COLS, count=4, dtype="float32", crs=crs,
                       transform=transform) as file:  # fmt: skip
        file.write(cube)


def read(labels, cube="cube.tif", **settings):
    return load_scene(SceneFiles(cube=cube, labels=labels, **settings))


def refuse(labels, **settings):
    with pytest.raises(SceneError) as caught:
        read(labels, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ------------------------------------------------------------------------------------------ shapes


@pytest.mark.parametrize("kind", ["gpkg", "shp", "geojson", "fgb", "dbf", "shp.zip", "gpkg.zip", "gml", "kml"])
def test_polygons_of_every_format_are_burnt_with_their_names_and_numbers(kind):
    ending = kind.removesuffix(".zip").replace("dbf", "shp")
    fields = make_fields()
    fields = fields.to_crs("EPSG:4326") if ending in ("geojson", "kml") else fields
    driver = {"driver": "KML"} if kind == "kml" else {}
    fields.rename(columns={"crop": "Name"} if kind == "kml" else {}).to_file(f"fields.{ending}", **driver)
    if kind.endswith("zip"):
        with zipfile.ZipFile("fields.zip", "w") as archive:
            for path in Path().glob("fields.*"):
                if path.suffix != ".zip":
                    archive.write(path)
                    path.unlink()
    options = {"field": "Name"} if kind == "kml" else {"field": "crop"} if kind == "gml" else {}
    scene = read({"file": "fields.zip" if kind.endswith("zip") else f"fields.{kind}", **options})
    np.testing.assert_array_equal(scene.labels, EXPECTED)
    assert scene.class_names == {1: "beet", 2: "maize", 3: "soil"}
    assert scene.is_named
    if kind != "fgb":  # whose order of shapes is its own
        np.testing.assert_array_equal(scene.polygons, NUMBERS)
    assert scene.polygons.dtype == np.int32


def test_a_pixel_belongs_to_a_polygon_that_contains_its_centre_or_with_a_setting_to_one_that_touches_it():
    strip = geopandas.GeoDataFrame({"crop": ["maize"]}, geometry=[draw(2.4, 4.6, 3.6, 7.4, margin=0)], crs=CRS)
    strip.to_file("strip.gpkg")
    wanted = np.zeros((ROWS, COLS), dtype=int)
    wanted[2:5, 4:7] = 1
    np.testing.assert_array_equal(read("strip.gpkg").labels, wanted)
    wanted[2:5, 3:8] = 1
    np.testing.assert_array_equal(read({"file": "strip.gpkg", "all_touched": True}).labels, wanted)


@pytest.mark.parametrize("transform", [GRID @ Affine.rotation(20), Affine(30, 0, 362175, 0, 30, 5809965 - 30 * ROWS)])
def test_polygons_are_burnt_onto_a_turned_grid_and_one_whose_rows_come_from_the_south(transform):
    write_cube("turned.tif", transform)
    make_fields().to_file("fields.gpkg")
    rows, cols = np.indices((ROWS, COLS)) + 0.5
    x, y = transform @ (cols, rows)
    wanted = np.zeros((ROWS, COLS), dtype=int)
    for *box, crop in FIELDS:
        wanted[shapely.contains_xy(draw(*box), x, y)] = ["beet", "maize", "soil"].index(crop) + 1
    assert (wanted > 0).sum() > 30
    np.testing.assert_array_equal(read("fields.gpkg", "turned.tif").labels, wanted)


def test_points_label_the_pixel_that_they_lie_in_and_what_is_not_used_is_counted():
    places = [(1.5, 1.5), (1.9, 1.1), (4.2, 4.7), (4.8, 4.1), (9.99, 11.99), (-3, 2), (5, 50), (7.5, 7.5)]
    crops = ["maize", "maize", "beet", "soil", "soil", "beet", "beet", None]
    points = [shapely.Point(to_ground(*place)) for place in places]
    frame = geopandas.GeoDataFrame({"crop": [*crops, "soil"]}, geometry=[*points, None], crs=CRS)
    frame.to_crs("EPSG:3035").to_file("points.gpkg")
    scene = read("points.gpkg")
    assert {(row, col): scene.labels[row, col] for row, col in np.argwhere(scene.labels).tolist()} == {
        (1, 1): 2,
        (11, 9): 3,
    }
    assert scene.class_names == {2: "maize", 3: "soil"}  # of all in the file, in alphabetical order
    assert scene.polygons is None
    assert scene.notes == (
        "points.gpkg: 2 shapes without geometry or class are left out",
        "points.gpkg: 2 shapes lie outside the cube",
        "points.gpkg: 1 pixels are in shapes of several classes and are left unlabelled",
    )


def test_overlaps_of_two_classes_are_unlabelled_and_small_polygons_counted():
    boxes = [draw(0, 6, 0, 6), draw(3, 9, 0, 6), draw(0.6, 0.9, 8.6, 8.9, margin=0)]
    geopandas.GeoDataFrame({"crop": ["a", "b", "b"]}, geometry=boxes, crs=CRS).to_file("boxes.gpkg")
    scene = read("boxes.gpkg")
    wanted = np.zeros((ROWS, COLS), dtype=int)
    wanted[:3, :6], wanted[6:9, :6] = 1, 2
    np.testing.assert_array_equal(scene.labels, wanted)
    np.testing.assert_array_equal(scene.polygons, wanted)
    small, several = scene.notes
    assert small.startswith(
        "boxes.gpkg: 1 polygons have no pixel of their own; scene.labels.all_touched: true takes all"
    )
    assert several == "boxes.gpkg: 18 pixels are in shapes of several classes and are left unlabelled"
    assert (read({"file": "boxes.gpkg", "all_touched": True}).labels == 2).sum() == 19


def test_a_polygon_of_several_parts_with_a_hole_has_one_number():
    ring = draw(0, 6, 0, 6).difference(draw(2, 4, 2, 4, margin=-0.1))
    parts = shapely.MultiPolygon([ring, draw(8, 10, 7, 9)])
    geopandas.GeoDataFrame({"crop": ["a", "b"]}, geometry=[parts, draw(2, 4, 2, 4)], crs=CRS).to_file("parts.gpkg")
    wanted = np.zeros((ROWS, COLS), dtype=int)
    wanted[:6, :6], wanted[2:4, 2:4], wanted[8:10, 7:9] = 1, 2, 1
    scene = read("parts.gpkg")
    np.testing.assert_array_equal(scene.labels, wanted)
    np.testing.assert_array_equal(scene.polygons, wanted)


def test_without_geopandas_shapes_name_what_to_install_and_tables_of_pixels_are_read(monkeypatch):
    make_fields().to_file("fields.gpkg")
    Path("pixels.csv").write_text("row,col,class\n1,2,a\n3,4,b\n")
    monkeypatch.setitem(sys.modules, "geopandas", None)
    assert refuse("fields.gpkg").startswith("fields.gpkg: reading this file needs geopandas; ")
    assert read("pixels.csv").class_names == {1: "a", 2: "b"}


def test_numbers_of_classes_stay_and_names_of_all_shapes_are_numbered():
    make_fields(code=[20, 20, 10, 10, 30]).drop(columns="crop").to_file("fields.gpkg")
    scene = read("fields.gpkg")
    np.testing.assert_array_equal(scene.labels, np.array([0, 10, 20, 30])[EXPECTED])
    assert not scene.is_named
    far = make_fields().iloc[:1].translate(xoff=1e6)
    more = pandas.concat([make_fields(), geopandas.GeoDataFrame({"crop": ["alfalfa"]}, geometry=far, crs=CRS)])
    more.to_file("more.gpkg")
    assert read("more.gpkg").class_names == {2: "beet", 3: "maize", 4: "soil"}


# ------------------------------------------------------------------------- attributes, layers, places


@pytest.mark.parametrize(
    ("columns", "options", "chosen"),
    [
        ({"id": range(5)}, {}, "crop"),
        ({"farm": list("aabbb"), "class": list("xyxyx")}, {"field": "crop"}, "crop"),
        ({"class_id": [2, 2, 1, 1, 3], "farmer": list("abcde")}, {}, "crop"),
        ({"code": [2, 2, 1, 1, 3]}, {"field": "code"}, "code"),
        ({"height": [1.5, None, 1.5, 2, 2], "area": [4, 4, 4, 4, 4]}, {}, "crop"),
    ],
)
def test_the_only_attribute_that_can_be_the_class_is_chosen_or_the_one_named(columns, options, chosen):
    make_fields(**columns).to_file("fields.gpkg")
    scene = read({"file": "fields.gpkg", **options})
    np.testing.assert_array_equal(scene.labels, EXPECTED)
    assert scene.notes == (() if options else (f"fields.gpkg: the classes are those of the attribute {chosen}",))


def test_several_attributes_and_layers_are_listed():
    make_fields(landcover=list("aabbb")).to_file("fields.gpkg", layer="first")
    assert refuse("fields.gpkg") == (
        "fields.gpkg: set scene.labels.field to the attribute with the classes; choose from crop (3 values), "
        "landcover (2 values)"
    )
    message = refuse({"file": "fields.gpkg", "field": "crp"})
    assert "scene.labels.field = 'crp': no such attribute; did you mean 'crop'? choose from crop (3 values)" in message
    make_fields().to_file("fields.gpkg", layer="second")
    assert refuse("fields.gpkg").endswith("has 2 layers with shapes; set scene.labels.layer to one of first, second")
    assert "no such layer; choose from first, second" in refuse({"file": "fields.gpkg", "layer": "third"})
    np.testing.assert_array_equal(read({"file": "fields.gpkg", "layer": "second"}).labels, EXPECTED)


def test_a_key_names_the_attribute_too_as_for_the_masks_of_a_split():
    fields = make_fields(landcover=list("aabbb"))
    fields.to_file("fields.gpkg")
    np.testing.assert_array_equal(read("fields.gpkg", labels_key="crop").labels, EXPECTED)
    for name, rows in (("train", [0, 2, 4]), ("test", [1, 3])):
        fields.iloc[rows].to_file(f"{name}.gpkg")
    scene = read({"file": "fields.gpkg", "field": "crop"})
    masks = {"train": "train.gpkg", "test": "test.gpkg", "validation": 0}
    with pytest.raises(
        SceneError, match=r"train\.gpkg: set split\.train_key to the attribute with the classes; choose"
    ):
        make_split(scene, MasksSplit(kind="masks", **masks))
    split = make_split(scene, MasksSplit(kind="masks", **masks, train_key="crop", test_key="crop"))
    np.testing.assert_array_equal(split.train, np.argwhere(np.isin(NUMBERS, (1, 3, 5))))
    np.testing.assert_array_equal(split.test, np.argwhere(np.isin(NUMBERS, (2, 4))))


@pytest.mark.filterwarnings("ignore:'crs' was not provided")
def test_a_file_without_a_system_takes_the_cubes_or_the_setting():
    fields = make_fields()
    fields.to_crs("EPSG:32632").set_crs(None, allow_override=True).to_file("other.shp")
    assert "no shape with a class lies on the cube: they span x 770129" in refuse("other.shp")
    np.testing.assert_array_equal(read({"file": "other.shp", "crs": "EPSG:32632"}).labels, EXPECTED)
    fields.set_crs(None, allow_override=True).to_file("fields.shp")
    scene = read("fields.shp")
    np.testing.assert_array_equal(scene.labels, EXPECTED)
    assert scene.notes == ("fields.shp: the file names no coordinate system; it is taken to have that of the other",)
    assert "scene.labels.crs = 'utm': is unknown (" in refuse({"file": "fields.shp", "crs": "utm"})


def test_shapes_elsewhere_are_refused_with_both_extents():
    make_fields().assign(geometry=make_fields().translate(xoff=9000)).to_file("far.gpkg")
    assert refuse("far.gpkg") == (
        "far.gpkg: no shape with a class lies on the cube: they span x 371178 to 371472, y 5809608 to 5809962, "
        "the cube x 362175 to 362475, y 5809605 to 5809965; give labels of the same ground, or correct their "
        "coordinate system (in the file, or with scene.labels.crs)"
    )


def test_one_of_several_images_may_have_no_labels():
    make_fields().assign(geometry=make_fields().translate(xoff=9000)).to_file("far.gpkg")
    source = SceneSource.of(SceneFiles(cube="cube.tif", labels="far.gpkg"), Folders.of(None))
    label_map = source.read_labels(source.open_image(), is_part=True)
    assert label_map.labels.shape == (ROWS, COLS)
    assert not label_map.labels.any()
    assert label_map.class_names == {1: "beet", 2: "maize", 3: "soil"}


def test_a_cube_without_a_place_says_what_is_missing():
    np.save("cube.npy", np.random.default_rng(0).random((ROWS, COLS, 4)))
    make_fields().to_file("fields.gpkg")
    assert refuse("fields.gpkg", cube="cube.npy") == (
        "fields.gpkg: the labels lie on the ground, but the cube has no georeference; add it to the cube (map info or "
        "a transform), or give labels of its rows and columns"
    )


def test_a_style_gives_the_attribute_and_the_colours():
    make_fields(landcover=list("aabbb")).to_file("fields.gpkg")
    new = '<Option type="Map"><Option name="color" value="255,128,0,255,rgb:1,0.5,0,1"/></Option>'
    old = '<prop k="color" v="0,0,255,255"/>'
    symbols = f'<symbol name="0"><layer>{new}</layer></symbol><symbol name="1"><layer>{old}</layer></symbol>'
    categories = '<category value="beet" symbol="0" label="Beet"/><category value="maize" symbol="1" label="Maize"/>'
    Path("fields.qml").write_text(
        f'<qgis><renderer-v2 type="categorizedSymbol" attr="crop"><categories>{categories}</categories>'
        f"<symbols>{symbols}</symbols></renderer-v2></qgis>"
    )
    scene = read("fields.gpkg")
    np.testing.assert_array_equal(scene.labels, EXPECTED)
    assert scene.palette == {1: (255, 128, 0), 2: (0, 0, 255)}
    assert scene.class_names[1] == "beet"


def test_a_damaged_file_is_one_line():
    make_fields().to_file("fields.gpkg")
    Path("fields.gpkg").write_bytes(Path("fields.gpkg").read_bytes()[:3000])
    assert refuse("fields.gpkg").startswith("fields.gpkg: cannot be read as labels (")


def test_a_mask_of_each_class_may_be_a_vector_file():
    for crop, frame in make_fields(code=[7, 8, 9, 10, 11]).groupby("crop"):
        frame.to_file(f"{crop}.gpkg")
    scene = read({"maize": "maize.gpkg", "soil": "soil.gpkg", "beet": "beet.gpkg"})
    np.testing.assert_array_equal(scene.labels, EXPECTED)
    assert len(np.unique(scene.polygons)) == 6


# ------------------------------------------------------------------------------------------ splits


def test_polygons_are_the_fields_and_the_groups_of_a_split():
    make_fields().to_file("fields.gpkg")
    truth = load_ground_truth(SceneFiles(cube="cube.tif", labels="fields.gpkg"))
    np.testing.assert_array_equal(number_fields(truth), NUMBERS)  # the fields of maize touch
    split = make_split(truth, FieldsSplit(kind="fields", train=0.5, buffer=1))
    sides = split.to_sides(truth.shape)
    assert all(len(np.unique(sides[number == NUMBERS])) <= 2 for number in (1, 2, 3, 4))
    folds = [FoldsSplit(kind="folds", by="groups", folds=5, fold=fold, buffer=0) for fold in range(1, 6)]
    for number, settings in enumerate(folds, start=1):
        test = make_split(truth, settings).test
        np.testing.assert_array_equal(test, np.argwhere(number == NUMBERS))
    np.save("plain.npy", EXPECTED)
    plain = load_ground_truth(SceneFiles(cube="cube.tif", labels="plain.npy"))
    assert number_fields(plain).max() == 4
    with pytest.raises(SplitError, match=r"split\.by = groups: the labels were not drawn as polygons.*groups: FILE"):
        make_split(plain, folds[0])


# ------------------------------------------------------------------------------------------ tables


def list_points():
    """Column, row and crop of ten labelled pixels, somewhere within each."""
    chosen = np.random.default_rng(0).permutation(np.argwhere(EXPECTED))[:10]
    return [(col + 0.3, row + 0.6, ["beet", "maize", "soil"][EXPECTED[row, col] - 1]) for row, col in chosen.tolist()]


@pytest.mark.parametrize("kind", ["x", "Easting;", "lon", "tab", "crs", "row", "line"])
def test_tables_of_points_are_read_by_their_heading(kind):
    lines, crs = [], None
    for number, (col, row, crop) in enumerate(list_points()):
        x, y = to_ground(col, row)
        (lon,), (lat,) = rasterio.warp.transform(CRS, "EPSG:4326", [x], [y])
        match kind:
            case "x" | "crs":
                (x,), (y,) = rasterio.warp.transform(CRS, "EPSG:3035" if kind == "crs" else CRS, [x], [y])
                crs, heading, line = "EPSG:3035" if kind == "crs" else CRS, "x,y,class", f"{x},{y},{crop}"
            case "Easting;":
                heading, line = "Crop;Easting;Northing;Who", f"{crop};{x:.3f};{y:.3f};me".replace(".", ",")
            case "lon":
                heading, line = "name,lat,lon,when,class", f'"a, b",{lat:.8f},{lon:.8f},{number},{crop}'
            case "tab":
                heading, line = "X\tY\tlabel", f"{x}\t{y}\t{crop}"
            case "row":
                heading, line = "id,row,col,class", f"{number},{int(row)},{int(col)},{crop}"
            case "line":
                heading, line = "Line Sample Label", f"{int(row)} {int(col)} {crop}"
        lines.append(line)
    Path("points.csv").write_text("\n".join([heading, *lines]) + "\n")
    scene = read({"file": "points.csv", "crs": crs})
    wanted = np.zeros((ROWS, COLS), dtype=int)
    for col, row, _ in list_points():
        wanted[int(row), int(col)] = EXPECTED[int(row), int(col)]
    np.testing.assert_array_equal(scene.labels, wanted)
    assert set(scene.class_names.values()) <= {"beet", "maize", "soil"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "a,b,class\n1,2,x\n",
            ": has the columns a, b, class; call two of them row and col (of pixels, from 0), x and y",
        ),
        ("x,y,class\n1,north,x\n", ":2: '1,north,x' is not x,y,class; give numbers"),
        ("row,col,class\n1,2.5,x\n", ":2: '1,2.5,x' is not row,col,class; give whole numbers, or a heading that names"),
        ("row,col,class\n1,2,x\n1,2,y\n", ":3: label y for row 1, col 2 is its second; give one per pixel"),
        ("row,col,crop,species\n1,2,x,y\n", ": set scene.labels.field to the attribute with the classes; choose from"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused(text, problem):
    Path("points.csv").write_text(text)
    assert refuse("points.csv").startswith(f"points.csv{problem}")


ROI = """; ENVI Output of ROIs (5.5.3) [Mon Jul  1 10:00:00 2024]
; Number of ROIs: 2
; File Dimension: {cols} x {rows}
;
; ROI name: maize
; ROI rgb value: {{255, 0, 0}}
; ROI npts: 3
; ROI name: bare soil
; ROI rgb value: {{0, 255, 0}}
; ROI npts: 2
;    ID       X       Y    Map X    Map Y
      1       1       1  362190.0 5809950.0
      2      10       1  362460.0 5809950.0
      3       4       5  362280.0 5809830.0

      1       1      12  362190.0 5809620.0
      2       4       5  362280.0 5809830.0
"""


def test_regions_of_envi_are_read():
    Path("roi.txt").write_text(ROI.format(rows=ROWS, cols=COLS))
    scene = read("roi.txt")
    assert {pixel: scene.labels[pixel] for pixel in map(tuple, np.argwhere(scene.labels).tolist())} == {
        (0, 0): 2, (0, 9): 2, (11, 0): 1,
    }  # fmt: skip
    assert scene.class_names == {1: "bare soil", 2: "maize"}
    assert scene.notes == ("roi.txt: 1 pixels are of several classes and are left unlabelled",)
    Path("roi.txt").write_text(ROI.format(rows=99, cols=COLS))
    assert "its regions are of an image of 99 × 10 pixels, but the cube has 12 × 10" in refuse("roi.txt")
    Path("roi.txt").write_text(ROI.format(rows=ROWS, cols=COLS).replace("npts: 3", "npts: 4"))
    assert "cannot be read as labels (6 pixels are declared, 5 listed)" in refuse("roi.txt")


def test_a_shapefile_needs_its_shp():
    make_fields().to_file("fields.shp")
    shutil.copyfile("fields.dbf", "alone.dbf")
    assert refuse("alone.dbf").startswith("alone.dbf: is a part of a shapefile; ")
