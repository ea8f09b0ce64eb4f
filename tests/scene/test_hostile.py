"""Metadata that cannot be used, and containers that would exhaust the machine: a note, or one line."""

import io
import struct
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from hsi_se.config.scene import SceneFiles
from hsi_se.config.yaml_file import load_config
from hsi_se.errors import ConfigError, RunError, SceneError
from hsi_se.runs.folder import RunFolder
from hsi_se.scene.formats import open_file
from hsi_se.scene.loading import load_scene
from hsi_se.scene.scene import HIGHEST_LABEL, GroundTruth
from hsi_se.scene.vectors import _NUMBER
from hsi_se.scene.wavelengths import to_nanometres

CUBE = np.arange(4 * 5 * 3, dtype="<i2").reshape(4, 5, 3)
LABELS = np.resize([0, 1, 2], (4, 5)).astype(np.int32)
PLACE = "map info = {UTM, 1, 1, 500000, 5000000, 10, 10, 33, North, WGS-84}"


def write_envi(folder: Path, *lines: str) -> Path:
    head = ("ENVI", "samples = 5", "lines = 4", "bands = 3", "data type = 2", "interleave = bip")
    (folder / "e.hdr").write_text("\n".join([*head, *lines]))
    (folder / "e.img").write_bytes(CUBE.tobytes())
    return folder / "e.hdr"


def open_envi(folder: Path, *lines: str):
    return open_file(write_envi(folder, "byte order = 0", *lines)).rasters[""]


UNPLACED = {
    "no number": PLACE.replace("500000", "x"),
    "NaN": PLACE.replace("500000", "nan"),
    "no size": PLACE.replace("10, 10", "0, 10"),
    "no angle": PLACE.replace("WGS-84", "WGS-84, rotation=x"),
    "no zone": PLACE.replace("33", "99"),
    "no system": f'{PLACE}\ncoordinate system string = {{PROJCS["garbage"]}}',
}


@pytest.mark.parametrize("line", UNPLACED.values(), ids=UNPLACED)
def test_a_place_that_cannot_be_used_is_noted_when_the_file_is_opened(tmp_path, line):
    raster = open_envi(tmp_path, line)
    assert raster.place.transform is None
    assert [note for note in raster.notes if "cannot be used, and is ignored" in note]


@pytest.mark.parametrize("zone", ["33", "33N", " 33 "])
def test_a_zone_may_have_its_letter(tmp_path, zone):
    assert open_envi(tmp_path, PLACE.replace("33", zone)).place.crs == "EPSG:32633"


@pytest.mark.parametrize("scale", ["0", "nan", "inf"])
def test_a_scale_that_cannot_be_used_is_noted(tmp_path, scale):
    raster = open_envi(tmp_path, f"reflectance scale factor = {scale}")
    assert raster.gain is None
    assert f"the file scales its values by {scale}, which is ignored" in raster.notes[0]


@pytest.mark.parametrize("line", ["byte order = 7", "byte order = 0\nfile compression = 1"])
def test_a_header_whose_data_would_be_misread_is_refused(tmp_path, line):
    with pytest.raises(SceneError, match=line.split("\n")[-1].replace(" = ", " = ")):
        open_file(write_envi(tmp_path, line))


@pytest.mark.parametrize("line", ["description = {" + "x" * 2**20, "wavelength = {" + "1,\n" * 30_000])
def test_a_header_that_would_take_minutes_is_refused(tmp_path, line):
    with pytest.raises(SceneError, match="than any header"):
        open_envi(tmp_path, line)


@pytest.mark.parametrize("name", ["9" * 20_000 + " x", "9 " * 10_000, "1 nano" + "w" * 20_000, "1" + " " * 20_000])
def test_long_names_of_bands_take_no_time(name):
    start = time.perf_counter()
    to_nanometres((), unit=None, bands=1, names=[name])
    _NUMBER.fullmatch(name)
    assert time.perf_counter() - start < 0.5


def to_npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


