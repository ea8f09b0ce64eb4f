"""Pictures of a scene, its classes and its split, and what all figures share, such as colours."""

import io
import math
import re
import textwrap
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter, minimum_filter

from hsi_se.prediction.class_map import ClassMap
from hsi_se.reports.fonts import write_names
from hsi_se.reports.place import draw_place
from hsi_se.sampling.disjoint import Side, SideMap
from hsi_se.scene.georeference import Georeference
from hsi_se.scene.raster import Colour, Floats
from hsi_se.scene.scene import UNLABELLED, make_palette, parse_colour
from hsi_se.scene.wavelengths import split_at_gaps
from hsi_se.system.files import replacing

_DPI = 150
_TINT = 0.35  # opacity of labels over an image
_LEGEND_INCHES = 2.6
_SHORTER_SIDE_INCHES = 4.5
_MOST_DRAWN = 2000  # rows or cols of an image in a figure
_MOST_LINES = 28  # of a legend, before it gets another column
_MOST_DOTS = 1_500_000  # of the images in a figure on a page
_MOST_WRAPPED = 60  # classes of a legend; the names of more have one line each

SIDE_COLOURS: dict[int, tuple[str, str]] = {
    Side.UNUSED: ("unlabelled", "#202020"),
    Side.TRAIN: ("training", "#f2b134"),
    Side.VALIDATION: ("validation", "#e4572e"),
    Side.TEST: ("test", "#3f88c5"),
    Side.BUFFER: ("buffer, unused", "#8f8f8f"),
}

Entries = Mapping[int, tuple[str, str]]  # the name and the colour, `#rrggbb`, of each value of a map


@dataclass(frozen=True)
class Drawing:
    """A figure that has not been drawn yet."""

    name: str
    caption: str
    draw: Callable[[], Figure]
    style: str  # of matplotlib: a file in a package
    in_words: str = ""  # for those who do not see it; the caption by default

    def write(self, folder: Path, *, file_format: str) -> Path:
        """Draws the figure into a file of a folder, `png`, `pdf` or `svg`, and returns its path."""
        path = folder / f"{self.name}.{file_format}"
        with replacing(path) as draft:
            draft.write_bytes(self._render(file_format))
        return path

    def render_svg(self) -> str:
        """Returns the figure as an `<svg>` element for an HTML page."""
        text = self._render("svg", is_for_page=True).decode()
        text = text[text.index("<svg") :].replace("*{stroke-linejoin", ".drawn *{stroke-linejoin", 1)
        role = "group" if ' tabindex="0"' in text else "img"  # an image has no parts that a key could reach
        return text.replace("<svg", f'<svg role="{role}" aria-label="{escape(self.in_words or self.caption)}"', 1)

    def _render(self, file_format: str, *, is_for_page: bool = False) -> bytes:
        """Draws the figure, without a date, so that the same input gives the same bytes; a `tip` becomes a title."""
        stream = io.BytesIO()
        unsaid = {"svg": ("Creator", "Date", "Format", "Type"), "pdf": ("CreationDate",), "png": ()}[file_format]
        # The salt keeps the identifiers of several SVG figures on one page apart.
        with matplotlib.style.context([self.style, {"svg.hashsalt": self.name}]):
            figure = self.draw()
            write_names(figure)
            dots = min(300.0, math.sqrt(_MOST_DOTS / figure.get_size_inches().prod())) if is_for_page else None
            figure.savefig(stream, format=file_format, metadata=dict.fromkeys(unsaid), dpi=dots)
        if file_format != "svg":
            return stream.getvalue()
        text = re.sub(r"""<g id=(["'])tip:(.*?)\1>""", r"<g><title>\2</title>", stream.getvalue().decode())
        stop = r"""<g class="stop" tabindex="0" role="img" aria-label=\1\2\1><title>\2</title>"""
        return re.sub(r"""<g id=(["'])stop:(.*?)\1>""", stop, text).encode()


def tip(text: str, *, is_stop: bool = False) -> str:
    """Returns the gid of an artist with a tooltip; the Tab key stops at it if `is_stop`."""
    return f"{'stop' if is_stop else 'tip'}:{text}"


def wrap_name(name: str, *, width: int = 24, most_lines: int = 3) -> str:
    """Returns a name in lines of at most so many letters, or half as many wide ones; only a very long one is cut."""
    if any(unicodedata.east_asian_width(letter) in "WF" for letter in name[: 2 * width]):
        width //= 2
    lines = textwrap.wrap(name[: width * (most_lines + 1)].replace("_", " "), width) or [name]
    if len(lines) > most_lines or len(name) > width * (most_lines + 1):
        lines = [*lines[: most_lines - 1], f"{lines[most_lines - 1][: width - 1]}…"]
    return "\n".join(lines)


def save_map(class_map: ClassMap, path: Path, *, title: str, place: Georeference | None = None) -> None:
    """Writes the map as a PNG in the class colours, oriented as in the file, with a legend beside it.

    With a georeference it has coordinates, north and a scale bar.
    """
    names = {label: f"{label}  {name}" for label, name in class_map.class_names.items()}
    if (class_map.labels == UNLABELLED).any():
        names = {UNLABELLED: "unlabelled", **names}
    entries = {label: (name, to_hex(class_map.palette[label])) for label, name in names.items()}
    save_values(class_map.labels, entries, path, title=title, place=place)


