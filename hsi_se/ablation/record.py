"""The models behind `ablation.json`, and the folder of an ablation."""

import itertools
import math
import os
import shutil
import statistics
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, model_validator

from hsi_se.ablation.file import PlannedRun, name_run
from hsi_se.errors import RunError
from hsi_se.evaluation.statistics import CorrelatedTest, McNemarTest, PairedTest, RankTest, Summary
from hsi_se.evaluation.verdict import Outcome
from hsi_se.runs.folder import RunFolder
from hsi_se.runs.records import Record
from hsi_se.runs.report import Accuracies
from hsi_se.system.files import Folder, fill_template, read_record
from hsi_se.system.forms import Count, Form, NotNegative, Share
from hsi_se.system.locks import hold

_METHODS = ("", "location_floor.", "spectral_baseline.")
_COSTS = ("training_us_per_pixel", "training_peak_bytes", "mapping_us_per_pixel", "mapping_peak_bytes")
_LARGEST = 1e30  # of what is drawn
# What every variant has a summary of.
_SUMMARIZED = {*map("".join, itertools.product(_METHODS, Accuracies.model_fields)), *_COSTS}
_SUMMARIZED |= {"test_patches_with_train_pixels"}


def _check_summary(found: Summary) -> Summary:
    low, high = (found.low, found.high) if found.n > 1 else (found.mean, found.mean)
    if found.n > 0 and not -_LARGEST <= low <= found.mean <= high <= _LARGEST:
        raise ValueError("the mean is not a number in its interval")
    return found


Checked = Annotated[Summary, AfterValidator(_check_summary)]


class Part(Record):
    """The overall accuracies of one training: of a run, or of one of its folds."""

    num_train: Count  # validation pixels included
    num_test: Count
    overall_accuracy: Share
    location_floor: Share
    spectral_baseline: Share


class AblationRun(Record):
    """The result of one seed of one variant; accuracies are fractions of the test pixels.

    `training_us_per_pixel` is per training pixel and epoch, `mapping_us_per_pixel` per pixel of the scene.
    `…_peak_bytes` is the peak memory of the process, or of the allocator on a GPU.
    """

    seed: Count
    folder: str  # relative to the ablation's
    config_digest: str
    split_digest: str
    precision: Literal["float32", "bfloat16"]
    num_test: Count
    overall_accuracy: Share
    average_accuracy: Share
    kappa: float | None
    unsmoothed: Accuracies | None  # without `prediction.smoothing`; None if the config does not smooth
    location_floor: Accuracies
    spectral_baseline: Accuracies
    spectral_classifier: str = ""  # the one that the spectral baseline is
    outcomes: dict[str, Outcome]  # by baseline, from the run's own verdict; not of that very baseline
    test_patches_with_train_pixels: Share  # a fraction: the leakage of the split
    producers_accuracy: dict[int, Share | None]  # by label
    parts: tuple[Part, ...]  # the run itself, or its folds
    training_s: NotNegative
    training_us_per_pixel: NotNegative | None  # None for a classifier without epochs
    training_peak_bytes: Count | None
    mapping_s: NotNegative
    mapping_us_per_pixel: NotNegative
    mapping_peak_bytes: Count | None
    difference: float | None = None  # OA minus that of the baseline's run of the same seed
    mcnemar: McNemarTest | None = None


@dataclass(frozen=True)
class Comparison(PairedTest):
    """A variant compared over the seeds, with the baseline variant or with one of the two baselines.

    Differences are of OA, as fractions. `p_holm`, and the p of `corrected`, are adjusted by Holm over all comparisons
    of the ablation that are of the same sort. `corrected` is over the runs, or over all their folds.
    """

    p_holm: float
    corrected: CorrelatedTest
    is_shown: bool  # p_holm is at most 5 %
    sentence: str


