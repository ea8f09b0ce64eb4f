"""Line charts as SVG text that takes the page's colours; `page.css` names the classes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hsi_se.report.tables import render_template
from hsi_se.scene.raster import Floats

_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 408, 12, 208  # in the view box of `chart.html`
_GAP = 3.0  # times the median step: where the wavelengths step further, bands were left out
_MOST_POINTS = 400  # of one line: more than the picture has columns
_MOST_DOTS = 30


@dataclass(frozen=True, eq=False)
class Line:
    """One curve, `x` and `y` `(n,)`, with dots at its points if there are few; a NaN is left out."""

    name: str
    x: Floats
    y: Floats
    is_reference: bool = False


@dataclass(frozen=True)
class Axis:
    """From where to where, and what it says; fractions are written as percent."""

    title: str
    low: float
    high: float
    is_percent: bool = False
    is_whole: bool = False

    def list_ticks(self) -> list[float]:
        ticks = list_ticks(self.low, self.high)
        return [tick for tick in ticks if tick == round(tick)] if self.is_whole else ticks

    def text(self, value: float) -> str:
        return f"{100 * value:.6g} %" if self.is_percent else f"{value:g}"

    def place(self, value: float, start: float, end: float) -> float:
        """Where a value lies between two ends in the picture, or little beyond them."""
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return start + min(max(share, -0.02), 1.02) * (end - start)


def draw_lines(title: str, lines: Sequence[Line], *, x: Axis, y: Axis) -> str:
    """Returns a figure of some lines; a summary of their ends stands in for those who do not see it."""

    def across(value: float) -> float:
        return round(x.place(value, _LEFT, _RIGHT), 1)

    def down(value: float) -> float:
        return round(y.place(value, _BOTTOM, _TOP), 1)

    curves, ends, place = [], [], 0
    for line in lines:
        style = "reference" if line.is_reference else f"series series-{(place := place + 1)}"
        # Counted from the end, which is what a curve comes to.
        thin = slice((len(line.x) - 1) % (step := max(1, -(-len(line.x) // _MOST_POINTS))), None, step)
        known = ~np.isnan(line.x[thin]) & ~np.isnan(line.y[thin])
        points = [
            (across(u), down(v))
            for u, v in zip(line.x[thin][known].tolist(), line.y[thin][known].tolist(), strict=True)
        ]
        path = "M" + "L".join(f"{u} {v}" for u, v in points) if points else ""
        has_dots = len(points) <= _MOST_DOTS and not line.is_reference
        dots = points if has_dots else []
        curves.append({"style": style, "name": line.name, "path": path, "dots": dots})
        values = line.y[~np.isnan(line.y)].tolist()
        if values and not line.is_reference:
            ends.append(f"{line.name} from {y.text(values[0])} to {y.text(values[-1])}")
    return render_template(
        "chart.html",
        title=title,
        summary=f"{title}: {'; '.join(ends)}.",
        x=x,
        y=y,
        x_ticks=[(across(tick), x.text(tick)) for tick in x.list_ticks()],
        y_ticks=[(down(tick), y.text(tick)) for tick in y.list_ticks()],
        curves=curves,
    )


def list_ticks(low: float, high: float, *, most: int = 6) -> list[float]:
    """Returns at most `most` round numbers (1, 2 or 5 times a power of ten apart) in [low, high]."""
    span = high - low
    if not span > 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(
        power * part for part in (1, 2, 5, 10, 20) if math.floor(high / (power * part) + 1e-9)
        - math.ceil(low / (power * part) - 1e-9) < most
    )  # fmt: skip
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 12) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def find_lower_end(accuracy: Floats) -> float:
    """Returns where an axis of accuracies that ends at 1 begins: below the lowest, and below 99 %."""
    lowest = min(0.99, float(accuracy.min()))
    return lowest - 0.06 * (1 - lowest)


def split_at_gaps(positions: Floats) -> list[NDArray[np.intp]]:
    """Returns the bands in ascending order of wavelength `(bands,)`, split where bands were left out."""
    order = np.argsort(positions, kind="stable")
    steps = np.diff(positions[order])
    gaps = np.flatnonzero(steps > _GAP * np.median(steps)) + 1 if len(steps) else np.array([], dtype=np.intp)
    return np.split(order, gaps)
