"""Pictures of an ablation: every seed's accuracy, its pairs, accuracy against cost, ranks over scenes."""

import textwrap
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hsi_se.ablation.record import AblationFolder, AblationReport, FriedmanRecord, SceneReport, SummaryRecord
from hsi_se.report.figures import save_figure

_DPI = 150
_DOT, _MEAN, _UP, _DOWN = "#3f88c5", "#222222", "#0a5699", "#e4572e"  # told apart by every reader
_NAME_WIDTH = 12  # letters on a line below an axis
_MARKERS = "osD^vP*X<>hp"


def save_figures(report: AblationReport, folder: AblationFolder) -> None:
    """Writes the figures that the finished runs allow, and takes away what an earlier report left."""
    figures = list_figures(report, folder)
    for path, _, draw in figures:
        save_figure(draw(), path)
    known = {folder.seeds_figure, folder.pairs_figure, folder.cost_figure, folder.ranks_figure}
    for path in known.difference(path for path, _, _ in figures):
        path.unlink(missing_ok=True)


def list_figures(
    report: AblationReport, folder: AblationFolder
) -> list[tuple[Path, str, Callable[[], Figure]]]:
    """Returns the figures that the finished runs allow: the file, what it shows, and what draws it."""
    scenes = [scene for scene in report.scenes if any(variant.runs for variant in scene.variants)]
    pairs = [scene for scene in scenes if any(variant.comparison for variant in scene.variants)]
    costs = [scene for scene in scenes if any(variant.macs_per_patch for variant in scene.variants)]
    figures: list[tuple[Path, str, Callable[[], Figure]]] = []
    if scenes:
        figures.append((folder.seeds_figure, "OA of every seed", partial(_draw_seeds, scenes)))
    if pairs:
        draw_pairs = partial(_draw_pairs, pairs, report.baseline)
        figures.append((folder.pairs_figure, "Pairs of the same seed", draw_pairs))
    if costs:
        figures.append((folder.cost_figure, "OA against MACs", partial(_draw_cost, costs)))
    if report.friedman is not None:
        draw_ranks = partial(_draw_ranks, report.friedman)
        figures.append((folder.ranks_figure, "Critical-difference diagram", draw_ranks))
    return figures


def _draw_seeds(scenes: Sequence[SceneReport]) -> Figure:
    """A dot a seed, and beside it the mean with its 95 % interval."""
    width = max(4.5, 1.4 + 0.8 * len(scenes[0].variants))
    figure = Figure(figsize=(width, 4.2 * len(scenes)), dpi=_DPI, layout="constrained")
    for axes, scene in zip(figure.subplots(len(scenes), squeeze=False)[:, 0], scenes, strict=True):
        values = []
        for place, variant in enumerate(scene.variants):
            accuracies = [100 * run.overall_accuracy for run in variant.runs]
            values += accuracies
            axes.plot(
                [place - 0.14] * len(accuracies), accuracies, "o", color=_DOT, markersize=4.5, alpha=0.7
            )
            mean = variant.summaries["overall_accuracy"]
            if mean.mean is not None:
                axes.errorbar(
                    place + 0.14,
                    100 * mean.mean,
                    yerr=_margins(mean),
                    fmt="_",
                    color=_MEAN,
                    markersize=9,
                    capsize=3,
                    linewidth=1.3,
                )
        floor = 100 * float(np.mean([run.location_floor for each in scene.variants for run in each.runs]))
        low, high = min(values), max(values)
        reach = 1.5 * max(high - low, 0.5)
        where = "dashed"
        if low - reach <= floor <= high + reach:
            axes.axhline(floor, color="0.4", linewidth=1, linestyle="--")
        else:
            where = "below this range" if floor < low else "above this range"
        names = [
            f"{textwrap.fill(variant.name, _NAME_WIDTH)}\nn={len(variant.runs)}" for variant in scene.variants
        ]
        axes.set_xticks(range(len(names)), names, fontsize=7)
        axes.set_xlim(-0.6, len(names) - 0.4)
        axes.set_ylabel("OA, %", fontsize=9)
        axes.set_title(
            f"{scene.name}: seeds, mean and 95 % interval\nlocation floor {floor:.2f} %, {where}", fontsize=9
        )
        _tidy(axes)
    return figure


def _margins(summary: SummaryRecord) -> list[list[float]]:
    """How far the interval reaches below and above the mean, in points, as `errorbar` takes it."""
    if summary.mean is None or summary.low is None or summary.high is None:
        return [[0.0], [0.0]]
    return [[100 * (summary.mean - summary.low)], [100 * (summary.high - summary.mean)]]


