"""Figures of a run, drawn from its folder alone.

Each fits one column of a journal and is readable at that width; only the gates take as much room as their panels need.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from hsi_se.evaluation.confidence import Rejection
from hsi_se.evaluation.metrics import Evaluation
from hsi_se.reports.explorer import RunFiles
from hsi_se.reports.figures import Drawing, Entries, describe_sides, show_values, style_class_line, to_hex, wrap_name
from hsi_se.reports.tables import percent
from hsi_se.runs.bundle import BundleFacts
from hsi_se.runs.records import Explanation
from hsi_se.scene.scene import UNLABELLED

COLUMN_INCHES = 3.5  # as in the journals of the field
SMALLEST_PT = 7.0
_STYLE = "hsi_se.reports.run"
_LETTERS_PER_LINE = 56  # in the legend of a map
_MAPS_PER_ROW = 3
_LEAST_CELL_PT = 10.0  # of a confusion matrix with numbers of two digits
_FIRST, _SECOND = "#0a5699", "#b34700"  # distinct with any colour vision, and by their dashes in grey


def write_figures(run: RunFiles, *, file_format: str) -> list[Path]:
    """Writes every figure of a run into its folder `figures` and returns their paths."""
    explorer = run.explorer
    labelled = np.where(explorer.truth > 0, explorer.prediction, 0)
    drawings = [
        Drawing("map", "Map", lambda: _draw_map(run, explorer.prediction), _STYLE),
        Drawing("truth", "Labels", lambda: _draw_map(run, explorer.truth), _STYLE),
        Drawing("map_labelled", "Map of the labelled pixels", lambda: _draw_map(run, labelled), _STYLE),
        Drawing("split", "Split", lambda: _draw_picture(explorer.sides, describe_sides(explorer.sides)), _STYLE),
        Drawing("confusion", "Confusion matrix", lambda: draw_confusions({"": run.report.evaluation}), _STYLE),
        *list_charts(run),
    ]
    if (explanation := run.explanation) is not None and explanation.gates:
        drawings.append(Drawing("gates", "Gates", lambda: draw_explanation(explanation), _STYLE))
    return [drawing.write(run.folder.figures, file_format=file_format) for drawing in drawings]


def list_charts(run: RunFiles) -> list[Drawing]:
    """Returns the figures that the page of a run shows too."""

    def chart(
        name: str, title: str, draw: Callable[[RunFiles], Figure], curves: Mapping[str, Sequence[float]]
    ) -> Drawing:
        ends = [f"{curve} from {y[0]:.3g} to {y[-1]:.3g}" for curve, y in curves.items() if len(y)]
        return Drawing(name, title, partial(draw, run), _STYLE, f"{title}: {'; '.join(ends)}.")

    reliability = {name: accuracy.tolist() for name, _, accuracy in run.list_reliability()}
    kept = {"pixels kept": Rejection(*run.explorer.rejection).steady.accuracy.tolist()}
    history = run.record.history
    training = {
        "training loss": [epoch.loss for epoch in history],
        "validation OA": [epoch.validation_accuracy for epoch in history if epoch.validation_accuracy is not None],
    }
    names = ", ".join(image.name for image in run.record.images)
    maps = Drawing("images", "Maps of the images", partial(_draw_images, run), _STYLE, f"Maps of the images {names}.")
    return [
        *([maps] if names else []),
        chart("reliability", "Reliability", _draw_reliability, reliability),
        chart("rejection", "Accuracy after rejecting the least certain pixels", _draw_rejection, kept),
        *([chart("training", "Loss and accuracy", _draw_training, training)] if history else []),
    ]


def _make(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(COLUMN_INCHES, height), layout="constrained")
    return figure, figure.add_subplot()


def _draw_map(run: RunFiles, places: NDArray[np.uint16]) -> Figure:
    """Draws classes `(rows, cols)`, numbered as in `Explorer`, above the names of those present."""
    colours = [to_hex(run.facts.palette[label]) for label in (UNLABELLED, *run.facts.class_ids)]
    names = ("unlabelled", *run.facts.class_names)
    return _draw_picture(places, {place: (names[place], colours[place]) for place in np.unique(places).tolist()})


def _draw_images(run: RunFiles) -> Figure:
    """Draws the map of each image, in their order, above the names of the classes."""
    images, places = run.record.images, run.explorer.prediction
    shared = len(os.path.commonprefix([image.name for image in images]))  # noqa: RUF071 - names, not paths
    return draw_maps({image.name[shared:] or image.name: places[image.window] for image in images}, run.facts)


def draw_maps(panels: Mapping[str, NDArray[np.uint16]], facts: BundleFacts) -> Figure:
    """Draws maps of classes `(rows, cols)`, numbered as in `Explorer`, with their titles above one legend."""
    present = np.unique(np.concatenate([places.ravel() for places in panels.values()])).tolist()
    colours = ["#ffffff", *(to_hex(facts.palette[label]) for label in facts.class_ids)]
    names = ("", *facts.class_names)
    entries = {place: (names[place], colours[place]) for place in {0, *present}}
    rows = -(-len(panels) // _MAPS_PER_ROW)
    cols = -(-len(panels) // rows)
    titles = [wrap_name(title, width=56 // cols) for title in panels]
    tallest = max(len(places) / places.shape[1] for places in panels.values())
    num_cols, room = _plan_legend([wrap_name(names[place]) for place in present if place])
    above = 0.12 * max(title.count("\n") + 1 for title in titles) + 0.1
    height = (COLUMN_INCHES / cols * tallest + above) * rows + room
    figure = Figure(figsize=(COLUMN_INCHES, height), layout="constrained")
    grid = figure.subplots(rows, cols, squeeze=False).ravel()
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    for axes, title, places in zip(grid, titles, panels.values(), strict=False):
        axes.set(xticks=[], yticks=[])  # a hidden axis would leave no room for the title
        axes.spines[:].set_visible(False)
        handles = show_values(axes, places, entries)
        axes.set_title(title, fontsize=SMALLEST_PT)
    _add_legend(figure, [handle for handle, place in zip(handles, entries, strict=True) if place], num_cols)
    return figure


def _plan_legend(names: Sequence[str]) -> tuple[int, float]:
    """Returns how many columns of a legend fit below a figure, and their height in inches."""
    longest = max((len(line) for name in names for line in name.split("\n")), default=0)
    num_cols = max(1, min(_LETTERS_PER_LINE // (longest + 4), len(names)))
    size = -(-len(names) // num_cols)
    columns = (names[start : start + size] for start in range(0, len(names), size or 1))
    return num_cols, 0.13 * max((sum(1 + name.count("\n") for name in column) for column in columns), default=0) + 0.1


def _add_legend(figure: Figure, handles: Sequence[Patch], num_cols: int) -> None:
    figure.legend(handles=handles, loc="outside lower center", ncols=num_cols, handlelength=1.0, columnspacing=1.0)


def _draw_picture(places: NDArray[np.integer], entries: Entries) -> Figure:
    """Draws a map `(rows, cols)` above the name and the colour of each value in it."""
    rows, cols = places.shape
    num_cols, room = _plan_legend([wrap_name(name) for name, _ in entries.values()])
    figure, axes = _make(min(COLUMN_INCHES * rows / cols, 5.0) + room)
    handles = show_values(axes, places, entries)
    axes.set_axis_off()
    _add_legend(figure, handles, num_cols)
    return figure


def draw_confusions(panels: Mapping[str, Evaluation]) -> Figure:
    """Draws each true class as a row of shades, with per cent and its number of pixels where they can be read."""
    size, cols = max(len(found.class_ids) for found in panels.values()), min(2, len(panels))
    is_read = 72 * (COLUMN_INCHES / cols - 0.75) / size >= _LEAST_CELL_PT
    side = COLUMN_INCHES / cols - (0.75 if is_read else 0.4)  # inches, beside the labels and the totals
    rows = -(-len(panels) // cols)
    height = side + 0.5 + 0.13 * (len(panels) > 1)
    figure = Figure(figsize=(COLUMN_INCHES, height * rows + 0.35), layout="constrained")
    grid = figure.subplots(rows, cols, squeeze=False)
    for axes in grid.ravel()[len(panels) :]:
        axes.set_visible(False)
    for axes, (title, found) in zip(grid.ravel(), panels.items(), strict=False):
        shares = 100 * found.shares
        image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
        most = max(1, int(72 * side / 11))  # labels along an axis, so that they do not touch
        step = next(step for step in (1, 2, 5, 10, 20, 50, 100, size) if step * most >= len(shares))
        shown = range(0, len(shares), step)
        labels = [str(found.class_ids[place]) for place in shown]
        axes.set_xticks(shown, labels)
        axes.set_yticks(shown, labels)
        axes.set_title(wrap_name(title, width=56 // cols), fontsize=SMALLEST_PT)
        if is_read:
            for row, col in np.argwhere(shares >= 0.5):
                colour = "white" if shares[row, col] > 50 else "black"
                style = {"ha": "center", "va": "center", "color": colour, "fontsize": SMALLEST_PT}
                axes.text(col, row, f"{int(shares[row, col] + 0.5)}", **style)
            for row, total in enumerate(found.support.tolist()):
                axes.text(len(shares) - 0.3, row, f"{total:,}", ha="left", va="center", fontsize=SMALLEST_PT)
            axes.text(len(shares) - 0.3, -0.7, "pixels", ha="left", va="bottom", fontsize=SMALLEST_PT)
    for place in range(len(panels)):
        grid.ravel()[place].set_ylabel("" if place % cols else "true label")
        grid.ravel()[place].set_xlabel("predicted label" if place + cols >= len(panels) else "")
    figure.colorbar(image, ax=grid, orientation="horizontal", aspect=40, pad=0.02, label="% of the true class")
    return figure


def _draw_training(run: RunFiles) -> Figure:
    history = run.record.history
    epochs = [epoch.epoch for epoch in history]
    figure, axes = _make(2.3)
    dot = "o" if len(epochs) == 1 else None
    axes.plot(epochs, [epoch.loss for epoch in history], color=_FIRST, marker=dot, label="training loss")
    axes.set(xlim=(min(epochs) - 0.5, max(epochs) + 0.5), xlabel="epoch", ylabel="loss")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    known = [epoch for epoch in history if epoch.validation_accuracy is not None]
    if known:
        right = axes.twinx()
        when, losses, accuracy = zip(
            *((epoch.epoch, epoch.validation_loss, epoch.validation_accuracy) for epoch in known), strict=True
        )
        axes.plot(when, losses, color=_FIRST, linestyle=":", marker=dot, label="validation loss")
        right.plot(when, accuracy, color=_SECOND, linestyle="--", marker=dot, label="validation OA")
        right.set_ylabel("validation OA")
        right.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    axes.set_ylim(bottom=0)
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def _draw_reliability(run: RunFiles) -> Figure:
    figure, axes = _make(2.6)
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, linestyle=":", label="perfectly calibrated")
    styles = ((_FIRST, "-"), (_SECOND, "--"))
    found = run.report.calibration
    errors = (found.expected_calibration_error, found.expected_calibration_error_scaled)
    curves = run.list_reliability()
    for (name, confidence, accuracy), error, (colour, dash) in zip(curves, errors, styles, strict=False):
        label = f"{name}: ECE {percent(error)} %"
        axes.plot(confidence, accuracy, color=colour, linestyle=dash, marker="o", markersize=2.5, label=label)
    _finish(axes, "confidence", "accuracy")
    return figure


def _draw_rejection(run: RunFiles) -> Figure:
    found = Rejection(*run.explorer.rejection)
    shown = found.steady
    figure, axes = _make(2.3)
    dot = "o" if len(shown.coverage) < 30 else None
    area = f"area under the risk-coverage curve {found.aurc:.4f}"
    axes.plot(shown.coverage, shown.accuracy, color=_FIRST, marker=dot, markersize=2.5, label=area)
    of_all = f"all test pixels: {percent(shown.accuracy[-1])} %"
    axes.axhline(shown.accuracy[-1], color="0.4", linewidth=0.8, linestyle=":", label=of_all)
    lowest = min(0.99, float(shown.accuracy.min()))
    lower = lowest - 0.06 * (1 - lowest)
    axes.set_ylim(lower, 1 + 0.03 * (1 - lower))
    _finish(axes, "test pixels kept, most certain first", "accuracy")
    return figure


def _finish(axes: Axes, x: str, y: str) -> None:
    axes.set(xlabel=x, ylabel=y)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    axes.grid()
    axes.legend(loc="best", frameon=True, framealpha=0.85, edgecolor="none")


@style.context("hsi_se.reports.gates")
def draw_explanation(explanation: Explanation) -> Figure:
    """Draws a row of panels for every gate, in the order of the network, below one that compares them.

    Over spectral depth and over the spectrum, each class is a line. Over channels, whose order means nothing,
    each class is a row of shades.
    """
    gates = explanation.gates
    cols = 2 if any(gate.spectrum for gate in gates) else 1
    height = max(2.7, 0.8 + 0.13 * len(explanation.classes))
    figure = Figure(figsize=(6.5 * cols + 2.4, height * len(gates) + 1.8), layout="constrained")
    grid = figure.add_gridspec(len(gates) + 1, cols, height_ratios=[1.5, *[height] * len(gates)])
    _draw_depths(figure.add_subplot(grid[0, :]), explanation)
    lines = []
    for row, gate in enumerate(gates, start=1):
        axes = figure.add_subplot(grid[row, 0])
        means = np.array(gate.mean_excitation)
        if gate.axis == "band":
            lines.append(axes)
            _draw_classes(axes, explanation, range(1, means.shape[1] + 1), means)
            axes.set_xlabel("spectral depth")
        else:
            _draw_shades(axes, explanation, means)
        title = f"{gate.point}: {gate.block}; standard deviation between classes {gate.between_class_std:.3f}"
        if gate.between_class_share is not None:
            title += f", ω² {100 * gate.between_class_share:.1f} %"
        axes.set_title(title)
        if gate.spectrum is not None:
            axes = figure.add_subplot(grid[row, 1])
            lines.append(axes)
            spectra = np.array(gate.spectrum.mean_excitation, np.float64)
            _draw_classes(axes, explanation, gate.spectrum.positions, spectra)
            axes.set_xlabel("wavelength, nm" if gate.spectrum.unit == "nm" else "band")
            axes.set_title(f"{gate.point}, mapped back to the spectrum")
    if lines:
        handles, _ = lines[0].get_legend_handles_labels()
        figure.legend(handles=handles, loc="outside right upper")
    return figure


def _draw_depths(axes: Axes, explanation: Explanation) -> None:
    heights = [gate.between_class_std for gate in explanation.gates]
    places = range(len(heights))
    axes.bar_label(axes.bar(places, heights, width=0.35, color="#3f88c5"), fmt="%.3f", fontsize=8)
    axes.set_xticks(places, [gate.point for gate in explanation.gates], fontsize=8)
    axes.set(xlim=(-0.7, len(heights) - 0.3), ylim=(0, 1.2 * max(*heights, 1e-6)))
    axes.set_ylabel("standard deviation\nbetween classes")
    pixels = f"{sum(each.num_pixels for each in explanation.classes):,} test pixels"
    shown = f"how much mean excitation differs between classes ({pixels})"
    axes.set_title(f"{explanation.name} on {explanation.scene}: {shown}", fontsize=10)
    axes.tick_params(axis="y", labelsize=7)


def _draw_shades(axes: Axes, explanation: Explanation, rows: NDArray[np.float64]) -> None:
    """Draws one row per class and one column per channel, channels in the order of their means."""
    rows = rows[:, np.argsort(rows.mean(axis=0), kind="stable")]
    image = axes.imshow(rows, aspect="auto", interpolation="nearest", cmap="viridis")
    names = [wrap_name(f"{each.label}  {each.name}") for each in explanation.classes]
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(labelsize=7)
    axes.set_xlabel("channel, sorted by its mean")
    bar = axes.figure.colorbar(image, ax=axes, pad=0.01, label="mean excitation")
    bar.ax.tick_params(labelsize=7)


def _draw_classes(axes: Axes, explanation: Explanation, positions: Sequence[float], rows: NDArray[np.float64]) -> None:
    """Draws one line per class, and the mean over the classes in black."""
    dot = "o" if len(positions) == 1 else None
    for place, (each, colour, row) in enumerate(zip(explanation.classes, explanation.palette, rows, strict=True)):
        ink, dashes = style_class_line(place, colour)
        name = wrap_name(f"{each.label}  {each.name}")
        axes.plot(positions, row, color=ink, dashes=dashes, marker=dot, linewidth=1.2, label=name)
    axes.plot(positions, rows.mean(axis=0), color="black", marker=dot, linewidth=1.8, label="mean of the classes")
    axes.set_ylabel("mean excitation")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid()
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=7)
