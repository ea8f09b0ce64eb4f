"""What is known of a run: before its first step, and once it is finished."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from hsi_se.progress import EpochRecord


class Versions(BaseModel):
    """The software that made a run."""

    hsi_se: str
    torch: str
    numpy: str
    sklearn: str
    python: str


class RunFacts(BaseModel):
    """What is known of a run before its first step."""

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
        epochs: as many lines follow; 0 for a classifier that is fitted at once.
        class_ids, class_names: in the order of `EpochRecord.validation_per_class`.
    """

    started: datetime
    device_kind: str
    epochs: int
    class_ids: tuple[int, ...]
    class_names: tuple[str, ...]


class RunRecord(RunFacts):
    """Everything a report needs to know about one training, besides its evaluation."""

    num_parameters: int
    macs_per_patch: int
    best_epoch: int
    history: tuple[EpochRecord, ...]
    training_s: float
    peak_memory_bytes: int | None = None  # while training, of the GPU's allocator or the whole process


class MappingCost(BaseModel):
    """What it cost to map a run's own scene; `peak_bytes` as in `measure.Cost`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_pixels: int
    seconds: float
    peak_bytes: int | None
