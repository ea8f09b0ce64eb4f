"""Answers that the files of the public cases get, with files written here, and the headers of cameras."""

import re
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import spectral.io.envi

from tests.conftest import needs_cases

pytestmark = pytest.mark.usefixtures("plain_files")


def test_another_order_of_axes_is_named_in_the_message_and_read(refuse, accept):
    np.save("moved.npy", np.load("cube.npy").transpose(2, 0, 1))
    message = refuse("scene", "inspect", "moved.npy", "labels.npy")
    assert "another order of the axes fits: set scene.axes: " in message
    (right,) = re.findall(r"set scene\.axes: ([a-z-]+)", message)
    assert right == "bands-rows-cols"
    accept("scene", "inspect", "moved.npy", "labels.npy", "--set", f"scene.axes={right}")


def test_minus_one_in_a_raster_is_answered_with_the_setting(refuse, accept):
    labels = np.load("labels.npy").astype(np.int16)
    labels[labels == 0] = -1
    np.save("minus.npy", labels)
    message = refuse("scene", "inspect", "cube.npy", "minus.npy")
    assert message.endswith("if it marks unlabelled pixels, write scene.unlabelled: -1")
    accept("scene", "inspect", "cube.npy", "minus.npy", "--set", "scene.unlabelled=-1")


def test_a_cube_of_bands_by_pixels_is_answered_with_the_setting(refuse, accept):
    cube = np.load("cube.npy")
    rows, cols, bands = cube.shape
    scipy.io.savemat("flat.mat", {"Y": cube.transpose(2, 1, 0).reshape(bands, -1), "nRow": rows, "nCol": cols})
    message = refuse("scene", "inspect", "flat.mat", "labels.npy")
    assert message.endswith("for a cube of bands × pixels, set scene.shape: [ROWS, COLS]")
    accept("scene", "inspect", "flat.mat", "labels.npy", "--set", f"scene.shape=[{rows}, {cols}]")


def test_a_spectral_library_is_called_one(refuse):
    spectra = spectral.io.envi.SpectralLibrary(np.random.default_rng(0).random((3, 20)), {"spectra names": list("abc")})
    spectra.save("minerals")
    assert Path("minerals.sli").is_file()
    for name in ("minerals.hdr", "minerals.sli"):
        message = refuse("scene", "inspect", name)
        assert message == "minerals.hdr: is a spectral library, without pixels; give an image and its labels"


@needs_cases
@pytest.mark.parametrize("name", ["few", "headwall", "specim"])
def test_the_headers_of_cameras_are_read(case, accept, name):
    case("11")
    accept("scene", "inspect", f"{name}.hdr", "labels.npy")


@needs_cases
def test_a_header_with_a_mistyped_interleave_is_answered_with_the_choices(case, refuse):
    case("11")
    assert refuse("scene", "inspect", "bup.hdr") == "bup.hdr: interleave = bup: choose from bsq, bil, bip"
