"""A map from a Dask cluster is the local one, whatever happens to its workers."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import hsi_se
from hsi_se.cartography import write_map
from hsi_se.records import RunFolder
from tests.conftest import ROOT

DASK = str(Path(sys.executable).parent / "dask")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

MAP = """
import sys, time
from hsi_se import cluster, cartography
predict = cluster._predict
def slowly(*arguments):
    time.sleep(float({pause}))
    return predict(*arguments)
cluster._predict = slowly
cartography.write_map(sys.argv[1], scheduler=sys.argv[2], out=sys.argv[3], device="cpu", tile_rows=2)
"""


@pytest.fixture(scope="module")
def run(tiny_config, tmp_path_factory) -> RunFolder:
    return hsi_se.train(tiny_config, run=tmp_path_factory.mktemp("cluster") / "run", device="cpu")


@pytest.fixture(scope="module")
def expected(run, tmp_path_factory) -> bytes:
    out = tmp_path_factory.mktemp("local") / "out"
    write_map(run, out=out, device="cpu", tile_rows=2)
    return (out / "map.img").read_bytes()


@contextlib.contextmanager
def start_cluster(folder: Path) -> Iterator[tuple[str, list[subprocess.Popen]]]:
    """A scheduler and two workers on loopback."""
    address = folder / "scheduler.json"
    options = [("scheduler", "--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0")]
    options += [("worker", "--nthreads", "1", "--no-nanny", "--no-dashboard", "--host", "127.0.0.1")] * 2
    started = []
    with (folder / "log").open("w") as log:
        try:
            for words in options:
                command = [DASK, *words, "--scheduler-file", address]
                process = subprocess.Popen(command, env=ENVIRONMENT, cwd=folder, stdout=log, stderr=log)
                started.append(process)
                while not address.is_file():
                    assert process.poll() is None, (folder / "log").read_text()
                    time.sleep(0.1)
            while (folder / "log").read_text().count("Register worker") < 2:
                assert all(process.poll() is None for process in started), (folder / "log").read_text()
                time.sleep(0.1)
            yield json.loads(address.read_text())["address"], started[1:]
        finally:
            for process in started:
                process.kill()
                process.wait()


@pytest.mark.slow
def test_a_cluster_makes_the_local_map_also_when_a_worker_is_killed_midway(run, expected, tmp_path):
    with start_cluster(tmp_path) as (address, workers):
        for name, pause in (("whole", 0), ("torn", 0.5)):
            out = tmp_path / name
            command = [sys.executable, "-c", MAP.format(pause=pause), run.path, address, out]
            mapping = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
            if pause:
                journal = out / ".unfinished" / "journal"
                while not (journal.is_file() and len(journal.read_text().splitlines()) > 3):
                    assert mapping.poll() is None, mapping.stderr.read()
                    time.sleep(0.05)
                os.kill(workers[0].pid, signal.SIGKILL)
                assert len(journal.read_text().splitlines()) < 11, "of 12 tiles some are left"
            _, errors = mapping.communicate(timeout=200)
            assert mapping.returncode == 0, errors
            assert (out / "map.img").read_bytes() == expected


@pytest.mark.slow
@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense://x"])
def test_a_scheduler_that_does_not_answer_is_refused_in_one_line(run, tmp_path, address):
    command = [
        sys.executable,
        "-m",
        "hsi_se",
        "map",
        run.path,
        "--scheduler",
        address,
        "--out",
        tmp_path / "out",
    ]
    start = time.monotonic()
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert time.monotonic() - start < 60, "30 s, and the start of two interpreters' worth of imports"
    assert done.returncode == 2
    assert done.stderr.startswith(f"hsi-se: --scheduler {address}: no Dask scheduler answers there; ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
