"""A scene from arrays in memory: what it reads of them, that it leaves them alone, and what it refuses in one line."""

import builtins

import numpy as np
import pytest
import rasterio
import rioxarray
import xarray

import hsi_se
from hsi_se.errors import SceneError
from hsi_se.scene import cube as cubes
from hsi_se.scene.cube import StoredCube
from hsi_se.scene.georeference import Georeference

ROWS, COLS, BANDS = 12, 10, 6
NM = np.linspace(450, 650, BANDS)
UTM = "EPSG:32633"
EAST, NORTH, SIDE = 500_000.0, 6_000_000.0, 30.0


def make_cube(dtype="float32") -> np.ndarray:
    return (1000 * np.random.default_rng(0).random((ROWS, COLS, BANDS))).astype(dtype)


def make_labels() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 3, (ROWS, COLS))


def make_data_array(cube: np.ndarray) -> xarray.DataArray:
    """The cube with coordinates of pixel centres; the upper left corner of the image is at EAST, NORTH."""
    y, x = NORTH - SIDE * (np.arange(ROWS) + 0.5), EAST + SIDE * (np.arange(COLS) + 0.5)
    wavelengths = ("band", NM / 1000, {"units": "micrometers"})
    array = xarray.DataArray(cube, dims=("y", "x", "band"), coords={"y": y, "x": x, "wavelength": wavelengths})
    return array.rio.write_crs(UTM)


TRANSFORM = (SIDE, 0.0, EAST, 0.0, -SIDE, NORTH)


# ------------------------------------------------------------------------------------------ what is read


def test_arrays_are_used_without_a_copy_and_cannot_be_written_to():
    cube, labels = make_cube(), make_labels()
    before = cube.copy(), labels.copy()
    scene = hsi_se.Scene.from_arrays(cube, labels, name="field", class_names=["soil", "wheat"], wavelengths_nm=NM)
    assert np.shares_memory(scene.cube, cube)
    with pytest.raises(ValueError, match="read-only"):
        scene.cube[0, 0, 0] = 1
    assert cube.flags.writeable
    np.testing.assert_array_equal(cube, before[0])
    np.testing.assert_array_equal(labels, before[1])
    assert (scene.name, scene.class_names) == ("field", {1: "soil", 2: "wheat"})
    assert scene.labels.dtype == np.int32
    np.testing.assert_array_equal(scene.wavelengths_nm, NM)
    assert scene.natural_colour == tuple(int(np.abs(NM - nm).argmin()) for nm in (640, 550, 460))


def test_nodata_pixels_are_zero_and_unlabelled_and_the_array_keeps_its_value():
    cube, labels = make_cube(), np.ones((ROWS, COLS), int)
    cube[3, 4, 2] = cube[5] = -9999
    before = cube.copy()
    scene = hsi_se.Scene.from_arrays(cube, labels, nodata=-9999)
    np.testing.assert_array_equal(cube, before)
    assert scene.nodata.sum() == COLS + 1
    assert not scene.cube[3, 4].any()
    assert not scene.labels[scene.nodata].any()
    assert scene.notes == (f"{COLS + 1} pixels are nodata; {COLS + 1} of them are labelled and were excluded",)
    cube[cube == -9999] = np.nan
    np.testing.assert_array_equal(hsi_se.Scene.from_arrays(cube, labels, nodata=np.nan).nodata, scene.nodata)


def test_a_large_cube_with_nodata_is_read_by_rows_instead_of_copied(monkeypatch):
    cube, labels = make_cube(), make_labels()
    cube[2] = -1
    whole = hsi_se.Scene.from_arrays(cube, labels, nodata=-1)
    monkeypatch.setattr(cubes, "_MOST_IN_MEMORY", 0)
    by_rows = hsi_se.Scene.from_arrays(cube, labels, nodata=-1)
    assert isinstance(by_rows.cube, StoredCube)
    assert by_rows.digest == whole.digest


