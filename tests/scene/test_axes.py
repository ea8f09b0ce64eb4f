"""The order of axes, cubes of bands × pixels, and fields of MATLAB structs, each by the setting that names it."""

import itertools
import struct
import zlib

import h5py
import numpy as np
import pytest
import scipy.io

from hsi_se.config.scene import SceneFiles
from hsi_se.errors import SceneError
from hsi_se.scene.loading import load_scene, open_scene_image

ROWS, COLS, BANDS = 5, 4, 6
CUBE = np.random.default_rng(0).integers(1, 9000, (ROWS, COLS, BANDS)).astype(np.int16)
LABELS = np.resize([0, 1, 2], (ROWS, COLS)).astype(np.uint8)
NAMES = ("rows", "cols", "bands")
ORDERS = ["-".join(order) for order in itertools.permutations(NAMES)]
FLAT = {
    "bands-rows-cols": CUBE.reshape(-1, BANDS).T,
    "bands-cols-rows": CUBE.swapaxes(0, 1).reshape(-1, BANDS).T,
    "rows-cols-bands": CUBE.reshape(-1, BANDS),
    "cols-rows-bands": CUBE.swapaxes(0, 1).reshape(-1, BANDS),
}


def write_npy(folder, array):
    np.save(folder / "cube.npy", array)
    return folder / "cube.npy"


def write_npz(folder, array):
    np.savez_compressed(folder / "cube.npz", cube=array)
    return folder / "cube.npz"


def write_mat(folder, array):
    scipy.io.savemat(folder / "cube.mat", {"cube": array, "nRow": ROWS})
    return folder / "cube.mat"


def write_hdf5(folder, array):
    with h5py.File(folder / "cube.h5", "w") as file:
        file["cube"] = array
    return folder / "cube.h5"


def write_mat_73(folder, array):
    with h5py.File(folder / "new.mat", "w", userblock_size=512) as file:
        file["cube"] = array.T
    return folder / "new.mat"


WRITERS = (write_npy, write_npz, write_mat, write_hdf5, write_mat_73)


def load(folder, path, **settings):
    np.save(folder / "labels.npy", LABELS)
    return load_scene(SceneFiles(cube=str(path), labels=str(folder / "labels.npy"), **settings))


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("order", [*ORDERS, "bands-first"])
def test_any_order_of_the_axes_is_read_by_its_name(tmp_path, write, order):
    names = order.replace("bands-first", "bands-rows-cols").split("-")
    path = write(tmp_path, CUBE.transpose([NAMES.index(name) for name in names]))
    np.testing.assert_array_equal(load(tmp_path, path, axes=order).cube, CUBE)


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("order", FLAT)
def test_pixels_in_any_order_become_an_image_of_the_shape(tmp_path, write, order):
    path = write(tmp_path, FLAT[order])
    scene = load(tmp_path, path, shape=[ROWS, COLS], axes=order)
    np.testing.assert_array_equal(scene.cube, CUBE)
    image = open_scene_image(SceneFiles(cube=str(path), labels="none", shape=[ROWS, COLS], axes=order))
    np.testing.assert_array_equal(image.read_rows(2, 4)[0], CUBE[2:4])


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("is_bands_first", [True, False])
def test_pixels_follow_each_other_as_the_format_unrolls_an_image(tmp_path, write, is_bands_first):
    order = "cols-rows" if write in (write_mat, write_mat_73) else "rows-cols"
    path = write(tmp_path, FLAT[f"bands-{order}" if is_bands_first else f"{order}-bands"])
    np.testing.assert_array_equal(load(tmp_path, path, shape=[ROWS, COLS]).cube, CUBE)


@pytest.mark.parametrize(
    ("array", "settings", "problem"),
    [
        (
            FLAT["bands-rows-cols"],
            {"shape": [5, 5]},
            r"scene\.shape = \[5, 5\]: no array .* has 25 pixels; the file con",
        ),
        (FLAT["bands-rows-cols"], {"shape": [5, 5], "cube_key": "cube"}, "5 × 5 are 25 pixels, but .* is 6×20; give"),
        (FLAT["bands-rows-cols"], {"shape": [5, 4], "axes": "rows-cols-bands"}, "does not fit .*6×20; leave it out"),
        (FLAT["bands-rows-cols"], {"shape": [5, 4], "axes": "rows-bands-cols"}, "does not fit .*6×20; leave it out"),
        (np.ones((20, 20)), {"shape": [5, 4]}, "20×20: set scene.axes to bands-first or rows-cols-bands"),
        (CUBE, {"shape": [5, 4]}, "no array of bands × pixels has 20 pixels; the file contains cube 5×4×6 int16"),
    ],
)
def test_a_shape_that_does_not_fit_is_refused(tmp_path, array, settings, problem):
    with pytest.raises(SceneError, match=problem):
        load(tmp_path, write_npz(tmp_path, array), **settings)


@pytest.mark.parametrize("setting", [{"axes": "bands-first"}, {"shape": [5, 4]}])
def test_a_file_that_states_its_axes_takes_no_other_order(tmp_path, setting):
    (tmp_path / "cube.hdr").write_text(
        f"ENVI\nsamples = {COLS}\nlines = {ROWS}\nbands = 1\ndata type = 2\ninterleave = bsq\nbyte order = 0\n"
    )
    CUBE[..., 0].tofile(tmp_path / "cube.img")
    setting = setting if "shape" not in setting else {"shape": [5, 1]}
    with pytest.raises(SceneError, match=r"has no effect, as .*cube\.img states the order of its axes|no 3-D numeric"):
        load(tmp_path, tmp_path / "cube.hdr", **setting)


