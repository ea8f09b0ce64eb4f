"""The folder of a run.

Only this module knows the names of the files in `runs/`. Weights and arrays are safetensors, everything
else is JSON or YAML. Nothing that is read back can run code.
"""

import hashlib
import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from hsi_se.config.experiment import Config
from hsi_se.config.registry import check_plugins, list_plugins
from hsi_se.config.scene import InMemoryScene
from hsi_se.config.yaml_file import dump_config, load_config
from hsi_se.errors import ConfigError, RunError, SplitError
from hsi_se.progress import EpochRecord
from hsi_se.runs.bundle import REDUCTION, Arrays, BundleFacts, ModelBundle
from hsi_se.runs.records import Explanation, MappingCost, RunRecord, RunStart
from hsi_se.sampling.reduction import Reduction
from hsi_se.sampling.splits import Split
from hsi_se.system.files import Folder, fill_template, parse_record, read_bounded, read_record, replacing, write_durably
from hsi_se.system.forms import check_arrays
from hsi_se.system.notebook import draw_html, percent

if TYPE_CHECKING:  # loads scikit-learn, which a training does not need
    from _typeshed import DataclassInstance

    from hsi_se.runs.report import RunReport

Kind = TypeVar("Kind", bound="DataclassInstance")  # a dataclass of arrays
_SIDES = ("train", "val", "test", "buffer")
# Where runs are in the folder of a gap, of an ablation, of one over scenes, and of the folds in these.
_LEVELS_OF_RUNS = ("*", "*/*", "runs/*/*", "runs/*/*/*", "runs/*/*/*/*")
# What commands write to a run folder in addition to the files named in `RunFolder`.
_ALSO_WRITTEN = re.compile(
    r"checkpoints/[^/]+\.safetensors"
    r"|figures/(map|truth|map_labelled|split|confusion|reliability|rejection|training|gates)\.(pdf|svg|png)"
    r"|tables/accuracy\.(tex|md|csv)"
    r"|map(-[^/]*)?/((map|probabilities|entropy)\.[^/]+|classes\.csv|\.unfinished/[^/]+)"
    r"|model\.(onnx|pt2)"
    r"|(.*/)?\.(lock|[^/]+\.draft|[^/]+\.\d+(\.\w+)?)"  # left by a killed process
)
_LARGEST_SHOWN = 8_000_000  # bytes of a page that a notebook is to hold
_EPOCHS_SHOWN = 5
_TRAIN_AGAIN = "train again"


