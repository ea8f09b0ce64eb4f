"""A map that is killed or finds the disk full goes on from its draft; maps are replaced whole or not at all."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import rasterio
import rasterio.shutil
from rasterio.transform import Affine

from hsi_se.errors import RunError
from hsi_se.maps.layers import Layer
from hsi_se.runs.folder import RunFolder
from tests.maps.conftest import SIZE, TRANSFORM, map_again, write_scene

MAP_SLOWLY = """
import sys, time
from hsi_se.maps import write as cartography
from hsi_se.system.session import Session
predict = cartography.predict_tiles
def slowly(*arguments, **named):
    for tile in predict(*arguments, **named):
        time.sleep(0.3)
        yield tile
cartography.predict_tiles = slowly
cpu = Session(device="cpu")
cartography.write_map(sys.argv[1], out=sys.argv[2], session=cpu, tile_rows=1, probabilities=True)
"""


@contextmanager
def mapping_slowly(run: RunFolder, out: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Yields another process that has done some rows; it is killed at the latest when the block ends."""
    process = subprocess.Popen([sys.executable, "-c", MAP_SLOWLY, run.path, out])
    journal = out / ".unfinished" / "journal"
    try:
        deadline = time.monotonic() + 120
        while not (journal.is_file() and len(journal.read_text().splitlines()) > 4):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.wait()


def kill_halfway(run: RunFolder, out: Path) -> None:
    with mapping_slowly(run, out) as process:
        os.kill(process.pid, signal.SIGKILL)


def test_a_killed_map_looks_unfinished_and_goes_on_where_it_stopped(run, result, tmp_path):
    out = tmp_path / "out"
    kill_halfway(run, out)
    assert {path.name for path in out.iterdir()} == {".unfinished", ".lock"}
    assert not list(out.rglob("*.hdr")), "an ENVI image without a header opens nowhere"
    with (out / ".unfinished" / "journal").open("a") as stream:
        stream.write("range(13, 1")  # of a line that was torn
    num_done = len((out / ".unfinished" / "journal").read_text().splitlines()) - 2
    assert 4 <= num_done < SIZE[0]
    again, notes = map_again(run, out, probabilities=True, tile_rows=1)
    assert f"going on with a map of which {num_done} of 14 rows are done" in notes.notes
    assert notes.done == notes.total == (SIZE[0] - num_done) * SIZE[1]
    assert again.image.read_bytes() == result.image.read_bytes()
    assert not list(out.glob(".*"))


@pytest.mark.slow
def test_a_second_process_on_the_same_map_is_refused_and_the_first_loses_nothing(run, result, tmp_path):
    out = tmp_path / "out"
    with mapping_slowly(run, out) as first:
        first.send_signal(signal.SIGSTOP)
        second = [sys.executable, "-m", "hsi_se", "map", run.path, "--out", out, "--device", "cpu"]
        done = subprocess.run(second, capture_output=True, text=True, check=False)
        first.send_signal(signal.SIGCONT)
        assert done.returncode == 2
        refusal = "another process is making a map there; let it finish, or choose another folder"
        assert done.stderr == f"hsi-se: {out}: {refusal}\n"
        assert first.wait(timeout=120) == 0
    assert (out / "map.img").read_bytes() == result.image.read_bytes()
    assert not list(out.glob(".*"))


@pytest.mark.parametrize("num_moved", range(5))
def test_a_map_that_is_killed_while_its_files_move_is_not_made_again(run, result, tmp_path, monkeypatch, num_moved):
    out = tmp_path / "out"
    map_again(run, out)  # another map is there, with other files than the new one
    moved, replace = [], Path.replace

    def stop(path: Path, target: Path) -> Path:
        if target.parent == out:
            if len(moved) == num_moved:
                raise KeyboardInterrupt
            moved.append(path.name)
        return replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", stop)
        with pytest.raises(KeyboardInterrupt):
            map_again(run, out, probabilities=True)
    assert not (out / "map.json").exists(), "it looks finished"
    again, notes = map_again(run, out, probabilities=True)
    assert notes.notes == ["the map was complete, and only its files are moved into place"]
    assert not list(out.glob(".*"))
    assert {path.name for path in out.iterdir()} == {path.name for path in result.path.iterdir()}
    for path in (again.image, again.entropy, again.geotiff):
        assert path.read_bytes() == (result.path / path.name).read_bytes()


