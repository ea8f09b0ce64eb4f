"""Many runs in one folder: resumed, failed, shared between processes and machines, with the same numbers."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from hsi_se.ablation import run as runner
from hsi_se.ablation.file import Ablation, load_ablation
from hsi_se.ablation.record import AblationFolder
from hsi_se.errors import ClusterError, RunError, TrainingError
from hsi_se.system import cluster as pool
from hsi_se.system import memory as measure
from tests.ablation.conftest import FILE, Log
from tests.conftest import CPU
from tests.maps.test_cluster import ENVIRONMENT, GATE, Gate, start_cluster

TIMES = {"training_s", "training_us_per_pixel", "mapping_s", "mapping_us_per_pixel"}
MEMORY = {"training_peak_bytes", "mapping_peak_bytes"}


def numbers_of(folder: AblationFolder) -> dict:
    """The report without times and memory."""

    def strip(value):
        if isinstance(value, dict):
            return {key: strip(inner) for key, inner in value.items() if key not in TIMES | MEMORY}
        return [strip(inner) for inner in value] if isinstance(value, list) else value

    return strip(json.loads(folder.report.read_text()))


def weights_of(folder: AblationFolder) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder.path)): path.read_bytes()
        for path in sorted(folder.path.glob("runs/*/*/*.safetensors"))
    }


def test_the_report_is_of_the_runs_in_the_folder(finished):
    report = finished.read_report()
    assert (report.num_missing, report.failed) == (0, ())
    assert [variant.name for variant in report.scenes[0].variants] == ["none", "se"]
    correct = {}
    for variant in report.scenes[0].variants:
        for run in variant.runs:
            folder = finished.open_run(run.folder)
            assert run.overall_accuracy == folder.read_report().overall_accuracy
            arrays = load_file(folder.predictions)
            correct[variant.name, run.seed] = arrays["truth"] == arrays["predicted"]
            assert correct[variant.name, run.seed].mean() == pytest.approx(run.overall_accuracy)
            assert len(arrays["truth"]) == run.num_test == len(folder.read_split().test)
            record = folder.read_record()
            assert run.training_us_per_pixel == pytest.approx(
                1e6 * record.training_s / (record.num_train * len(record.history))
            )
            assert run.mapping_us_per_pixel == pytest.approx(1e6 * run.mapping_s / 24**2)
            assert run.training_peak_bytes > 2**26  # an interpreter with torch in it
    none, se = report.scenes[0].variants
    for before, after in zip(none.runs, se.runs, strict=True):
        assert before.split_digest == after.split_digest
        first, second = correct["none", after.seed], correct["se", after.seed]
        assert after.mcnemar.only_variant - after.mcnemar.only_baseline == second.sum() - first.sum()
        assert after.mcnemar.only_variant == np.count_nonzero(second & ~first)
    assert {path.name for path in finished.path.iterdir()} >= {
        "ablation.json", "ablation.csv", "ablation.md", "ablation.tex", "report.html"
    }  # fmt: skip


def test_a_second_start_runs_only_what_is_not_finished(finished, tmp_path, monkeypatch):
    more = tmp_path / "tiny.yaml"
    more.write_text(FILE.replace("0-1", "0-2"))
    out = shutil.copytree(finished.path, tmp_path / "out")
    folder = AblationFolder(out)
    folder.run_of("se", 1).report.unlink()  # as if killed between training and evaluation
    before = weights_of(folder)
    trained = []
    train = runner.train_unless_finished
    monkeypatch.setattr(runner, "train_unless_finished", lambda *a, **k: trained.append(a[1]) or train(*a, **k))
    log = Log()
    _, report = runner.run_ablation(load_ablation(more), out=out, session=CPU, watcher=log)
    assert [run[:2] for run in log.changes if run[2] == "running"] == [("se", 1), ("none", 2), ("se", 2)]
    assert len(trained) == 3
    after = weights_of(folder)
    assert {name: after[name] for name in before} == before
    assert all(len(variant.runs) == 3 for variant in report.scenes[0].variants)


@pytest.mark.slow
def test_a_run_that_fails_is_reported_and_does_not_stop_the_others(call, file, tmp_path, monkeypatch):
    assess = runner.assess_run

    for error, code, said in (
        (ZeroDivisionError("by a pixel"), 1, "ZeroDivisionError: by a pixel"),
        (TrainingError("train.learning_rate = 9: lower it"), 2, "train.learning_rate = 9: lower it"),
    ):

        def fail(path: Path, error: Exception = error, **options: object):
            if path.name == "seed-0" and path.parent.name == "none":
                raise error
            return assess(path, **options)

        monkeypatch.setattr(runner, "assess_run", fail)
        found, out, err = call("ablate", file, "--out", tmp_path / "out", "--device", "cpu")
        assert found == code
        assert err.splitlines()[-1] == f"hsi-se: none, seed 0: failed: {said}"
        report = AblationFolder.open(tmp_path / "out").read_report()
        assert [len(variant.runs) for variant in report.scenes[0].variants] == [1, 2]
        assert [failure.is_users for failure in report.failed] == [code == 2]
        assert "the test cannot show a difference with 2 seeds, only with " in out
    monkeypatch.setattr(runner, "assess_run", assess)
    found, out, err = call("ablate", file, "--out", tmp_path / "out", "--device", "cpu")
    assert found == 0
    assert [len(v.runs) for v in AblationFolder.open(tmp_path / "out").read_report().scenes[0].variants] == [2, 2]


def test_a_dry_run_lists_every_variant_with_its_size_and_time_and_writes_nothing(call, file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = call("ablate", file, "--dry-run")
    assert code == 0
    rows = {line.split("│")[1].strip(): line.split("│") for line in out.splitlines() if line.count("│") > 6}
    assert rows["none"][4].strip() == "0"
    assert "fold: {kind: se}" in rows["se"][2]
    parameters = [int(rows[name][5].replace(",", "")) for name in ("none", "se")]
    assert parameters[0] < parameters[1]
    assert re.fullmatch(r"0:00:0\d", rows["se"][7].strip())
    assert "4 runs" in rows
    assert "folder: runs/ablation-tiny-" in out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--workers", "0"], "--workers 0: use 1 to 1024"),
        (["--workers", "2", "--scheduler", "tcp://x:1"], "--workers: has no effect beside --scheduler"),
        (["--device", "tpu"], "--device tpu: did you mean 'cpu'? choose from auto, cpu, cuda"),
        (["--set", "train.epochs=x"], "--set train.epochs=x: train.epochs = 'x'"),
        (["--set", "scene={cube: no.mat, labels: no.mat}"], "no.mat"),
    ],
)
def test_a_mistake_in_an_option_is_one_line_and_runs_nothing(call, file, tmp_path, options, message):
    code, out, err = call("ablate", file, "--out", tmp_path / "out", *options)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_missing_file_is_one_line(call, tmp_path):
    code, _, err = call("ablate", tmp_path / "no.yaml")
    assert (code, err) == (2, f"hsi-se: {tmp_path / 'no.yaml'}: no such config file; check the path\n")


def test_the_folder_of_another_ablation_is_refused(call, finished, file):
    before = finished.report.read_bytes()
    code, _, err = call("ablate", file, "--set", "train.epochs=3", "--out", finished.path)
    assert code == 2
    assert re.fullmatch(
        rf"hsi-se: {finished}: contains another ablation \(tiny, digest \w+; this one is tiny, \w+\); "
        r"choose another folder with --out DIR\n",
        err,
    )
    assert finished.report.read_bytes() == before


def test_a_folder_of_something_else_is_refused(file, tmp_path):
    for out in (tmp_path / "taken", tmp_path / "file.txt"):
        mine = out / "mine.txt" if out.suffix == "" else out
        mine.parent.mkdir(exist_ok=True)
        mine.write_text("mine")
        with pytest.raises(RunError, match="already exists but is not an ablation folder; choose another"):
            runner.run_ablation(load_ablation(file), out=out, session=CPU, watcher=Log())
        assert mine.read_text() == "mine"


def test_a_variant_that_has_changed_under_its_name_is_refused(finished, tmp_path):
    other = tmp_path / "tiny.yaml"
    other.write_text(FILE.replace("{kind: se}", "{kind: se, reduction: 4}"))
    with pytest.raises(RunError, match=r"se/seed-0: contains a run with other settings than variants\.se"):
        runner.run_ablation(load_ablation(other), out=finished.path, session=CPU, watcher=Log())


@pytest.mark.slow
def test_an_interrupted_ablation_has_a_report_of_what_is_finished(file, tmp_path, monkeypatch):
    assess, done = runner.assess_run, []

    def interrupt(path: Path, **options: object):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(path)
        return assess(path, **options)

    monkeypatch.setattr(runner, "assess_run", interrupt)
    with pytest.raises(KeyboardInterrupt):
        runner.run_ablation(load_ablation(file), out=tmp_path / "out", session=CPU, watcher=Log())
    report = AblationFolder.open(tmp_path / "out").read_report()
    assert report.num_missing == 2
    assert report.scenes[0].variants[1].comparison.difference.n == 1


def test_threads_are_fixed_inside_and_given_back():
    before = torch.get_num_threads()
    with runner.fixed_threads(3):
        assert torch.get_num_threads() == 3
    assert torch.get_num_threads() == before


def test_the_peak_is_of_the_work_measured_and_not_of_what_came_before():
    def peak_of(megabytes: int) -> int:
        meter = measure.Meter(torch.device("cpu"))
        np.ones(megabytes << 17)
        return meter.stop().peak_bytes

    peak_of(1)
    high = peak_of(400)
    low = peak_of(1)
    assert 350 << 20 < high - low < 450 << 20


def test_a_system_that_cannot_tell_has_a_time_and_no_peak(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "_RESET", tmp_path / "missing" / "clear_refs")
    cost = measure.Meter(torch.device("cpu")).stop()
    assert cost.peak_bytes is None
    assert cost.seconds >= 0


def test_threads_of_one_worker_do_not_mix_their_runs(finished, file, tmp_path):
    runs = load_ablation(file).runs[:2]
    started = [
        threading.Thread(
            target=runner.run_once,
            args=(run.config, tmp_path / "runs" / run.variant / f"seed-{run.seed}"),
            kwargs={"session": CPU, "threads": 1},
        )
        for run in runs
    ]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    weights = weights_of(AblationFolder(tmp_path))
    assert len(weights) == 2 * 4  # bundle, split, predictions and what the page explores
    assert weights.items() <= weights_of(finished).items()


def test_off_a_terminal_every_run_is_a_line_with_the_mean_so_far(call, finished, file, tmp_path):
    out = shutil.copytree(finished.path, tmp_path / "out")
    shutil.rmtree(out / "runs" / "none" / "seed-1")
    code, _, err = call("ablate", file, "--out", out, "--device", "cpu")
    assert code == 0
    lines = err.splitlines()
    assert len(lines) == 4
    assert re.fullmatch(r"1/4  none, seed 0  finished  accuracy [\d.]+ %  \([\d.]+, n=1\)", lines[0])
    assert re.fullmatch(r"4/4  none, seed 1  finished  accuracy [\d.]+ %  \([\d.]+ ± [\d.]+, n=2\)", lines[3])


@pytest.mark.slow
def test_a_terminal_gets_a_table_of_every_variants_state_and_mean(finished, file):
    command = [sys.executable, "-m", "hsi_se", "ablate", file, "--out", finished.path]
    code = (
        "import os, pty, sys\n"
        "os.environ.update(TERM='xterm', COLUMNS='120', LINES='30')\n"
        "sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
    )
    done = subprocess.run([sys.executable, "-c", code, *map(str, command)], capture_output=True, check=True)
    screen = done.stdout.decode()
    assert "tiny: 4 of 4 runs" in screen
    assert re.search(r"│ se +│ ■■ +│ +[\d.]+ ± [\d.]+, n=2 │", screen)


# `hsi-se`, whose workers keep a finished run at a gate.
GATED = """
import sys
from hsi_se.ablation import run as runner
from hsi_se.cli.main import main
{GATE}
work, gate = runner.run_on_worker, Path(sys.argv.pop(1))
def gated(*arguments):
    files = work(*arguments)
    pass_gate(gate, num_free=2)
    return files
