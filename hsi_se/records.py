"""What a run leaves behind: the record, the bundle that can map new scenes, and the run folder.

This is the only module that knows the names of the files in `runs/`. Weights and arrays are
safetensors, everything else is JSON or YAML; nothing that is read back can run code.
"""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from hsi_se.config import MAX_PATCH_SIZE, Config, PredictionSettings
from hsi_se.config_file import dump_config, load_config
from hsi_se.config_model import ModelSettings
from hsi_se.durable import write_durably
from hsi_se.errors import RunError
from hsi_se.evaluation.assessment import Assessment
from hsi_se.evaluation.metrics import number_or_none
from hsi_se.evaluation.statistics import Summary, summarize
from hsi_se.explanation import Explanation
from hsi_se.locking import hold
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
    notes: tuple[str, ...]
    num_train: int
    num_val: int
    versions: Versions


class RunStart(RunFacts):
    """The head line of `progress.jsonl`: what `--resume` and whoever watches need besides the config.

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


class BundleFacts(BaseModel):
    """The part of a `ModelBundle` that is no array."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: ModelSettings
    patch_size: int = Field(ge=1, le=MAX_PATCH_SIZE)
    padding: Literal["zero", "reflect"]
    class_ids: tuple[int, ...]
    class_names: tuple[str, ...]
    palette: dict[int, tuple[int, int, int]]
    wavelengths_nm: tuple[float, ...] | None
    dropped_bands: dict[int, str] = {}  # counted from 1, with the reason
    value_range: tuple[float, float] | None = None  # of the training pixels, before the reduction
    prediction: PredictionSettings = PredictionSettings()
    guide_scale: tuple[float, ...] = ()  # of each component over the training's scene, for smoothing
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


