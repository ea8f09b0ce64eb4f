"""Figures of an ablation: the accuracy of every seed, its pairs, cost, validation curves, ranks over scenes.

They are one column of a journal wide, so that they can be read in a paper, on the page and on a telephone.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from hsi_se.ablation.record import AblationFolder, AblationReport, SceneReport, VariantReport
from hsi_se.evaluation.statistics import RankTest, Summary, points, summarize
from hsi_se.reports.explorer import RunFiles
from hsi_se.reports.figures import Drawing, tip, wrap_name
from hsi_se.reports.run_figures import COLUMN_INCHES, draw_confusions, draw_maps
from hsi_se.reports.tables import percent
from hsi_se.runs.folder import RunFolder
from hsi_se.system.files import read_facts

_STYLE = "hsi_se.reports.run"
# Told apart with any colour vision (Okabe & Ito 2008), and in grey by the markers and dashes beside them.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_DOT, _UP, _DOWN = "#3f88c5", "#0a5699", "#c2410c"  # told apart by every reader
_BAR: dict[str, Any] = {"capsize": 3, "linewidth": 1.1}
_REFERENCES = {"location_floor": ("dashed", "#333333"), "spectral_baseline": ("dotted", "#b34700")}
_MEAN: dict[str, Any] = {**_BAR, "fmt": "|", "color": "#222222", "markersize": 9, "linewidth": 1.3}
_CAPTIONS = read_facts("hsi_se.ablation", "captions.toml")
_NAME_WIDTH = 24  # letters per line of a variant's name
_PAIRS_PER_ROW = 3
_LOGARITHMIC = 5  # the ratio of costs from which their axis is logarithmic
_MARKERS = "osD^vP*X<>hp"
_DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))


def list_figures(report: AblationReport) -> list[Drawing]:
    """Returns the figures that the finished runs allow."""
    scenes = [scene for scene in report.scenes if scene.begun]
    pairs = [scene for scene in scenes if any(variant.comparison for variant in scene.variants)]
    costs = [scene for scene in scenes if len(_list_costs(scene)) > 1]
    curves = [scene for scene in scenes if any(variant.convergence for variant in scene.variants)]
    drawn = {
        "seeds": partial(_draw_seeds, scenes, report.baseline) if scenes else None,
        "cost": partial(_draw_cost, costs) if costs else None,
        "pairs": partial(_draw_pairs, pairs, report.baseline) if pairs else None,
        "convergence": partial(_draw_convergence, curves) if curves else None,
        "critical_difference": partial(_draw_ranks, report.friedman) if report.friedman else None,
    }
    captions = {name: caption.format(baseline=report.baseline) for name, caption in _CAPTIONS.items()}
    return [Drawing(name, captions[name], draw, _STYLE) for name, draw in drawn.items() if draw]


def list_run_figures(report: AblationReport, folder: AblationFolder) -> list[Drawing]:
    """Returns the figures that are drawn from the runs themselves: maps, confusion, reliability and gates."""
    drawings = list_map_figures(report, folder)
    for number, scene in enumerate(report.scenes, start=1):
        runs = {name: [*map(RunFiles.read, found)] for name, found in _find_runs(scene, folder).items()}
        gates = {
            f"{name}, {place}": summarize([run.gates[number].between_class_std for run in explained])
            for name, each in runs.items()
            if (explained := [run.explanation for run in each if run.explanation is not None])
            for number, place in enumerate(map(str, explained[0].gates))
        }
        drawn = {
            "confusion": partial(_draw_confusion, runs) if runs else None,
            "reliability": partial(_draw_reliability, runs) if runs else None,
            "gates": partial(_draw_gates, gates) if gates else None,
        }
        drawings += [_name_drawing(name, draw, report, number) for name, draw in drawn.items() if draw]
    return drawings


def list_map_figures(report: AblationReport, folder: AblationFolder) -> list[Drawing]:
    """Returns the maps of the variants of each scene, side by side, if the runs have maps."""
    found = [_find_runs(scene, folder) for scene in report.scenes]
    return [
        _name_drawing("maps", partial(_draw_maps, {name: each[0] for name, each in runs.items()}), report, number)
        for number, runs in enumerate(found, start=1)
        if runs
    ]


def _find_runs(scene: SceneReport, folder: AblationFolder) -> dict[str, list[RunFolder]]:
    """The folders of the runs with a map, of each variant that has any."""
    found = {variant.name: [*filter(None, map(folder.find_evaluated, variant.runs))] for variant in scene.begun}
    return {name: runs for name, runs in found.items() if runs}


def _name_drawing(name: str, draw: Callable[[], Figure], report: AblationReport, number: int) -> Drawing:
    suffix, which = ("", "") if len(report.scenes) == 1 else (f"_{number}", f", {report.scenes[number - 1].name}")
    return Drawing(f"{name}{suffix}", f"{_CAPTIONS[name]}{which}", draw, _STYLE)


def refresh_figures(report: AblationReport, folder: AblationFolder) -> None:
    """Draws the figures again that an earlier report has left, since they are out of date."""
    for file_format in ("png", "pdf", "svg"):
        if _list_drawn(folder, file_format):
            write_ablation_figures(report, folder, file_format=file_format)


def write_ablation_figures(report: AblationReport, folder: AblationFolder, *, file_format: str) -> list[Path]:
    """Writes every figure into the folder `figures`, as `png`, `pdf` or `svg`, and returns the paths.

    Figures of that format which the report no longer allows are removed.
    """
    drawings = [*list_figures(report), *list_run_figures(report, folder)]
    written = [figure.write(folder.figures, file_format=file_format) for figure in drawings]
    for path in _list_drawn(folder, file_format).difference(written):
        path.unlink()
    return written


def _list_drawn(folder: AblationFolder, file_format: str) -> set[Path]:
    names = re.compile(rf"({'|'.join(_CAPTIONS)})(_\d+)?\.{file_format}")
    return {path for path in folder.figures.glob(f"*.{file_format}") if names.fullmatch(path.name)}


def _draw_maps(runs: Mapping[str, RunFolder]) -> Figure:
    panels: dict[str, NDArray[np.uint16]] = {}
    for name, folder in runs.items():  # one run in memory at a time
        run = RunFiles.read(folder)
        panels = {**(panels or {"labels": run.explorer.truth}), name: run.explorer.prediction}
    return draw_maps(panels, run.facts)


def _draw_confusion(runs: Mapping[str, Sequence[RunFiles]]) -> Figure:
    found = {name: [run.report.evaluation for run in of_seeds] for name, of_seeds in runs.items()}
    return draw_confusions(
        {
            name: replace(each[0], confusion=np.sum([one.confusion for one in each], axis=0))
            for name, each in found.items()
        }
    )


def _draw_reliability(runs: Mapping[str, Sequence[RunFiles]]) -> Figure:
    """Draws accuracy against confidence, after scaling where there is a temperature; bins of all seeds together."""
    figure = Figure(figsize=(COLUMN_INCHES, 2.6 + 0.16 * len(runs)), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 100], [0, 100], color="0.6", linewidth=0.8, linestyle=":", label="perfectly calibrated")
    for place, (name, of_seeds) in enumerate(runs.items()):
        confidence, accuracy, count = np.stack([run.explorer.calibration_scaled for run in of_seeds]).transpose(1, 0, 2)
        known = count.sum(axis=0) > 0
        weights = count[:, known] / count[:, known].sum(axis=0)
        x, y = (100 * (np.nan_to_num(each[:, known]) * weights).sum(axis=0) for each in (confidence, accuracy))
        error = summarize([run.report.calibration.expected_calibration_error_scaled for run in of_seeds])
        label = f"{wrap_name(name)}: ECE {100 * error.mean:.2f} %"
        marker = _MARKERS[place % len(_MARKERS)]
        axes.plot(x, y, marker=marker, markersize=3, linewidth=1.0, label=label, **_style_line(place))
    axes.set(xlabel="confidence, %", ylabel="accuracy, %")
    axes.grid()
    figure.legend(loc="outside lower center")
    return figure


def _draw_gates(gates: Mapping[str, Summary]) -> Figure:
    """Draws one row per gate: the mean over the seeds, with its interval."""
    figure = Figure(figsize=(COLUMN_INCHES, 0.6 + 0.3 * len(gates)), layout="constrained")
    axes = figure.add_subplot()
    for place, found in enumerate(gates.values()):
        ends = [[found.mean - found.low], [found.high - found.mean]] if found.n > 1 else [[0.0], [0.0]]
        axes.errorbar(found.mean, place, xerr=ends, fmt="o", color=_COLOURS[0], markersize=4, **_BAR)
    axes.set_yticks(range(len(gates)), [wrap_name(name) for name in gates])
    axes.set(ylim=(len(gates) - 0.5, -0.5), xlabel="standard deviation between classes")
    axes.set_xlim(left=0)
    axes.grid(axis="x")
    return figure


def _style_line(place: int) -> dict[str, Any]:
    return {"color": _COLOURS[place % len(_COLOURS)], "linestyle": _DASHES[place % len(_DASHES)]}


def _stack(heights: Sequence[float]) -> tuple[Figure, list[Axes]]:
    """A figure with one panel per scene, of these heights in inches."""
    figure = Figure(figsize=(COLUMN_INCHES, sum(heights)), layout="constrained")
    grid = figure.subplots(len(heights), squeeze=False, height_ratios=list(heights))
    return figure, list(grid[:, 0])


def _draw_seeds(scenes: Sequence[SceneReport], baseline: str) -> Figure:
    """Draws one row per variant: a dot per seed, and below them the mean with its interval."""
    figure, panels = _stack([0.9 + 0.42 * len(scene.variants) for scene in scenes])
    for axes, scene in zip(panels, scenes, strict=True):
        for place, variant in enumerate(scene.variants):
            for run in variant.runs:
                said = tip(f"{variant.name}, seed {run.seed}: {percent(run.overall_accuracy)} %")
                axes.plot(100 * run.overall_accuracy, place - 0.13, "o", color=_DOT, markersize=5, alpha=0.75, gid=said)
            mean = variant.summaries["overall_accuracy"]
            if mean.n == 0:
                continue
            label = axes.errorbar(100 * mean.mean, place + 0.17, xerr=_margins(mean), **_MEAN)
            label[0].set_gid(tip(_describe(variant), is_stop=True))
            if variant.name == baseline and len(scene.variants) > 1:
                axes.axvline(100 * mean.mean, color="0.7", linewidth=1, zorder=0)
        runs = [run for variant in scene.variants for run in variant.runs]
        values = [100 * run.overall_accuracy for run in runs]
        low, high = min(values), max(values)
        title, reach = [fill(scene.name, 48)] if len(scenes) > 1 else [], 1.5 * max(high - low, 0.5)
        for field, (where, colour) in _REFERENCES.items():
            means = {  # by row; they differ between variants with another reduction, patch or split
                row: 100 * float(np.mean([getattr(run, field).overall_accuracy for run in variant.runs]))
                for row, variant in enumerate(scene.variants)
                if variant.runs
            }
            shown = [row for row, value in means.items() if low - reach <= value <= high + reach]
            name = field.replace("_", " ")
            for row, value in means.items():
                x, y = [value, value], [row - 0.5, row + 0.5]
                style: dict[str, Any] = {"linewidth": 1.2, "linestyle": where}
                if row not in shown:  # too far away to show differences beside it: an arrow at the edge
                    x, y = [float(value > low)], [row + (0.3 if field == "spectral_baseline" else -0.3)]
                    style = {"marker": "<>"[value > low], "clip_on": False, "transform": axes.get_yaxis_transform()}
                said = f"{scene.variants[row].name}, {name}: {value:.2f} %"
                axes.plot(x, y, color=colour, gid=tip(said), **style)
            if not shown:
                where = "to the left" if min(means.values()) < low else "to the right"
            least, most = f"{min(means.values()):.2f}", f"{max(means.values()):.2f}"
            title.append(f"{name} {least if least == most else f'{least} to {most}'} %, {where}")
        names = [f"{fill(variant.name, _NAME_WIDTH)}\nn = {len(variant.runs)}" for variant in scene.variants]
        axes.set_yticks(range(len(names)), names)
        axes.set(ylim=(len(names) - 0.5, -0.5), xlabel="OA, %")
        axes.set_title("\n".join(title), fontsize=7)
        axes.grid(axis="x")
    return figure


def _describe(variant: VariantReport) -> str:
    """The mean of a variant with its interval and number of seeds, in words."""
    mean = variant.summaries["overall_accuracy"]
    reach = f", 95 % interval {percent(mean.low)} to {percent(mean.high)} %" if mean.n > 1 else ""
    return f"{variant.name}: mean OA {percent(mean.mean)} %{reach}, n = {mean.n}"


def _margins(summary: Summary) -> list[list[float]]:
    """How far the interval reaches below and above the mean, in points, as `errorbar` takes it."""
    if summary.n < 2:
        return [[0.0], [0.0]]
    return [[100 * (summary.mean - summary.low)], [100 * (summary.high - summary.mean)]]


def _draw_pairs(scenes: Sequence[SceneReport], baseline: str) -> Figure:
    """Draws a line for each seed, from the baseline to every variant."""
    compared = [[variant for variant in scene.variants if variant.comparison] for scene in scenes]
    cols = min(_PAIRS_PER_ROW, max(map(len, compared)))
    rows = [
        (scene, variants[start : start + cols])
        for scene, variants in zip(scenes, compared, strict=True)
        for start in range(0, len(variants), cols)
    ]
    figure = Figure(figsize=(COLUMN_INCHES, 2.3 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), cols, squeeze=False, sharey="row")
    for panels, (scene, variants) in zip(grid, rows, strict=True):
        for axes in panels[len(variants) :]:
            axes.set_visible(False)
        for axes, variant in zip(panels, variants, strict=False):
            _draw_lines(axes, variant, baseline)
        ends = [100 * run.overall_accuracy for variant in scene.variants for run in variant.runs]
        margin = 0.06 * max(max(ends) - min(ends), 0.5)  # all rows of a scene have the same scale
        label = "OA, %" + (f"\n{fill(scene.name, _NAME_WIDTH)}" if len(scenes) > 1 else "")
        panels[0].set(ylim=(min(ends) - margin, max(ends) + margin), ylabel=label)
    return figure


def _draw_lines(axes: Axes, variant: VariantReport, baseline: str) -> None:
    pairs = [(run, run.difference) for run in variant.runs if run.difference is not None]
    for run, difference in pairs:
        ends = [100 * run.overall_accuracy - 100 * difference, 100 * run.overall_accuracy]
        said = tip(f"{variant.name}, seed {run.seed}: {ends[0]:.2f} to {ends[1]:.2f} %, {points(difference)} points")
        colour = _UP if difference > 0 else _DOWN if difference < 0 else "0.5"
        axes.plot([0, 1], ends, "o-", color=colour, markersize=3.5, linewidth=1, gid=said)
    axes.set_xticks([0, 1], [fill(name, 12) for name in (baseline, variant.name)], fontsize=7)
    title = f"{sum(difference > 0 for _, difference in pairs)} of {len(pairs)} up"
    axes.set(xlim=(-0.45, 1.45), title=title)
    axes.grid(axis="y")


def _list_costs(scene: SceneReport) -> list[tuple[int, VariantReport, int]]:
    """The variants with runs and a count of multiply-accumulates, with their number."""
    return [
        (place, variant, variant.macs_per_patch)
        for place, variant in enumerate(scene.variants)
        if variant.runs and variant.macs_per_patch
    ]


def _draw_cost(scenes: Sequence[SceneReport]) -> Figure:
    """Draws accuracy against cost; both axes begin where the variants do, and costs far apart are logarithmic."""
    costs = [_list_costs(scene) for scene in scenes]
    figure, panels = _stack([2.5 + 0.2 * math.ceil(len(each) / 2) for each in costs])
    for axes, scene, variants in zip(panels, scenes, costs, strict=True):
        for place, variant, macs in variants:
            mean = variant.summaries["overall_accuracy"]
            style = {**_BAR, "fmt": _MARKERS[place % len(_MARKERS)], "color": _COLOURS[place % len(_COLOURS)]}
            bars = axes.errorbar(macs / 1e6, 100 * mean.mean, yerr=_margins(mean), label=variant.name, **style)
            bars[0].set_gid(tip(f"{_describe(variant)}, {macs / 1e6:,.4g} M multiply-accumulates", is_stop=True))
        low, high = (bound(macs / 1e6 for _, _, macs in variants) for bound in (min, max))
        if high / low > _LOGARITHMIC:
            axes.set(xscale="log", xlim=(low / 1.5, high * 1.5))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
        else:
            margin = 0.08 * max(high - low, 0.02 * low)
            axes.set_xlim(low - margin, high + margin)
            axes.ticklabel_format(axis="x", useOffset=False)
            axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set(xlabel="million multiply-accumulates per patch", ylabel="OA, %")
        axes.set_title(fill(scene.name, 48) if len(scenes) > 1 else "")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
        axes.grid(axis="y")
    return figure


def _draw_convergence(scenes: Sequence[SceneReport]) -> Figure:
    """Draws a panel of accuracies and one of losses per scene: a line per variant, its interval shaded."""
    heights = [2.15 + 0.1 * math.ceil(len(scene.begun) / 2) for scene in scenes for _ in range(2)]
    figure, panels = _stack(heights)
    for above, below, scene in zip(panels[::2], panels[1::2], scenes, strict=True):
        for place, variant in enumerate(scene.variants):
            if variant.convergence is None:
                continue
            found = variant.convergence
            style = _style_line(place)
            _draw_curve(above, found.validation_accuracy, variant.name, style, factor=100.0)
            _draw_curve(below, found.validation_loss, variant.name, style)
        if scene.target is not None:
            above.axhline(100 * scene.target, color="0.3", linewidth=0.8, linestyle=":")
        above.set(title=fill(scene.name, 48) if len(scenes) > 1 else "", ylabel="validation OA, %")
        below.set(xlabel="epoch", ylabel="validation loss")
        below.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=2)
    return figure


def _draw_curve(
    axes: Axes, summaries: Sequence[Summary], name: str, style: dict[str, Any], *, factor: float = 1.0
) -> None:
    values = np.array([(each.mean, each.low, each.high) for each in summaries], np.float64)
    mean, low, high = factor * values.T
    epochs = np.arange(1, len(mean) + 1)
    axes.plot(epochs, mean, linewidth=1.2, marker="o" if len(mean) == 1 else None, label=name, **style)
    axes.fill_between(epochs, low, high, color=style["color"], alpha=0.15, linewidth=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y")


def _draw_ranks(friedman: RankTest) -> Figure:
    """Draws the critical-difference diagram of Demšar 2006; bars join groups of variants."""
    names = sorted(friedman.average_ranks, key=lambda name: friedman.average_ranks[name])
    num = len(names)
    half = (num + 1) // 2
    depth = 0.35 * len(friedman.groups) + 0.4
    height = 1.4 + 0.3 * half + 0.2 * len(friedman.groups)
    figure = Figure(figsize=(COLUMN_INCHES, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.hlines(0, 1, num, color="black", linewidth=1)
    for tick in range(1, num + 1):
        axes.vlines(tick, 0, 0.15, color="black", linewidth=1)
        axes.text(tick, 0.25, str(tick), ha="center", va="bottom")
    for place, name in enumerate(names):
        rank = friedman.average_ranks[name]
        is_left = place < half
        level = -depth - 0.45 * (place if is_left else num - 1 - place)
        end = 1 - 0.15 if is_left else num + 0.15
        axes.plot([rank, rank, end], [0, level, level], color="0.3", linewidth=0.9)
        text = f"{name}  {rank:.2f}" if is_left else f"{rank:.2f}  {name}"
        axes.text(end, level, f" {text} ", ha="right" if is_left else "left", va="center")
    for place, group in enumerate(friedman.groups):
        ranks = [friedman.average_ranks[name] for name in group]
        axes.hlines(-0.3 - 0.35 * place, min(ranks) - 0.04, max(ranks) + 0.04, color=_DOWN, linewidth=3.5)
    width = friedman.critical_difference
    axes.hlines(1.0, 1, 1 + width, color="black", linewidth=1.4)
    axes.text(1 + width / 2, 1.08, f"critical difference {width:.2f}", ha="center", va="bottom")
    return figure
