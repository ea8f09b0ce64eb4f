"""A training on two processes against one, over gloo on this machine."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from hsi_se.config.training import TrainSettings
from hsi_se.errors import TrainingError
from hsi_se.runs.folder import RunFolder
from hsi_se.training.distributed import World
from tests.conftest import ROOT, TINY, set_options
from tests.training.resuming import wait_for_epoch
from tests.training.test_training import make_model, run_fit
from tests.training.torchrun_gradients import take_steps

DEMO = ROOT / "configs" / "demo.yaml"
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
# Everything that draws at random, and everything that is taken over the whole batch.
TRAIN = (
    "train={epochs: EPOCHS, batch_size: 15, noise: 0.1, shift: 1, band_dropout: 0.1, class_weights: sqrt, "
    "label_smoothing: 0.1, weight_averaging: 0.9, checkpoint_every_s: 0}"
)


def options(*changes: str, epochs: int) -> list[str]:
    train = TRAIN.replace("EPOCHS", str(epochs))
    return [str(DEMO), *set_options(*TINY, "model.width=0.25", train, *changes), "--device", "cpu"]


def start(*arguments: object, log: Path, launcher: list[str] = TORCHRUN) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [*launcher, *map(str, arguments)]
    with log.open("wb") as stream:
        return subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, env=environment)


@pytest.mark.slow
def test_gradients_and_statistics_are_those_of_one_process_with_the_whole_batch(tmp_path):
    log = tmp_path / "log"
    assert start("-m", "tests.training.torchrun_gradients", tmp_path, log=log).wait(timeout=120) == 0, log.read_text()
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        expected = take_steps(World(), dtype=dtype)
        first, second = (torch.load(tmp_path / f"{dtype}-{rank}.pt", weights_only=True) for rank in (0, 1))
        assert set(first) == set(expected)
        scale = max(float(value.norm()) for name, value in expected.items() if name[0].isdigit())
        for name, value in expected.items():
            assert torch.equal(first[name], second[name]), name
            # A convolution's bias has no gradient in front of batch norm: what is there is the rounding of a
            # sum over every location, which how a processor adds decides.
            least = 1.0 if name.endswith("conv.bias") else 1e-2
            size = max(float(value.double().norm()), least * scale)
            assert float((first[name] - value).double().norm()) <= tolerance * size, name


def test_a_batch_is_shared_without_gap_or_overlap():
    for num_patches in (5, 6, 7, 256):
        shares = [World(rank, 5).take_share(num_patches) for rank in range(5)]
        patches = [n for share in shares for n in range(num_patches)[share]]
        assert patches == list(range(num_patches))
        sizes = [share.stop - share.start for share in shares]
        assert max(sizes) - min(sizes) <= 1


def test_more_processes_than_patches_are_refused():
    with pytest.raises(
        TrainingError, match=r"3 processes cannot share batches of 2 patches; start fewer processes, or raise train"
    ):
        run_fit(make_model(), num_pixels=8, batch_size=3, world=World(0, 3))
    assert TrainSettings(epochs=1).batch_size >= 3


@pytest.mark.slow
def test_two_processes_train_what_one_does_and_the_first_alone_writes(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    cross_fit = "prediction.calibration=cross-fit"  # by the first process, which the others leave
    alone = start(
        "train",
        *options(cross_fit, "train.precision=float32", epochs=2),
        "--out",
        one,
        log=tmp_path / "log1",
        launcher=[sys.executable, "-m", "hsi_se"],
    )
    log = tmp_path / "log2"
    shared = start(
        "-m", "--", "hsi_se", "train", *options(cross_fit, "train.precision=float32", epochs=2), "--out", two, log=log
    )
    assert (alone.wait(timeout=120), shared.wait(timeout=120)) == (0, 0), log.read_text()
    assert RunFolder.open(two).split.read_bytes() == RunFolder(one).split.read_bytes()
    for mine, whole in zip(RunFolder(two).read_record().history, RunFolder(one).read_record().history, strict=True):
        assert mine.loss == pytest.approx(whole.loss, rel=1e-4)
    weights = RunFolder(two).read_bundle().weights
    for name, expected in RunFolder(one).read_bundle().weights.items():
        np.testing.assert_allclose(weights[name], expected, atol=2e-3, err_msg=name)
    found, expected = (RunFolder(path).read_facts().scaling for path in (two, one))
    assert found.gain == pytest.approx(expected.gain, abs=1e-6)
    text = log.read_text()
    assert text.count("run folder: ") == 1
    assert text.count("epoch 2 ") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"one", "two", "log1", "log2"}


def children_of(process: subprocess.Popen[bytes]) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def rank_of(pid: int) -> str:
    variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return next((v.decode().partition("=")[2] for v in variables if v.startswith(b"RANK=")), "")


@pytest.mark.exhaustive
@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_process_that_dies_ends_the_other_within_a_minute_and_the_run_goes_on(rank, tmp_path):
    run, log = tmp_path / "run", tmp_path / "log"
    shared = start("-m", "--", "hsi_se", "train", *options(epochs=200), "--out", run, log=log)
    wait_for_epoch(run, lambda: shared.poll() is None)
    workers = children_of(shared)
    assert {rank_of(pid) for pid in workers} >= {"0", "1"}
    began = time.monotonic()
    os.kill(next(pid for pid in workers if rank_of(pid) == rank), signal.SIGKILL)
    assert shared.wait(timeout=60) != 0
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() - began < 60
        time.sleep(0.1)
    folder = RunFolder(run)
    assert folder.is_unfinished
    done = len(folder.read_progress()[1])
    again = start("-m", "--", "hsi_se", "resume", run, log=tmp_path / "log2")
    while len(folder.read_progress()[1]) < done + 2:
        assert again.poll() is None, (tmp_path / "log2").read_text()
        time.sleep(0.05)
    for pid in children_of(again):
        os.kill(pid, signal.SIGTERM)
    assert again.wait(timeout=60) != 0
    text = (tmp_path / "log2").read_text()
    assert text.count("hsi-se: interrupted in epoch ") == 1
    assert folder.is_unfinished
    assert folder.has_checkpoint
