"""Where a map lies: coordinates on its edges, a scale bar and an arrow to the north of its grid; nodes for the page."""

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation

from hsi_se.scene.georeference import Georeference, parse_crs
from hsi_se.scene.raster import Floats

_DEGREE_M = 111_320  # of latitude, and of longitude at the equator
_BELOW = 0.5  # inches: under the tick labels and the name of the axis
# Nodes along a side, between which the page interpolates linearly: within 1 m of the projection over 60 km.
_NODES = 17


def locate_nodes(place: Georeference | None, *, shape: tuple[int, ...]) -> tuple[Floats, tuple[str, ...]]:
    """Returns x, y, longitude and latitude `(n, n, 4)` of nodes from corner to corner of a map, and names of x and y.

    Longitude and latitude, in degrees on WGS 84, are left out if the coordinate system is unknown. Without a
    transform, there are no nodes and no names.
    """
    if place is None or place.transform is None:
        return np.zeros((0, 0, 2)), ()
    rows, cols = shape
    row, col = np.meshgrid(np.linspace(0, rows, _NODES), np.linspace(0, cols, _NODES), indexing="ij")
    a, b, c, d, e, f = place.transform
    x, y, known = a * col + b * row + c, d * col + e * row + f, parse_crs(place.crs or "")
    values = [x, y]
    if known is not None:
        from rasterio.warp import transform

        values += [np.reshape(each, x.shape) for each in transform(known, "EPSG:4326", x.ravel(), y.ravel())]
    return np.dstack(values), _name_axes(known)


def _name_axes(known: Any) -> tuple[str, str]:
    """Returns the names of x and y with their units, in a coordinate system of rasterio's or None."""
    if known is not None and known.is_geographic:
        return "longitude, °", "latitude, °"
    if known is not None and known.is_projected:
        unit = "m" if known.linear_units_factor[1] == 1 else known.linear_units_factor[0]
        return f"easting, {unit}", f"northing, {unit}"
    return "x", "y"


def draw_place(axes: Axes, place: Georeference, *, shape: tuple[int, ...]) -> None:
    """Replaces rows and columns at the edges of an image `(rows, cols)` by coordinates, and draws scale bar and north.

    On a rotated grid, each edge has the coordinate that changes most along it, where it is reached. There is no scale
    bar if the coordinate system is unknown.
    """
    from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar

    rows, cols = shape
    a, b, c, d, e, f = place.transform or (1, 0, 0, 0, 1, 0)
    grid, known = np.array([[a, b], [d, e]]), parse_crs(place.crs or "")  # (col, row) to (x, y)
    names, metres = _name_axes(known), None
    if known is not None and known.is_geographic:
        narrowing = math.cos(math.radians(f + (d * cols + e * rows) / 2))
        metres = np.array((_DEGREE_M * narrowing, _DEGREE_M))
    elif known is not None and known.is_projected:
        metres = np.full(2, known.linear_units_factor[1])
    for axis, column, length, start in ((axes.xaxis, 0, cols, grid[:, 1] * rows), (axes.yaxis, 1, rows, (0, 0))):
        which = int(abs(grid[1, column]) > abs(grid[0, column]))
        low, per_pixel = (c, f)[which] + start[which], grid[which, column]
        ticks = np.array(MaxNLocator(4).tick_values(*sorted((low, low + per_pixel * length))))
        at = (ticks - low) / per_pixel - 0.5  # the upper left corner of an image is at (-0.5, -0.5)
        digits = max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9))
        is_here = (at >= -0.5) & (at <= length - 0.5)
        axis.set_ticks(at[is_here], [f"{tick:,.{digits}f}" for tick in ticks[is_here]])
        axis.set_label_text(names[which])
    axes.tick_params(axis="y", labelrotation=90)
    inches = axes.figure.dpi_scale_trans
    if metres is not None:
        per_col = math.hypot(*(grid[:, 0] * metres))
        power = 10.0 ** math.floor(math.log10(cols * per_col / 3))
        size = next(times * power for times in (5, 2, 1) if times * power <= cols * per_col / 3)
        text = f"{size:g} m" if size < 1000 else f"{size / 1000:g} km"
        bar = AnchoredSizeBar(
            axes.transData, size / per_col, text, "lower left", pad=0, frameon=False, size_vertical=rows / 150,
            bbox_to_anchor=(0, 0), bbox_transform=axes.transAxes + ScaledTranslation(0, -_BELOW, inches),
            fontproperties=FontProperties(size=7),
        )  # fmt: skip
        axes.add_artist(bar)
    across, down = np.linalg.solve(grid, (0, 1)) / np.linalg.norm(np.linalg.solve(grid, (0, 1)))
    tail = axes.transAxes + ScaledTranslation(-across / 7, down / 7 - _BELOW, inches)
    axes.annotate(
        "N", xy=(0.97, 0), xycoords=tail, xytext=(20 * across, -20 * down), textcoords="offset points", fontsize=8,
        ha="center", va="center", annotation_clip=False, arrowprops={"arrowstyle": "<|-", "color": "black"},
    )  # fmt: skip
