"""The facts of a run: those known before its first step, and those of a finished run."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from hsi_se.progress import EpochRecord


class Versions(BaseModel):
    """Versions of the software that trained a run."""

    hsi_se: str
    torch: str
    numpy: str
    sklearn: str
    python: str


class RunFacts(BaseModel):
    """Facts known before the first step."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    seed: int
    config_digest: str
    scene: str
    scene_digest: str
    split_digest: str
    data: str | None
    device: str
    precision: Literal["float32", "bfloat16"]  # of the training step's products
    notes: tuple[str, ...]
    num_train: int
    num_val: int
    versions: Versions


class RunStart(RunFacts):
    """First line of `progress.jsonl`: what `resume` and `watch` need besides the config.

    Attributes:
        started: in UTC.
        device_kind: `cpu` or `cuda`.
        epochs: number of epoch lines that follow; 0 for a classifier that is fitted in one go.
        class_ids, class_names: in the order of `EpochRecord.validation_per_class`.
    """

    started: datetime
    device_kind: str
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


class MappingCost(BaseModel):
    """Cost of mapping a run's own scene; `peak_bytes` as in `memory.Cost`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_pixels: int
    seconds: float
    peak_bytes: int | None