class MappingCost(BaseModel):
    """What it cost to map a run's own scene; `peak_bytes` as in `measure.Cost`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_pixels: int
    seconds: float
    peak_bytes: int | None


class RunFolder:
    """A folder in `runs/` and the names of the files in it; `record.json` comes last, of a finished run."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.record = self.path / "record.json"
        self.progress = self.path / "progress.jsonl"
        self.checkpoints = self.path / "checkpoints"  # a folder, while the run is not finished
        self.split = self.path / "split.safetensors"
        self.bundle_facts = self.path / "bundle.json"
        self.bundle_arrays = self.path / "bundle.safetensors"
        self.report = self.path / "report.json"
        self.report_text = self.path / "report.md"
        self.predictions = self.path / "predictions.safetensors"
        self.mapping_cost = self.path / "mapping_cost.json"
        self.explanation = self.path / "explain.json"
        self.explanation_figure = self.path / "explain.png"
        self.confusion_figure = self.path / "confusion.png"
        self.map_figure = self.path / "map.png"
        self.labelled_map_figure = self.path / "map_labelled.png"
        self.split_figure = self.path / "split.png"
        self.reliability_figure = self.path / "reliability.png"
        self.rejection_figure = self.path / "rejection.png"
        self.explorer = self.path / "explorer.safetensors"
        self.page = self.path / "report.html"
        self.paper_figures = self.path / "figures"

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    @classmethod
    def open(cls, path: "str | Path | RunFolder") -> Self:
        """Returns the folder of a finished run.

        Raises:
            RunError: there is no such folder, or it holds no run, or one that is not finished.
        """
        run = cls(path.path if isinstance(path, RunFolder) else path)
        if not run.path.is_dir():
            raise RunError(f"{path}: no such run folder; `hsi-se train` prints the path it writes")
        if run.is_unfinished:
            raise RunError(f"{path}: this run is not finished; {run.how_to_resume}")
        if not run.record.is_file():
            raise RunError(
                f"{path}: no run in here ({run.record.name} is missing); name a folder that train wrote"
            )
        return run

    @property
    def is_unfinished(self) -> bool:
        return self.progress.is_file() and not self.record.is_file()

    @property
    def has_checkpoint(self) -> bool:
        return any(self.checkpoints.glob("*.safetensors"))

    @property
    def how_to_resume(self) -> str:
        return f"go on with `hsi-se train --resume {self}`"

    def read_config(self) -> Config:
        return load_config(self.config)

    def read_record(self) -> RunRecord:
        return _parse(RunRecord, self.record)

    def read_progress(self) -> tuple[RunStart, tuple[EpochRecord, ...]]:
        """Returns how the run began and its epochs so far; a line that is half written is left out."""
        try:
            head, *lines = self.progress.read_bytes().split(b"\n")[:-1] or [b""]
        except FileNotFoundError:
            raise RunError(f"{self.progress}: missing from the run folder; train again") from None
        epochs = tuple(_parse_text(EpochRecord, line, path=self.progress) for line in lines)
        return _parse_text(RunStart, head, path=self.progress), epochs

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
        return ModelBundle(self.read_facts(), weights, reduction)

    def read_facts(self) -> BundleFacts:
        """Returns the bundle without its arrays."""
        return _parse(BundleFacts, self.bundle_facts)

    def write_start(self, start: RunStart, *, config: Config, split: Split) -> None:
        """Writes what the run is of, and the head line of its progress."""
        write_durably(self.config, dump_config(config).encode())
        sides = {side: getattr(split, side) for side in _SIDES}
        labels = {} if split.labels is None else {"labels": split.labels}
        _write_arrays(self.split, sides | labels)
        write_durably(self.progress, start.model_dump_json().encode() + b"\n")

    def rewind(self, history: Sequence[EpochRecord]) -> None:
        """Takes back the epochs that the progress has beyond these."""
        head, _, _ = self.progress.read_bytes().partition(b"\n")
        lines = [head, *(record.model_dump_json().encode() for record in history)]
        write_durably(self.progress, b"".join(line + b"\n" for line in lines))

    def log(self, record: EpochRecord) -> None:
        """Adds an epoch to the progress."""
        with self.progress.open("a", encoding="utf-8") as stream:
            stream.write(record.model_dump_json() + "\n")

    def write_result(self, record: RunRecord, *, bundle: ModelBundle) -> None:
        """Writes what was learned, and last the record: from then on the run is finished."""
        arrays = {f"model.{name}": array for name, array in bundle.weights.items()}
        arrays |= {
            "reduction.mean": bundle.reduction.mean,
            "reduction.components": bundle.reduction.components,
            "reduction.scale": bundle.reduction.scale,
        }
        _write_arrays(self.bundle_arrays, arrays)
        write_durably(self.bundle_facts, bundle.facts.model_dump_json(indent=2).encode())
        write_durably(self.record, record.model_dump_json(indent=2).encode())

    def read_report(self) -> dict[str, Any]:
        """Returns what `report.json` holds.

        Raises:
            RunError: the run has not been evaluated, or its report cannot be read.
        """
        try:
            report: dict[str, Any] = json.loads(self.report.read_text(encoding="utf-8"))
            report["overall_accuracy"], report["confusion_matrix"], report["verdict"]
        except FileNotFoundError:
            raise RunError(
                f"{self}: is not evaluated yet ({self.report.name} is missing); {self._to_evaluate}"
            ) from None
        except (ValueError, KeyError, TypeError):
            raise RunError(f"{self.report}: not what this version writes; {self._to_evaluate}") from None
        return report

    def read_explanation(self) -> Explanation:
        return _parse(Explanation, self.explanation)

    def read_explorer(self, *, needed: Sequence[str]) -> Arrays:
        """Returns the arrays of the map explorer.

        Raises:
            RunError: they are missing or damaged; evaluating again writes them.
        """
        return _read_arrays(self.explorer, needed=needed, remedy=self._to_evaluate)

    @property
    def _to_evaluate(self) -> str:
        return f"run `hsi-se eval {self}`"

    def write_explorer(self, arrays: Arrays) -> None:
        with replacing(self.explorer) as draft:
            _write_arrays(draft, arrays)

    def write_report(self, assessment: Assessment, record: RunRecord, *, text: str) -> None:
        values = json.dumps(report_values(assessment, record), indent=2, ensure_ascii=False, allow_nan=False)
        for path, content in ((self.report_text, text), (self.report, values + "\n")):
            with replacing(path) as draft:
                draft.write_text(content, encoding="utf-8")

    def write_predictions(
        self, truth: NDArray[np.int32], predicted: NDArray[np.int32], *, cost: MappingCost
    ) -> None:
        """Keeps the labels `(n,)` of the test pixels, in the split's order, and what it cost to get them."""
        with replacing(self.predictions) as draft:
            _write_arrays(draft, {"truth": truth, "predicted": predicted})
        with replacing(self.mapping_cost) as draft:
            draft.write_text(cost.model_dump_json(indent=2), encoding="utf-8")

    def read_correct(self) -> NDArray[np.bool_]:
        """Which test pixels were called right, in the order of the split."""
        arrays = _read_arrays(self.predictions, needed=("truth", "predicted"))
        return np.asarray(arrays["truth"] == arrays["predicted"])

    def read_mapping_cost(self) -> MappingCost:
        return _parse(MappingCost, self.mapping_cost)

    def write_explanation(self, explanation: Explanation) -> None:
        with replacing(self.explanation) as draft:
            draft.write_text(explanation.model_dump_json(indent=2), encoding="utf-8")

    @property
    def is_evaluated(self) -> bool:
        return all(path.is_file() for path in (self.report, self.predictions, self.mapping_cost))


