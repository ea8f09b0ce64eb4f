"""One scene in every format: read back equal, with what each format says about it."""

import os
import struct
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import rasterio
import spectral.io.envi
from rasterio.crs import CRS

from hsi_se import load_scene
from hsi_se.config.scene import SceneFiles
from hsi_se.errors import SceneError
from hsi_se.scene.formats import open_file
from hsi_se.scene.georeference import Georeference
from hsi_se.scene.loading import open_scene_image
from hsi_se.scene.wavelengths import pick_natural_colour, to_nanometres
from tests.conftest import REAL_SCENES, needs_real_scenes
from tests.scene.writers import (
    COLS,
    CUBE,
    LABELS,
    ROWS,
    WAVELENGTHS_NM,
    WRITERS,
    load,
    write_envi,
    write_geotiff,
    write_matlab_73,
    write_npy,
)

# ----------------------------------------------------------------------------- the same scene


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float32, np.float64])
def test_a_scene_is_read_back_equal_from_every_format(tmp_path, name, dtype):
    cube = (CUBE % 251).astype(dtype)
    scene = load(WRITERS[name](tmp_path, cube, LABELS))
    np.testing.assert_array_equal(scene.cube, cube)
    np.testing.assert_array_equal(scene.labels, LABELS)
    assert scene.cube.dtype == dtype
    assert scene.dropped_bands == {}
    assert scene.nodata is None


@needs_real_scenes
@pytest.mark.parametrize("name", WRITERS)
def test_the_real_salinas_a_is_read_back_equal_from_every_format(tmp_path, name):
    real = load_scene("salinas-a", REAL_SCENES)
    scene = load(WRITERS[name](tmp_path, real.cube, real.labels.astype(np.uint8)))
    np.testing.assert_array_equal(scene.cube, real.cube)
    np.testing.assert_array_equal(scene.labels, real.labels)
    assert scene.digest == real.digest


@pytest.mark.parametrize("name", WRITERS)
def test_the_format_is_seen_from_the_content_not_from_the_ending(tmp_path, name):
    cube, labels = WRITERS[name](tmp_path, CUBE, LABELS)
    if not name.startswith("ENVI"):
        cube, labels = cube.rename(tmp_path / "a.xyz"), labels.rename(tmp_path / "b") if cube != labels else 0
        labels = labels or cube
    assert open_file(cube).format == name
    np.testing.assert_array_equal(load((cube, labels)).cube, CUBE)


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize(("first", "last"), [(0, 1), (2, 5), (6, 7), (0, 7)])
def test_any_rows_can_be_read_alone(tmp_path, name, first, last):
    cube, labels = WRITERS[name](tmp_path, CUBE, LABELS)
    files = SceneFiles(cube=str(cube), labels=str(labels), drop_bands=["2"], scale=10)
    rows, nodata = open_scene_image(files).read_rows(first, last)
    np.testing.assert_allclose(rows, CUBE[first:last][..., [0, 2, 3, 4]] / np.float32(10), rtol=1e-6)
    assert nodata is None


@pytest.mark.parametrize("name", ["ENVI BSQ", "ENVI BIL", "ENVI BIP", ".npy"])
def test_a_file_may_be_cut_short_after_its_cube_is_read(tmp_path, name):
    """A page of a file that is mapped and gone ends a process by SIGBUS."""
    paths = WRITERS[name](tmp_path, CUBE, LABELS)
    cube = load(paths).cube
    for path in tmp_path.iterdir():
        os.truncate(path, 0)
    np.testing.assert_array_equal(cube, CUBE)


def test_a_plain_hdf5_file_keeps_its_axes(tmp_path):
    with h5py.File(tmp_path / "scene.h5", "w") as file:
        file["cube"], file["labels"] = CUBE, LABELS
    np.testing.assert_array_equal(load((tmp_path / "scene.h5",) * 2).cube, CUBE)


