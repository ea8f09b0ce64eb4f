"""A run that nothing interrupts, and one that was ended in the middle; tests change copies."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import hsi_se
from hsi_se.config.yaml_file import load_config
from hsi_se.errors import Interrupted
from hsi_se.runs.folder import RunFolder
from hsi_se.system.session import Session
from hsi_se.training.checkpoint import list_checkpoints
from tests.training.resuming import DEMO, OPTIONS, Impatient, limit_threads, train


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """As in the processes: the bits depend on how many there are."""
    with limit_threads():
        yield


@pytest.fixture(scope="session")
def whole(tmp_path_factory) -> RunFolder:
    """The run that nothing interrupts."""
    run = tmp_path_factory.mktemp("whole") / "run"
    assert train(run=run).wait() == 0
    return RunFolder.open(run)


@pytest.fixture(scope="session")
def killed(tmp_path_factory) -> Path:
    """A run that was ended in its 13th step, with two checkpoints."""
    run = tmp_path_factory.mktemp("killed") / "run"
    config = load_config(DEMO, OPTIONS[1::2])
    told = rf"interrupted; resume with `hsi_se.resume\(\"{run}\"\)`"
    with limit_threads(), pytest.raises(Interrupted, match=told):
        hsi_se.train(config, out=run, session=Session(device="cpu", observer=Impatient(in_step=13)))
    assert len(list_checkpoints(run / "checkpoints")) == 2
    return run


@pytest.fixture
def unfinished(killed, tmp_path) -> Path:
    return Path(shutil.copytree(killed, tmp_path / "run"))