def test_other_kinds_of_numbers_names_and_missing_labels_are_read():
    names = np.array(["", "wheat", "soil"])[make_labels()]
    scene = hsi_se.Scene.from_arrays(make_cube("uint16").tolist(), names)
    assert scene.class_names == {1: "soil", 2: "wheat"}
    floats = np.where(make_labels() == 0, np.nan, make_labels())
    np.testing.assert_array_equal(hsi_se.Scene.from_arrays(make_cube(), floats).labels, make_labels())
    mapped = hsi_se.Scene.from_arrays(make_cube(), make_labels(), class_names={1: "a", 2: "b", 7: "c"})
    assert mapped.class_names == {1: "a", 2: "b"}
    assert mapped.notes == ("the class names of 7 have no pixels",)
    assert hsi_se.Scene.from_arrays(make_cube(), None).num_classes == 0


@pytest.mark.parametrize("dims", [("y", "x", "band"), ("band", "y", "x"), ("x", "band", "y")])
def test_a_data_array_is_read_in_any_order_with_its_wavelengths_and_its_place(dims):
    cube = make_cube()
    given = make_data_array(cube).transpose(*dims)
    scene = hsi_se.Scene.from_arrays(given, make_labels())
    np.testing.assert_array_equal(scene.cube, cube)
    assert np.shares_memory(scene.cube, given.values)
    np.testing.assert_allclose(scene.wavelengths_nm, NM)
    assert scene.georeference == Georeference(UTM, TRANSFORM)
    assert scene.grid.dims == ("y", "x")


def test_usual_names_of_dimensions_and_coordinates_are_known():
    coords = {"wavelength": NM, "fwhm": ("wavelength", np.full(BANDS, 7.0))}
    given = xarray.DataArray(make_cube()[None], dims=("time", "lat", "Lon", "wavelength"), coords=coords)
    scene = hsi_se.Scene.from_arrays(given, xarray.DataArray(make_labels().T, dims=("col", "row")))
    np.testing.assert_array_equal(scene.cube, make_cube())
    np.testing.assert_array_equal(scene.labels, make_labels())
    np.testing.assert_array_equal(scene.wavelengths_nm, NM)
    np.testing.assert_array_equal(scene.fwhm_nm, 7)
    assert scene.georeference is None


def test_band_numbers_without_a_unit_are_not_wavelengths():
    given = xarray.DataArray(make_cube(), dims=("y", "x", "band"), coords={"band": np.arange(1, BANDS + 1)})
    scene = hsi_se.Scene.from_arrays(given, make_labels())
    assert scene.wavelengths_nm is None
    assert scene.notes == ()
    odd = given.rename(band="wavelength").assign_coords(wavelength=("wavelength", NM, {"units": "furlongs"}))
    assert hsi_se.Scene.from_arrays(odd, make_labels()).notes == (
        "unknown wavelength unit 'furlongs' in the cube; wavelengths ignored",
    )


@pytest.mark.filterwarnings("ignore:Use .@. matmul")
def test_a_file_that_rioxarray_opens_is_read_with_its_nodata_value(tmp_path):

    cube, path = make_cube("int16"), tmp_path / "cube.tif"
    cube[1, 1] = -5
    profile = {"driver": "GTiff", "height": ROWS, "width": COLS, "count": BANDS, "dtype": "int16", "nodata": -5}
    with rasterio.open(path, "w", crs=UTM, transform=rasterio.Affine(*TRANSFORM), **profile) as file:
        file.write(np.moveaxis(cube, 2, 0))
    with rioxarray.open_rasterio(path) as given:
        scene = hsi_se.Scene.from_arrays(given, make_labels())
    assert np.argwhere(scene.nodata).tolist() == [[1, 1]]
    assert scene.georeference == Georeference(UTM, TRANSFORM)


