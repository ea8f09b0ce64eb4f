"""A figure of what the gates do: mean excitation of each class over channels and over the spectrum."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from hsi_se.report.figures import style_class_line
from hsi_se.runs.explanation import Explanation

_DPI = 150


def draw_explanation(explanation: Explanation) -> Figure:
    """Draws a row of panels for every gate, in the order of the network, below one that compares them.

    Over spectral depth and over the spectrum, each class is a line. Over channels, whose order means nothing,
    each class is a row of shades.
    """
    gates = explanation.gates
    cols = 2 if any(gate.spectrum for gate in gates) else 1
    height = max(2.7, 0.8 + 0.13 * len(explanation.classes))
    figure = Figure(figsize=(6.5 * cols + 2.4, height * len(gates) + 1.8), dpi=_DPI, layout="constrained")
    grid = figure.add_gridspec(len(gates) + 1, cols, height_ratios=[1.5, *[height] * len(gates)])
    _draw_depths(figure.add_subplot(grid[0, :]), explanation)
    lines = []
    for row, gate in enumerate(gates, start=1):
        axes = figure.add_subplot(grid[row, 0])
        means = np.array(gate.mean_excitation)
        if gate.axis == "band":
            lines.append(axes)
            _draw_lines(axes, explanation, range(1, means.shape[1] + 1), means)
            axes.set_xlabel("spectral depth", fontsize=8)
        else:
            _draw_shades(axes, explanation, means)
        title = f"{gate.point}: {gate.block}; standard deviation between classes {gate.between_class_std:.3f}"
        if gate.between_class_share is not None:
            title += f", ω² {100 * gate.between_class_share:.1f} %"
        axes.set_title(title, fontsize=9)
        if gate.spectrum is not None:
            axes = figure.add_subplot(grid[row, 1])
            lines.append(axes)
            spectra = np.array(gate.spectrum.mean_excitation, np.float64)
            _draw_lines(axes, explanation, gate.spectrum.positions, spectra)
            axes.set_xlabel("wavelength, nm" if gate.spectrum.unit == "nm" else "band", fontsize=8)
            axes.set_title(f"{gate.point}, mapped back to the spectrum", fontsize=9)
    if lines:
        handles, _ = lines[0].get_legend_handles_labels()
        figure.legend(handles=handles, loc="outside right upper", fontsize=7.5, frameon=False, handlelength=3)
    return figure


def _draw_depths(axes: Axes, explanation: Explanation) -> None:
    places = range(len(explanation.gates))
    heights = [gate.between_class_std for gate in explanation.gates]
    axes.bar(places, heights, width=0.35, color="#3f88c5")
    for place, height in zip(places, heights, strict=True):
        axes.text(place, height, f"{height:.3f}", ha="center", va="bottom", fontsize=8)
    axes.set_xticks(places, [gate.point for gate in explanation.gates], fontsize=8)
    axes.set_xlim(-0.7, len(heights) - 0.3)
    axes.set_ylim(0, 1.2 * max(*heights, 1e-6))
    axes.set_ylabel("standard deviation\nbetween classes", fontsize=8)
    num_pixels = sum(each.num_pixels for each in explanation.classes)
    axes.set_title(
        f"{explanation.name} on {explanation.scene}: how much mean excitation differs between classes "
        f"({num_pixels:,} test pixels)",
        fontsize=10,
    )
    axes.tick_params(axis="y", labelsize=7)


def _draw_shades(axes: Axes, explanation: Explanation, rows: NDArray[np.float64]) -> None:
    """Draws one row per class and one column per channel, channels in the order of their means."""
    rows = rows[:, np.argsort(rows.mean(axis=0), kind="stable")]
    image = axes.imshow(rows, aspect="auto", interpolation="nearest", cmap="viridis")
    names = [f"{each.label}  {each.name}" for each in explanation.classes]
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(labelsize=7)
    axes.set_xlabel("channel, sorted by its mean", fontsize=8)
    bar = axes.figure.colorbar(image, ax=axes, pad=0.01)
    bar.set_label("mean excitation", fontsize=8)
    bar.ax.tick_params(labelsize=7)


def _draw_lines(
    axes: Axes, explanation: Explanation, positions: Sequence[float], rows: NDArray[np.float64]
) -> None:
    """Draws one line per class, and the mean over the classes in black."""
    dot = "o" if len(positions) == 1 else None
    for place, (each, colour, row) in enumerate(
        zip(explanation.classes, explanation.palette, rows, strict=True)
    ):
        ink, dashes = style_class_line(place, colour)
        name = f"{each.label}  {each.name}"
        axes.plot(positions, row, color=ink, dashes=dashes, marker=dot, linewidth=1.2, label=name)
    axes.plot(
        positions, rows.mean(axis=0), color="black", marker=dot, linewidth=1.8, label="mean of the classes"
    )
    axes.set_ylabel("mean excitation", fontsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(labelsize=7)
    axes.grid(color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)
