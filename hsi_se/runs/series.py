"""What the runs of one config over several seeds leave behind, and say together."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from hsi_se.errors import RunError
from hsi_se.evaluation.metrics import number_or_none
from hsi_se.evaluation.statistics import SHARE, SIGNED, Summary, describe_splits, summarize
from hsi_se.runs.folder import RunFolder
from hsi_se.system.files import replacing
from hsi_se.system.locks import hold


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

    @contextmanager
    def hold_seed(self, seed: int) -> Iterator[None]:
        """Keeps a seed for this process until the block ends; see `locking.hold`."""
        with hold(self.path / ".claims" / f"seed-{seed}", "at this seed"):
            yield

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
            raise RunError(f"{self.path}: exists and is no series of runs; name another with --out DIR")

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
    summaries = {
        name: _summarize(name, [getattr(report, name) for report in reports]) for name in accuracy_names
    }
    smoothed = [("unsmoothed", accuracy_names)] if reports[0].unsmoothed is not None else []
    for part, names in (
        *smoothed,
        ("location_floor", accuracy_names),
        ("spectral_baseline", accuracy_names),
        ("leakage", ("test_patches_with_train_pixels",)),
    ):
        for name in names:
            summaries[f"{part}.{name}"] = _summarize(
                name, [getattr(getattr(report, part), name) for report in reports]
            )
    per_class = tuple(
        (
            row.label,
            row.name,
            _summarize("producers", [report.per_class[place].producers_accuracy for report in reports]),
        )
        for place, row in enumerate(reports[0].per_class)
    )
    first = runs[0].read_record()
    return SeriesReport(
        name=first.name,
        scene=first.scene,
        seeds=tuple(report.seed for report in reports),
        num_splits=len({report.split_digest for report in reports}),
        summaries=summaries,
        per_class=per_class,
    )


def _summarize(name: str, values: list[float | None]) -> Summary:
    numbers = [np.nan if value is None else value for value in values]
    return summarize(numbers, within=SIGNED if name == "kappa" else SHARE)