def test_a_label_table_is_read_with_and_without_its_heading(tmp_path):
    cube, _ = write_npy(tmp_path, CUBE, LABELS)
    lines = [f"{row},{col},{LABELS[row, col]}" for row, col in np.argwhere(LABELS > 0)]
    swapped = [f"{label};{row};{col}" for row, col, label in (line.split(",") for line in lines)]
    for text in (lines, ["row,col,label", *lines], ["Label;Row;Col", *swapped]):
        (tmp_path / "labels.csv").write_text("\n".join(text))
        np.testing.assert_array_equal(load((cube, tmp_path / "labels.csv")).labels, LABELS)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("7,0,1", "row 7, col 0 is outside the cube of 7 × 6 pixels; count both from 0"),
        ("-1,0,1", "row -1, col 0 is outside"),
        ("1,corn,2", "'1,corn,2' is not row,col,label"),
        ("1,2", "'1,2' is not row,col,label"),
        ("0,1,5", "label 5 for row 0, col 1"),
    ],
)
def test_a_label_table_names_the_line_that_is_wrong(tmp_path, line, problem):
    cube, _ = write_npy(tmp_path, CUBE, LABELS)
    (tmp_path / "labels.csv").write_text(f"row,col,label\n0,1,4\n{line}\n")
    with pytest.raises(SceneError) as caught:
        load((cube, tmp_path / "labels.csv"))
    assert str(caught.value).startswith(f"{tmp_path / 'labels.csv'}:3: {problem}")


# ------------------------------------------------------------------------- what a format says


@pytest.mark.parametrize(
    ("unit", "factor"), [("Nanometers", 1), ("nm", 1), ("Micrometers", 1000), ("um", 1000), ("Unknown", 1000)]
)
def test_envi_wavelengths_become_nanometres(tmp_path, unit, factor):
    facts = {"wavelength": (WAVELENGTHS_NM / factor).tolist(), "wavelength units": unit}
    scene = load(write_envi(tmp_path, CUBE, LABELS, **facts))
    np.testing.assert_allclose(scene.wavelengths_nm, WAVELENGTHS_NM)
    assert scene.natural_colour == (2, 1, 0)


def test_bad_bands_are_dropped_by_name(tmp_path):
    facts = {"wavelength": WAVELENGTHS_NM.tolist(), "bbl": [1, 1, 1, 0, 1]}
    scene = load(write_envi(tmp_path, CUBE, LABELS, **facts))
    np.testing.assert_array_equal(scene.cube, CUBE[..., [0, 1, 2, 4]])
    assert scene.wavelengths_nm.tolist() == [460, 550, 640, 2200]
    assert scene.dropped_bands == {4: "marked bad in the file"}
    assert scene.notes == ("bands 4 (1400 nm) of cube.img are excluded: marked bad in the file",)


def test_a_reflectance_scale_factor_divides(tmp_path):
    scene = load(write_envi(tmp_path, CUBE, LABELS, **{"reflectance scale factor": 10000}))
    np.testing.assert_allclose(scene.cube, CUBE / 10000, rtol=1e-6)
    assert scene.cube.dtype == np.float32


@pytest.mark.parametrize("with_offset", [False, True])
def test_gain_and_offset_of_each_band_are_applied_as_gdal_does(tmp_path, with_offset):
    cube, labels = np.arange(24, dtype=np.int16).reshape(3, 4, 2), np.ones((3, 4), np.uint8)
    gain, offset = [0.5, 0.25], [1.0, -2.0] if with_offset else [0.0, 0.0]
    metadata = {"data gain values": gain, **({"data offset values": offset} if with_offset else {})}
    paths = write_envi(tmp_path, cube, labels, **metadata)
    np.testing.assert_allclose(load(paths).cube, cube * np.array(gain) + np.array(offset))
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        image = rasterio.open(paths[0].with_suffix(".img"))
    with image:
        assert (list(image.scales), list(image.offsets)) == (gain, offset)


def test_gains_that_are_not_one_a_band_are_left_alone_and_named(tmp_path):
    cube, labels = np.arange(24, dtype=np.int16).reshape(3, 4, 2), np.ones((3, 4), np.uint8)
    scene = load(write_envi(tmp_path, cube, labels, **{"data gain values": [0.5, 0.5, 0.5]}))
    assert np.array_equal(scene.cube, cube)
    assert "gain or offset values are not one per band" in scene.notes[0]


@pytest.mark.parametrize(
    ("unit", "values", "expected"),
    [
        ("Angstroms", [4000, 5000], [400, 500]), ("Millimeters", [0.0004, 0.0005], [400, 500]),
        ("Meters", [4e-7, 5e-7], [400, 500]), ("Unknown", [0.4, 0.5], [400, 500]),
        (None, [400, 500], [400, 500]), ("Micrometers", [0.4, 0.5], [400, 500]),
        ("Wavenumber", [1000, 2000], None), ("Index", [101, 102], None),
    ],
)  # fmt: skip
def test_wavelengths_are_lengths_or_are_not_used(unit, values, expected):
    found, notes = to_nanometres(values, unit=unit, bands=2)
    if expected is None:
        assert found is None
        assert notes == (f"unknown wavelength unit {unit.lower()!r} in the file; wavelengths ignored",)
    else:
        np.testing.assert_allclose(found, expected)


