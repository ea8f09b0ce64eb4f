"""Pictures of how sure a network is: the reliability diagram, and accuracy against coverage."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from hsi_se.evaluation.confidence import Rejection, Reliability, is_scaled
from hsi_se.report.charts import find_lower_end
from hsi_se.report.figures import save_figure

_DPI = 150
_BEFORE, _AFTER = "#e4572e", "#3f88c5"


def save_reliability(before: Reliability, after: Reliability, temperature: float, path: Path) -> None:
    """Writes accuracy against confidence as a PNG, before and after the temperature, and the bins' pixels."""
    figure = Figure(figsize=(4.8, 6.2), dpi=_DPI, layout="constrained")
    diagram, histogram = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    diagram.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--", label="as accurate as confident")
    curves = [(before, "as trained, not calibrated", _BEFORE, 6.0)]
    if is_scaled(temperature):
        curves = [
            (before, "as trained", _BEFORE, 6.0),
            (after, f"at temperature {temperature:.2f}", _AFTER, 3.5),
        ]
    for reliability, name, colour, marker_size in curves:
        is_filled = reliability.count > 0
        diagram.plot(
            reliability.mean_confidence[is_filled],
            reliability.accuracy[is_filled],
            color=colour,
            marker="o",
            markersize=marker_size,
            linewidth=1.2,
            label=f"{name}: ECE {100 * reliability.ece:.2f} %",
        )
        histogram.stairs(reliability.count, reliability.bin_edges, color=colour, linewidth=1.2)
    diagram.set_ylabel("accuracy")
    diagram.set_ylim(-0.02, 1.02)
    histogram.set_xlim(-0.02, 1.02)
    histogram.set_xlabel("confidence")
    histogram.set_ylabel("test pixels")
    histogram.set_yscale("log")
    histogram.set_ylim(bottom=0.5)  # a bin of one pixel stands above the floor
    _finish(figure, diagram, histogram)
    save_figure(figure, path)


def save_rejection(rejection: Rejection, path: Path) -> None:
    """Writes accuracy against coverage as a PNG, the least certain pixels being rejected first."""
    figure = Figure(figsize=(5.2, 4), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    shown = rejection.steady
    axes.plot(
        shown.coverage,
        shown.accuracy,
        color=_AFTER,
        linewidth=1.4,
        marker="o" if len(shown.coverage) < 30 else None,
        markersize=3.5,
        label=f"of the pixels kept: area under the risk-coverage curve {rejection.aurc:.4f}",
    )
    of_all = float(shown.accuracy[-1])
    axes.axhline(
        of_all, color="0.4", linewidth=1, linestyle="--", label=f"of all test pixels: {100 * of_all:.2f} %"
    )
    lower = find_lower_end(shown.accuracy)
    axes.set_ylim(lower, 1 + 0.03 * (1 - lower))
    axes.set_xlim(0, 1.01)
    axes.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    axes.set_xlabel("test pixels kept, the most certain first")
    axes.set_ylabel("accuracy")
    _finish(figure, axes)
    save_figure(figure, path)


def _finish(figure: Figure, first: Axes, *others: Axes) -> None:
    for axes in (first, *others):
        axes.tick_params(labelsize=8)
        axes.grid(color="0.9", linewidth=0.6)
        axes.set_axisbelow(True)
    figure.legend(
        handles=first.get_legend_handles_labels()[0], loc="outside upper left", fontsize=8, frameon=False
    )
