"""The picture of what the gates do: mean excitation of each class over channels, and over the spectrum."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from hsi_se.explanation import Explanation
from hsi_se.report.figures import save_figure

_DPI = 150


def save_explanation(explanation: Explanation, path: Path) -> None:
    """Writes a row of panels for every gate, in the order of the network, and one that compares them."""
    gates = explanation.gates
    has_spectra = any(gate.spectrum for gate in gates)
    cols = 2 if has_spectra else 1
    figure = Figure(figsize=(6.5 * cols + 2.4, 2.7 * len(gates) + 1.8), dpi=_DPI, layout="constrained")
    grid = figure.add_gridspec(len(gates) + 1, cols, height_ratios=[0.6] + [1] * len(gates))
    _draw_depths(figure.add_subplot(grid[0, :]), explanation)
    for row, gate in enumerate(gates, start=1):
        axes = figure.add_subplot(grid[row, 0])
        rows = np.array(gate.mean_excitation)
        if gate.axis == "feature":  # whose order means nothing
            rows = rows[:, np.argsort(rows.mean(axis=0), kind="stable")]
        _draw_classes(axes, explanation, range(rows.shape[1]), rows, is_labelled=row == 1)
        axes.set_xlabel(
            "spectral depth" if gate.axis == "band" else "channel, in the order of their means", fontsize=8
        )
        axes.set_ylabel("mean excitation", fontsize=8)
        axes.set_title(
            f"{gate.point}: {gate.block}; between classes {gate.between_class_std:.3f}", fontsize=9
        )
        if gate.spectrum is not None:
            axes = figure.add_subplot(grid[row, 1])
            _draw_classes(
                axes,
                explanation,
                gate.spectrum.positions,
                np.array(gate.spectrum.mean_excitation, np.float64),
            )
            axes.set_xlabel("wavelength, nm" if gate.spectrum.unit == "nm" else "band", fontsize=8)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.set_title(f"{gate.point}, mapped back to the spectrum", fontsize=9)
    figure.legend(loc="outside right upper", fontsize=7.5, frameon=False)
    save_figure(figure, path)


def _draw_depths(axes: Axes, explanation: Explanation) -> None:
    places = range(len(explanation.gates))
    heights = [gate.between_class_std for gate in explanation.gates]
    axes.bar(places, heights, width=0.35, color="#3f88c5")
    for place, height in zip(places, heights, strict=True):
        axes.text(place, height, f"{height:.3f}", ha="center", va="bottom", fontsize=8)
    axes.set_xticks(places, [gate.point for gate in explanation.gates], fontsize=8)
    axes.set_xlim(-0.7, len(heights) - 0.3)
    axes.set_ylim(0, 1.2 * max(*heights, 1e-6))
    axes.set_ylabel("std between classes", fontsize=8)
    num_pixels = sum(each.num_pixels for each in explanation.classes)
    axes.set_title(
        f"{explanation.name} on {explanation.scene}: how much excitation varies between the classes of "
        f"{num_pixels:,} test pixels",
        fontsize=10,
    )
    axes.tick_params(axis="y", labelsize=7)


def _draw_classes(
    axes: Axes,
    explanation: Explanation,
    positions: Sequence[float],
    rows: NDArray[np.float64],
    *,
    is_labelled: bool = False,
) -> None:
    """A line a class in its colour, and the mean over the classes in black."""
    style = "-" if len(positions) > 1 else "o"
    for each, colour, row in zip(explanation.classes, explanation.palette, rows, strict=True):
        label = f"{each.label}  {each.name}" if is_labelled else None
        axes.plot(positions, row, style, color=np.array(colour) / 255, linewidth=0.8, alpha=0.85, label=label)
    label = "mean of the classes" if is_labelled else None
    axes.plot(positions, rows.mean(axis=0), style, color="black", linewidth=1.4, label=label)
    axes.tick_params(labelsize=7)
    axes.grid(color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)
