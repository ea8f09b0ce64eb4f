"""Watching a training: what the progress says, in a terminal, off one, and when it ends or fails."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from io import StringIO

import pytest
from rich.console import Console

import hsi_se
from hsi_se.ablation.file import load_ablation
from hsi_se.ablation.record import AblationFolder
from hsi_se.ablation.run import run_ablation
from hsi_se.cli.watch import draw, follow, list_progress
from hsi_se.runs.folder import RunFolder
from hsi_se.system.locks import hold
from tests.ablation.test_ablation import FILE, Log
from tests.conftest import CPU, ROOT, TINY


@pytest.fixture(scope="module")
def finished(tiny_config, tmp_path_factory) -> RunFolder:
    return hsi_se.train(tiny_config, out=tmp_path_factory.mktemp("runs") / "tiny", session=CPU)


@pytest.fixture
def unfinished(finished, tmp_path) -> RunFolder:
    """The run as it was after its first epoch; nobody is at it."""
    folder = RunFolder(tmp_path / "run")
    shutil.copytree(finished.path, folder.path)
    folder.record.unlink()
    lines = finished.progress.read_text().splitlines(keepends=True)
    folder.progress.write_text("".join(lines[:2]) + lines[2][:20])
    return folder


def off_terminal() -> Console:
    return Console(file=StringIO(), width=120)


def test_lines_follow_the_epochs_until_the_record_appears(finished, unfinished):
    console, waits = off_terminal(), []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            shutil.copy(finished.progress, unfinished.progress)
        elif len(waits) == 3:
            shutil.copy(finished.record, unfinished.record)
            (unfinished.path / ".lock").unlink()
        assert len(waits) < 5, "it ends with the record"

    with hold(unfinished.path, "training"):
        follow(unfinished.path, console=console, sleep=sleep)
    first, second = finished.read_record().history
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 3
    pattern = r"demo  epoch {} of 2  loss {:.3f}  validation accuracy [\d.]+ %  {}"
    assert re.fullmatch(pattern.format(1, first.loss, r"0:00:\d\d left"), lines[0])
    assert re.fullmatch(pattern.format(2, second.loss, "0:00:00 left"), lines[1])
    assert re.fullmatch(pattern.format(2, second.loss, "finished"), lines[2])


@pytest.mark.slow
def test_an_ablation_is_followed_run_by_run_until_its_report_misses_none(tmp_path):
    file, out = tmp_path / "tiny.yaml", tmp_path / "out"
    file.write_text(FILE)
    ablation, failures = load_ablation(file), []

    def work() -> None:
        try:
            run_ablation(ablation, out=out, session=CPU, watcher=Log())
        except BaseException as error:  # which a thread would keep to itself
            failures.append(error)

    worker = threading.Thread(target=work)
    worker.start()
    latest = time.monotonic() + 120
    while not AblationFolder(out).plan.is_file():
        assert worker.is_alive(), failures
        assert time.monotonic() < latest
        time.sleep(0.01)
    console = off_terminal()
    follow(out, console=console)
    worker.join()
    assert failures == []
    assert AblationFolder(out).read_report().num_missing == 0
    lines = console.file.getvalue().splitlines()
    ends = [line.split()[0] for line in lines if line.endswith("finished")]
    assert sorted(ends) == [f"runs/{variant}/seed-{seed}" for variant in ("none", "se") for seed in (0, 1)]


def test_a_run_that_fails_while_watched_is_reported_as_deleted(unfinished):
    console = off_terminal()
    with hold(unfinished.path, "training"):
        follow(unfinished.path, console=console, sleep=lambda _: shutil.rmtree(unfinished.path))
    assert "the run failed or was stopped, and its folder was deleted" in console.file.getvalue()


def test_watching_a_run_whose_process_is_dead_ends_and_says_how_to_resume(unfinished):
    (unfinished.path / ".lock").touch()  # as a killed process leaves it
    console, waits = off_terminal(), []
    follow(unfinished.path, console=console, sleep=waits.append)
    assert waits == []
    last = console.file.getvalue().splitlines()[-1]
    assert last == (f"{unfinished}: no process is training here any more; resume with `hsi-se resume {unfinished}`")


def test_watching_a_folder_of_runs_whose_process_is_dead_waits_for_the_next_and_ends(finished, unfinished, tmp_path):
    folder = tmp_path / "seeds"
    shutil.copytree(finished.path, folder / "seed-0")
    unfinished.path.rename(folder / "seed-1")
    console, waits = off_terminal(), []
    follow(folder, console=console, sleep=waits.append)
    assert 10 < sum(waits) < 60
    last = console.file.getvalue().splitlines()[-1]
    assert last == (f"{folder}: no process is training here any more; rerun the command that started it to resume")


def test_a_run_that_another_process_begins_again_is_followed(finished, unfinished, tmp_path):
    """Between two runs of a folder nobody is at work; that a run is unfinished does not end the watching."""
    folder = tmp_path / "seeds"
    folder.mkdir()
    run = RunFolder(unfinished.path.rename(folder / "seed-0"))
    waits = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 5:
            shutil.copy(finished.progress, run.progress)
            shutil.copy(finished.record, run.record)

    console = off_terminal()
    follow(folder, console=console, sleep=sleep)
    assert console.file.getvalue().splitlines()[-1].endswith("finished")


def test_a_terminal_shows_what_is_trained_its_last_epoch_and_the_time_left(unfinished):
    (run,) = list_progress(unfinished.path)
    console = off_terminal()
    console.print(draw([run], path=unfinished.path))
    title, row = console.file.getvalue().splitlines()
    assert title == "demo on synthetic farmland, seed 0, trained with seed 0"
    assert re.fullmatch(
        rf"demo  epoch 1 of 2  loss {run.epochs[0].loss:.3f}  validation accuracy [\d.]+ %  0:00:\d\d left", row.strip()
    )


def test_a_terminal_shows_the_last_runs_of_a_folder_and_how_many_are_finished(finished, unfinished, tmp_path):
    for seed in range(15):
        shutil.copytree(finished.path, tmp_path / f"seed-{seed}")
        os.utime(tmp_path / f"seed-{seed}" / "progress.jsonl", (seed, seed))
    unfinished.path.rename(tmp_path / "seed-15")
    console = off_terminal()
    console.print(draw(list_progress(tmp_path), path=tmp_path), soft_wrap=True)
    title, *rows = console.file.getvalue().splitlines()
    assert title.endswith("15 of 16 runs finished; now demo on synthetic farmland, seed 0, trained with seed 0")
    assert [row.split()[0] for row in rows] == [f"seed-{seed}" for seed in range(4, 16)]
    assert all(row.rstrip().endswith("finished") for row in rows[:-1])
    assert rows[-1].rstrip().endswith("left")


def test_a_run_that_writes_nothing_for_a_minute_is_said_to(unfinished):
    os.utime(unfinished.progress, (time.time() - 90, time.time() - 90))
    console = off_terminal()
    console.print(draw(list_progress(unfinished.path), path=unfinished.path))
    assert console.file.getvalue().splitlines()[-1].startswith("nothing written for 0:01:")


def test_the_time_left_is_that_of_the_epochs_to_come(unfinished):
    (run,) = list_progress(unfinished.path)
    assert run.left_s == pytest.approx(max(0, run.epochs[0].elapsed_s - min(run.quiet_s, 9)), abs=0.5)


def test_a_folder_of_runs_shows_them_all_and_ends_when_none_is_to_come(finished, unfinished, tmp_path):
    shutil.copytree(finished.path, tmp_path / "seed-0")
    unfinished.path.rename(tmp_path / "seed-1")
    os.utime(tmp_path / "seed-1" / "progress.jsonl")
    console, waits = off_terminal(), []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 1:
            shutil.copy(finished.record, tmp_path / "seed-1")

    follow(tmp_path, console=console, sleep=sleep)
    text = console.file.getvalue()
    assert re.search(r"seed-0  epoch 2 of 2 .* finished", text)
    assert re.search(r"seed-1  epoch 1 of 2 .* left", text)
    assert sum(waits) < 60


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda _: None, "no such folder; give the --out folder of `hsi-se train` or `ablate`"),
        (lambda path: path.mkdir(), "nothing trains in this folder (progress.jsonl is missing)"),
        (lambda path: path.write_text(""), "is a file; give the --out folder"),
    ],
)
def test_where_nothing_trains_is_one_line(call, tmp_path, make, message):
    make(tmp_path / "x")
    code, out, err = call("watch", tmp_path / "x")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_control_c_leaves_quietly(unfinished):
    command = [sys.executable, "-m", "hsi_se", "watch", str(unfinished.path)]
    with hold(unfinished.path, "training"):
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A shell starts what it puts into the background with SIGINT ignored, which children inherit.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        assert "epoch 1 of 2" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, "", "")


def test_a_training_in_another_process_is_watched_to_its_end(tmp_path):
    options = [part for override in TINY for part in ("--set", override)]
    run = tmp_path / "run"
    train = [sys.executable, "-m", "hsi_se", "train", str(ROOT / "configs" / "demo.yaml"), *options]
    with subprocess.Popen([*train, "--out", str(run)], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        for _ in range(600):
            if (run / "progress.jsonl").is_file():
                break
            time.sleep(0.05)
        console = off_terminal()
        follow(run, console=console)
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert console.file.getvalue().splitlines()[-1].endswith("finished")
