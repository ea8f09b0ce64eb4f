"""A small synthetic scene as files, a command that must be refused, and a server of downloads."""

import threading

import numpy as np
import pytest
import spectral.io.envi

from hsi_se.config.scene import SceneFiles
from hsi_se.scene.fetch import MIRROR_VARIABLE
from hsi_se.scene.formats import open_file
from hsi_se.scene.synthetic import make_synthetic_scene
from tests.scene.downloads import Server

ROWS, COLS, BANDS = 24, 26, 20


@pytest.fixture(scope="session")
def whole():
    return make_synthetic_scene(seed=0, rows=ROWS, cols=COLS, bands=BANDS)


def save(folder, cube, labels, **settings):
    np.save(folder / "cube.npy", cube)
    np.save(folder / "labels.npy", labels)
    return SceneFiles(cube=str(folder / "cube.npy"), labels=str(folder / "labels.npy"), **settings)


def refuse(call, *arguments):
    """Runs a command that must be refused, in one line, and returns this line."""
    code, _, err = call(*arguments)
    assert code == 2, err
    assert err.count("\n") == 1
    assert "Traceback" not in err
    return err


def write_raw(folder, cube, *, interleave="bil", before=b"", frame=(0, 0), after=b"", **changes):
    """An ENVI image with bytes before it, around each major frame and after it; `changes` to its header."""
    spectral.io.envi.save_image(str(folder / "cube.hdr"), cube, dtype=cube.dtype, interleave=interleave, force=True)
    frames = cube.shape[2] if interleave == "bsq" else cube.shape[0]
    stored = np.frombuffer((folder / "cube.img").read_bytes(), np.uint8).reshape(frames, -1)
    pad = [np.full((frames, size), 7, np.uint8) for size in frame]
    (folder / "cube.img").write_bytes(before + np.hstack([pad[0], stored, pad[1]]).tobytes() + after)
    change_header(folder / "cube.hdr", **changes)
    return folder / "cube.hdr"


def change_header(path, **changes):
    kept = [
        line
        for line in path.read_text().splitlines()
        if line.partition("=")[0].strip().replace(" ", "_") not in changes
    ]
    added = [f"{key.replace('_', ' ')} = {value}" for key, value in changes.items()]
    path.write_text("\n".join([*kept, *added]) + "\n")


def read(path):
    raster = open_file(path).rasters[""]
    np.testing.assert_array_equal(raster.read_rows(3, 9), raster.read_rows(0, raster.shape[0])[3:9])
    return raster.read_rows(0, raster.shape[0])


@pytest.fixture
def server(monkeypatch):
    monkeypatch.delenv(MIRROR_VARIABLE, raising=False)
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()