def test_the_configs_scale_wins_over_the_files(tmp_path):
    paths = write_envi(tmp_path, CUBE, LABELS, **{"reflectance scale factor": 10000})
    np.testing.assert_array_equal(load(paths, scale=1).cube, CUBE)


@pytest.mark.parametrize("order", [0, 1])
def test_envi_data_in_either_byte_order_reads_the_same(tmp_path, order):
    paths = write_envi(tmp_path, CUBE, LABELS)
    stored = np.moveaxis(CUBE, 2, 0).astype("<i2" if order == 0 else ">i2")
    (tmp_path / "cube.img").write_bytes(stored.tobytes())
    header = (tmp_path / "cube.hdr").read_text().replace("byte order = 0", f"byte order = {order}")
    (tmp_path / "cube.hdr").write_text(header)
    np.testing.assert_array_equal(load(paths).cube, CUBE)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
def test_a_missing_byte_order_is_a_question(tmp_path, dtype):
    paths = write_envi(tmp_path, CUBE.astype(dtype), LABELS)
    for name in ("cube.hdr", "labels.hdr"):
        text = (tmp_path / name).read_text().replace("byte order = 0\n", "")
        (tmp_path / name).write_text(text)
    with pytest.raises(SceneError, match=r"cube\.hdr: the header does not state the byte order; set scene\.byte"):
        load(paths)
    np.testing.assert_array_equal(load(paths, byte_order=sys.byteorder).cube, CUBE.astype(dtype))
    if dtype == np.int16:
        assert (load(paths, byte_order="big").cube != CUBE).any()


def test_an_envi_header_in_latin_1_is_read(tmp_path):
    paths = write_envi(tmp_path, CUBE, LABELS, wavelength=(WAVELENGTHS_NM / 1000).tolist())
    text = (tmp_path / "cube.hdr").read_text() + "wavelength units = µm\n"
    (tmp_path / "cube.hdr").write_bytes(text.encode("latin-1"))
    np.testing.assert_allclose(load(paths).wavelengths_nm, WAVELENGTHS_NM)


@pytest.mark.parametrize("given", ["cube.hdr", "cube.img"])
@pytest.mark.parametrize("header", ["cube.hdr", "cube.img.hdr", "CUBE.HDR"])
def test_either_half_of_an_envi_image_finds_the_other(tmp_path, given, header):
    _, labels = write_envi(tmp_path, CUBE, LABELS)
    (tmp_path / "cube.hdr").rename(tmp_path / header)
    path = tmp_path / (header if given == "cube.hdr" else given)
    np.testing.assert_array_equal(load((path, labels)).cube, CUBE)


@pytest.mark.parametrize("rotation", [None, 0, 30, -125])
def test_envi_map_info_means_what_gdal_takes_it_for(tmp_path, rotation):
    info = ["UTM", 3, 2, 353128.75, 3813729.5, 15, 12, 11, "North", "WGS-84", "units=Meters"]
    info += [] if rotation is None else [f"rotation={rotation}"]
    cube, labels = write_envi(tmp_path, CUBE, LABELS, **{"map info": info})
    place = load((cube, labels)).georeference
    with rasterio.open(tmp_path / "cube.img", driver="ENVI") as image:
        np.testing.assert_allclose(place.transform, tuple(image.transform)[:6], atol=1e-6)
        assert CRS.from_string(place.crs) == image.crs == CRS.from_epsg(32611)


def test_an_envi_classification_brings_its_names_and_colours(tmp_path):
    names = ["Unclassified", "corn", "woods", "water"]
    colours = [0, 0, 0, 255, 200, 0, 0, 128, 0, 0, 0, 255]
    labels = np.resize([0, 1, 2, 3], (ROWS, COLS)).astype(np.uint8)
    cube, _ = write_envi(tmp_path, CUBE, labels)
    spectral.io.envi.save_classification(
        str(tmp_path / "classes.hdr"), labels, class_names=names, class_colors=np.reshape(colours, (4, 3)).tolist()
    )
    scene = load((cube, tmp_path / "classes.hdr"))
    assert scene.class_names == {1: "corn", 2: "woods", 3: "water"}
    assert scene.palette == {1: (255, 200, 0), 2: (0, 128, 0), 3: (0, 0, 255)}


