"""Runs recorded with TensorBoard, Weights & Biases and MLflow, each read back by its own library."""

import math
import pickle
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import hsi_se
from hsi_se.config.yaml_file import load_config
from hsi_se.errors import Interrupted
from hsi_se.progress import Several, Silent
from hsi_se.runs.folder import RunFolder
from hsi_se.system.session import Session
from hsi_se.workflows.loggers import MlFlow, TensorBoard, WeightsAndBiases, open_logger
from hsi_se.workflows.train import resume
from tests.conftest import ROOT, TINY, set_options
from tests.training.resuming import Impatient

DEMO = ROOT / "configs" / "demo.yaml"
SMALL = (
    *TINY,
    "model={name: hybridsn, width: 0.125}",
    "split={kind: random, train: 0.2, validation: 0.3}",
    "train={epochs: 3, batch_size: 32, checkpoint_every_s: 0}",
)
CONFIG = load_config(DEMO, SMALL)
TOOLS = ("tensorboard", "wandb", "mlflow")
OA = "test/network OA"


@pytest.fixture(autouse=True)
def _nothing_in_the_environment(monkeypatch) -> None:
    for name in ("WANDB_MODE", "WANDB_PROJECT", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def logged(tmp_path_factory) -> Path:
    """A run that is trained, interrupted in its third epoch, resumed and evaluated, with all three tools at a time.

    Nothing is sent: a connection beyond this machine fails the tests.
    """
    folder = tmp_path_factory.mktemp("logged")
    connect = socket.socket.connect

    def refuse(self: socket.socket, address: object) -> None:
        assert not isinstance(address, tuple) or address[0] in ("127.0.0.1", "::1", "localhost"), address
        connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        patch.chdir(folder)

        def observe(*others: Silent) -> Session:
            return Session(device="cpu", observer=Several(*others, *map(open_logger, TOOLS)))

        steps = -(
            -len(RunFolder(hsi_se.train(CONFIG, out="plain", session=Session(device="cpu"))).read_split().train) // 32
        )
        with pytest.raises(Interrupted):
            hsi_se.train(CONFIG, out="run", session=observe(Impatient(in_step=2 * steps + 1)))
        resume("run", session=observe())
        hsi_se.evaluate("run", session=observe())
    return folder


def expected_epochs(folder: Path) -> dict[str, list[tuple[int, float]]]:
    history = RunFolder(folder / "run").read_record().history
    return {
        "training/loss": [(record.epoch, record.loss) for record in history],
        "validation/loss": [(record.epoch, record.validation_loss or math.nan) for record in history],
        "validation/accuracy": [(record.epoch, record.validation_accuracy or 0.0) for record in history],
    }


def find_accuracy(folder: Path) -> float:
    return RunFolder(folder / "run").read_report().overall_accuracy


def test_tensorboard_shows_every_epoch_once_the_settings_and_the_accuracies(logged):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    [name] = (logged / "tensorboard").iterdir()
    assert name.name == CONFIG.label
    events = EventAccumulator(str(name)).Reload()
    for tag, values in expected_epochs(logged).items():
        found = events.Scalars(tag)
        assert [event.step for event in found] == [step for step, _ in values]
        assert [event.value for event in found] == pytest.approx([value for _, value in values], rel=1e-6)
    assert events.Scalars(OA)[-1].value == pytest.approx(find_accuracy(logged), rel=1e-6)
    settings = events.Tensors("settings/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "| train.batch_size | 32 |" in settings
    page = events.Tensors("report page/text_summary")[-1].tensor_proto.string_val[0].decode()
    assert Path(page) == logged / "run" / "report.html"


def test_mlflow_has_one_run_with_every_epoch_the_settings_the_accuracies_and_the_page(logged):
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=(logged / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("hsi-se")
    [run] = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == CONFIG.label
    assert run.info.status == "FINISHED"
    assert run.data.params["train.batch_size"] == "32"
    assert run.data.params["scene.synthetic"] == "0"
    for name, values in expected_epochs(logged).items():
        found = [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, name)]
        assert found == values
    assert run.data.metrics[OA] == find_accuracy(logged)
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["report.html"]


def read_leveldb_log(content: bytes) -> Iterator[bytes]:
    """The records of a file in the log format of LevelDB, after the seven bytes of W&B's own."""
    assert content[:4] == b":W&B"
    place, whole = 7, b""
    while place < len(content):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, place)
        whole += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield whole
            whole = b""


def test_wandb_keeps_every_epoch_the_settings_the_accuracies_and_the_page_offline(logged):
    from wandb.proto import wandb_internal_pb2

    files = sorted((logged / "wandb").glob("offline-run-*/*.wandb"))  # which sync joins by the name
    rows: dict[str, dict[float, float]] = {}
    names, config, summary = set(), {}, {}
    for file in files:
        for data in read_leveldb_log(file.read_bytes()):
            record = wandb_internal_pb2.Record.FromString(data)
            row = {item.key or "/".join(item.nested_key): float(item.value_json) for item in record.history.item}
            for name in row.keys() - {"epoch"}:
                rows.setdefault(name, {})[row["epoch"]] = row[name]
            if record.HasField("run"):
                names.add((record.run.run_id, record.run.display_name))
                config |= {item.key: item.value_json for item in record.run.config.update}
            summary |= {item.key or item.nested_key[0]: item.value_json for item in record.summary.update}
    assert names == {(CONFIG.label, CONFIG.label)}
    for name, values in expected_epochs(logged).items():
        assert list(rows[name].items()) == values
    assert config["train.batch_size"] == "32"
    assert float(summary[OA]) == find_accuracy(logged)
    assert (files[-1].parent / "files" / "report.html").read_bytes() == (logged / "run" / "report.html").read_bytes()


@pytest.mark.usefixtures("quick_baseline")
def test_the_command_line_logs_to_the_folder_that_is_named(call, tmp_path):
    svm = set_options(*TINY, "model={name: svm}", "split.train=0.3")
    for words in (["train", DEMO, *svm, "--out", tmp_path / "run"], ["eval", tmp_path / "run"]):
        assert call(*words, "--log", f"tensorboard:{tmp_path / 'events'}")[0] == 0
    [run] = (tmp_path / "events").iterdir()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run)).Reload()
    expected = RunFolder(tmp_path / "run").read_report()
    assert events.Scalars(OA)[0].value == pytest.approx(expected.overall_accuracy, rel=1e-6)
    floor = expected.location_floor.overall_accuracy
    assert events.Scalars("test/location floor OA")[0].value == pytest.approx(floor, rel=1e-6)