def _draw_pairs(scenes: Sequence[SceneReport], baseline: str) -> Figure:
    """A line for each seed, from the baseline to every variant."""
    compared = [[variant for variant in scene.variants if variant.comparison] for scene in scenes]
    cols = max(map(len, compared))
    figure = Figure(figsize=(max(4.5, 1 + 1.45 * cols), 3.6 * len(scenes)), dpi=_DPI, layout="constrained")
    grid = figure.subplots(len(scenes), cols, squeeze=False, sharey="row")
    for row, scene, variants in zip(grid, scenes, compared, strict=True):
        for axes in row[len(variants) :]:
            axes.set_visible(False)
        for axes, variant in zip(row, variants, strict=False):
            for run in variant.runs:
                if run.difference is not None:
                    end = 100 * run.overall_accuracy
                    colour = _UP if run.difference > 0 else _DOWN if run.difference < 0 else "0.5"
                    axes.plot(
                        [0, 1],
                        [end - 100 * run.difference, end],
                        "o-",
                        color=colour,
                        markersize=3,
                        linewidth=1,
                    )
            names = [textwrap.fill(name, _NAME_WIDTH) for name in (baseline, variant.name)]
            axes.set_xticks([0, 1], names, fontsize=7)
            axes.set_xlim(-0.45, 1.45)
            differences = [run.difference for run in variant.runs if run.difference is not None]
            num_better = sum(difference > 0 for difference in differences)
            axes.set_title(f"{num_better} of {len(differences)} up", fontsize=8)
            _tidy(axes)
        row[0].set_ylabel(f"OA, %\n{scene.name}", fontsize=9)
    return figure


def _draw_cost(scenes: Sequence[SceneReport]) -> Figure:
    """Mean accuracy with its interval against multiply-accumulates of a patch."""
    figure = Figure(figsize=(7, 4 * len(scenes)), dpi=_DPI, layout="constrained")
    for axes, scene in zip(figure.subplots(len(scenes), squeeze=False)[:, 0], scenes, strict=True):
        for place, variant in enumerate(scene.variants):
            summary, macs = variant.summaries["overall_accuracy"], variant.macs_per_patch
            if summary.mean is None or not macs:
                continue
            axes.errorbar(
                macs / 1e6,
                100 * summary.mean,
                yerr=_margins(summary),
                fmt=_MARKERS[place % len(_MARKERS)],
                color=f"C{place % 10}",
                capsize=3,
                linewidth=1.1,
                label=variant.name,
            )
        low, high = axes.get_xlim()
        if low > 0 and high / low > 5:
            axes.set_xscale("log")
        else:
            axes.ticklabel_format(axis="x", useOffset=False)
        axes.tick_params(axis="x", labelsize=8)
        axes.set_xlabel("million multiply-accumulates a patch", fontsize=9)
        axes.set_ylabel("OA, %: mean, 95 % interval", fontsize=9)
        axes.set_title(scene.name, fontsize=10)
        axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5))
        _tidy(axes)
    return figure


def _draw_ranks(friedman: FriedmanRecord) -> Figure:
    """The critical-difference diagram of Demšar 2006: bars join variants that are not told apart."""
    names = sorted(friedman.average_ranks, key=lambda name: friedman.average_ranks[name])
    num = len(names)
    half = (num + 1) // 2
    depth = 0.35 * len(friedman.groups) + 0.4
    figure = Figure(
        figsize=(7.5, 1.6 + 0.3 * half + 0.2 * len(friedman.groups)), dpi=_DPI, layout="constrained"
    )
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.hlines(0, 1, num, color="black", linewidth=1)
    for tick in range(1, num + 1):
        axes.vlines(tick, 0, 0.15, color="black", linewidth=1)
        axes.text(tick, 0.25, str(tick), ha="center", va="bottom", fontsize=8)
    for place, name in enumerate(names):
        rank = friedman.average_ranks[name]
        is_left = place < half
        level = -depth - 0.45 * (place if is_left else num - 1 - place)
        end = 1 - 0.15 if is_left else num + 0.15
        axes.plot([rank, rank, end], [0, level, level], color="0.3", linewidth=0.9)
        text = f"{name}  {rank:.2f}" if is_left else f"{rank:.2f}  {name}"
        axes.text(end, level, f" {text} ", ha="right" if is_left else "left", va="center", fontsize=8.5)
    for place, group in enumerate(friedman.groups):
        ranks = [friedman.average_ranks[name] for name in group]
        axes.hlines(-0.3 - 0.35 * place, min(ranks) - 0.04, max(ranks) + 0.04, color=_DOWN, linewidth=3.5)
    width = friedman.critical_difference
    axes.hlines(1.0, 1, 1 + width, color="black", linewidth=1.4)
    axes.text(1 + width / 2, 1.08, f"critical difference {width:.2f}", ha="center", va="bottom", fontsize=8)
    axes.set_title("average ranks over the scenes, 1 is best (Nemenyi, 5 %)", fontsize=10, pad=14)
    return figure


def _tidy(axes: Axes) -> None:
    axes.tick_params(axis="y", labelsize=8)
    axes.grid(axis="y", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