def test_a_geotiff_brings_wavelengths_bad_bands_and_its_place(tmp_path):
    tags = [
        {"wavelength": str(nm), "wavelength_units": "Nanometers", "bbl": str(int(nm != 1400))} for nm in WAVELENGTHS_NM
    ]
    scene = load(write_geotiff(tmp_path, CUBE, LABELS, band_tags=tags))
    np.testing.assert_array_equal(scene.cube, CUBE[..., [0, 1, 2, 4]])
    assert scene.wavelengths_nm.tolist() == [460, 550, 640, 2200]
    assert scene.georeference.transform == (30, 0, 365055, 0, -30, 5806125)
    assert CRS.from_wkt(scene.georeference.crs) == CRS.from_epsg(32633)
    assert scene.georeference.pixel_area_m2 == 900


@pytest.mark.parametrize(
    ("crs", "area"),
    [
        ("EPSG:32633", 200),
        ("EPSG:3035", 200),
        ("EPSG:2227", 200 * 0.3048006096**2),  # in US survey feet
        ("EPSG:4326", None),
        ("somewhere", None),
        (None, None),
    ],
)
def test_a_pixel_has_an_area_where_its_system_has_a_length(crs, area):
    turned = Georeference(crs, (8.0, 12.0, 0.0, 6.0, -16.0, 0.0))  # 10 × 20 units, turned by 37 degrees
    assert turned.pixel_area_m2 == (None if area is None else pytest.approx(area))
    assert Georeference(crs, None).pixel_area_m2 is None


@pytest.mark.parametrize(("crs", "area"), [("EPSG:32733", 900), ("EPSG:3035", None)])
def test_without_rasterio_utm_alone_has_a_length(crs, area, monkeypatch):
    monkeypatch.setitem(sys.modules, "rasterio.crs", None)
    assert Georeference(crs, (30, 0, 0, 0, -30, 0)).pixel_area_m2 == area


@needs_real_scenes
def test_the_real_enmap_tile_loses_its_empty_bands():
    image = open_scene_image(SceneFiles(cube="enmap_potsdam_tile.tif", labels="none"), REAL_SCENES)
    assert sorted(image.dropped) == [129, 130, 131, 132, 133, 134]
    cube, nodata = image.read()
    with rasterio.open(REAL_SCENES / "formats" / "enmap_potsdam_tile.tif") as file:
        kept = np.delete(np.moveaxis(file.read(), 0, 2), range(129, 135), axis=2)
    np.testing.assert_allclose(cube, kept * 1e-4, rtol=1e-6)
    assert not nodata.any()
    assert image.wavelengths_nm[0] == 418.24
    assert len(image.wavelengths_nm) == 218


@needs_real_scenes
@pytest.mark.parametrize(
    ("name", "shape", "first_nm", "last_nm"),
    [
        ("isofit_ang20160910t185702_2rdn_img", (25, 30, 425), 376.44, 2500.12),
        ("gamsberg_subset.hdr", (25, 10, 189), 426.820007, 2324.909912),
    ],
)
def test_the_real_envi_images_know_their_wavelengths(name, shape, first_nm, last_nm):
    image = open_scene_image(SceneFiles(cube=name, labels="none"), REAL_SCENES)
    assert image.shape == shape
    assert (image.wavelengths_nm[0], image.wavelengths_nm[-1]) == (first_nm, last_nm)
    assert pick_natural_colour(image.wavelengths_nm) is not None


# ------------------------------------------------------------------------- the user's own words


def test_bands_wavelengths_and_colours_of_the_config_are_used(tmp_path):
    (tmp_path / "nm.txt").write_text("0.46, 0.55, 0.64\n1.4 2.2\n")
    paths = write_npy(tmp_path, CUBE, LABELS)
    colours = [(1, 2, 3), (4, 5, 6), (7, 8, 9)]
    scene = load(paths, drop_bands=["4-5"], wavelengths=str(tmp_path / "nm.txt"), palette=colours)
    np.testing.assert_array_equal(scene.cube, CUBE[..., :3])
    np.testing.assert_allclose(scene.wavelengths_nm, WAVELENGTHS_NM[:3])
    assert scene.palette == dict(zip((1, 10, 11), colours, strict=True))
    assert scene.dropped_bands == {4: "dropped by the config", 5: "dropped by the config"}


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"drop_bands": ["6"]}, r"scene\.drop_bands = 6: the file has bands 1 to 5"),
        ({"drop_bands": ["1-5"]}, r"all 5 bands are bad or dropped; keep at least one"),
        ({"wavelengths": [400.0, 500.0]}, r"scene\.wavelengths: 2 values for the 5 bands"),
        ({"palette": [(0, 0, 0)]}, r"scene\.palette: 1 colours for 3 labels \(1, 10, 11\); give one colour"),
    ],
)
def test_words_that_do_not_fit_the_file_are_refused(tmp_path, settings, problem):
    with pytest.raises(SceneError, match=problem):
        load(write_npy(tmp_path, CUBE, LABELS), **settings)


