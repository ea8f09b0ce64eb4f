"""What a run leaves behind: the record, the bundle that can map new scenes, and the run folder.

This is the only module that knows the names of the files in `runs/`. Weights and arrays are
safetensors, everything else is JSON or YAML; nothing that is read back can run code.
"""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from hsi_se.config import Config, HybridSN, load_config
from hsi_se.errors import RunError
from hsi_se.evaluation.metrics import Evaluation
from hsi_se.sampling.reduction import Reduction
from hsi_se.sampling.splits import Split
from hsi_se.training.history import EpochRecord

Arrays = dict[str, NDArray[Any]]
_SIDES = ("train", "val", "test", "buffer")


Model = TypeVar("Model", bound=BaseModel)


class Versions(BaseModel):
    """The software that made a run."""

    hsi_se: str
    torch: str
    numpy: str
    sklearn: str
    python: str


class RunRecord(BaseModel):
    """Everything a report needs to know about one training, besides its evaluation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    seed: int
    config_digest: str
    scene: str
    scene_digest: str
    split_digest: str
    data: str | None
    device: str
    notes: tuple[str, ...]
    num_train: int
    num_val: int
    num_parameters: int
    macs_per_patch: int
    best_epoch: int
    history: tuple[EpochRecord, ...]
    training_s: float
    versions: Versions


class BundleFacts(BaseModel):
    """The part of a `ModelBundle` that is no array."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: HybridSN
    patch_size: int
    padding: str
    class_ids: tuple[int, ...]
    class_names: tuple[str, ...]
    palette: dict[int, tuple[int, int, int]]
    wavelengths_nm: tuple[float, ...] | None
    split_digest: str
    versions: Versions


@dataclass(frozen=True, eq=False)
class ModelBundle:
    """All that is needed to map a scene nobody has seen.

    Attributes:
        facts: architecture, patch, classes with their colours, and where the weights come from.
        weights: the network's state, by name.
        reduction: fitted on the training scene.
    """

    facts: BundleFacts
    weights: Arrays
    reduction: Reduction

    @property
    def class_ids(self) -> NDArray[np.int32]:
        return np.array(self.facts.class_ids, dtype=np.int32)

    @property
    def class_names(self) -> dict[int, str]:
        return dict(zip(self.facts.class_ids, self.facts.class_names, strict=True))