class Convergence(Record):
    """How fast the runs of a variant reach `SceneReport.target`; one that does not counts as later than all that do."""

    validation_accuracy: Annotated[tuple[Checked, ...], Form("epochs_run")]  # over the seeds, after each; fractions
    validation_loss: Annotated[tuple[Checked, ...], Form("epochs_run")]
    epochs: tuple[int | None, ...]  # of each run, None for one without a curve too; empty without a target

    @property
    def best(self) -> float:
        """The highest mean validation accuracy."""
        return max(each.mean for each in self.validation_accuracy)

    @property
    def num_runs(self) -> int:
        return self.validation_accuracy[0].n

    @property
    def num_reached(self) -> int:
        return sum(each is not None for each in self.epochs)

    @property
    def median_epochs(self) -> float | None:
        """None where the median would be among the censored runs."""
        known = [each for each in self.epochs if each is not None]
        median = statistics.median([*known, *[math.inf] * (self.num_runs - len(known))])
        return median if math.isfinite(median) else None


class VariantReport(Record):
    """One variant on one scene, summarized over its runs.

    The keys of `summaries` are the fields of `AblationRun`, such as `overall_accuracy` and
    `location_floor.kappa`; those of `unsmoothed` are present only where the config smooths.
    """

    name: str
    settings: dict[str, Any]  # the overrides of the base
    num_parameters: Count | None  # None before the first run
    macs_per_patch: Count | None
    runs: tuple[AblationRun, ...]
    summaries: dict[str, Checked]
    producers_accuracy: dict[int, Checked]  # by label
    comparison: Comparison | None  # None for the baseline, and without pairs
    against: dict[str, Comparison]  # with the location floor and the spectral baseline; empty without runs
    convergence: Convergence | None = None  # None without validation pixels or epochs

    @model_validator(mode="after")
    def _check_parts(self) -> Self:
        found = self.convergence
        if found and (not found.validation_accuracy or len(found.epochs) not in (0, len(self.runs))):
            raise ValueError("convergence is not of the variant's runs")
        lacks = _SUMMARIZED - {*self.summaries}
        if lacks or (self.runs and not self.summaries["overall_accuracy"].n):
            raise ValueError(f"summaries are not those of the runs{''.join(f', {name} is missing' for name in lacks)}")
        return self


class SceneReport(Record):
    """All variants on one scene."""

    name: str
    num_splits: int  # number of different splits over the seeds
    class_names: dict[int, str]  # by label
    variants: tuple[VariantReport, ...]
    notes: tuple[str, ...]  # about the scene and its splits
    target: Share | None = None  # the validation accuracy until which epochs are counted

    @model_validator(mode="after")
    def _check_classes(self) -> Self:
        if any({*variant.producers_accuracy} != {*self.class_names} for variant in self.variants):
            raise ValueError("producers_accuracy is not of the scene's classes")
        return self

    @property
    def begun(self) -> list[VariantReport]:
        """The variants with at least one finished run."""
        return [variant for variant in self.variants if variant.runs]


class FailedRun(Record):
    """A run that failed."""

    scene: str
    variant: str
    seed: int
    error: str
    is_users: bool  # the user's mistake, not a defect of this package
    fold: int | None = None

    def __str__(self) -> str:
        return name_run(self.scene, self.variant, self.seed, self.fold)


class AblationReport(Record):
    """`ablation.json`: the results of an ablation, or of the part of it that is finished."""

    name: str
    digest: str
    baseline: str
    seeds: tuple[Count, ...]
    threads: Count
    scenes: tuple[SceneReport, ...]
    friedman: RankTest | None
    no_friedman: str  # why there is none; empty with a single variant
    caveats: tuple[str, ...]  # limits of what the numbers show, one sentence each
    failed: tuple[FailedRun, ...]
    num_missing: Count  # number of runs that are neither finished nor failed

    @model_validator(mode="after")
    def _check_variants(self) -> Self:
        names = [[variant.name for variant in scene.variants] for scene in self.scenes]
        ranked = self.friedman.average_ranks if self.friedman else {}
        places = [*ranked, *(name for group in (self.friedman.groups if self.friedman else ()) for name in group)]
        if not names or names != names[:1] * len(names) or self.baseline not in names[0]:
            raise ValueError("scenes have not the same variants with the baseline among them")
        if not {*places} <= {*names[0]} or any(not 1 <= rank <= len(names[0]) for rank in ranked.values()):
            raise ValueError("friedman has other variants or ranks")
        return self

    @property
    def is_of_seeds(self) -> bool:
        """Whether there is a single variant, so that there is nothing to compare."""
        return len(self.scenes[0].variants) == 1

    @property
    def missing(self) -> str:
        """`3 runs are still missing`."""
        return f"{self.num_missing} run{'s are' if self.num_missing != 1 else ' is'} still missing"


