"""A map from a Dask cluster is the local one, whatever happens to its workers."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dask
import pytest
from distributed import LocalCluster, Worker

import hsi_se
from hsi_se.errors import ClusterError
from hsi_se.maps import write as cartography
from hsi_se.maps.write import write_map
from hsi_se.prediction.bundled import TileSource
from hsi_se.prediction.logits import list_tiles
from hsi_se.prediction.target import open_target
from hsi_se.progress import Silent
from hsi_se.runs.folder import RunFolder
from hsi_se.system import cluster as pool
from hsi_se.system.session import Session
from tests.conftest import CPU, ROOT

DASK = str(Path(sys.executable).parent / "dask")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

# Lets so many calls through, and the others when `NAME.open` appears beside the folder `NAME`.
GATE = """
import time, uuid
from pathlib import Path
def pass_gate(gate, num_free):
    (gate / str(uuid.uuid4())).touch()
    if len(list(gate.iterdir())) > num_free:
        while not gate.with_suffix(".open").exists():
            time.sleep(0.02)
"""
MAP = """
import sys
from pathlib import Path
from hsi_se.maps import write as cartography
from hsi_se.system.session import Session
{GATE}
predict, gate = cartography._predict, Path(sys.argv[4])
def gated(*arguments):
    pass_gate(gate, num_free=4)
    return predict(*arguments)
cartography._predict = gated
cpu = Session(device="cpu")
cartography.write_map(sys.argv[1], scheduler=sys.argv[2], out=sys.argv[3], session=cpu, tile_rows=2)
""".replace("{GATE}", GATE)


class Gate:
    """Where the tasks of another process wait until they may go on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()

    def open(self) -> None:
        self.path.with_suffix(".open").touch()

    def wait_for_calls(self, number: int, process: subprocess.Popen) -> None:
        while len(list(self.path.iterdir())) < number:
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)


@pytest.fixture(scope="module")
def run(tiny_config, tmp_path_factory) -> RunFolder:
    return hsi_se.train(tiny_config, out=tmp_path_factory.mktemp("cluster") / "run", session=CPU)


@pytest.fixture(scope="module")
def expected(run, tmp_path_factory) -> bytes:
    out = tmp_path_factory.mktemp("local") / "out"
    write_map(run, out=out, session=CPU, tile_rows=2)
    return (out / "map.img").read_bytes()


@contextlib.contextmanager
def start_cluster(
    folder: Path, *, environment: dict[str, str] = ENVIRONMENT
) -> Iterator[tuple[str, list[subprocess.Popen]]]:
    """The address and the processes of a scheduler and two workers on loopback."""
    address = folder / "scheduler.json"
    options = [("scheduler", "--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0")]
    options += [("worker", "--nthreads", "1", "--no-nanny", "--no-dashboard", "--host", "127.0.0.1")] * 2
    started = []
    with (folder / "log").open("w") as log:
        try:
            for words in options:
                command = [DASK, *words, "--scheduler-file", address]
                process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
                started.append(process)
                while not address.is_file():
                    assert process.poll() is None, (folder / "log").read_text()
                    time.sleep(0.1)
            while (folder / "log").read_text().count("Register worker") < 2:
                assert all(process.poll() is None for process in started), (folder / "log").read_text()
                time.sleep(0.1)
            yield json.loads(address.read_text())["address"], started
        finally:
            for process in started:
                process.kill()
                process.wait()


@pytest.mark.parametrize(
    ("version", "has"), [("0.0.1", "has hsi-se 0.0.1"), (None, r"does not have hsi-se \(none here\)")]
)
def test_workers_with_another_version_are_refused_by_name(run, tmp_path, version, has):
    package = tmp_path / "theirs" / "hsi_se"
    package.mkdir(parents=True)
    text = "raise ImportError('none here')" if version is None else f"__version__ = {version!r}"
    (package / "__init__.py").write_text(text)
    environment = {**ENVIRONMENT, "PYTHONPATH": str(package.parent)}
    with start_cluster(tmp_path, environment=environment) as (address, _):
        expected = rf"worker tcp://127.0.0.1:\d+: {has}, and this is {hsi_se.__version__}; install that version there"
        with pytest.raises(ClusterError, match=expected):
            write_map(run, scheduler=address, out=tmp_path / "out", session=CPU, tile_rows=2)