class RunFolder:
    """A folder in `runs/` and the names of the files in it."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.record = self.path / "record.json"
        self.split = self.path / "split.safetensors"
        self.bundle_facts = self.path / "bundle.json"
        self.bundle_arrays = self.path / "bundle.safetensors"
        self.report = self.path / "report.json"
        self.report_text = self.path / "report.md"
        self.confusion_figure = self.path / "confusion.png"
        self.map_figure = self.path / "map.png"
        self.labelled_map_figure = self.path / "map_labelled.png"

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    @classmethod
    def open(cls, path: "str | Path | RunFolder") -> Self:
        """Returns the folder of a finished run.

        Raises:
            RunError: there is no such folder, or it holds no run.
        """
        run = cls(path.path if isinstance(path, RunFolder) else path)
        if not run.path.is_dir():
            raise RunError(f"{path}: no such run folder; `hsi-se train` prints the path it writes")
        if not run.record.is_file():
            raise RunError(
                f"{path}: no run in here ({run.record.name} is missing); name a folder that train wrote"
            )
        return run

    def read_config(self) -> Config:
        return load_config(self.config)

    def read_record(self) -> RunRecord:
        return _parse(RunRecord, self.record)

    def read_split(self) -> Split:
        arrays = _read_arrays(self.split, needed=_SIDES)
        train, val, test, buffer = (arrays[side] for side in _SIDES)
        return Split(train, val, test, buffer, labels=arrays.get("labels"))

    def read_bundle(self) -> ModelBundle:
        parts = ("reduction.mean", "reduction.components", "reduction.scale")
        arrays = _read_arrays(self.bundle_arrays, needed=parts)
        weights = {
            name.removeprefix("model."): array for name, array in arrays.items() if name.startswith("model.")
        }
        reduction = Reduction(*(arrays[part] for part in parts))
        return ModelBundle(_parse(BundleFacts, self.bundle_facts), weights, reduction)

    def write_run(self, *, config: Config, record: RunRecord, split: Split, bundle: ModelBundle) -> None:
        self.config.write_text(config.to_yaml(), encoding="utf-8")
        sides = {side: getattr(split, side) for side in _SIDES}
        labels = {} if split.labels is None else {"labels": split.labels}
        _write_arrays(self.split, sides | labels)
        arrays = {f"model.{name}": array for name, array in bundle.weights.items()}
        arrays |= {
            "reduction.mean": bundle.reduction.mean,
            "reduction.components": bundle.reduction.components,
            "reduction.scale": bundle.reduction.scale,
        }
        _write_arrays(self.bundle_arrays, arrays)
        self.bundle_facts.write_text(bundle.facts.model_dump_json(indent=2), encoding="utf-8")
        self.record.write_text(record.model_dump_json(indent=2), encoding="utf-8")

    def write_report(self, evaluation: Evaluation, record: RunRecord, *, text: str) -> None:
        values = json.dumps(report_values(evaluation, record), indent=2, ensure_ascii=False, allow_nan=False)
        for path, content in ((self.report_text, text), (self.report, values + "\n")):
            with replacing(path) as draft:
                draft.write_text(content, encoding="utf-8")


def report_values(evaluation: Evaluation, record: RunRecord) -> dict[str, Any]:
    """Returns what `report.json` holds: fractions, counts, and null for what cannot be computed."""

    def number(value: float) -> float | None:
        return None if np.isnan(value) else float(value)

    return {
        "overall_accuracy": evaluation.overall_accuracy,
        "average_accuracy": evaluation.average_accuracy,
        "kappa": number(evaluation.kappa),
        "num_train": record.num_train,
        "num_val": record.num_val,
        "num_test": evaluation.num_test,
        "per_class": [
            {
                "label": evaluation.class_ids[i],
                "name": evaluation.class_names[i],
                "support": int(evaluation.support[i]),
                "producers_accuracy": number(evaluation.producers_accuracy[i]),
                "users_accuracy": number(evaluation.users_accuracy[i]),
                "f1": number(evaluation.f1[i]),
            }
            for i in range(len(evaluation.class_ids))
        ],
        "confusion_matrix": evaluation.confusion.tolist(),
        "scene": record.scene,
        "seed": record.seed,
        "config_digest": record.config_digest,
        "split_digest": record.split_digest,
        "scene_digest": record.scene_digest,
        "notes": list(record.notes),
    }


def check_free(path: Path, *, overwrite: bool) -> None:
    """Proves that a run may be written at `path`.

    Raises:
        RunError: something is there already, and it is no run, or `overwrite` is not set; or no
            folder can be made there.
    """
    if not path.exists():
        parent = next(parent for parent in path.absolute().parents if parent.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK):
            raise RunError(f"{path}: no folder can be made in {parent}; name another with --run DIR")
        return
    if not (path / RunFolder(path).record.name).is_file():
        raise RunError(f"{path}: exists and is no run folder; name another with --run DIR")
    if not overwrite:
        raise RunError(f"{path}: this run folder exists; name another with --run DIR, or add --overwrite")


@contextmanager
def new_run(path: Path, *, overwrite: bool) -> Iterator[RunFolder]:
    """Yields a hidden folder that becomes `path` when the block ends, and vanishes when it fails."""
    check_free(path, overwrite=overwrite)
    draft = path.with_name(f".{path.name}.{os.getpid()}.partial")
    draft.mkdir(parents=True)
    try:
        yield RunFolder(draft)
        if path.exists():
            shutil.rmtree(path)
        draft.rename(path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a path to write to, which takes the place of `path` once it is complete."""
    draft = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _parse(kind: type[Model], path: Path) -> Model:
    try:
        return kind.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise RunError(f"{path}: missing from the run folder; train again") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        problem = ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))
        raise RunError(f"{path}: not what this version writes ({problem}); train again") from None


def _write_arrays(path: Path, arrays: Arrays) -> None:
    """safetensors takes an array's bytes as they lie in memory, so they must lie in C order."""
    path.write_bytes(save({name: np.ascontiguousarray(array) for name, array in arrays.items()}))


def _read_arrays(path: Path, *, needed: Sequence[str]) -> Arrays:
    try:
        arrays: Arrays = load_file(path)
    except FileNotFoundError:
        raise RunError(f"{path}: missing from the run folder; train again") from None
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path}: damaged ({error}); train again") from None
    for name in needed:
        if name not in arrays:
            raise RunError(f"{path}: not what this version writes ({name} is missing); train again")
    return arrays