def report_values(assessment: Assessment, record: RunRecord) -> dict[str, Any]:
    """Returns what `report.json` holds: fractions, counts, and null for what cannot be computed."""
    return {
        **assessment.values(),
        "scene": record.scene,
        "seed": record.seed,
        "config_digest": record.config_digest,
        "scene_digest": record.scene_digest,
        "notes": list(record.notes),
        "num_parameters": record.num_parameters,
        "macs_per_patch": record.macs_per_patch,
        "training_s": record.training_s,
    }


@dataclass(frozen=True, eq=False)
class SeriesReport:
    """What the runs of one config over several seeds say together; accuracies are fractions.

    Attributes:
        name, scene: of the config.
        seeds: one a run.
        num_splits: how many different splits the runs have; one where `split.seed` is fixed.
        summaries: over the seeds, by what is measured: `overall_accuracy`, `average_accuracy`, `kappa`,
            and the same of `location_floor.`, of `spectral_baseline.` and, where the config smooths, of
            `unsmoothed.`; `leakage.…`.
        per_class: `(label, name, summary of the producer's accuracy)`.
    """

    name: str
    scene: str
    seeds: tuple[int, ...]
    num_splits: int
    summaries: dict[str, Summary]
    per_class: tuple[tuple[int, str, Summary], ...]

    @property
    def about_splits(self) -> str:
        return describe_splits(self.num_splits, len(self.seeds))

    def values(self) -> dict[str, Any]:
        """Returns what `summary.json` holds."""

        def to_json(summary: Summary) -> dict[str, float | int | None]:
            return {
                name: value if isinstance(value, int) else number_or_none(value)
                for name, value in asdict(summary).items()
            }

        return {
            "name": self.name,
            "scene": self.scene,
            "seeds": list(self.seeds),
            "num_splits": self.num_splits,
            **{name: to_json(summary) for name, summary in self.summaries.items()},
            "per_class": [
                {"label": label, "name": name, "producers_accuracy": to_json(summary)}
                for label, name, summary in self.per_class
            ],
        }


def describe_splits(num_splits: int, num_seeds: int) -> str:
    """Whether the spread over seeds contains that of the pixels drawn, in words."""
    if num_splits == num_seeds:
        return "Every seed has its own split: the spread is that of the pixels drawn and of the training."
    if num_splits == 1:
        return "All seeds share one split: the spread is that of the training alone."
    return f"The {num_seeds} seeds have {num_splits} different splits between them."


