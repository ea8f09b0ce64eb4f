"""What an ablation leaves behind: the shape of `ablation.json`, and the file names of its folder."""

import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from hsi_se.errors import RunError
from hsi_se.evaluation.statistics import Summary
from hsi_se.runs.folder import RunFolder
from hsi_se.system.folder import Folder, read_record
from hsi_se.system.locks import hold


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SummaryRecord(_Record):
    """A `Summary` over seeds as JSON has it: null for what cannot be computed."""

    n: int
    mean: float | None
    std: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, summary: Summary) -> Self:
        values = {name: None if math.isnan(value) else value for name, value in asdict(summary).items()}
        return cls.model_validate(values)


class McNemarRecord(_Record):
    """The exact test between two trained networks on the same test pixels."""

    only_baseline: int  # pixels that the baseline's run alone calls right
    only_variant: int
    p: float


class AblationRun(_Record):
    """One seed of one variant; accuracies are fractions of the test pixels, the floors are OA.

    `training_us_per_pixel` is for one training pixel in one epoch, `mapping_us_per_pixel` for one pixel
    of the scene; `…_peak_bytes` is the most memory that the process (or the GPU's allocator) held meanwhile.
    """

    seed: int
    folder: str  # relative to the ablation's
    config_digest: str
    split_digest: str
    precision: Literal["float32", "bfloat16"]
    num_test: int
    overall_accuracy: float
    average_accuracy: float
    kappa: float | None
    location_floor: float
    spectral_baseline: float
    training_s: float
    training_us_per_pixel: float | None  # of what is fitted at once, there is none
    training_peak_bytes: int | None
    mapping_s: float
    mapping_us_per_pixel: float
    mapping_peak_bytes: int | None
    difference: float | None  # OA minus that of the baseline's run of the same seed
    mcnemar: McNemarRecord | None


class Comparison(_Record):
    """A variant against the baseline over the seeds that both have; differences are of OA, fractions.

    `p` is of the exact two-sided Wilcoxon signed-rank test, `p_holm` after Holm over all comparisons of
    the ablation; `effect_size` is Cohen's d of the paired differences, `rank_biserial` the share of rank
    sums in favour minus against.
    """

    difference: SummaryRecord
    rank_sum: float  # the smaller of the two
    p: float
    p_holm: float
    effect_size: float | None
    rank_biserial: float | None
    is_shown: bool  # p_holm is at most 5 %
    sentence: str


class VariantReport(_Record):
    """One variant on one scene; `summaries` are over its runs, by the names of `AblationRun`'s numbers."""

    name: str
    settings: dict[str, Any]  # what it lays over the base
    num_parameters: int | None  # None before the first run
    macs_per_patch: int | None
    runs: tuple[AblationRun, ...]
    summaries: dict[str, SummaryRecord]
    comparison: Comparison | None  # None for the baseline, and without pairs


class SceneReport(_Record):
    """All variants on one scene and split."""

    name: str
    num_splits: int  # different ones over the seeds
    variants: tuple[VariantReport, ...]
    notes: tuple[str, ...]  # of the scene and its split


class FriedmanRecord(_Record):
    """Variants ranked over scenes by their mean OA, 1 is best (Demšar 2006)."""

    average_ranks: dict[str, float]
    chi_square: float
    p: float
    iman_davenport: float | None
    iman_davenport_p: float | None
    critical_difference: float  # of average ranks, Nemenyi at 5 %
    groups: tuple[tuple[str, ...], ...]  # variants that it does not tell apart


class FailedRun(_Record):
    """A run that did not finish."""

    scene: str
    variant: str
    seed: int
    error: str
    is_users: bool  # a mistake of the user's, not ours


class AblationReport(_Record):
    """`ablation.json`: the answer of an ablation, or of what is finished of it."""

    name: str
    digest: str
    baseline: str
    seeds: tuple[int, ...]
    threads: int
    scenes: tuple[SceneReport, ...]
    friedman: FriedmanRecord | None
    no_friedman: str  # the reason, where there is none
    caveats: tuple[str, ...]  # what the numbers cannot say, one sentence each
    failed: tuple[FailedRun, ...]
    num_missing: int  # runs that are neither finished nor failed


class AblationPlan(_Record):
    """`plan.json`: whose folder this is; variants and seeds may be added, what is there may not change."""

    name: str
    digest: str  # of what all variants share


class AblationFolder(Folder):
    """A folder of runs, one a scene, variant and seed, and what they say together."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self.plan = self.path / "plan.json"
        self.report = self.path / "ablation.json"
        self.report_text = self.path / "ablation.md"
        self.table = self.path / "ablation.csv"
        self.latex = self.path / "ablation.tex"
        self.seeds_figure = self.path / "seeds.png"
        self.pairs_figure = self.path / "pairs.png"
        self.cost_figure = self.path / "cost.png"
        self.ranks_figure = self.path / "critical_difference.png"
        self.page = self.path / "report.html"

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Returns the folder of an ablation that has a report.

        Raises:
            RunError: it holds none.
        """
        folder = cls(path)
        if not folder.report.is_file():
            raise RunError(f"{path}: no ablation in here; `hsi-se ablate` prints the path it writes")
        return folder

    def run_of(self, variant: str, seed: int, *, scene: str = "") -> RunFolder:
        """Where a run lies; `scene` is empty in an ablation over one scene."""
        return RunFolder(self.path.joinpath("runs", *filter(None, (scene, variant)), f"seed-{seed}"))

    def open_run(self, folder: str) -> RunFolder:
        """A run by the folder that its record names."""
        return RunFolder.open(self.path / folder)

    @contextmanager
    def hold_run(self, run: RunFolder) -> Iterator[None]:
        """Keeps a run for this process until the block ends; see `locking.hold`."""
        with hold(self.path / ".claims" / run.path.relative_to(self.path), "at this run"):
            yield

    def place(self, run: RunFolder, files: Mapping[str, bytes]) -> None:
        """Writes a finished run that was made elsewhere, all at once, in place of a half one."""
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
        """Makes this the folder of an ablation, or proves that it is already.

        Raises:
            RunError: it is of another ablation, or of something else.
        """
        try:
            found = AblationPlan.model_validate_json(self.plan.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            if self.path.exists() and (not self.path.is_dir() or any(self.path.glob("[!.]*"))):
                raise RunError(
                    f"{self}: exists and is no ablation; name another folder with --out DIR"
                ) from None
            self.write(self.plan, plan)
            return
        except ValidationError:
            raise RunError(
                f"{self.plan}: not what this version writes; name another folder with --out DIR"
            ) from None
        if found.digest != plan.digest:
            raise RunError(
                f"{self}: holds another ablation ({found.name}, digest {found.digest[:8]}, and this is "
                f"{plan.name}, {plan.digest[:8]}); name another folder with --out DIR"
            )

    def read_report(self) -> AblationReport:
        return read_record(AblationReport, self.report, remedy="run `hsi-se ablate` again")

    def write_report(self, report: AblationReport, texts: Sequence[tuple[Path, str]]) -> None:
        for path, text in texts:
            self.write(path, text)
        self.write(self.report, report)
