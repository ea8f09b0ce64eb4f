"""The picture of a split, and helpers that all figures share."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.text import Text

from hsi_se.report.palette import SIDE_COLOURS
from hsi_se.sampling.disjoint import Side, SideMap
from hsi_se.scene.raster import Colour, Floats
from hsi_se.system.files import replacing

_DPI = 150
_LEGEND_INCHES = 2.6
_SHORTER_SIDE_INCHES = 4.5


def save_split(sides: SideMap, path: Path, *, title: str) -> None:
    """Writes the partition map `(rows, cols)` as a PNG: training, validation, test and unused pixels."""
    figure, axes = make_map_figure(sides.shape[0], sides.shape[1], title=title)
    colours = ListedColormap([colour for _, colour in SIDE_COLOURS.values()])
    axes.imshow(sides, cmap=colours, vmin=-0.5, vmax=len(Side) - 0.5, interpolation="nearest")
    counts = np.bincount(sides.ravel(), minlength=len(Side))
    entries = [
        (f"{name}: {counts[side]:,}", colour) for side, (name, colour) in SIDE_COLOURS.items() if counts[side]
    ]
    _put_legend(axes, entries)
    save_figure(figure, path)


def make_map_figure(rows: int, cols: int, *, title: str) -> tuple[Figure, Axes]:
    """Returns a figure in the shape of a scene, with room for a legend on the right."""
    scale = _SHORTER_SIDE_INCHES / min(rows, cols)
    width, height = min(cols * scale, 12), min(rows * scale, 12)
    figure = Figure(figsize=(width + _LEGEND_INCHES, height + 0.5), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("column", fontsize=8)
    axes.set_ylabel("row", fontsize=8)
    axes.tick_params(labelsize=7)
    return figure, axes


def _put_legend(axes: Axes, entries: Sequence[tuple[str, str]]) -> None:
    """Puts names and colours beside the map, from its upper edge down, so that a long title fits above."""
    axes.legend(
        handles=[
            Patch(facecolor=colour, edgecolor="0.4", linewidth=0.5, label=name) for name, colour in entries
        ],
        loc="upper left",
        bbox_to_anchor=(1.02, 1.0),
        borderaxespad=0.0,
        fontsize=7.5,
        frameon=False,
    )


_DASHES = ((), (4.5, 1.5), (5.0, 1.5, 1.0, 1.5), (1.5, 1.0))
_LIGHTEST = 0.3  # relative luminance of a line on white: a contrast of 3:1, WCAG 2.2, 1.4.11


def style_class_line(place: int, colour: Colour) -> tuple[Floats, tuple[float, ...]]:
    """Returns the colour and dashes of a class's line on white; light colours are darkened to be visible.

    The dashes depend on the class's position. They distinguish classes whose colours look alike to
    colour-blind readers, or have become alike by darkening.
    """
    linear = (np.array(colour) / 255) ** 2.2
    luminance = float(linear @ (0.2126, 0.7152, 0.0722))
    darkened = linear * min(1.0, _LIGHTEST / max(luminance, _LIGHTEST))
    return darkened ** (1 / 2.2), _DASHES[place % len(_DASHES)]


def keep_dollars(figure: Figure) -> None:
    """Prints dollar signs in names as they are; matplotlib sets mathematics only in the ticks of log axes."""
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
