"""The page of an ablation: who differs from whom, by how much, at what cost, and every run behind it."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from hsi_se.ablation.record import AblationFolder, AblationRun, SceneReport
from hsi_se.ablation.tables import describe_missing, list_begun, list_classes, list_methods, spread
from hsi_se.report.charts import Axis, Chart, Spot, draw_spots, list_ticks
from hsi_se.report.tables import points, render_template, signed
from hsi_se.runs.folder import RunFolder
from hsi_se.system.files import replacing

_COSTS = (
    ("macs_per_patch", "M multiply-accumulates a patch", 1e-6),
    ("training_us_per_pixel", "training, µs a pixel and epoch", 1.0),
    ("mapping_us_per_pixel", "mapping, µs a pixel", 1.0),
)
_ACCURACIES = ("", "variant", "n", "OA %", "AA %", "κ × 100")
_COMPARED = ("difference of OA", "p", "p, Holm", "effect size")
_SIZES = ("parameters", "M MACs", "train µs/px", "map µs/px", "floor %", "spectral baseline %")
_SPENT = ("training s", "mapping s", "run")
_AGAINST = ("against the baseline", "right where it is wrong", "wrong where it is right", "McNemar p")
_MARGIN = 0.06  # of the range, on both sides of what is drawn


@dataclass(frozen=True)
class Strip:
    """One variant's line of dots: places across it, in per cent of its width."""

    number: int
    name: str
    is_baseline: bool
    dots: tuple[float, ...]
    mean: float | None
    interval: tuple[float, float] | None  # left end and width


@dataclass(frozen=True)
class ScenePage:
    """One scene of an ablation as the page shows it."""

    report: SceneReport
    strips: tuple[Strip, ...]
    ticks: tuple[tuple[float, str], ...]
    baseline: float | None
    costs: tuple[Chart, ...]


def write_ablation_page(folder: AblationFolder) -> None:
    """Writes `report.html` into the folder of an ablation.

    Raises:
        RunError: there is no report in it, or it cannot be read.
    """
    report = folder.read_report()
    text = render_template(
        "ablation.html",
        report=report,
        scenes=[_lay_out(scene, report.baseline) for scene in report.scenes],
        num_runs=sum(len(variant.runs) for scene in report.scenes for variant in scene.variants),
        missing=describe_missing(report),
        headings=[*_ACCURACIES, *(() if report.is_of_seeds else _COMPARED), *_SIZES],
        run_headings=["seed", *_ACCURACIES[3:], *(() if report.is_of_seeds else _AGAINST), *_SPENT],
        list_begun=list_begun,
        list_methods=list_methods,
        list_classes=list_classes,
        page_of=lambda run: _page_of(folder, run),
        points=points,
        signed=signed,
        spread=spread,
        show_settings=_show_settings,
    )
    with replacing(folder.page) as draft:
        draft.write_text(text, encoding="utf-8")


def _lay_out(scene: SceneReport, baseline: str) -> ScenePage:
    accuracies = [variant.summaries["overall_accuracy"] for variant in scene.variants]
    values = [run.overall_accuracy for variant in scene.variants for run in variant.runs]
    values += [end for accuracy in accuracies for end in (accuracy.low, accuracy.high) if end is not None]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    margin = _MARGIN * max(high - low, 1e-3)
    low, high = max(0.0, low - margin), min(1.0, high + margin)

    def place(value: float) -> float:
        return round(100 * min(max((value - low) / (high - low), 0), 1), 2)

    strips = []
    for number, (variant, accuracy) in enumerate(zip(scene.variants, accuracies, strict=True), start=1):
        interval = None
        if accuracy.low is not None and accuracy.high is not None:
            interval = (place(accuracy.low), round(place(accuracy.high) - place(accuracy.low), 2))
        mean = None if accuracy.mean is None else place(accuracy.mean)
        dots = tuple(place(run.overall_accuracy) for run in variant.runs)
        strips.append(Strip(number, variant.name, variant.name == baseline, dots, mean, interval))
    return ScenePage(
        report=scene,
        strips=tuple(strips),
        ticks=tuple((place(tick), f"{100 * tick:.6g} %") for tick in list_ticks(low, high, most=5)),
        baseline=next((strip.mean for strip in strips if strip.is_baseline), None),
        costs=tuple(chart for cost in _COSTS if (chart := _chart_cost(scene, baseline, *cost))),
    )


def _chart_cost(scene: SceneReport, baseline: str, key: str, title: str, factor: float) -> Chart | None:
    """Mean OA against what a variant costs; None where fewer than two have both."""
    spots = []
    for number, variant in enumerate(scene.variants, start=1):
        cost = variant.macs_per_patch if key == "macs_per_patch" else variant.summaries[key].mean
        accuracy = variant.summaries["overall_accuracy"]
        if cost is None or accuracy.mean is None:
            continue
        low, high = (math.nan if end is None else end for end in (accuracy.low, accuracy.high))
        spots.append(Spot(str(number), cost * factor, accuracy.mean, low, high, variant.name == baseline))
    if len(spots) < 2:
        return None
    across = [spot.x for spot in spots]
    up = [end for spot in spots for end in (spot.y, spot.low, spot.high) if not math.isnan(end)]
    x_pad = _MARGIN * max(max(across) - min(across), 0.05 * max(across))
    y_pad = _MARGIN * max(max(up) - min(up), 1e-3)
    return draw_spots(
        f"OA against {title}",
        spots,
        x=Axis(title, max(0.0, min(across) - x_pad), max(across) + x_pad),
        y=Axis("mean", max(0.0, min(up) - y_pad), min(1.0, max(up) + y_pad), ".6g", " %", 100.0),
    )


def _page_of(folder: AblationFolder, run: AblationRun) -> str | None:
    """The address of a run's own page, as seen from the ablation's; None if it has none."""
    page = RunFolder(folder.path / run.folder).page
    return quote(f"{run.folder}/{page.name}") if page.is_file() else None


def _show_settings(settings: Mapping[str, object]) -> str:
    """As YAML's flow style has them, which `--set` takes."""
    parts = (f"{key}: {json.dumps(value).replace(chr(34), '')}" for key, value in settings.items())
    return "; ".join(parts) or "the base as it is"
