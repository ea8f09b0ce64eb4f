"""A good config and scene in the working folder, public cases, and commands that are refused or accepted."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from numpy.typing import NDArray

from hsi_se.cli import main as cli
from tests.conftest import CASES, ROOT

DEMO = ROOT / "configs" / "demo.yaml"
ROWS, COLS, BANDS = 24, 24, 16
CONFIG = """\
scene: {synthetic: 0, rows: 24, cols: 24, bands: 16}
split: {kind: random, train: {per_class: 3}, validation: 0.34}
reduction: {kind: pca, components: 13, fit_on: train}
patch: {size: 9}
model: {name: hybridsn}
train: {epochs: 1, batch_size: 8}
"""
FILES = "scene={cube: cube.mat, labels: labels.mat}"
Call = Callable[..., tuple[int, str, str]]
Refuse = Callable[..., str]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `config.yaml` and a finished run of it, `run`; copy it before you damage it."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "config.yaml").write_text(CONFIG, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["hsi-se", "train", str(folder / "config.yaml"), "--out", str(folder / "run")])
        with pytest.raises(SystemExit) as caught:
            cli.main()
    assert caught.value.code == 0
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: a good config and a good scene of two files, and no run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(CONFIG, encoding="utf-8")
    save(tmp_path / "cube.mat", cube=make_cube())
    save(tmp_path / "labels.mat", labels=make_labels())
    return tmp_path


@pytest.fixture
def refuse(call: Call) -> Refuse:
    """Returns the one line with which a command is refused; no file has come, gone or changed where it works."""

    def refuse_command(*arguments: str) -> str:
        before = list_files(Path.cwd())
        code, out, err = call(*arguments)
        assert code == 2
        assert out == ""
        assert err.startswith("hsi-se: ")
        assert err.count("\n") == 1
        assert err.endswith("\n")
        assert "Traceback" not in err
        assert list_files(Path.cwd()) == before
        return err.removeprefix("hsi-se: ").removesuffix("\n")

    return refuse_command


def list_files(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def make_cube() -> NDArray[np.float64]:
    return np.random.default_rng(0).normal(size=(ROWS, COLS, BANDS))


def make_labels() -> NDArray[np.float64]:
    """Three classes in vertical stripes, the first column unlabelled."""
    labels = np.tile(1.0 + np.arange(COLS) // 8, (ROWS, 1))
    labels[:, 0] = 0
    return labels


def save(path: str | Path, **arrays: Any) -> None:
    scipy.io.savemat(path, arrays)


def put(array: NDArray[np.float64], *changes: tuple[tuple[int, ...], float]) -> NDArray[np.float64]:
    for index, value in changes:
        array[index] = value
    return array


def train(*overrides: str) -> list[str]:
    return ["train", "config.yaml", *(part for override in overrides for part in ("--set", override))]


@pytest.fixture
def accept(call):
    """Returns what a command prints that ends well."""

    def accept_command(*words: object) -> str:
        code, out, err = call(*words)
        assert code == 0, err
        return str(out)

    return accept_command


@pytest.fixture
def case(tmp_path, monkeypatch):
    """Copies a public case to a folder of its own, which becomes the working folder."""

    def enter(name: str) -> Path:
        folder = tmp_path / name
        shutil.copytree(next(CASES.glob(f"{name}*")), folder, copy_function=shutil.copyfile)
        monkeypatch.chdir(folder)
        return folder

    return enter


@pytest.fixture
def plain_files(tmp_path, monkeypatch) -> None:
    """The working folder has `cube.npy` and `labels.npy`."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    np.save("cube.npy", rng.integers(1, 4000, size=(24, 26, 16), dtype=np.int16))
    np.save("labels.npy", np.tile(np.arange(26) // 7, (24, 1)).astype(np.uint8))
