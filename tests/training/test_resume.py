"""A training that is killed goes on to the weights of one that never was; what `resume` takes, and what it costs."""

import itertools
import json
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch

import hsi_se
from hsi_se.config.training import TrainSettings
from hsi_se.config.yaml_file import load_config
from hsi_se.errors import RunError
from hsi_se.runs.folder import RunFolder
from hsi_se.system.session import Session
from hsi_se.training import checkpoint
from hsi_se.training import step as step_module
from hsi_se.training.state import TrainingState
from hsi_se.workflows import train as experiment
from tests.conftest import TINY
from tests.processes import Moment
from tests.training.resuming import DEMO, OPTIONS, Notes, Quitter, check_resumed, make_keeper, same_weights, train
from tests.training.test_training import are_equal, make_model, run_fit, state_of

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "function",
    [
        "hsi_se.training.state:TrainingState.end_step",
        "hsi_se.system.files:_holds",  # a checkpoint's draft is on the disk
        "hsi_se.system.files:sync_folder",  # a checkpoint has its name
    ],
)
def test_killed_in_a_step_or_a_write_it_goes_on_to_the_same_weights(function, whole, tmp_path):
    for call in sorted(random.Random(function).sample(range(4, 24), 5)):  # after the folder is begun
        run = tmp_path / f"run-{call}"
        command = train(run=run, moment=Moment(function, signal.SIGKILL, call))
        assert command.wait() == -signal.SIGKILL
        assert RunFolder(run).is_unfinished
        assert any((run / "checkpoints").glob(".*.draft")) == function.endswith("_holds")
        check_resumed(run, whole)


@pytest.mark.exhaustive
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_ended_at_any_moment_a_run_is_whole_or_resumable_or_not_there(number, whole, tmp_path):
    """Whatever moment that is, so that a slow machine only makes it another one."""
    command = train(run=tmp_path / "timed")
    command.wait_for_start()
    start = time.perf_counter()
    assert command.wait() == 0
    life_s = time.perf_counter() - start
    rng = random.Random(number)
    for part in range(8):
        run = tmp_path / f"run-{part}"
        command = train(run=run)
        command.wait_for_start()
        time.sleep(life_s * (part + rng.random()) / 8)  # a moment: any will do
        command.send(number)
        code = command.wait()
        if number == signal.SIGKILL:
            assert code in (0, -number)
        else:
            assert code in (0, 128 + number)
        if code > 0:
            assert command.last_line().startswith("hsi-se: interrupted")
            assert "Traceback" not in command.log.read_text()
            assert not list(tmp_path.glob(".*")), "drafts are gone"
        if RunFolder(run).is_unfinished:
            check_resumed(run, whole)
        elif run.exists():
            assert same_weights(run, whole)
        else:
            assert code != 0


CHANGES = [
    {}, {"precision": "bfloat16"}, {"weight_averaging": 0.9}, {"noise": 0.5}, {"shift": 1},
    {"spectral_jitter": 0.2}, {"band_dropout": 0.3}, {"schedule": "cosine"}, {"schedule": "constant"},
    {"class_weights": "sqrt"}, {"vary_by": "batch", "noise": 0.5},
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_stopped_after_any_step_it_goes_on_to_the_same_weights(change, tmp_path, monkeypatch):
    monkeypatch.setattr(step_module, "SHARED_COST", 0)  # whatever can share does
    whole = make_model()
    expected = run_fit(whole, num_pixels=41, **change)
    for step in random.Random(str(change)).sample(range(1, 10), 3):  # of 3 epochs with 3 steps each
        folder = tmp_path / str(step)
        with pytest.raises(ZeroDivisionError):
            run_fit(make_model(), num_pixels=41, keeper=Quitter(make_keeper(folder), step=step), **change)
        torch.rand(3)  # a new process does not have the generator where this one has it
        model = make_model()
        result = run_fit(model, num_pixels=41, keeper=make_keeper(folder), **change)
        assert are_equal(state_of(model), state_of(whole))
        assert result.best_epoch == expected.best_epoch
        assert [record.loss for record in result.history] == [record.loss for record in expected.history]


@pytest.mark.parametrize("part", ["optimizer", "schedule", "average", "generators", "order", "total_loss"])
def test_without_any_part_of_the_state_the_weights_or_the_losses_are_others(part, tmp_path, monkeypatch):
    change = {"noise": 0.5, "weight_averaging": 0.9}
    whole = make_model()
    expected = run_fit(whole, num_pixels=41, **change)
    with pytest.raises(ZeroDivisionError):
        run_fit(make_model(), num_pixels=41, keeper=Quitter(make_keeper(tmp_path), step=5), **change)
    load = TrainingState.load

    def forget(state: TrainingState, saved: dict[str, object]) -> None:
        fresh = {**state.save(), "order": torch.arange(41), "average": state.save()["average"]}
        load(state, {**saved, part: fresh[part]})

    monkeypatch.setattr(TrainingState, "load", forget)
    model = make_model()
    result = run_fit(model, num_pixels=41, keeper=make_keeper(tmp_path), **change)
    assert not are_equal(state_of(model), state_of(whole)) or [r.loss for r in result.history] != [
        record.loss for record in expected.history
    ]


# ------------------------------------------------------------------------------------ what `resume` takes


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ([DEMO], "unexpected argument "), (["--set", "seed=1"], "unknown option --set"),
        (["--seeds", "0-2"], "unknown option --seeds"), (["--device", "cuda"], "unknown option --device"),
        (["--out", "other"], "unknown option --out"), (["--overwrite"], "unknown option --overwrite"),
    ],
    ids=str,
)  # fmt: skip
def test_a_run_resumes_as_it_began_and_takes_nothing_but_a_data_folder(options, problem, unfinished, call):
    code, out, err = call("resume", unfinished, *options)
    assert (code, out) == (2, "")
    assert err.startswith(f"hsi-se resume: {problem}")
    assert err.endswith("; see `hsi-se resume --help`\n")