def test_labels_of_another_grid_are_brought_onto_that_of_the_cube():
    labels = xarray.DataArray(make_labels(), dims=("y", "x"), coords=make_data_array(make_cube()).isel(band=0).coords)
    moved = labels.drop_vars("wavelength").assign_coords(y=labels.y + SIDE)  # one row further north
    scene = hsi_se.Scene.from_arrays(make_data_array(make_cube()), moved)
    np.testing.assert_array_equal(scene.labels[:-1], make_labels()[1:])
    assert not scene.labels[-1].any()
    assert "labels: resampled onto the scene's grid" in " ".join(scene.notes)


def test_arguments_take_precedence_over_what_a_data_array_says():
    given = make_data_array(make_cube())
    transform = rasterio.Affine(10, 0, 5, 0, -10, 7)
    scene = hsi_se.Scene.from_arrays(given, make_labels(), crs=3857, transform=transform, wavelengths_nm=NM + 5)
    assert scene.georeference == Georeference("EPSG:3857", (10, 0, 5, 0, -10, 7))
    np.testing.assert_array_equal(scene.wavelengths_nm, NM + 5)


def test_without_rioxarray_the_values_are_read_and_the_place_is_not(monkeypatch):
    real = builtins.__import__

    def refuse(name, *arguments, **options):
        if name == "rioxarray":
            raise ImportError(name)
        return real(name, *arguments, **options)

    given = make_data_array(make_cube())
    monkeypatch.setattr(builtins, "__import__", refuse)
    scene = hsi_se.Scene.from_arrays(given, make_labels())
    assert scene.georeference is None
    assert "cube: its coordinate system is not read, as rioxarray is not installed" in scene.notes[0]
    np.testing.assert_allclose(scene.wavelengths_nm, NM)


# ---------------------------------------------------------------------------------------- what is refused


def _with(value, at=(3, 3)) -> np.ndarray:
    cube = make_cube()
    cube[at] = value
    return cube