class MapFolder:
    """A folder with the map of a scene in every format that it could be written in."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.facts = self.path / "map.json"
        self.image = self.path / "map.img"
        self.header = self.path / "map.hdr"
        self.geotiff = self.path / "map.tif"
        self.geotiff_facts = self.path / "map.tif.aux.xml"
        self.figure = self.path / "map.png"
        self.probabilities = self.path / "probabilities.img"
        self.entropy = self.path / "entropy.img"
        self.journal = self.path / "journal"  # of a draft alone

    def __str__(self) -> str:
        return str(self.path)

    def list_files(self) -> list[Path]:
        """Every file that a map may have, in the order of their appearance: a header comes after its data."""
        floats = [
            layer.with_suffix(ending)
            for layer in (self.probabilities, self.entropy)
            for ending in (".img", ".hdr", ".tif")
        ]
        labels = [self.image, self.header, self.geotiff, self.geotiff_facts, self.figure]
        return [*floats, *labels, self.facts]

    def log(self, line: str) -> None:
        """Adds a line to the journal; it is on the disk afterwards."""
        with self.journal.open("a", encoding="utf-8") as stream:
            stream.write(f"{line}\n")
            stream.flush()
            os.fsync(stream.fileno())

    @contextmanager
    def open_draft(self) -> Iterator["MapFolder"]:
        """Yields the hidden folder in which the map is made, so that a later start finds what is done.

        Raises:
            RunError: another process makes a map here, or a file that no map wrote is in the way.
        """
        with hold(self.path, "making a map"):
            draft = MapFolder(self.path / ".unfinished")
            if not self.facts.is_file() and not draft.path.is_dir():
                for path in self.list_files():
                    if path.exists():
                        raise RunError(
                            f"{path}: exists and is of no finished map; name another folder with --out DIR"
                        )
            draft.path.mkdir(exist_ok=True)
            yield draft

    def publish(self, draft: "MapFolder") -> list[Path]:
        """Moves the files of a finished draft here, in place of all of an earlier map; returns them."""
        self.facts.unlink(missing_ok=True)
        for path in reversed(self.list_files()):
            path.unlink(missing_ok=True)
        written = []
        for path in self.list_files():
            made = draft.path / path.name
            if made.exists():
                made.rename(path)
                written.append(path)
        shutil.rmtree(draft.path)
        return written


class SeriesFolder:
    """A folder of runs of one config, one a seed."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.report = self.path / "summary.json"
        self.report_text = self.path / "summary.md"

    def __str__(self) -> str:
        return str(self.path)

    @classmethod
    def open(cls, path: "str | Path | SeriesFolder") -> Self:
        """Returns the folder of a series with at least one finished run.

        Raises:
            RunError: it holds none.
        """
        series = cls(path.path if isinstance(path, SeriesFolder) else path)
        if not series.list_runs():
            raise RunError(
                f"{path}: no finished run in here; `hsi-se train --seeds` prints the path it writes"
            )
        return series

    def run_of(self, seed: int) -> Path:
        return self.path / f"seed-{seed}"

    def list_runs(self) -> list[RunFolder]:
        """The finished runs, in ascending order of seed."""
        paths = [path for path in self.path.glob("seed-*") if RunFolder(path).record.is_file()]
        return [RunFolder(path) for path in sorted(paths, key=lambda path: (len(path.name), path.name))]

    def check_free(self) -> None:
        """Proves that a series may be written, or continued, here.

        Raises:
            RunError: something else is here.
        """
        if (
            self.path.exists()
            and (not self.path.is_dir() or any(self.path.glob("[!.]*")))
            and not any(RunFolder(path).progress.is_file() for path in self.path.glob("seed-*"))
            and not self.list_runs()
        ):
            raise RunError(f"{self.path}: exists and is no series of runs; name another with --run DIR")

    def write_report(self, report: SeriesReport, *, text: str) -> None:
        values = json.dumps(report.values(), indent=2, ensure_ascii=False, allow_nan=False)
        for path, content in ((self.report_text, text), (self.report, values + "\n")):
            with replacing(path) as draft:
                draft.write_text(content, encoding="utf-8")


def summarize_series(series: SeriesFolder) -> SeriesReport:
    """Returns the summary of a series whose runs have all been evaluated."""
    runs = series.list_runs()
    reports = [run.read_report() for run in runs]
    accuracy_names = ("overall_accuracy", "average_accuracy", "kappa")
    summaries = {name: _summarize([report[name] for report in reports]) for name in accuracy_names}
    smoothed = [("unsmoothed", accuracy_names)] if reports[0]["unsmoothed"] is not None else []
    for part, names in (
        *smoothed,
        ("location_floor", accuracy_names),
        ("spectral_baseline", accuracy_names),
        ("leakage", ("test_patches_with_train_pixels",)),
    ):
        for name in names:
            summaries[f"{part}.{name}"] = _summarize([report[part][name] for report in reports])
    per_class = tuple(
        (
            row["label"],
            row["name"],
            _summarize([report["per_class"][place]["producers_accuracy"] for report in reports]),
        )
        for place, row in enumerate(reports[0]["per_class"])
    )
    first = runs[0].read_record()
    return SeriesReport(
        name=first.name,
        scene=first.scene,
        seeds=tuple(report["seed"] for report in reports),
        num_splits=len({report["split_digest"] for report in reports}),
        summaries=summaries,
        per_class=per_class,
    )


def _summarize(values: list[float | None]) -> Summary:
    return summarize([np.nan if value is None else value for value in values])


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a path to write to, which takes the place of `path` once it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _parse(kind: type[Model], path: Path) -> Model:
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise RunError(f"{path}: missing from the run folder; train again") from None
    return _parse_text(kind, text, path=path)


def _parse_text(kind: type[Model], text: bytes, *, path: Path) -> Model:
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        problem = ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))
        raise RunError(f"{path}: not what this version writes ({problem}); train again") from None


def _write_arrays(path: Path, arrays: Arrays) -> None:
    """safetensors takes an array's bytes as they lie in memory, so they must lie in C order."""
    write_durably(path, save({name: np.ascontiguousarray(array) for name, array in arrays.items()}))


def _read_arrays(path: Path, *, needed: Sequence[str], remedy: str = "train again") -> Arrays:
    try:
        arrays: Arrays = load_file(path)
    except FileNotFoundError:
        raise RunError(f"{path}: missing from the run folder; {remedy}") from None
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path}: damaged ({error}); {remedy}") from None
    for name in needed:
        if name not in arrays:
            raise RunError(f"{path}: not what this version writes ({name} is missing); {remedy}")
    return arrays