@pytest.mark.exhaustive
def test_a_cluster_makes_the_local_map_also_when_a_worker_is_killed_midway(run, expected, tmp_path):
    with start_cluster(tmp_path) as (address, (_, *workers)):
        for name in ("whole", "torn"):
            out, gate = tmp_path / name, Gate(tmp_path / f"{name}-gate")
            command = [sys.executable, "-c", MAP, run.path, address, out, gate.path]
            mapping = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
            if name == "torn":
                gate.wait_for_calls(6, mapping)  # both workers have a tile and keep it
                os.kill(workers[0].pid, signal.SIGKILL)
                journal = out / ".unfinished" / "journal"
                assert len(journal.read_text().splitlines()) <= 1 + 4, "of 12 tiles some are left"
            gate.open()
            _, errors = mapping.communicate(timeout=200)
            assert mapping.returncode == 0, errors
            assert (out / "map.img").read_bytes() == expected


@pytest.mark.slow
@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense://x"])
def test_a_scheduler_that_does_not_answer_is_refused_in_one_line(run, tmp_path, address):
    command = [sys.executable, "-m", "hsi_se", "map", run.path, "--scheduler", address]
    command += ["--out", tmp_path / "out"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(f"hsi-se: --scheduler {address}: no Dask scheduler answers there; ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense://x"])
def test_a_scheduler_that_does_not_answer_is_given_up_soon(address, monkeypatch):
    monkeypatch.setattr(pool, "_CONNECT_S", 2)
    start = time.monotonic()
    with pytest.raises(ClusterError, match="no Dask scheduler answers there"):
        pool.connect(address)
    assert time.monotonic() - start < 3 * pool._CONNECT_S


# ------------------------------------------------------------------------- workers that come and go


class Farm:
    """A scheduler in this process, and the workers that a test gives and takes."""

    def __init__(self, scheduler: LocalCluster) -> None:
        self.address = scheduler.scheduler_address
        self._scheduler = scheduler
        self._workers: list[Worker] = []
        self._timers: list[threading.Timer] = []

    def add_worker(self) -> None:
        async def start() -> Worker:
            return await Worker(self.address, nthreads=1, dashboard=False)

        self._workers.append(self._scheduler.sync(start))

    def add_worker_later(self) -> None:
        """After whoever waits for one has looked."""
        self._timers.append(threading.Timer(0.5, self.add_worker))
        self._timers[-1].start()

    def lose_workers(self) -> None:
        while self._workers:
            self._scheduler.sync(self._workers.pop().close, executor_wait=False)

    def lose_scheduler(self) -> None:
        self.lose_workers()
        self._scheduler.sync(self._scheduler.scheduler.close)

    def close(self) -> None:
        for timer in self._timers:
            timer.join()
        self.lose_workers()


class AtFirstTile(Silent):
    """Does something when the first tile is done; keeps what it is told."""

    def __init__(self, act: Callable[[], None]) -> None:
        self._act: Callable[[], None] | None = act
        self.notes: list[str] = []

    def advance(self, _: int) -> None:
        if self._act is not None:
            self._act()
            self._act = None

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def farm() -> Iterator[Farm]:
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "0.5s"}),  # to a scheduler that is lost
        LocalCluster(n_workers=0, processes=False, dashboard_address="127.0.0.1:0", silence_logs=50) as scheduler,
    ):
        farm = Farm(scheduler)
        yield farm
        farm.close()


def map_on(farm: Farm, run: RunFolder, out: Path, observer: Silent | None = None) -> None:
    session = Session(device="cpu", observer=observer or Silent())
    write_map(run, scheduler=farm.address, out=out, session=session, tile_rows=2)