def test_what_cannot_be_resumed_is_refused_in_one_line(whole, call, tmp_path):
    (tmp_path / "empty").mkdir()
    for folder, message in (
        (whole, f"is finished; evaluate it with `hsi-se eval {whole}`"),
        (tmp_path / "nowhere", "no such run folder; `hsi-se train` prints the path it writes"),
        (DEMO, f"is a file; name a run folder (`hsi-se train {DEMO}` prints its path)"),
        (tmp_path / "empty", "not a run folder (progress.jsonl is missing); name one that train wrote"),
    ):
        assert call("resume", folder) == (2, "", f"hsi-se: {folder}: {message}\n")
    assert call("resume") == (2, "", "hsi-se resume: missing argument 'RUN'; see `hsi-se resume --help`\n")


def test_a_changed_config_scene_or_split_is_not_gone_on_with(unfinished, monkeypatch):
    folder = RunFolder(unfinished)
    text = folder.config.read_text()
    folder.config.write_text(text.replace("epochs: 8", "epochs: 9"))
    with pytest.raises(RunError, match=r"config\.yaml: changed since the run began"):
        experiment.resume(unfinished)
    folder.config.write_text(text)

    split = folder.split.read_bytes()
    config = load_config(DEMO, [*TINY, "seed=5"])
    other = hsi_se.make_split(hsi_se.load_scene(config.scene), config.split, seed=5)
    start, _ = folder.read_progress()
    folder.write_start(start, config=folder.read_config(), split=other)
    with pytest.raises(RunError, match=r"split\.safetensors: changed since the run began"):
        experiment.resume(unfinished)
    folder.split.write_bytes(split)

    head = json.loads(start.model_dump_json())
    folder.progress.write_text(json.dumps({**head, "scene_digest": "0" * 64}) + "\n")
    with pytest.raises(RunError, match="was trained on another edition of "):
        experiment.resume(unfinished)
    folder.progress.write_text(json.dumps({**head, "device_kind": "cuda"}) + "\n")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(hsi_se.errors.TrainingError, match="--device cuda: PyTorch found no CUDA device"):
        experiment.resume(unfinished)
    assert folder.has_checkpoint


def test_without_a_checkpoint_a_run_begins_anew(unfinished, whole):
    shutil.rmtree(unfinished / "checkpoints")
    observer = Notes()
    experiment.resume(unfinished, session=Session(observer=observer))
    assert observer.notes[0] == f"{unfinished}: has no checkpoint yet; starting from the beginning"
    assert same_weights(unfinished, whole)


def test_an_unfinished_run_is_replaced_only_when_asked(unfinished, whole, call):
    code, _, err = call("train", DEMO, *OPTIONS, "--out", unfinished)
    assert code == 2
    assert err.startswith(f"hsi-se: {unfinished}: contains an unfinished run; resume with `hsi-se resume ")
    code, _, _ = call("train", DEMO, *OPTIONS, "--out", unfinished, "--overwrite")
    assert code == 0
    assert same_weights(unfinished, whole)


# ------------------------------------------------------------------------------------ cost


@pytest.mark.parametrize("cost_s", [0.003, 0.5, 20.0])
@pytest.mark.parametrize("epoch_s", [10.0, 2000.0])
def test_saving_takes_a_hundredth_of_the_time_and_a_minute_is_lost_at_most_where_that_allows(
    cost_s, epoch_s, tmp_path, monkeypatch
):
    now = [0.0]
    saves: list[float] = []

    def write(path: Path, data: bytes) -> None:
        del path, data
        now[0] += cost_s
        saves.append(now[0])

    monkeypatch.setattr(checkpoint.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(checkpoint, "write_durably", write)
    keeper = make_keeper(tmp_path / "checkpoints", every_s=60)
    model = torch.nn.Linear(1, 1)
    settings = TrainSettings(epochs=2, batch_size=2)
    state = TrainingState(model, settings, num_patches=4, seed=0)
    while len(saves) < 4:
        for _ in range(10):
            now[0] += epoch_s / 10
            keeper.after_step(state)
        keeper.after_epoch(state, is_last=False)
    assert len(saves[1:]) * cost_s <= 0.0101 * (now[0] - saves[0])
    longest = max(after - before for before, after in itertools.pairwise(saves))
    assert longest <= max(60, 100 * cost_s) + cost_s + epoch_s / 10 + 1e-6
