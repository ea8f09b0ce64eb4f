"""A file with more or fewer bytes than its header says is refused with the header that fits its size."""

import shutil

import numpy as np
import pytest

import hsi_se
from hsi_se.errors import SceneError
from hsi_se.scene.formats import open_file
from tests.conftest import CASES, CPU, needs_cases
from tests.scene.conftest import change_header, read, refuse, write_raw


@needs_cases
def test_the_96_bytes_of_pci_on_each_line_are_refused_and_read_once_declared(call, tmp_path):
    folder = shutil.copytree(CASES / "04-longer-than-header", tmp_path / "pci", copy_function=shutil.copyfile)
    command = ("train", folder / "run.yaml", "--set", "model={name: svm}", "--data", folder)
    command = (*command, "--out", tmp_path / "run")
    for refused in (command, ("scene", "inspect", folder / "flight.pix", folder / "labels.npy")):
        err = refuse(call, *refused)
        assert "contains 158,208 bytes of data, but an array of 48×40×40 has 153,600 bytes" in err
        assert "major frame offsets = {96, 0} or {0, 96} for 96 bytes around each line" in err
    assert not (tmp_path / "run").exists()
    change_header(folder / "flight.hdr", major_frame_offsets="{0, 96}")
    assert call(*command)[0] == 0
    assert hsi_se.evaluate(tmp_path / "run", session=CPU).overall_accuracy > 0.99


@pytest.mark.parametrize("interleave", ["bsq", "bil", "bip"])
def test_bytes_around_each_frame_are_found_by_arithmetic(tmp_path, interleave, whole):
    cube = whole.cube.astype(np.int16)
    path = write_raw(tmp_path, cube, interleave=interleave, frame=(6, 10))
    what = "band" if interleave == "bsq" else "line"
    with pytest.raises(SceneError, match=rf"\{{16, 0\}} or \{{0, 16\}} for 16 bytes around each {what}"):
        open_file(path)
    change_header(path, major_frame_offsets="{6, 10}")
    np.testing.assert_array_equal(read(path), cube)


@pytest.mark.parametrize("interleave", ["bsq", "bil", "bip"])
@pytest.mark.parametrize("wide", ["float32", "int32", "float64"])
def test_a_wider_data_type_than_declared_is_found_by_arithmetic(tmp_path, interleave, wide, whole):
    cube = whole.cube.astype(wide)
    path = write_raw(tmp_path, cube, interleave=interleave, data_type=12)
    code = {"float32": r"4 \(float32\)", "int32": "3 or 13", "float64": r"5 \(float64\)"}[wide]
    with pytest.raises(SceneError, match=rf"write in the header, whichever is true, data type = .*{code}"):
        open_file(path)
    change_header(path, data_type={"float32": 4, "int32": 3, "float64": 5}[wide])
    np.testing.assert_array_equal(read(path), cube)


def test_a_narrower_data_type_than_declared_is_found_by_arithmetic(tmp_path, whole):
    path = write_raw(tmp_path, whole.cube, data_type=4)
    with pytest.raises(SceneError, match=r"24,960 bytes of data; write in the header data type = 2 or 12"):
        open_file(path)
    change_header(path, data_type=12)
    np.testing.assert_array_equal(read(path), whole.cube)
    (tmp_path / "cube.img").write_bytes((tmp_path / "cube.img").read_bytes()[:-1])
    with pytest.raises(SceneError, match="contains only 24,959 bytes of data; get the file again"):
        open_file(path)


@pytest.mark.parametrize("frame", ["{4}", "{-1, 0}", "{1, 2, 3}", "{a, b}"])
def test_frame_offsets_that_are_not_two_numbers_are_one_line(tmp_path, whole, frame):
    with pytest.raises(SceneError, match="not a readable ENVI header"):
        open_file(write_raw(tmp_path, whole.cube, major_frame_offsets=frame))


def test_bytes_before_or_after_the_image_are_found_by_arithmetic(tmp_path, whole):
    cube = whole.cube.astype(np.int16)
    path = write_raw(tmp_path, cube, before=bytes(517))
    with pytest.raises(SceneError, match="header offset = 517 for data at the end of the file"):
        open_file(path)
    change_header(path, header_offset=517)
    np.testing.assert_array_equal(read(path), cube)
    path = write_raw(tmp_path, cube, after=bytes(517))
    with pytest.raises(SceneError, match="or cut off the last 517 bytes"):
        open_file(path)
    (tmp_path / "cube.img").write_bytes((tmp_path / "cube.img").read_bytes()[:-517])
    np.testing.assert_array_equal(read(path), cube)


@pytest.mark.parametrize(("interleave", "key"), [("bsq", "bands"), ("bil", "lines"), ("bip", "lines")])
def test_more_lines_or_bands_than_declared_are_found_by_arithmetic(tmp_path, interleave, key, whole):
    cube = whole.cube.astype(np.int16)
    num = cube.shape[2] if key == "bands" else cube.shape[0]
    path = write_raw(tmp_path, cube, interleave=interleave, **{key: num - 3})
    with pytest.raises(SceneError, match=f"{key} = {num}, or header offset"):
        open_file(path)
    change_header(path, **{key: num})
    np.testing.assert_array_equal(read(path), cube)


def test_a_longer_numpy_file_is_refused_with_both_sizes(tmp_path):
    np.save(tmp_path / "cube.npy", np.ones((4, 3, 5), np.float32))
    with (tmp_path / "cube.npy").open("ab") as stream:
        stream.write(bytes(12))
    match = r"contains 252 bytes of data, but an array of 4×3×5 has 240 bytes; if the last 12 are padding"
    with pytest.raises(SceneError, match=match):
        open_file(tmp_path / "cube.npy")
