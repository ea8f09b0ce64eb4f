"""Pictures of a run: the class map with its legend, and the confusion matrix."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.text import Text

from hsi_se.durable import replacing
from hsi_se.evaluation.metrics import Evaluation
from hsi_se.mapping.class_map import ClassMap
from hsi_se.report.tables import kappa_text
from hsi_se.sampling.disjoint import Side, SideMap
from hsi_se.scene.scene import UNLABELLED

_DPI = 150
_LEGEND_INCHES = 2.6
_SHORTER_SIDE_INCHES = 4.5


def save_map(class_map: ClassMap, path: Path, *, title: str) -> None:
    """Writes the map as a PNG in the class colours, north up as in the file, with a legend beside it."""
    figure, axes = make_map_figure(*class_map.labels.shape, title=title)
    axes.imshow(class_map.to_rgb(), interpolation="nearest")
    names = dict(class_map.class_names)
    if (class_map.labels == UNLABELLED).any():
        names = {UNLABELLED: "unlabelled", **names}
    handles = [
        Patch(
            facecolor="#{:02x}{:02x}{:02x}".format(*class_map.palette[label]),
            edgecolor="0.4",
            linewidth=0.5,
            label=f"{label}  {name}" if label != UNLABELLED else name,
        )
        for label, name in names.items()
    ]
    put_legend(axes, handles, size=7.5)
    save_figure(figure, path)


SIDE_COLOURS = {
    Side.UNUSED: ("unlabelled", "#202020"),
    Side.TRAIN: ("training", "#f2b134"),
    Side.VALIDATION: ("validation", "#e4572e"),
    Side.TEST: ("test", "#3f88c5"),
    Side.BUFFER: ("buffer, unused", "#8f8f8f"),
}


def save_split(sides: SideMap, path: Path, *, title: str) -> None:
    """Writes the partition map `(rows, cols)` as a PNG: who trains, validates, is tested, or is dropped."""
    figure, axes = make_map_figure(sides.shape[0], sides.shape[1], title=title)
    colours = ListedColormap([colour for _, colour in SIDE_COLOURS.values()])
    axes.imshow(sides, cmap=colours, vmin=-0.5, vmax=len(Side) - 0.5, interpolation="nearest")
    counts = np.bincount(sides.ravel(), minlength=len(Side))
    handles = [
        Patch(facecolor=colour, edgecolor="0.4", linewidth=0.5, label=f"{name}: {counts[side]:,}")
        for side, (name, colour) in SIDE_COLOURS.items()
        if counts[side]
    ]
    put_legend(axes, handles, size=8)
    save_figure(figure, path)


def save_confusion(evaluation: Evaluation, path: Path) -> None:
    """Writes the confusion matrix as a PNG: shade is the share of the true class, numbers are pixels."""
    size = len(evaluation.class_ids)
    shares = evaluation.confusion / np.maximum(evaluation.support, 1)[:, None]
    side = 2.6 + 0.42 * size
    figure = Figure(figsize=(side + 0.8, side), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, col in np.argwhere(evaluation.confusion > 0):
        colour = "white" if shares[row, col] > 0.5 else "black"
        axes.text(
            col, row, evaluation.confusion[row, col], ha="center", va="center", color=colour, fontsize=6.5
        )
    labels = [
        f"{label} {name}" for label, name in zip(evaluation.class_ids, evaluation.class_names, strict=True)
    ]
    axes.set_xticks(range(size), labels, rotation=90, fontsize=7)
    axes.set_yticks(range(size), labels, fontsize=7)
    axes.set_xlabel("predicted")
    axes.set_ylabel("truth")
    axes.set_title(
        f"OA {100 * evaluation.overall_accuracy:.2f} %   AA {100 * evaluation.average_accuracy:.2f} %   "
        f"κ {kappa_text(evaluation.kappa)}",
        fontsize=10,
    )
    bar = figure.colorbar(image, ax=axes, shrink=0.7)
    bar.set_label("share of the true class", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    save_figure(figure, path)


def make_map_figure(rows: int, cols: int, *, title: str) -> tuple[Figure, Axes]:
    """A figure in the shape of a scene, with room for a legend on the right."""
    scale = _SHORTER_SIDE_INCHES / min(rows, cols)
    width, height = min(cols * scale, 12), min(rows * scale, 12)
    figure = Figure(figsize=(width + _LEGEND_INCHES, height + 0.5), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("column", fontsize=8)
    axes.set_ylabel("row", fontsize=8)
    axes.tick_params(labelsize=7)
    return figure, axes


def put_legend(axes: Axes, handles: list[Patch], *, size: float) -> None:
    """Beside the map, from its upper edge down: a long title may stand above it."""
    axes.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(1.02, 1.0),
        borderaxespad=0.0,
        fontsize=size,
        frameon=False,
    )


def keep_dollars(figure: Figure) -> None:
    """Names may hold dollars, between which matplotlib sets mathematics; ticks of powers need that."""
    axes = [axis for each in figure.axes for axis in (each.xaxis, each.yaxis)]
    powers = {
        tick for axis in axes if axis.get_scale() == "log" for tick in axis.get_ticklabels(which="both")
    }
    for text in figure.findobj(Text):
        if text not in powers:
            text.set_parse_math(False)


def save_figure(figure: Figure, path: Path) -> None:
    keep_dollars(figure)
    with replacing(path) as draft:
        figure.savefig(draft, bbox_inches="tight", pad_inches=0.15)
