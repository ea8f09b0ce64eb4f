"""Observers that record runs with TensorBoard, Weights & Biases or MLflow, on this machine unless told otherwise.

Each tool is an extra of the package. A run has the same name and place at each start, so that its training, its
resumption and its evaluation are one run of the tool.
"""

import importlib
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from hsi_se.config.nearest import did_you_mean
from hsi_se.errors import ConfigError, how_to_install
from hsi_se.progress import EpochRecord, Silent

_PROJECT = "hsi-se"
_LONGEST = 500  # characters of a parameter's value in MLflow


class Logger(Silent, ABC):
    """An observer that records runs with another tool, which must be installed.

    It can be sent to other processes between two runs. `folder` is where the tool writes; see `default` of each.
    ConfigError if the tool is not installed.
    """

    tool: ClassVar[str]
    default: ClassVar[str]

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = Path(folder or self.default)
        self._is_given = folder is not None
        self._run: Any = None
        self._epoch = 0
        self._import(self.tool)

    def _import(self, module: str) -> Any:
        try:
            return importlib.import_module(module)
        except ImportError as error:
            problem = f"{self.tool} is not installed" if error.name == self.tool else f"cannot be used ({error})"
            raise ConfigError(f"--log {self.tool}: {problem}; {how_to_install(self.tool)}") from None

    def epoch(self, record: EpochRecord) -> None:
        if self._run is not None:  # of several processes, the first one has begun a run
            self._epoch = record.epoch
            self._log(_list_values(record))

    @abstractmethod
    def _log(self, values: Mapping[str, float]) -> None:
        """Records values of the current epoch."""


class TensorBoard(Logger):
    """Writes event files to `tensorboard/NAME`, which `tensorboard --logdir tensorboard` shows."""

    tool, default = "tensorboard", "tensorboard"

    def begin_run(self, name: str, settings: Mapping[str, object], *, epoch: int) -> None:
        writer = self._import("torch.utils.tensorboard").SummaryWriter
        self._run, self._epoch = writer(str(self.folder / name), purge_step=epoch + 1), epoch
        rows = "".join(f"| {key} | {value} |\n" for key, value in settings.items())
        self._run.add_text("settings", f"| setting | value |\n|:---|:---|\n{rows}", epoch)

    def _log(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._run.add_scalar(name, value, self._epoch)
        self._run.flush()

    def end_run(self, results: Mapping[str, float], *, page: Path | None) -> None:
        self._log(results)
        if page is not None:
            self._run.add_text("report page", str(page.resolve()), self._epoch)
        self._run.close()
        self._run = None


class WeightsAndBiases(Logger):
    """Writes to `wandb/` without sending anything, unless WANDB_MODE says otherwise; `wandb sync` sends it."""

    tool, default = "wandb", "."

    def begin_run(self, name: str, settings: Mapping[str, object], *, epoch: int) -> None:
        wandb, mode = self._import("wandb"), os.environ.get("WANDB_MODE", "offline")
        self.folder.mkdir(parents=True, exist_ok=True)
        quiet = wandb.Settings(silent=True, console="off")
        given = {"project": os.environ.get("WANDB_PROJECT", _PROJECT), "id": name, "name": name, "config": {**settings}}
        self._run = wandb.init(**given, mode=mode, dir=str(self.folder), resume="allow", settings=quiet)
        self._run.define_metric("*", step_metric="epoch")
        self._epoch = epoch

    def _log(self, values: Mapping[str, float]) -> None:
        self._run.log({"epoch": self._epoch, **values})

    def end_run(self, results: Mapping[str, float], *, page: Path | None) -> None:
        self._run.summary.update({**results})
        if page is not None:
            shutil.copy(page, self._run.dir)  # and is sent with the rest
        self._run.finish()
        self._run = None


class MlFlow(Logger):
    """Writes to the file store `mlruns/`, or to MLFLOW_TRACKING_URI if that is set and no folder is given."""

    tool, default = "mlflow", "mlruns"

    def begin_run(self, name: str, settings: Mapping[str, object], *, epoch: int) -> None:
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # newer versions ask for this
        given = None if self._is_given else os.environ.get("MLFLOW_TRACKING_URI")
        self._client = self._import("mlflow").MlflowClient(tracking_uri=given or self.folder.resolve().as_uri())
        experiment = self._client.get_experiment_by_name(_PROJECT)
        number = self._client.create_experiment(_PROJECT) if experiment is None else experiment.experiment_id
        found = self._client.search_runs([number], f"tags.`mlflow.runName` = '{name}'")
        self._run = (found[0] if found else self._client.create_run(number, run_name=name)).info.run_id
        for key, value in {} if found else settings.items():
            self._client.log_param(self._run, key, str(value)[:_LONGEST])
        self._epoch = epoch

    def _log(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._client.log_metric(self._run, name, value, step=self._epoch)

    def end_run(self, results: Mapping[str, float], *, page: Path | None) -> None:
        self._log(results)
        if page is not None:
            self._client.log_artifact(self._run, str(page))
        self._client.set_terminated(self._run)
        self._run = self._client = None


_LOGGERS = {logger.tool: logger for logger in (TensorBoard, WeightsAndBiases, MlFlow)}


def open_logger(text: str) -> Logger:
    """Returns the logger that `--log` names: `mlflow`, or `mlflow:DIR` for another folder than its default.

    ConfigError if there is no such tool, or it is not installed.
    """
    tool, colon, folder = text.partition(":")
    if tool not in _LOGGERS or (colon and not folder):
        problem = f"{did_you_mean(tool, tuple(_LOGGERS))}choose from {', '.join(_LOGGERS)}"
        raise ConfigError(f"--log {text}: {problem}, with :DIR behind it for another folder")
    return _LOGGERS[tool](folder or None)


def _list_values(record: EpochRecord) -> dict[str, float]:
    found = {
        "training/loss": record.loss,
        "training/learning_rate": record.learning_rate,
        "training/patches_per_second": record.patches_per_second,
        "validation/loss": record.validation_loss,
        "validation/accuracy": record.validation_accuracy,
    }
    return {name: value for name, value in found.items() if value is not None}