LONG_HEADER = b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31 - 100) + b" " * 2**24
TOO_LARGE = (
    b"\x93NUMPY\x01\x00"
    + struct.pack("<H", 70)
    + "{'descr': '<U99999999', 'shape': (9, 9), 'fortran_order': False}".ljust(70).encode()
)
MEMBERS: dict[str, tuple[int, dict[str, bytes]]] = {
    "names": (zipfile.ZIP_DEFLATED, {"cube.npy": to_npy(CUBE), "cube": b"x"}),
    "compression": (zipfile.ZIP_BZIP2, {"cube.npy": to_npy(CUBE)}),
    "header": (zipfile.ZIP_DEFLATED, {"cube.npy": LONG_HEADER}),
    "texts": (zipfile.ZIP_DEFLATED, {"cube.npy": to_npy(CUBE), "names.npy": TOO_LARGE}),
    "number": (zipfile.ZIP_DEFLATED, {f"{number}.npy": to_npy(LABELS) for number in range(2001)}),
}  # fmt: skip


@pytest.mark.parametrize("kind", MEMBERS)
def test_members_of_an_archive_are_checked_before_they_are_read(tmp_path, kind):
    compression, members = MEMBERS[kind]
    with zipfile.ZipFile(tmp_path / "scene.npz", "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(SceneError):
        open_file(tmp_path / "scene.npz")


def test_two_variables_of_one_name_are_refused_before_scipy_reads_both(tmp_path):
    scipy.io.savemat(tmp_path / "scene.mat", {"cube": CUBE})
    content = (tmp_path / "scene.mat").read_bytes()
    (tmp_path / "scene.mat").write_bytes(content + content[128:])
    with pytest.raises(SceneError, match="two of its variables have one name"):
        open_file(tmp_path / "scene.mat")


def test_a_config_is_not_read_beyond_what_it_may_have(tmp_path):
    with (tmp_path / "c.yaml").open("wb") as stream:
        stream.truncate(2**36)  # a sparse file
    with pytest.raises(ConfigError, match="too long for a config"):
        load_config(tmp_path / "c.yaml")


def test_a_table_of_labels_and_the_progress_of_a_run_are_not_read_beyond_what_they_may_have(tmp_path):
    for name in ("labels.csv", "progress.jsonl"):
        with (tmp_path / name).open("wb") as stream:
            stream.write(b"0,0,1\n")
            stream.truncate(2**36)
    np.save(tmp_path / "cube.npy", CUBE)
    with pytest.raises(SceneError, match=r"labels\.csv: has 68,719,476,736 bytes, and a table of labels at most 16,"):
        load_scene(SceneFiles(cube=str(tmp_path / "cube.npy"), labels=str(tmp_path / "labels.csv")))
    with pytest.raises(RunError, match=r"progress\.jsonl: is too long to be a record of this version; train again"):
        RunFolder(tmp_path).read_progress()


def load(folder: Path, labels: np.ndarray, **settings: object):
    np.save(folder / "cube.npy", CUBE)
    np.save(folder / "labels.npy", labels)
    files = {"cube": str(folder / "cube.npy"), "labels": str(folder / "labels.npy")}
    return load_scene(SceneFiles.model_validate({**files, **settings}))


def test_a_thousand_ranges_of_bands_take_no_memory(tmp_path):
    with pytest.raises(SceneError, match="the file has bands 1 to 3"):
        load(tmp_path, LABELS, drop_bands=["1-9999999"] * 1000)


@pytest.mark.parametrize("label", [HIGHEST_LABEL + 1, 2**31 - 2, 2**33])
def test_a_label_that_no_map_can_store_is_refused_where_it_is_read(tmp_path, label):
    with pytest.raises(SceneError, match=f"up to 65535, the first is {label} at row"):
        load(tmp_path, np.where(LABELS == 2, label, LABELS.astype(np.int64)))
    assert load(tmp_path, np.where(LABELS == 2, HIGHEST_LABEL, LABELS)).class_ids[-1] == HIGHEST_LABEL


def test_long_codes_of_crops_are_names(tmp_path):
    np.save(tmp_path / "cube.npy", CUBE)
    (tmp_path / "l.csv").write_text("row,col,crop\n0,0,3301010101\n0,1,3301020200\n")
    scene = load_scene(SceneFiles(cube=str(tmp_path / "cube.npy"), labels=str(tmp_path / "l.csv")))
    assert scene.class_names == {1: "3301010101", 2: "3301020200"}


def test_control_characters_in_names_are_spaces_and_noted():
    names = {1: "a\nb\x1b[31m", 2: "\u0645\u06cc\u200c\u062e", 3: "\x07"}
    truth = GroundTruth("s\x1b", np.array([[1, 2, 3]], np.int32), names)
    assert truth.class_names == {1: "a b [31m", 2: names[2], 3: "class 3"}
    assert truth.name == "s "
    assert "control characters" in truth.notes[-1]