def test_another_value_may_stand_for_unlabelled(tmp_path):
    stored = np.where(LABELS == 0, 255, LABELS).astype(np.uint8)
    scene = load(write_npy(tmp_path, CUBE, stored), unlabelled=255)
    np.testing.assert_array_equal(scene.labels, LABELS)
    assert scene.notes == ()


def test_another_value_may_stand_for_unlabelled_in_a_table_too(tmp_path):
    cube = np.arange(2 * 3 * 2, dtype=np.float32).reshape(2, 3, 2)
    np.save(tmp_path / "cube.npy", cube)
    rows = ["row,col,label", "0,0,255", "0,1,0", "0,2,1", "1,0,2", "1,0,2"]
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    paths = tmp_path / "cube.npy", tmp_path / "labels.csv"
    scene = load(paths, unlabelled=255)
    assert scene.labels.tolist() == [[0, 1, 2], [3, 0, 0]]
    assert "0 is a class in this file" in scene.notes[0]
    (tmp_path / "labels.csv").write_text("\n".join([*rows, "0,1,1"]))
    with pytest.raises(SceneError, match=r"labels\.csv:7: label 1 for row 0, col 1"):
        load(paths, unlabelled=255)


def test_where_zero_is_a_class_every_label_is_raised_by_one_and_said(tmp_path):
    stored = np.resize([255, 0, 1, 2], (ROWS, COLS)).astype(np.uint8)
    scene = load(write_npy(tmp_path, CUBE, stored), unlabelled=255, class_names=["a", "b", "c"])
    np.testing.assert_array_equal(scene.labels, np.where(stored == 255, 0, stored + 1))
    assert scene.class_names == {1: "a", 2: "b", 3: "c"}
    assert scene.notes == ("labels.npy: 0 is a class in this file, so every label was raised by one",)


def test_a_negative_value_may_stand_for_unlabelled(tmp_path):
    stored = np.where(LABELS == 0, -1, LABELS.astype(np.int16))
    np.testing.assert_array_equal(load(write_npy(tmp_path, CUBE, stored), unlabelled=-1).labels, LABELS)


# --------------------------------------------------------------------------- what is not trusted


class Trap:
    """Unpickling it would leave a trace."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_pickled_objects_are_refused_and_never_run(tmp_path, kind):
    array = np.array([[[Trap(tmp_path / "sprung")]]], dtype=object)
    path = tmp_path / f"cube.{kind}"
    np.save(path, array) if kind == "npy" else np.savez(path, cube=array)
    with pytest.raises(SceneError, match="contains Python objects; save plain numbers instead"):
        open_file(path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_a_numpy_header_that_lies_about_the_size_is_refused_before_memory_is_taken(tmp_path, kind):
    write_npy(tmp_path, CUBE, LABELS)
    content = (tmp_path / "cube.npy").read_bytes()
    lie = b"{'descr': '<i2', 'fortran_order': False, 'shape': (70000, 60000, 500), }"
    content = content[:8] + struct.pack("<H", 118) + lie.ljust(117) + b"\n" + content[128:]
    path = tmp_path / f"lie.{kind}"
    if kind == "npy":
        path.write_bytes(content)
    else:
        import zipfile

        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("cube.npy", content)
    with pytest.raises(SceneError, match=r"declares an array of 70000×60000×500 \(4,200,000,000,000 bytes\)"):
        open_file(path)


def test_an_envi_header_that_lies_about_the_size_is_refused(tmp_path):
    cube, _ = write_envi(tmp_path, CUBE, LABELS)
    cube.write_text(cube.read_text().replace("lines = 7", "lines = 70000000"))
    with pytest.raises(SceneError, match=r"cube\.img: declares an array of 70000000×6×5"):
        open_file(cube)


def test_links_out_of_an_hdf5_file_are_not_followed(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["cube"] = CUBE
    with h5py.File(tmp_path / "scene.h5", "w") as file:
        file["cube"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "cube")
        file["soft"] = h5py.SoftLink("/cube")
    assert open_file(tmp_path / "scene.h5").rasters == {}


@pytest.mark.parametrize(("module", "writer"), [("h5py", write_matlab_73), ("rasterio", write_geotiff)])
def test_a_missing_library_is_one_line_with_the_remedy(tmp_path, monkeypatch, module, writer):
    cube, _ = writer(tmp_path, CUBE, LABELS)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SceneError, match=rf"reading this file needs {module}; .*pip install '\.\[geo\]'"):
        open_file(cube)
