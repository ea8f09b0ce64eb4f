"""Mission products as they are delivered: cube, wavelengths, FWHM, bad bands, nodata, scale and place."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from rasterio.crs import CRS

from hsi_se.config.scene import SceneFiles
from hsi_se.errors import SceneError
from hsi_se.scene.formats import open_file
from hsi_se.scene.georeference import Georeference
from hsi_se.scene.loading import load_scene, open_scene_image
from hsi_se.scene.raster import chunk_rows
from tests.scene.products import (
    BAD,
    BANDS,
    COLS,
    CUBE,
    FWHM,
    HOLE,
    NM,
    NORTH_UP,
    ROWS,
    write_aviris,
    write_aviris_envi,
    write_dlr,
    write_emit,
    write_neon,
    write_prisma,
    write_tanager,
    write_tiff,
)

MARKED, OUTSIDE = "marked bad in the file", "not among the usable bands in "
PRODUCTS = {  # writer, why the band at 1400 nm is bad, whether pixels lack data, the transform
    "PRISMA L2D": (write_prisma, MARKED, True, NORTH_UP),
    "PRISMA L2D, one corner": (lambda folder: write_prisma(folder, corners=False), MARKED, True, NORTH_UP),
    "EMIT L2A": (write_emit, MARKED, True, None),
    "Tanager basic": (write_tanager, MARKED, True, None),
    "Tanager ortho": (lambda folder: write_tanager(folder, kind="GRIDS"), MARKED, True, NORTH_UP),
    "NEON AOP": (write_neon, "in a window that the file marks as bad", True, NORTH_UP),
    "AVIRIS netCDF": (write_aviris, None, True, NORTH_UP),
    "AVIRIS netCDF, coordinates": (lambda folder: write_aviris(folder, with_transform=False), None, True, NORTH_UP),
    "AVIRIS ENVI": (write_aviris_envi, None, True, NORTH_UP),
    "EnMAP L2A": (lambda folder: write_dlr(folder, "EnMAP"), OUTSIDE, True, NORTH_UP),
    "DESIS L2A": (lambda folder: write_dlr(folder, "DESIS"), None, True, NORTH_UP),
}


def open_image(path: Path, **settings):
    return open_scene_image(SceneFiles(cube=str(path), labels="none", **settings))


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_is_read_with_all_that_it_says(tmp_path, name):
    write, reason, has_hole, transform = PRODUCTS[name]
    image = open_image(write(tmp_path))
    kept = [band for band in range(BANDS) if reason is None or band != BAD]
    cube, empty = image.read()
    hole = np.zeros((ROWS, COLS), dtype=bool)
    if has_hole:
        hole[HOLE] = True
        np.testing.assert_array_equal(empty, hole)
    np.testing.assert_allclose(cube[~hole], CUBE[~hole][:, kept], atol=1e-5)
    np.testing.assert_allclose(image.wavelengths_nm, NM[kept], rtol=1e-6)
    np.testing.assert_allclose(image.fwhm_nm, FWHM[kept], rtol=1e-6)
    dropped = {why for why in image.dropped.values() if "wavelength 0" not in why}
    assert all(why.startswith(str(reason)) for why in dropped)
    assert len(image.dropped) == (3 if name.startswith("PRISMA") else BANDS - len(kept))
    place = image.raster.georeference
    assert (place and place.transform) == (transform and pytest.approx(transform))
    if transform is not None:
        assert CRS.from_user_input(place.crs) == CRS.from_epsg(32633)


@pytest.mark.parametrize(("kind", "ending"), [("EnMAP", "XML"), ("DESIS", "xml")])
def test_a_product_may_be_named_by_its_metadata_or_its_folder(tmp_path, kind, ending):
    image = write_dlr(tmp_path, kind)
    metadata = image.with_name(image.name.replace("SPECTRAL_IMAGE", "METADATA")).with_suffix(f".{ending}")
    whole = open_image(image)
    for path in (metadata, tmp_path):
        found = open_image(path)
        assert found.raster.path == image
        np.testing.assert_array_equal(found.read()[0], whole.read()[0])
        np.testing.assert_array_equal(found.wavelengths_nm, whole.wavelengths_nm)


@pytest.mark.parametrize("write", [write_prisma, write_emit, write_aviris_envi])
def test_the_only_cube_in_a_folder_is_found(tmp_path, write):
    path = write(tmp_path)
    np.save(tmp_path / "labels.npy", np.ones((ROWS, COLS), np.uint8))
    (tmp_path / "README.txt").write_text("a product")
    image = open_image(tmp_path)
    assert image.raster.path == path
    assert image.shape[:2] == (ROWS, COLS)


def test_of_several_cubes_in_a_folder_one_has_to_be_named_unless_one_is_the_product(tmp_path):
    np.save(tmp_path / "b.npy", CUBE)
    np.save(tmp_path / "a.npy", CUBE)
    with pytest.raises(SceneError, match=r"contains 2 cubes \(a\.npy, b\.npy\); name one"):
        open_image(tmp_path)
    path = write_emit(tmp_path)
    assert open_image(tmp_path).raster.path == path


def test_a_folder_without_a_cube_is_refused(tmp_path):
    np.save(tmp_path / "labels.npy", np.ones((ROWS, COLS), np.uint8))
    with pytest.raises(SceneError, match="contains no cube and no TIFF files with a band each"):
        open_image(tmp_path)


def test_metadata_of_another_number_of_bands_is_not_used_and_said(tmp_path):
    path = write_dlr(tmp_path, "DESIS")
    metadata = next(tmp_path.glob("*.xml"))
    metadata.write_text(metadata.read_text().replace("<band number", "<band/><band number", 1))
    image = open_image(path)
    assert image.wavelengths_nm is None
    assert f"{metadata.name} describes 9 bands, but {path.name} has 8; it is not used" in image.raster.notes


@pytest.mark.parametrize("content", ["<level_X>", "<!DOCTYPE a [<!ENTITY b 'c'>]><a>&d;</a>"])
def test_damaged_metadata_are_one_line(tmp_path, content):
    path = write_dlr(tmp_path, "EnMAP")
    next(tmp_path.glob("*.XML")).write_text(content)
    with pytest.raises(SceneError, match=r"METADATA\.XML: not readable metadata .*; get the file again, or move it"):
        open_image(path)


def test_xml_of_no_product_is_called_so(tmp_path):
    (tmp_path / "a.xml").write_text("<a/>")
    with pytest.raises(SceneError, match="is XML, but not the metadata of an EnMAP or DESIS product or a GDAL VRT"):
        open_image(tmp_path / "a.xml")


@pytest.mark.parametrize("zone", [33, -33])
def test_the_zone_of_a_grid_in_the_south_is_negative(tmp_path, zone):
    place = open_image(write_tanager(tmp_path, kind="GRIDS", zone=zone)).raster.georeference
    assert place.crs == ("EPSG:32633" if zone > 0 else "EPSG:32733")


def test_a_detector_of_a_product_is_read_by_its_key(tmp_path):
    key = "HDFEOS/SWATHS/PRS_L2D_HCO/Data Fields/VNIR_Cube"
    image = open_image(write_prisma(tmp_path), cube_key=key)
    np.testing.assert_allclose(image.wavelengths_nm, NM[[3, 2, 1, 0]])
    cube, empty = image.read()
    np.testing.assert_allclose(cube[~empty], CUBE[~empty][:, [3, 2, 1, 0]], atol=1e-5)
    assert empty.sum() == empty[HOLE].size


# ------------------------------------------------------------------------------ the place on the ground


def test_the_lookup_table_puts_a_layer_of_the_swath_on_the_ground(tmp_path, monkeypatch):
    monkeypatch.setattr("hsi_se.scene.ground._CELLS_PER_BLOCK", 3 * ROWS)
    ground = open_image(write_emit(tmp_path)).raster.ground
    assert ground.shape == (COLS + 1, ROWS)
    assert ground.georeference.transform == pytest.approx((5e-4, 0, -117.1, 0, -5e-4, 35.1))
    layer = np.arange(1, ROWS * COLS + 1).reshape(ROWS, COLS)
    blocks = list(ground.put_on_ground(layer, fill=0))
    assert [first for first, _ in blocks] == [0, 3, 6]
    found = np.concatenate([block for _, block in blocks])
    np.testing.assert_array_equal(found, np.vstack([np.zeros((1, ROWS)), np.rot90(layer)]))
    np.testing.assert_array_equal(ground.take_from_ground(found, shape=(ROWS, COLS), fill=0), layer)


def test_inspect_says_that_a_swath_has_a_lookup_table(tmp_path, call, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = call("scene", "inspect", write_emit(tmp_path))
    assert code == 0
    assert f"place:        by a lookup table of {COLS + 1} × {ROWS} cells\nCRS:          EPSG:4326\n" in out
    assert "wavelengths:  450.0 to 2200.0 nm, FWHM 6.0 to 13.0 nm\n" in out


def test_a_layer_of_several_bands_is_put_on_the_ground_too(tmp_path):
    ground = open_image(write_emit(tmp_path)).raster.ground
    ((_, found),) = ground.put_on_ground(CUBE, fill=-1)
    np.testing.assert_array_equal(found[1:], np.rot90(CUBE))
    assert (found[0] == -1).all()


def test_a_lookup_table_that_names_pixels_outside_is_refused(tmp_path):
    path = write_emit(tmp_path)
    with h5py.File(path, "r+") as file:
        file["location/glt_x"][3, 3] = COLS + 1
    ground = open_image(path).raster.ground
    with pytest.raises(SceneError, match="its lookup table names pixels outside the image"):
        list(ground.put_on_ground(np.zeros((ROWS, COLS)), fill=0))


# ------------------------------------------------------------------------------ any other HDF5 or netCDF


def write_netcdf(path: Path, order: str, **attributes: object) -> Path:
    names = {"rows": ("y", ROWS), "cols": ("x", COLS), "bands": ("wavelength", BANDS)}
    stored = (
        np.rint(CUBE * 1000).astype(np.int16).transpose([("rows", "cols", "bands").index(n) for n in order.split("-")])
    )
    with h5py.File(path, "w") as file:
        file["wavelength"] = NM / 1000
        file["wavelength"].attrs["units"] = "um"
        file["y"], file["x"] = 4599985.0 - 30 * np.arange(ROWS), 500015.0 + 30 * np.arange(COLS)
        cube = file.create_dataset("flight/rho", data=stored)
        cube.attrs.update({"scale_factor": 0.001, "add_offset": 0.5, "grid_mapping": "crs", **attributes})
        for axis, name in enumerate(order.split("-")):
            file[names[name][0]].make_scale(names[name][0])
            cube.dims[axis].attach_scale(file[names[name][0]])
        file["crs"] = 0
        file["crs"].attrs["crs_wkt"] = CRS.from_epsg(32633).to_wkt()
        file["flight/uncertainty"] = np.zeros_like(stored)
    return path


@pytest.mark.parametrize("order", ["bands-rows-cols", "rows-cols-bands", "rows-bands-cols", "bands-cols-rows"])
def test_a_netcdf_cube_is_read_by_its_key_and_the_conventions(tmp_path, order):
    path = write_netcdf(tmp_path / "a.nc", order, missing_value=np.int16(CUBE[2, 3, 4] * 1000))
    with pytest.raises(SceneError, match=r"2 3-D arrays \(flight/rho, flight/uncertainty\); choose one with"):
        open_image(path)
    image = open_image(path, cube_key="flight/rho")
    cube, empty = image.read()
    np.testing.assert_allclose(cube[~empty], (CUBE.round(3) + 0.5)[~empty], atol=1e-6)
    np.testing.assert_allclose(image.wavelengths_nm, NM)
    assert image.raster.georeference.transform == pytest.approx(NORTH_UP)
    assert CRS.from_wkt(image.raster.georeference.crs) == CRS.from_epsg(32633)


def test_the_coordinate_of_the_bands_gives_wavelengths_whatever_its_name(tmp_path):
    path = tmp_path / "a.nc"
    with h5py.File(path, "w") as file:
        file["rho"], file["z"], file["lat"], file["lon"] = CUBE, NM, 5.0 - np.arange(ROWS), 10.0 + np.arange(COLS)
        file["z"].attrs["units"] = "nm"
        for axis, name in enumerate(("lat", "lon", "z")):
            file[name].make_scale(name)
            file["rho"].dims[axis].attach_scale(file[name])
    image = open_image(path, cube_key="/rho")
    np.testing.assert_array_equal(image.wavelengths_nm, NM)
    assert image.raster.georeference == Georeference("EPSG:4326", (1, 0, 9.5, 0, -1, 5.5))


def test_dimensions_without_coordinates_give_no_place(tmp_path):
    with h5py.File(tmp_path / "a.nc", "w") as file:
        file["rho"] = CUBE
        for axis, (name, length) in enumerate((("y", ROWS), ("x", COLS), ("bands", BANDS))):
            file[name] = np.zeros(length, np.float32)  # as netCDF stores them
            file[name].make_scale("This is a netCDF dimension but not a netCDF variable.")
            file["rho"].dims[axis].attach_scale(file[name])
    assert open_image(tmp_path / "a.nc").raster.georeference is None


def test_a_scale_of_another_number_of_bands_is_said(tmp_path):
    image = open_image(
        write_netcdf(tmp_path / "a.nc", "bands-rows-cols", scale_factor=[1.0, 2.0]), cube_key="flight/rho"
    )
    assert image.gain is None
    assert image.raster.notes == ("the file's scale is not one per band; ignored",)


def test_arrays_in_groups_do_not_hide_those_at_the_top(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["cube"], file["more/other"] = CUBE, CUBE + 1
    np.testing.assert_array_equal(open_image(tmp_path / "a.h5").read()[0], CUBE)
    np.testing.assert_array_equal(open_image(tmp_path / "a.h5", cube_key="more/other").read()[0], CUBE + 1)


LAYOUTS = [None, (7, 6, 8), (3, 2, 8), (7, 6, 1), (1, 6, 8), (2, 6, 3), (7, 1, 8)]


@pytest.mark.parametrize("limit", [2**29, 0])
@pytest.mark.parametrize("axes", ["rows-cols-bands", "rows-bands-cols", "bands-first", "cols-rows-bands"])
@pytest.mark.parametrize("chunks", LAYOUTS)
def test_blocks_of_rows_are_the_same_in_every_layout(tmp_path, monkeypatch, chunks, axes, limit):
    monkeypatch.setattr("hsi_se.scene.formats.hdf5._MOST_CACHED", limit)
    monkeypatch.setattr("hsi_se.scene.raster.ROWS_PER_CHUNK", 2)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("cube", data=CUBE, chunks=chunks)
    image = open_image(tmp_path / "a.h5", axes=axes)
    names = axes.replace("bands-first", "bands-rows-cols").split("-")
    expected = CUBE.transpose([names.index(name) for name in ("rows", "cols", "bands")])
    for part in chunk_rows(len(expected)):
        np.testing.assert_array_equal(image.read_rows(part.start, part.stop)[0], expected[part])
    np.testing.assert_array_equal(image.read()[0], expected)


@pytest.mark.parametrize(("chunk_rows", "num_reads"), [(64, 1), (25, 3), (7, 10)])
def test_a_chunk_that_spans_rows_is_decoded_once_in_a_pass(tmp_path, monkeypatch, chunk_rows, num_reads):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("cube", data=np.zeros((64, 4, 5)), chunks=(chunk_rows, 4, 5), compression="gzip")
    image = open_image(tmp_path / "a.h5")
    opened, real = [], h5py.File
    monkeypatch.setattr(h5py, "File", lambda *args: opened.append(args) or real(*args))
    for first in range(0, 64, 8):
        image.read_rows(first, first + 8)
    assert len(opened) == num_reads


# ------------------------------------------------------------------------------ several files


def test_a_vrt_stacks_files(tmp_path):
    stored = np.rint(CUBE * 10_000).astype(np.int16)
    bands = ""
    for band in range(BANDS):
        write_tiff(tmp_path / f"{band}.tif", stored[..., [band]])
        bands += (
            f'<VRTRasterBand dataType="Int16" band="{band + 1}"><Metadata><MDI key="wavelength">{NM[band]}</MDI>'
            f'</Metadata><SimpleSource><SourceFilename relativeToVRT="1">{band}.tif</SourceFilename>'
            "<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>"
        )
    (tmp_path / "stack.vrt").write_text(f'<VRTDataset rasterXSize="{COLS}" rasterYSize="{ROWS}">{bands}</VRTDataset>')
    image = open_image(tmp_path / "stack.vrt")
    np.testing.assert_array_equal(image.read()[0], stored)
    np.testing.assert_array_equal(image.wavelengths_nm, NM)
    (tmp_path / "3.tif").unlink()
    with pytest.raises(SceneError):
        open_image(tmp_path / "stack.vrt").read()


@pytest.mark.parametrize(
    ("pattern", "numbers", "has_wavelengths"),
    [
        ("b{}.tif", range(3, 3 + BANDS), False),
        ("20230101_refl_{:g}nm.tif", NM, True),
        ("B{:02}_x.TIF", range(1, 9), False),
    ],
)
def test_tiff_files_of_a_band_each_are_ordered_by_their_numbers(tmp_path, pattern, numbers, has_wavelengths):
    stored = np.rint(CUBE * 10_000).astype(np.int16)
    names = [pattern.format(number) for number in numbers]
    for band, name in enumerate(names):
        write_tiff(tmp_path / name, stored[..., [band]], nodata=-9999)
    np.save(tmp_path / "labels.npy", np.resize([0, 1, 2], (ROWS, COLS)))
    image = open_image(tmp_path)
    np.testing.assert_array_equal(image.read()[0], stored)
    assert (image.wavelengths_nm is not None) == has_wavelengths
    assert image.raster.georeference.transform == NORTH_UP
    assert image.nodata == -9999
    order = f"{tmp_path.name}: bands in the order of their numbers: {names[0]}, {names[1]}, …, {names[-1]}"
    assert order in load_scene(SceneFiles(cube=str(tmp_path), labels=str(tmp_path / "labels.npy"))).notes


@pytest.mark.parametrize(
    ("name", "shape", "profile", "problem"),
    [
        ("b3.tif", (ROWS, COLS + 1, 1), {}, "differs from b1.tif in size, type or georeference"),
        ("b3.tif", (ROWS, COLS, 1), {"crs": "EPSG:32634"}, "differs from b1.tif in size, type or georeference"),
        ("labels.tif", (ROWS, COLS, 1), {}, "do not differ in one number only"),
        ("b02.tif", (ROWS, COLS, 1), {}, "do not differ in one number only"),
    ],
)
def test_tiff_files_that_do_not_belong_together_are_refused(tmp_path, name, shape, profile, problem):
    for number in (1, 2):
        write_tiff(tmp_path / f"b{number}.tif", np.zeros((ROWS, COLS, 1), np.int16))
    write_tiff(tmp_path / name, np.zeros(shape, np.int16), **profile)
    with pytest.raises(SceneError, match=problem):
        open_image(tmp_path)


def test_the_formats_of_products_are_told(tmp_path):
    found = {name: open_file(write(tmp_path)).format for name, (write, *_) in PRODUCTS.items()}
    assert found["PRISMA L2D"] == "PRISMA L2"
    assert found["Tanager ortho"] == "Planet Tanager"
    assert found["EnMAP L2A"].startswith("GeoTIFF with ENMAP01-")
    write_tiff(tmp_path / "alone.tif", np.zeros((ROWS, COLS, 2), np.int16))
    assert open_file(tmp_path / "alone.tif").format == "GeoTIFF", "no XML of its own"