CUBE, LABELS = make_cube(), make_labels()
BAD = {
    "sizes": ((CUBE, LABELS[:5]), {}, "labels: the cube has 12 × 10 pixels and the labels have 5 × 10 (rows × cols)"),
    "transposed labels": ((CUBE, LABELS.T), {}, "labels: the cube has 12 × 10 pixels and the labels have 10 × 12"),
    "bands first": ((np.moveaxis(CUBE, 2, 0), LABELS), {}, "bring the axes into order, cube.transpose(1, 2, 0)"),
    "a list of labels": ((CUBE, LABELS.ravel()), {}, "reshape the labels: labels.reshape(12, 10)"),
    "a list of spectra": ((CUBE.reshape(-1, BANDS), LABELS), {},
        "cube: has the shape (120, 6); give (rows, cols, bands) with at least one pixel"),
    "nothing": ((CUBE[:0], LABELS[:0]), {}, "cube: has the shape (0, 10, 6); give"),
    "a file": (("cube.mat", LABELS), {},
        "cube = 'cube.mat': is text, not an array; give an array, or load files with hsi_se.load_scene({'cube':"),
    "labels in a file": ((CUBE, "gt.mat"), {}, "labels = 'gt.mat': is text, not an array"),
    "complex": ((CUBE.astype(complex), LABELS), {}, "cube: has values of type complex128; give numbers"),
    "objects": ((CUBE, LABELS.astype(object)), {}, "labels: has values of type object; give numbers"),
    "masked": ((np.ma.array(CUBE), LABELS), {}, "cube: is a masked array; fill it first"),
    "ragged": (([[1], [1, 2]], LABELS), {}, "cube: list is not an array of numbers"),
    "unlabelled": ((CUBE, 0 * LABELS), {"name": "x"},
        "scene x: all 120 labels are 0, which means unlabelled; give a label map with at least one class"),
    "negative": ((CUBE, np.where(LABELS == 0, -1, LABELS)), {},
        "labels: {n} labels are not non-negative integers up to 65535, the first is -1"),
    "fractions": ((CUBE, LABELS + 0.5), {},
        "labels: 120 labels are not non-negative integers up to 65535, the first is 1.5"),
    "NaN": ((_with(np.nan, (3, 3, 2)), LABELS), {},
        "1 values of the cube are NaN or infinite, the first at row 3, col 3, band 2; if they mark missing"),
    "fill": ((_with(-9999, np.s_[3]), LABELS), {}, "cube: -9999 fills 10 pixels"),
    "nodata": ((CUBE, LABELS), {"nodata": "x"},
        "nodata = 'x': is not a value of pixels; write a number, nan, or 'none' if every pixel has data"),
    "count of wavelengths": ((CUBE, LABELS), {"wavelengths_nm": [400, 500]},
        "wavelengths_nm: has 2 numbers; give one number of nanometres for each of the 6 bands"),
    "micrometres": ((CUBE, LABELS), {"wavelengths_nm": NM / 1000},
        "wavelengths_nm: 0.45 to 0.65 are not wavelengths in nm"),
    "text for wavelengths": ((CUBE, LABELS), {"wavelengths_nm": "nm"}, "wavelengths_nm = 'nm': are not numbers"),
    "count of names": ((CUBE, LABELS), {"class_names": ["a"]},
        "class_names: 1 names for 2 labels (1, 2); give one name for each"),
    "a name twice": ((CUBE, LABELS), {"class_names": ["a", "a"]}, "class_names: class name 'a' is empty or used twice"),
    "an empty name": ((CUBE, LABELS), {"class_names": ["a", " "]}, "class_names: class name '' is empty or used twice"),
    "one text of names": ((CUBE, LABELS), {"class_names": "ab"},
        "class_names = 'ab': is not a list of names or a mapping"),
    "a lacking name": ((CUBE, LABELS), {"class_names": {1: "a"}},
        "class_names: has no name for the labels 2; add them"),
    "crs": ((CUBE, LABELS), {"crs": "Mars"}, "crs = 'Mars': unknown coordinate system; write one such as 'EPSG:32633'"),
    "transform": ((CUBE, LABELS), {"transform": (1, 2)},
        "transform = (1, 2): is not the affine transform of pixels with an area"),
    "flat pixels": ((CUBE, LABELS), {"transform": (1, 2, 3, 2, 4, 5)},
        "is not the affine transform of pixels with an area"),
    "name": ((CUBE, LABELS), {"name": 3}, "name = 3: is not a name; write text"),
    "dimensions": ((make_data_array(CUBE).rename(band="planet"), LABELS), {},
        "cube: its dimensions are y, x, planet; name them y, x, band, as with rename({'planet': 'band'})"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_a_wrong_argument_is_refused_in_one_line_that_names_it(kind):
    arguments, options, message = BAD[kind]
    with pytest.raises(SceneError) as caught:
        hsi_se.Scene.from_arrays(*arguments, **options)
    text = str(caught.value)
    assert message.replace("{n}", str((LABELS == 0).sum())) in text
    assert "\n" not in text
    assert "scene." not in text, "settings of a config are not what was given"
    assert text.split(":")[0].split(" =")[0].split()[0] in ("cube", "labels", "scene", *options)


def test_the_remedies_against_fill_work():
    cube = _with(-9999, np.s_[3])
    with pytest.raises(SceneError, match=r'set nodata=-9999 to exclude them, or nodata="none" if they are data'):
        hsi_se.Scene.from_arrays(cube, LABELS)
    assert hsi_se.Scene.from_arrays(cube, LABELS, nodata=-9999).nodata.sum() == COLS
    assert hsi_se.Scene.from_arrays(cube, LABELS, nodata="none").nodata is None


def test_a_nodata_value_that_no_pixel_has_is_noted():
    notes = hsi_se.Scene.from_arrays(CUBE, LABELS, nodata=-1).notes
    assert len(notes) == 1
    assert notes[0].startswith("cube: no pixel contains the nodata value -1")
    assert notes[0].endswith('otherwise set nodata="none"')