def save_values(
    values: NDArray[np.integer], entries: Entries, path: Path, *, title: str, place: Georeference | None = None
) -> None:
    """Writes a map `(rows, cols)` as a PNG with its legend beside it, from the upper edge down; see `save_map`."""
    figure, axes = _make_map_figure(*values.shape, title=title)
    if place is not None and place.transform is not None:
        draw_place(axes, place, shape=values.shape)
    _add_legend(axes, show_values(axes, values, entries))
    save_figure(figure, path)


def _add_legend(axes: Axes, patches: list[Patch]) -> None:
    """Puts a legend to the right of a map, in as many columns as it needs."""
    num_cols = -(-sum(1 + str(patch.get_label()).count("\n") for patch in patches) // _MOST_LINES)
    if isinstance(axes.figure, Figure):
        axes.figure.set_figwidth(axes.figure.get_figwidth() + _LEGEND_INCHES * (num_cols - 1))
    axes.legend(
        handles=patches, ncols=num_cols, loc="upper left",
        bbox_to_anchor=(1.02, 1.0), borderaxespad=0.0, fontsize=7.5, frameon=False,
    )  # fmt: skip


def show_values(axes: Axes, values: NDArray[np.integer], entries: Entries, alpha: Floats | None = None) -> list[Patch]:
    """Draws a map `(rows, cols)` of values that are all in `entries`, and returns the handles of its legend."""
    lookup = np.zeros((max(entries) + 1, 3), dtype=np.uint8)
    for value, (_, colour) in entries.items():
        lookup[value] = parse_colour(colour)
    every, (rows, cols) = -(-max(values.shape) // _MOST_DRAWN), values.shape  # more are not to be seen
    shown = (slice(None, None, every),) * 2
    alpha = None if alpha is None else alpha[shown]
    edges = (-0.5, cols - 0.5, rows - 0.5, -0.5)
    axes.imshow(lookup[values[shown]], interpolation="nearest", alpha=alpha, extent=edges)
    most_lines = 1 if len(entries) > _MOST_WRAPPED else 3
    return [
        Patch(facecolor=colour, edgecolor="0.4", linewidth=0.5, label=wrap_name(name, most_lines=most_lines))
        for name, colour in entries.values()
    ]


def save_quick_look(
    picture: NDArray[np.uint8], path: Path, *, title: str, labels: NDArray[np.int32] | None, entries: Entries
) -> None:
    """Writes a picture `(rows, cols, 3)` as a PNG with row and column axes, and labels `(rows, cols)` over it.

    The areas of a class have its colour, opaque along their edges and faint inside.
    """
    figure, axes = _make_map_figure(*picture.shape[:2], title=title)
    axes.imshow(picture, interpolation="nearest")
    if labels is not None:
        is_edge = maximum_filter(labels, 3, mode="nearest") != minimum_filter(labels, 3, mode="nearest")
        opacity = np.select([labels == UNLABELLED, is_edge], [0.0, 1.0], _TINT)
        _add_legend(axes, show_values(axes, labels, {UNLABELLED: ("", "#000000"), **entries}, opacity)[1:])
    save_figure(figure, path)


def save_spectra(
    means: Floats,
    deviations: Floats,
    path: Path,
    *,
    names: Mapping[int, str],
    palette: Mapping[int, Colour],
    wavelengths_nm: Floats | None,
    title: str,
) -> None:
    """Writes the mean spectrum of each class as a PNG, in a band of one standard deviation; both `(C, bands)`.

    The classes are in the order of `names`, by label. Without wavelengths `(bands,)`, band numbers are shown.
    """
    positions = np.arange(1, means.shape[1] + 1.0) if wavelengths_nm is None else wavelengths_nm
    runs = split_at_gaps(positions)
    figure = Figure(figsize=(11, 5.5), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    for place, (mean, deviation, (label, name)) in enumerate(zip(means, deviations, names.items(), strict=True)):
        colour, dashes = style_class_line(place, palette[label])
        for number, run in enumerate(runs):
            low, high = mean[run] - deviation[run], mean[run] + deviation[run]
            axes.fill_between(positions[run], low, high, color=colour, alpha=0.12, linewidth=0)
            name_once = None if number else f"{label}  {name}"
            axes.plot(positions[run], mean[run], color=colour, dashes=dashes, linewidth=1.2, label=name_once)
    axes.set_xlabel("band" if wavelengths_nm is None else "wavelength, nm", fontsize=9)
    axes.set_ylabel("value: mean ± standard deviation", fontsize=9)
    axes.set_title(title, fontsize=10)
    axes.tick_params(labelsize=8)
    figure.legend(loc="outside right upper", fontsize=7.5, frameon=False)
    save_figure(figure, path)


def _make_map_figure(rows: int, cols: int, *, title: str) -> tuple[Figure, Axes]:
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


def save_figure(figure: Figure, path: Path) -> None:
    write_names(figure)
    with replacing(path) as draft:
        figure.savefig(draft, bbox_inches="tight", pad_inches=0.15)


def describe_sides(sides: SideMap | NDArray[np.int32], *, num_folds: int = 0) -> dict[int, tuple[str, str]]:
    """Returns the name with the number of pixels, and the colour, of each side of a split that has pixels.

    With `num_folds`, the map is one of fold numbers from 1.
    """
    entries: dict[int, tuple[str, str]] = dict(SIDE_COLOURS)
    if num_folds:
        palette = make_palette(range(1, num_folds + 1))
        entries = {0: entries[0]} | {fold: (f"fold {fold}", to_hex(palette[fold])) for fold in range(1, num_folds + 1)}
    return {
        side: (f"{name}: {count:,}", colour)
        for side, (name, colour) in entries.items()
        if (count := np.count_nonzero(sides == side))
    }


def to_hex(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
