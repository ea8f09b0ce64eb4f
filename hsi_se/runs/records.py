"""The facts of a run: those known before its first step, and those of a finished run."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from hsi_se.progress import EpochRecord


class Record(BaseModel):
    """Something measured or decided, as JSON: immutable, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class RunFacts(Record):
    """Facts known before the first step."""

    name: str
    seed: int
    config_digest: str
    scene: str
    scene_digest: str
    split_digest: str
    data: str | None  # as given with --data
    start: str  # the folder in which the command ran: relative paths begin there
    start_from_run: str  # the same, relative to the run folder
    device: str
    precision: Literal["float32", "bfloat16"]  # of the training step's products
    notes: tuple[str, ...]
    num_train: int
    num_val: int
    versions: dict[str, str]  # of hsi_se, python and the libraries that train


class RunStart(RunFacts):
    """First line of `progress.jsonl`: what `resume` and `watch` need besides the config.

    `epochs` epoch lines follow, none for a classifier that is fitted in one go. The classes are in the order
    of `EpochRecord.validation_per_class`.
    """

    started: datetime  # in UTC
    device_kind: str  # cpu or cuda
    epochs: int
    class_ids: tuple[int, ...]
    class_names: tuple[str, ...]


class RunRecord(RunFacts):
    """Everything a report needs to know about a training, except its evaluation."""

    num_parameters: int
    macs_per_patch: int
    best_epoch: int
    history: tuple[EpochRecord, ...]
    training_s: float
    peak_memory_bytes: int | None = None  # during training, of the GPU's allocator or of the whole process


class MappingCost(Record):
    """Cost of mapping a run's own scene; `peak_bytes` as in `memory.Cost`."""

    num_pixels: int
    seconds: float
    peak_bytes: int | None


def flatten(values: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested values by their dotted names, such as `split.kind`."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return found