class RunFolder(Folder):
    """A run folder and the names of its files. `record.json` is written last: its run is finished.

    Attributes:
        scene: the scene in memory that it was trained on in this process; otherwise None.
    """

    scene: Any = None

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self.config = self.path / "config.yaml"
        self.record = self.path / "record.json"
        self.progress = self.path / "progress.jsonl"
        self.checkpoints = self.path / "checkpoints"  # a folder, until the run is finished
        self.split = self.path / "split.safetensors"
        self.bundle_facts = self.path / "bundle.json"
        self.bundle_arrays = self.path / "bundle.safetensors"
        self.report = self.path / "report.json"
        self.report_text = self.path / "report.md"
        self.predictions = self.path / "predictions.safetensors"
        self.mapping_cost = self.path / "mapping_cost.json"
        self.explanation = self.path / "explain.json"
        self.explanation_figure = self.path / "explain.png"
        self.gate_map = self.path / "explain.safetensors"
        self.map_figure = self.path / "map.png"
        self.explorer = self.path / "explorer.safetensors"
        self.page = self.path / "report.html"
        self.map_pixels = self.path / "map_pixels.png"  # beside a page with thinned maps
        self.figures = self.path / "figures"  # a folder, of `hsi-se report --figures`

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, pooled: bool = False) -> Self:
        """Returns the folder of a finished run; RunError if there is none, or it is not finished.

        `pooled` accepts the folder of several folds, too, which has no classifier of its own.
        """
        run = cls(path)
        if run.folds and not pooled:
            every = f"`hsi-se train {shlex.quote(str(run.config))} --set 'split={{kind: all, folds: {path}}}'`"
            remedy = f"name a fold, such as {run.folds[0]}, or train one on every labelled pixel: {every}"
            raise RunError(f"{path}: contains one classifier per fold; {remedy}")
        if run.is_unfinished:
            raise RunError(f"{path}: this run is not finished; {run.how_to_resume}")
        if not run.record.is_file():
            raise RunError(run.describe_lack(run.record))
        run._check_parts()
        return run

    def _check_parts(self) -> None:
        """Raises RunError unless config, split and bundle are those that the record of a finished run names."""
        record = self.read_record()
        parts = [(self.config, record.config_digest, self.read_config().digest)]
        if record.bundle_digest is not None:
            parts.append((self.split, record.split_digest, self.read_split().digest))
            self.read_bundle()  # before: it says what is wrong with a damaged file
            parts.append((self.bundle_facts, record.bundle_digest, self._digest_bundle()))
        for path, expected, found in parts:
            if found != expected:
                problem = f"not what training wrote (digest {expected[:8]}, found {found[:8]})"
                raise RunError(f"{path}: {problem}; put the right file back, or {_TRAIN_AGAIN} with --overwrite")

    def _digest_bundle(self) -> str:
        digest = hashlib.sha256()
        for path in (self.bundle_facts, self.bundle_arrays):
            try:
                digest.update(path.read_bytes())
            except OSError as error:
                raise RunError(f"{path}: {error.strerror}; {_TRAIN_AGAIN}") from None
        return digest.hexdigest()

    def describe_lack(self, missing: Path) -> str:
        """Returns why this is not a run folder, and what to name instead."""
        if self.path.is_file():
            parent = self.path.parent
            if (parent / missing.name).is_file():
                return f"{self}: is a file in a run folder; name the folder, {parent}"
            train = f"hsi-se train {self}" if self.path.suffix in (".yaml", ".yml") else "hsi-se train"
            return f"{self}: is a file; name a run folder (`{train}` prints its path)"
        if not self.path.is_dir():
            return f"{self}: no such run folder; `hsi-se train` prints the path it writes"
        files = (file for level in _LEVELS_OF_RUNS for file in self.path.glob(f"{level}/{missing.name}"))
        parents = (file.parent for file in files)
        runs = sorted(path for path in parents if not path.name.startswith(".") and not RunFolder(path).folds)
        if runs:
            return f"{self}: contains runs but is not a run itself; name one of them, such as {runs[0]}"
        return f"{self}: not a run folder ({missing.name} is missing); name one that train wrote"

    def find_foreign(self) -> Path | None:
        """Returns a file in the folder that no command writes there, if there is one."""
        own = {path.name for path in vars(self).values() if isinstance(path, Path)}
        for path in sorted(self.path.rglob("*")):
            name = path.relative_to(self.path).as_posix()
            if name not in own and not path.is_dir() and not _ALSO_WRITTEN.fullmatch(name):
                return path
        return None

    def fold(self, number: int) -> "RunFolder":
        """Returns the folder of a fold's run in the folder that pools the folds."""
        return RunFolder(self.path / f"fold-{number}")

    @property
    def folds(self) -> list["RunFolder"]:
        """The runs of folds in this folder, begun or finished; none if it is that of an ordinary run."""
        numbers = (path.name.removeprefix("fold-") for path in self.path.glob("fold-*"))
        return [self.fold(number) for number in sorted(int(number) for number in numbers if number.isdigit())]

    @property
    def is_unfinished(self) -> bool:
        return self.progress.is_file() and not self.record.is_file()

    @property
    def has_checkpoint(self) -> bool:
        return any(self.checkpoints.glob("*.safetensors"))

    @property
    def how_to_resume(self) -> str:
        if self.config.is_file() and isinstance(self.read_config().scene, InMemoryScene):
            return f"resume from Python with `hsi_se.resume({str(self)!r}, scene=scene)`"
        return f"resume with `hsi-se resume {shlex.quote(str(self))}`"

    def __repr__(self) -> str:
        return f"Run({self}: {self._describe()})"

    def _describe(self) -> str:
        try:
            if self.is_evaluated:
                report = self.read_report()
                return f"OA {100 * report.overall_accuracy:.2f} % on {report.scene}, {report.outcome}"
            if self.is_unfinished:
                start, epochs = self.read_progress()
                return f"epoch {len(epochs)} of {start.epochs} on {start.scene}, not finished"
            if self.folds:
                return f"{len(self.folds)} folds, not evaluated"
            if not self.record.is_file():
                return self.describe_lack(self.record).removeprefix(f"{self}: ")
            return f"trained on {self.read_record().scene}, not evaluated"
        except RunError as error:
            return str(error)

    def _repr_html_(self) -> str:
        title = f"{self}: {self._describe()}"
        if self.page.is_file() and self.is_evaluated and self.page.stat().st_size <= _LARGEST_SHOWN:
            return fill_template("hsi_se.runs", "run.html", title=title, page=self.page.read_text("utf-8"))
        epochs = self.read_progress()[1][-_EPOCHS_SHOWN:] if self.is_unfinished else ()
        rows = [(f"{each.epoch}", f"{each.loss:.3f}", *percent([each.validation_accuracy])) for each in epochs]
        text = "" if rows or not self.page.is_file() else f"The report is in {self.page}."
        return draw_html(title, headings=("epoch", "loss", "validation OA %"), rows=rows, text=text)

    def read_config(self) -> Config:
        """Returns the config; RunError if it needs a plugin that is not loaded, or was another one at the training."""
        try:
            config = load_config(self.config)
        except ConfigError:
            self._check_plugins()
            raise
        if list_plugins(config.model):
            self._check_plugins()
        return config

    def _check_plugins(self) -> None:
        if self.record.is_file():
            check_plugins(self.read_record().plugins)
        elif self.progress.is_file():
            check_plugins(self.read_progress()[0].plugins)

    def read_record(self) -> RunRecord:
        return read_record(RunRecord, self.record, remedy=_TRAIN_AGAIN)

    def read_progress(self) -> tuple[RunStart, tuple[EpochRecord, ...]]:
        """Returns how the run began and its epochs so far. A half-written line is ignored."""
        head, *lines = read_bounded(self.progress, remedy=_TRAIN_AGAIN).split(b"\n")[:-1] or [b""]
        epochs = tuple(parse_record(EpochRecord, line, path=self.progress, remedy=_TRAIN_AGAIN) for line in lines)
        return parse_record(RunStart, head, path=self.progress, remedy=_TRAIN_AGAIN), epochs

    def read_split(self) -> Split:
        return self.read_arrays(Split, self.split, remedy=_TRAIN_AGAIN)

    def read_bundle(self) -> ModelBundle:
        """Returns the bundle; RunError if a weight is not finite, or the reduction does not fit the facts."""
        facts, arrays = self.read_facts(), _load_arrays(self.bundle_arrays, remedy=_TRAIN_AGAIN)
        of_reduction = {name: arrays[f"reduction.{name}"] for name in REDUCTION if f"reduction.{name}" in arrays}
        _make(Reduction, of_reduction, self.bundle_arrays, facts.lengths, of="reduction.", remedy=_TRAIN_AGAIN)
        bundle = ModelBundle.of(facts, arrays)
        for name, array in bundle.weights.items():
            if np.isnan(array).any():
                raise RunError(f"{self.bundle_arrays}: model.{name} contains NaN; {_TRAIN_AGAIN}")
        return bundle

    def read_facts(self) -> BundleFacts:
        """Returns the bundle without its arrays."""
        return read_record(BundleFacts, self.bundle_facts, remedy=_TRAIN_AGAIN)

    def write_start(self, start: RunStart, *, config: Config, split: Split) -> None:
        write_durably(self.config, dump_config(config).encode())
        arrays = {name: array for name in (*_SIDES, "labels", "groups") if (array := getattr(split, name)) is not None}
        write_durably(self.split, b"".join(_to_safetensors(arrays)))
        write_durably(self.progress, start.model_dump_json().encode() + b"\n")

    def rewind(self, history: Sequence[EpochRecord]) -> None:
        """Removes the epochs after `history` from the progress."""
        head, _, _ = self.progress.read_bytes().partition(b"\n")
        lines = [head, *(record.model_dump_json().encode() for record in history)]
        write_durably(self.progress, b"".join(line + b"\n" for line in lines))

    def log(self, record: EpochRecord) -> None:
        with self.progress.open("a", encoding="utf-8") as stream:
            stream.write(record.model_dump_json() + "\n")

    def write_result(self, record: RunRecord, *, bundle: ModelBundle) -> None:
        """Writes the trained model and then the record, with which the run is finished."""
        write_durably(self.bundle_arrays, b"".join(_to_safetensors(bundle.to_arrays())))
        write_durably(self.bundle_facts, bundle.facts.model_dump_json(indent=2).encode())
        record = record.model_copy(update={"bundle_digest": self._digest_bundle()})
        write_durably(self.record, record.model_dump_json(indent=2).encode())

    def read_report(self) -> "RunReport":
        """Returns the report of an evaluated run; RunError if it is not evaluated."""
        from hsi_se.runs.report import RunReport

        if not self.report.is_file():
            raise RunError(f"{self}: is not evaluated yet ({self.report.name} is missing); {self._to_evaluate}")
        report, record = read_record(RunReport, self.report, remedy=self._to_evaluate), self.read_record()
        if (report.config_digest, report.scene_digest) != (record.config_digest, record.scene_digest):
            raise RunError(f"{self.report}: is the report of another run; {self._to_evaluate}")
        return report

    def read_explanation(self) -> Explanation:
        return read_record(Explanation, self.explanation, remedy=_TRAIN_AGAIN)

    def write_arrays(self, path: Path, arrays: Arrays) -> None:
        """Replaces a file of arrays, which several processes may do at a time."""
        with replacing(path) as draft, draft.open("wb") as stream:
            stream.writelines(_to_safetensors(arrays))

    def read_arrays(
        self, kind: type[Kind], path: Path, lengths: Mapping[str, int] | None = None, *, remedy: str | None = None
    ) -> Kind:
        """Returns a dataclass of arrays from its file; `lengths` of their axes are known from other files.

        RunError if the file is missing, or an array is, or is not of the `Form` of its field.
        """
        remedy = remedy or self._to_evaluate
        return _make(kind, _load_arrays(path, remedy=remedy), path, lengths or {}, remedy=remedy)

    @property
    def _to_evaluate(self) -> str:
        return f"run `hsi-se eval {self}`"

    def read_correct(self) -> NDArray[np.bool_]:
        """Returns which test pixels were classified correctly, in the order of the split."""
        from hsi_se.evaluation.assessment import TestPixels

        found = self.read_arrays(TestPixels, self.predictions)
        return np.asarray(found.truth == found.predicted)

    def read_mapping_cost(self) -> MappingCost:
        return read_record(MappingCost, self.mapping_cost, remedy=_TRAIN_AGAIN)

    @property
    def is_evaluated(self) -> bool:
        return all(path.is_file() for path in (self.report, self.predictions, self.mapping_cost))