runner.run_on_worker = gated
main()
""".replace("{GATE}", GATE)


def start(file: Path, out: Path, *options: object, gate: Gate | None = None) -> subprocess.Popen:
    program = ["-m", "hsi_se"] if gate is None else ["-c", GATED, gate.path]
    command = [sys.executable, *program, "ablate", file, "--out", out, "--device", "cpu", *options]
    return subprocess.Popen(
        [*map(str, command)], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
def test_two_processes_in_one_folder_share_the_runs_and_end_with_the_same_answer(finished, file, tmp_path):
    both = [start(file, tmp_path / "out") for _ in range(2)]
    outputs = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    together = AblationFolder(tmp_path / "out")
    assert weights_of(together) == weights_of(finished)
    assert numbers_of(together) == numbers_of(finished)


@pytest.fixture
def many(tmp_path) -> tuple[Path, Ablation]:
    """Enough runs that some are left when a worker dies."""
    path = tmp_path / "tiny.yaml"
    path.write_text(FILE.replace("0-1", "0-2"))
    return path, load_ablation(path)


@pytest.mark.exhaustive
def test_a_cluster_that_loses_a_worker_midway_has_the_sequential_result_to_the_bit(many, finished, tmp_path):
    path, ablation = many
    begun = shutil.copytree(finished.path, tmp_path / "alone")
    alone, _ = runner.run_ablation(ablation, out=begun, session=CPU, watcher=Log())  # one more seed
    torn = AblationFolder(tmp_path / "torn")
    cluster = tmp_path / "cluster"
    cluster.mkdir()
    with start_cluster(cluster) as (address, (_, *workers)):
        gate = Gate(tmp_path / "gate")
        process = start(path, torn.path, "--scheduler", address, gate=gate)
        gate.wait_for_calls(4, process)  # both workers have a run and keep it
        os.kill(workers[0].pid, signal.SIGKILL)
        assert len(list(torn.path.glob("runs/*/*/record.json"))) <= 2, "of 6 runs some are left"
        gate.open()
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        assert workers[0].wait() == -signal.SIGKILL
    assert torn.read_report().failed == ()
    weights = weights_of(alone)
    assert len(weights) == 6 * 4
    assert weights_of(torn) == weights
    assert numbers_of(torn) == numbers_of(alone)


@pytest.mark.exhaustive
def test_a_scheduler_that_is_killed_midway_ends_the_ablation_in_one_line(file, tmp_path):
    cluster = tmp_path / "cluster"
    cluster.mkdir()
    with start_cluster(cluster) as (address, (scheduler, *_)):
        gate = Gate(tmp_path / "gate")
        process = start(file, tmp_path / "out", "--scheduler", address, gate=gate)
        gate.wait_for_calls(2, process)
        scheduler.kill()
        _, errors = process.communicate(timeout=300)
    *runs, problem = errors.splitlines()
    assert process.returncode == 2
    assert problem.startswith(f"hsi-se: --scheduler {address}: is lost; start it again with its workers, then rerun ")
    assert all("finished" in line for line in runs), "no word from Dask itself"


@pytest.mark.exhaustive
def test_workers_of_this_machine_have_the_sequential_result_to_the_bit(finished, file, tmp_path):
    process = start(file, tmp_path / "out", "--workers", 2)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert weights_of(AblationFolder(tmp_path / "out")) == weights_of(finished)
    assert numbers_of(AblationFolder(tmp_path / "out")) == numbers_of(finished)
    assert all("finished" in line for line in errors.splitlines()), "no word from Dask itself"


def test_a_scheduler_that_does_not_answer_is_refused_in_one_line(file, call, tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "_CONNECT_S", 2)
    code, _, errors = call("ablate", file, "--out", tmp_path / "out", "--scheduler", "tcp://127.0.0.1:9")
    assert code == 2
    assert errors.startswith("hsi-se: --scheduler tcp://127.0.0.1:9: no Dask scheduler answers there; ")
    assert errors.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_run_from_elsewhere_takes_the_place_of_one_that_is_not_finished(tmp_path):
    folder = AblationFolder(tmp_path)
    run = folder.run_of("se", 0)
    run.path.mkdir(parents=True)
    run.config.write_text("half")
    folder.place(run, {"record.json": b"{}", "bundle.json": b"[]"})
    assert {path.name: path.read_bytes() for path in run.path.iterdir()} == {
        "record.json": b"{}", "bundle.json": b"[]"
    }  # fmt: skip
    assert [path.name for path in run.path.parent.iterdir()] == ["seed-0"]


class Cluster:
    """Says what its workers declare, as Dask's client does."""

    def __init__(self, *resources: dict[str, int]) -> None:
        self.workers = {str(place): {"resources": each} for place, each in enumerate(resources)}
        self.scheduler, self.cluster, self.loop = self, None, None
        self.address, self.status = "tcp://here:1", "idle"

    def sync(self, question: Callable[[], object]) -> object:
        return question()

    def identity(self) -> dict[str, object]:
        return {"workers": self.workers}


def test_gpus_that_workers_declare_bound_the_runs_at_a_time():
    assert pool.count_slots(Cluster({}, {}, {})) == (3, None)
    assert pool.count_slots(Cluster({"GPU": 2}, {}, {"GPU": 1})) == (3, {"GPU": 1})


def test_a_scheduler_that_cannot_be_asked_has_no_workers():
    def refuse() -> object:
        raise OSError

    cluster = Cluster({})
    cluster.identity = refuse
    assert pool.count_slots(cluster) == (0, None)


def test_a_cluster_that_stays_without_workers_is_given_up(file, tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "_LOST_S", 0.5)
    monkeypatch.setattr("distributed.as_completed", lambda **_: Silence())
    ablation, folder = load_ablation(file), AblationFolder(tmp_path)
    job = runner.Job(ablation, folder, CPU, Log())
    gone = "tcp://here:1: has had no worker for 0 s; start one with `dask worker tcp://here:1`, then rerun"
    with pytest.raises(ClusterError, match=gone):
        runner._work_on_cluster(ablation.runs, job, Cluster())


class Silence:
    """What is done in a cluster that does nothing."""

    def has_ready(self) -> bool:
        return False