@pytest.mark.parametrize("max_bytes", [100, 1000, 2000, 10_000])
def test_a_full_disk_is_one_line_and_the_map_goes_on_later(run, result, tmp_path, max_bytes):
    """It fills up at a layer, at a GeoTIFF, at the picture."""
    out, limits = tmp_path / "out", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (max_bytes, limits[1]))
    try:
        with pytest.raises(RunError) as caught:
            map_again(run, out, probabilities=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(caught.value).startswith(f"{out}/.unfinished")
    assert str(caught.value).endswith(
        "; check its rights and the room on the disk, then rerun the same command to resume (finished work is kept)"
    )
    again, notes = map_again(run, out, probabilities=True)
    assert notes.total == (0 if max_bytes >= 2000 else SIZE[0] * SIZE[1])
    assert {path.name: path.read_bytes() for path in out.glob("*.tif")} == {
        path.name: path.read_bytes() for path in result.path.glob("*.tif")
    }
    assert again.image.read_bytes() == result.image.read_bytes()


def test_a_geotiff_that_is_cut_short_as_it_is_closed_is_not_published(run, tmp_path, monkeypatch):
    """GDAL says nothing then."""

    copy = rasterio.shutil.copy

    def truncate(source: Path, path: Path, **options: object) -> None:
        copy(source, path, **options)
        os.truncate(path, path.stat().st_size - 100)

    monkeypatch.setattr("rasterio.shutil.copy", truncate)
    with pytest.raises(RunError, match=r"map.tif: GDAL could not write it; "):
        map_again(run, tmp_path / "out")
    assert not (tmp_path / "out" / "map.json").exists()


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_a_layer_that_has_lost_its_end_is_made_again(run, result, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("hsi_se.maps.layers.write_geotiff", interrupt)
        with pytest.raises(KeyboardInterrupt):
            map_again(run, tmp_path / "out")
    os.truncate(tmp_path / "out" / ".unfinished" / "map.img", 3)
    again, _ = map_again(run, tmp_path / "out")
    assert again.image.read_bytes() == result.image.read_bytes()


def test_half_a_geotiff_of_a_killed_map_is_written_again(run, result, tmp_path, monkeypatch):
    def stop(layer: Layer, *_: object, **__: object) -> None:
        layer.path.with_suffix(".tif").write_bytes(result.geotiff.read_bytes()[:200])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("hsi_se.maps.layers.write_geotiff", stop)
        with pytest.raises(KeyboardInterrupt):
            map_again(run, tmp_path / "out")
    again, _ = map_again(run, tmp_path / "out")
    assert again.geotiff.read_bytes() == result.geotiff.read_bytes()


def test_a_map_is_on_the_disk_before_it_takes_another_ones_place(run, tmp_path, monkeypatch):
    synced, sync, replace_ = [], os.fsync, Path.replace

    def note(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        sync(descriptor)

    def check(path: Path, target: Path) -> Path:
        if target.parent == tmp_path / "out":
            moved.append(path.name)
            assert path.name in synced[synced.index("journal") :]
        return replace_(path, target)

    moved: list[str] = []
    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(Path, "replace", check)
    map_again(run, tmp_path / "out")
    rasters = ["map.img", "map.hdr", "map.tif", "map.tif.aux.xml"]
    assert moved == [*rasters, "map.qml", "classes.csv", "map.png", "map.json"]


def test_a_scene_of_the_same_values_at_another_place_is_mapped_anew(run, tmp_path, monkeypatch):
    path = write_scene(tmp_path / "scene.tif")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", interrupt)
        with pytest.raises(KeyboardInterrupt):
            map_again(run, tmp_path / "out", scene=path)
    moved = TRANSFORM @ Affine.translation(10, 0)
    write_scene(path, place={"crs": "EPSG:32633", "transform": moved})
    again, _ = map_again(run, tmp_path / "out", scene=path)
    with rasterio.open(again.geotiff) as file:
        assert file.transform == moved


def test_another_setting_starts_over(run, result, tmp_path):
    out = tmp_path / "out"
    kill_halfway(run, out)
    _, notes = map_again(run, out, tile_rows=1)
    assert notes.total == SIZE[0] * SIZE[1]
    assert not (out / "probabilities.img").exists()
    assert (out / "map.img").read_bytes() == result.image.read_bytes()


def test_a_new_map_takes_the_place_of_an_earlier_one_and_of_nothing_else(run, tmp_path):
    folder, _ = map_again(run, tmp_path / "out", probabilities=True)
    assert folder.entropy.exists()
    folder, _ = map_again(run, tmp_path / "out")
    assert not folder.entropy.exists(), "it would be taken for this map's"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "map.tif").write_text("mine")
    with pytest.raises(
        RunError, match=r"map.tif: already exists but is not part of a finished map; choose another folder"
    ):
        map_again(run, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["map.tif"]