def _to_safetensors(arrays: Arrays) -> Iterator[bytes | memoryview]:
    """Yields a file of arrays in C order in parts, as safetensors itself would need their memory a second time."""
    (head, end), names = ({}, 0), sorted(arrays, key=lambda name: -arrays[name].itemsize)  # so that all are aligned
    ordered = {name: np.asarray(arrays[name], order="C") for name in names}
    for name, array in ordered.items():
        kind = "BOOL" if array.dtype.kind == "b" else f"{array.dtype.kind.upper()}{8 * array.itemsize}"
        head[name] = {"dtype": kind, "shape": array.shape, "data_offsets": (end, end + array.nbytes)}
        end += array.nbytes
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    yield from (array.reshape(-1).data for array in ordered.values())


def _load_arrays(path: Path, *, remedy: str) -> Arrays:
    try:
        arrays: Arrays = load_file(path)
    except FileNotFoundError:
        raise RunError(f"{path}: missing from the run folder; {remedy}") from None
    except (SafetensorError, OSError, TypeError) as error:  # TypeError: a type that NumPy lacks, such as bfloat16
        raise RunError(f"{path}: damaged ({error}); {remedy}") from None
    return arrays


def _make(
    kind: type[Kind], arrays: Arrays, path: Path, lengths: Mapping[str, int], *, remedy: str, of: str = ""
) -> Kind:
    """Returns a dataclass of arrays after checking their forms; RunError if they are not what its fields are."""
    try:
        check_arrays(kind, arrays, lengths)
        return kind(**arrays)
    except (ValueError, SplitError) as error:
        raise RunError(f"{path}: not what this version writes ({of}{error}); {remedy}") from None
