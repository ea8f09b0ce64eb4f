"""Downloads from a local server that is slow, drops the connection, or sends the wrong content."""

import hashlib

import pytest

from hsi_se.errors import SceneError
from hsi_se.scene.catalogue import find_known_scene, list_known_scenes
from hsi_se.scene.fetch import MIRROR_VARIABLE, list_sources
from tests.conftest import REAL_SCENES, needs_real_scenes
from tests.scene.downloads import CONTENT, assert_complete, fetch, make_scene


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