class AblationPlan(Record):
    """`plan.json`: which ablation a folder belongs to; variants and seeds may be added later."""

    name: str
    digest: str  # of the settings that all runs share


class AblationFolder(Folder):
    """A folder with one run per scene, variant and seed, and the reports over all of them."""

    what = "an ablation"

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self.plan = self.path / "plan.json"
        self.report = self.path / "ablation.json"
        self.report_text = self.path / "ablation.md"
        self.table = self.path / "ablation.csv"
        self.latex = self.path / "ablation.tex"
        self.baselines = self.path / "baselines"  # a folder
        self.figures = self.path / "figures"  # a folder
        self.page = self.path / "report.html"
        self.rendered = (self.report_text, self.latex, self.page)

    def _repr_html_(self) -> str:
        page = self.page.read_text("utf-8") if self.page.is_file() else "no report yet"
        return fill_template("hsi_se.runs", "run.html", title=str(self), page=page)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Returns the folder of an ablation that has a report; RunError if it has none."""
        folder = cls(path)
        if not folder.report.is_file():
            raise RunError(f"{path}: no ablation in here; `hsi-se ablate` prints the path it writes")
        return folder

    @property
    def is_one(self) -> bool:
        """Whether this is the folder of an ablation at all."""
        return self.report.is_file() or self.plan.is_file()

    def run_of(self, variant: str, seed: int, *, scene: str = "", fold: int | None = None) -> RunFolder:
        """Returns the folder of a run; `scene` is empty if the ablation names no scenes."""
        run = RunFolder(self.path.joinpath("runs", *filter(None, (scene, variant)), f"seed-{seed}"))
        return run if fold is None else run.fold(fold)

    def find(self, run: PlannedRun) -> RunFolder:
        return self.run_of(run.variant, run.seed, scene=run.scene, fold=run.fold if run.whole else None)

    def open_run(self, folder: str) -> RunFolder:
        """Opens a run by the relative path in its record."""
        return RunFolder.open(self.path / folder, pooled=True)

    def find_evaluated(self, run: AblationRun) -> RunFolder | None:
        """Returns the folder of a run, unless its map is missing."""
        folder = RunFolder(self.path / run.folder)
        return folder if folder.explorer.is_file() and folder.record.is_file() else None

    def hold(self, path: Path, doing: str) -> AbstractContextManager[object]:
        """Reserves a run or a file for this process until the block ends; see `system.locks.hold`."""
        return hold(self.path / ".claims" / path.relative_to(self.path), doing)

    def place(self, run: RunFolder, files: Mapping[str, bytes]) -> None:
        """Writes the files of a finished run at once; they replace an unfinished one."""
        draft = run.path.with_name(f".{run.path.name}.{os.getpid()}.partial")
        draft.mkdir(parents=True)
        try:
            for name, content in files.items():
                (draft / name).write_bytes(content)
            shutil.rmtree(run.path, ignore_errors=True)
            draft.rename(run.path)
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def claim(self, plan: AblationPlan) -> None:
        """Marks the folder as an ablation's; RunError if it belongs to another one, or contains something else."""
        if not self.plan.is_file():
            if self.path.exists() and (not self.path.is_dir() or any(self.path.glob("[!.]*"))):
                raise RunError(f"{self}: already exists but is not {self.what} folder; choose another with --out DIR")
            self.write(self.plan, plan)
            return
        found = read_record(AblationPlan, self.plan, remedy="choose another folder with --out DIR")
        if found.digest != plan.digest:
            which = f"({found.name}, digest {found.digest[:8]}; this one is {plan.name}, {plan.digest[:8]})"
            raise RunError(
                f"{self}: contains another {self.what.split()[1]} {which}; choose another folder with --out DIR"
            )

    def read_report(self) -> AblationReport:
        return read_record(AblationReport, self.report, remedy="run `hsi-se ablate` again")