def test_wavelengths_go_with_the_bands_of_the_new_order(tmp_path):
    path = write_npy(tmp_path, CUBE.transpose(2, 0, 1))
    nm = [400.0, 500.0, 600.0, 700.0, 800.0, 900.0]
    scene = load(tmp_path, path, axes="bands-first", wavelengths=nm, drop_bands=["550-750 nm"])
    assert scene.wavelengths_nm.tolist() == [400, 500, 800, 900]
    np.testing.assert_array_equal(scene.cube, CUBE[..., [0, 1, 4, 5]])


def test_a_cube_whose_bands_may_be_another_axis_is_a_note(tmp_path):
    cube = np.random.default_rng(0).random((5, 5, 5))
    np.save(tmp_path / "labels.npy", np.resize([0, 1, 2], (5, 5)))
    files = {"cube": str(write_npy(tmp_path, cube)), "labels": str(tmp_path / "labels.npy")}
    note = "cube.npy: another order of the axes fits the labels too; if it is right, set scene.axes"
    assert note in load_scene(SceneFiles(**files)).notes
    assert load_scene(SceneFiles(**files, axes="rows-cols-bands")).notes == ()
    scene = load_scene(SceneFiles(**files, axes="bands-first"))
    np.testing.assert_array_equal(scene.cube, cube.transpose(1, 2, 0))


# ------------------------------------------------------------------------------ bands by wavelength


@pytest.mark.parametrize(
    ("bands", "settings", "problem"),
    [
        (
            "1340-1450 nm",
            {},
            r"scene\.drop_bands = 1340-1450 nm: the wavelengths of .*cube\.npy are unknown; set scene",
        ),
        (
            "950-990 nm",
            {"wavelengths": [400.0, 500, 600, 700, 800, 900]},
            r"no band of .* lies there; its bands are at 400",
        ),
    ],
)
def test_a_range_of_wavelengths_without_a_band_is_refused(tmp_path, bands, settings, problem):
    with pytest.raises(SceneError, match=problem):
        load(tmp_path, write_npy(tmp_path, CUBE), drop_bands=[bands], **settings)


# ------------------------------------------------------------------------------ structs


STRUCTS = {"hsi": {"Data": CUBE, "info": {"wavelength": np.arange(6.0), "name": "x"}, "truth": {"labels": LABELS}}}


@pytest.mark.parametrize("is_packed", [False, True])
@pytest.mark.parametrize("key", ["hsi.Data", None])
def test_fields_of_structs_are_read_by_their_names(tmp_path, is_packed, key):
    scipy.io.savemat(tmp_path / "a.mat", STRUCTS, do_compression=is_packed)
    keys = {"cube_key": key, "labels_key": "hsi.truth.labels"}
    scene = load_scene(SceneFiles(cube=str(tmp_path / "a.mat"), labels=str(tmp_path / "a.mat"), **keys))
    np.testing.assert_array_equal(scene.cube, CUBE)
    np.testing.assert_array_equal(scene.labels, LABELS)


def test_fields_of_structs_are_listed(tmp_path):
    scipy.io.savemat(tmp_path / "a.mat", STRUCTS)
    with pytest.raises(SceneError, match=r"hsi\.Data 5×4×6 int16.*; choose from hsi\.Data$"):
        load(tmp_path, tmp_path / "a.mat", cube_key="hsi.data")


def test_a_field_of_a_struct_of_matlab_73_is_read(tmp_path):
    with h5py.File(tmp_path / "a.mat", "w", userblock_size=512) as file:
        file["hsi/Data"] = CUBE.T
        file["#refs#/a"] = CUBE.T + 1
    for key in ("hsi.Data", None):
        np.testing.assert_array_equal(load(tmp_path, tmp_path / "a.mat", cube_key=key).cube, CUBE)


def write_nested(path, depth, *, is_packed):
    """A struct in a struct, and so on: each is a 1 × 1 struct array with the one field `a`."""

    def element(kind, content):
        return struct.pack("<II", kind, len(content)) + content + b"\0" * (-len(content) % 8)

    def matrix(name, kind, body):
        head = element(6, struct.pack("<II", kind, 0)) + element(5, struct.pack("<ii", 1, 1)) + element(1, name)
        return element(14, head + body)

    value = matrix(b"", 6, element(9, struct.pack("<d", 1.0)))
    for level in range(depth):
        fields = struct.pack("<HHI", 5, 4, 2) + element(1, b"a\0")
        value = matrix(b"deep" if level == depth - 1 else b"", 2, fields + value)
    if is_packed:
        packed = zlib.compress(value)
        value = struct.pack("<II", 15, len(packed)) + packed
    path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + value)


@pytest.mark.parametrize("is_packed", [False, True])
def test_structs_nested_endlessly_are_one_line(tmp_path, is_packed):
    write_nested(tmp_path / "some.mat", 3, is_packed=is_packed)
    with pytest.raises(SceneError, match="no 3-D numeric array"):
        load(tmp_path, tmp_path / "some.mat")
    write_nested(tmp_path / "deep.mat", 2000, is_packed=is_packed)
    with pytest.raises(SceneError, match=r"arrays are cut off, or nested too deeply\); get the file again"):
        load(tmp_path, tmp_path / "deep.mat")
