"""A cube that stays in its file gives the values, the reduction and the digest of the same cube in memory."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsi_se.config.experiment import MnfReduction, PcaReduction
from hsi_se.config.scene import SceneFiles
from hsi_se.errors import SceneError
from hsi_se.sampling.reduction import fit_reduction
from hsi_se.scene import cube as cubes
from hsi_se.scene import loading
from hsi_se.scene.cube import StoredCube
from hsi_se.scene.scene import Scene


@given(rows=st.integers(1, 100), seed=st.integers(0, 9), data=st.data())
def test_rows_and_pixels_are_those_of_the_array(rows: int, seed: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    array = rng.integers(1000, size=(rows, 5, 3)).astype(np.int16)
    cube = StoredCube(array.shape, array.dtype, lambda first, last: array[first:last])
    first = data.draw(st.integers(0, rows - 1))
    last = data.draw(st.integers(first + 1, rows))
    at = rng.integers(rows, size=40), rng.integers(5, size=40)
    pairs = rng.integers(rows, size=(7, 2)), rng.integers(5, size=(7, 2))
    np.testing.assert_array_equal(cube[first:last], array[first:last])
    np.testing.assert_array_equal(cube[at], array[at])
    np.testing.assert_array_equal(cube[pairs], array[pairs])
    assert (len(cube), cube.shape, cube.dtype) == (rows, array.shape, array.dtype)


def test_pixels_in_ascending_order_are_read_once():
    reads: list[int] = []

    def read(first: int, last: int) -> np.ndarray:
        reads.append(first)
        return np.zeros((last - first, 4, 2))

    cube = StoredCube((200, 4, 2), np.dtype(np.float64), read)
    for rows in np.array_split(np.repeat(np.arange(200), 4), 50):
        cube[rows, np.zeros_like(rows)]
    assert sorted(reads) == sorted(set(reads))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> SceneFiles:
    folder, rng = tmp_path_factory.mktemp("scene"), np.random.default_rng(0)
    cube = rng.normal(100, 10, (70, 9, 6)).astype(np.float32).cumsum(axis=0)
    cube[3, 4] = -1
    labels = rng.integers(0, 4, (70, 9)).astype(np.uint8)
    np.save(folder / "cube.npy", cube)
    np.save(folder / "labels.npy", labels)
    return SceneFiles(cube=str(folder / "cube.npy"), labels=str(folder / "labels.npy"), nodata=-1)


@pytest.fixture
def both(files: SceneFiles, monkeypatch: pytest.MonkeyPatch) -> tuple[Scene, Scene]:
    in_memory = loading.load_scene(files)
    monkeypatch.setattr(cubes, "_MOST_IN_MEMORY", 0)
    return in_memory, loading.load_scene(files)


def test_a_large_cube_stays_in_its_file(both: tuple[Scene, Scene]) -> None:
    assert [type(scene.cube) for scene in both] == [np.ndarray, StoredCube]


def test_the_scene_is_the_same_to_the_bit(both: tuple[Scene, Scene]) -> None:
    assert both[0].digest == both[1].digest
    assert both[0].notes == both[1].notes


@pytest.mark.parametrize("fit_on", ["train", "scene"])
@pytest.mark.parametrize("kind", [PcaReduction, MnfReduction])
def test_the_components_are_the_same(both: tuple[Scene, Scene], kind: type, fit_on: str) -> None:
    settings = kind(kind="pca" if kind is PcaReduction else "mnf", components=3, fit_on=fit_on)
    first, second = (
        fit_reduction(scene.cube, settings, train_pixels=np.argwhere(scene.labels == 1), nodata=scene.nodata).apply(
            scene.cube, nodata=scene.nodata
        )
        for scene in both
    )
    rounding = 1e-5 if (kind, fit_on) == (PcaReduction, "scene") else 0  # the only one that sums up in another order
    np.testing.assert_allclose(first, second, rtol=0, atol=rounding)


def test_values_that_are_not_finite_are_refused_there_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cube = np.ones((40, 5, 6), np.float32) * np.arange(6)
    cube[35, 1, 2] = np.inf
    np.save(tmp_path / "cube.npy", cube)
    np.save(tmp_path / "labels.npy", np.ones((40, 5), np.uint8))
    monkeypatch.setattr(cubes, "_MOST_IN_MEMORY", 0)
    with pytest.raises(SceneError, match="the first at row 35, col 1, band 2"):
        loading.load_scene(SceneFiles(cube=str(tmp_path / "cube.npy"), labels=str(tmp_path / "labels.npy")))