@pytest.mark.parametrize("command", ["train", "gap", "ablate"])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tensorbord", "did you mean 'tensorboard'? choose from tensorboard, wandb, mlflow, with :DIR behind it"),
        ("wandb:", "choose from tensorboard, wandb, mlflow, with :DIR behind it for another folder"),
    ],
)
def test_an_unknown_tool_is_refused_in_one_line(call, tmp_path, command, text, message):
    file = ROOT / "configs" / "ablations" / "placement.yaml" if command == "ablate" else DEMO
    code, _, error = call(command, file, "--log", text, "--out", tmp_path / "run")
    assert code == 2
    assert error.startswith(f"hsi-se: --log {text}: ")
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("tool", TOOLS)
def test_without_its_extra_a_tool_is_refused_in_one_line_with_the_remedy(call, monkeypatch, tmp_path, tool):
    monkeypatch.setitem(sys.modules, tool, None)
    code, _, error = call("train", DEMO, "--log", tool, "--out", tmp_path / "run")
    assert code == 2
    remedy = f"in the clone of hsi-se, pip install '.[{tool}]'"
    assert error == f"hsi-se: --log {tool}: {tool} is not installed; {remedy}\n"


@pytest.mark.parametrize("logger", [TensorBoard, WeightsAndBiases, MlFlow])
def test_a_logger_can_be_sent_to_the_workers_of_a_cluster(logger, tmp_path):
    sent = pickle.loads(pickle.dumps(Several(Silent(), logger(tmp_path))))
    sent.note("nothing is begun yet")


def test_mlflow_writes_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "elsewhere").as_uri())
    for logger in (MlFlow(), MlFlow(tmp_path / "given")):
        logger.begin_run("name", {"a.b": 1}, epoch=0)
        logger.end_run({}, page=None)
    assert (tmp_path / "elsewhere").is_dir()
    assert (tmp_path / "given").is_dir()
    assert not (tmp_path / "mlruns").exists()


def test_wandb_obeys_the_mode_of_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    logger = WeightsAndBiases(tmp_path)
    logger.begin_run("name", {}, epoch=0)
    logger.end_run({}, page=None)
    assert not list(tmp_path.iterdir())