def test_a_map_starts_with_a_worker_that_comes_late(run, expected, farm, tmp_path):
    farm.add_worker_later()
    map_on(farm, run, tmp_path / "out")
    assert (tmp_path / "out" / "map.img").read_bytes() == expected


def test_a_scheduler_to_which_no_worker_comes_is_refused(run, farm, tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "_WORKERS_S", 0.2)
    with pytest.raises(ClusterError, match=r"^--scheduler \S+: has no worker; start one with `dask worker "):
        map_on(farm, run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_worker_that_is_lost_before_the_first_tile_may_come_back(run, expected, farm, tmp_path, monkeypatch):
    def lose(address: str) -> object:
        client = connect(address)
        farm.lose_workers()
        farm.add_worker_later()
        return client

    connect = pool.connect
    monkeypatch.setattr(pool, "connect", lose)
    farm.add_worker()
    map_on(farm, run, tmp_path / "out")
    assert (tmp_path / "out" / "map.img").read_bytes() == expected


def test_a_map_whose_workers_are_all_lost_ends_and_goes_on_later(run, expected, farm, tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "_LOST_S", 1.0)
    farm.add_worker()
    remedy = r"start one with `dask worker \S+`, then rerun the same command to resume"
    with pytest.raises(ClusterError, match=rf"^--scheduler \S+: has had no worker for 1 s; {remedy}"):
        map_on(farm, run, tmp_path / "out", AtFirstTile(farm.lose_workers))
    farm.add_worker()
    again = AtFirstTile(lambda: None)
    map_on(farm, run, tmp_path / "out", again)
    assert any(note.startswith("going on with a map of which ") for note in again.notes)
    assert (tmp_path / "out" / "map.img").read_bytes() == expected


def test_workers_that_come_later_are_given_tiles_too(run, farm, monkeypatch):
    def count(source: TileSource, asked: range) -> object:
        reads.append(asked)
        return read(source, asked)

    reads, read = [], TileSource.read
    monkeypatch.setattr(TileSource, "read", count)
    bundle = run.read_bundle()
    image = open_target(bundle, run.read_config().scene).image
    farm.add_worker()
    with pool.connect(farm.address) as client:
        done = cartography.predict_on_cluster(
            bundle, image, list_tiles(24, 2), engine="dense", client=client, session=CPU
        )
        next(done)
        assert len(reads) == 1 + 2
        farm.add_worker()
        next(done)
        assert len(reads) == 2 + 4
        assert len(list(done)) == 10


def test_workers_that_come_back_in_time_finish_the_map(run, expected, farm, tmp_path):
    def replace_workers() -> None:
        farm.lose_workers()
        farm.add_worker_later()

    farm.add_worker()
    map_on(farm, run, tmp_path / "out", AtFirstTile(replace_workers))
    assert (tmp_path / "out" / "map.img").read_bytes() == expected


def test_a_worker_may_take_longer_for_a_tile_than_a_cluster_may_have_none(run, expected, farm, tmp_path, monkeypatch):
    def slowly(*arguments):
        time.sleep(0.2)
        return predict(*arguments)

    predict = cartography._predict
    monkeypatch.setattr(cartography, "_predict", slowly)
    monkeypatch.setattr(pool, "_LOST_S", 0.1)
    monkeypatch.setattr(pool, "_LOOK_S", 0.03)
    farm.add_worker()
    map_on(farm, run, tmp_path / "out")
    assert (tmp_path / "out" / "map.img").read_bytes() == expected


@pytest.mark.parametrize("pause_s", [0, 0.5])
def test_a_scheduler_that_is_lost_is_named(run, farm, tmp_path, monkeypatch, pause_s):
    """Also where more tiles are here by then."""

    def lose() -> None:
        time.sleep(pause_s)
        farm.lose_scheduler()

    monkeypatch.setattr(pool, "_CONNECT_S", 1)
    farm.add_worker()
    lost = "is lost; start it again with its workers, then rerun the same command to resume"
    with pytest.raises(ClusterError, match=lost):
        map_on(farm, run, tmp_path / "out", AtFirstTile(lose))
