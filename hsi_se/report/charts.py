"""Line charts as SVG text that takes the page's colours; `page.css` names the classes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hsi_se.scene.raster import Floats

_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 408, 12, 208  # in the view box of `chart.svg`
_GAP = 3.0  # times the median step: where the wavelengths step further, bands were left out
_MOST_POINTS = 400  # of one line: more than the picture has columns


@dataclass(frozen=True, eq=False)
class Line:
    """One curve, `x` and `y` `(n,)`, with dots at its points if there are few; a NaN is left out."""

    name: str
    x: Floats
    y: Floats
    is_reference: bool = False


@dataclass(frozen=True)
class Axis:
    """From where to where, what it says, and how a number on it is written (a format spec, then a unit)."""

    title: str
    low: float
    high: float
    spec: str = "g"
    unit: str = ""
    factor: float = 1.0
    is_whole: bool = False

    def ticks(self) -> list[float]:
        ticks = list_ticks(self.low, self.high)
        return [tick for tick in ticks if tick == round(tick)] if self.is_whole else ticks

    def text(self, value: float) -> str:
        return f"{value * self.factor:{self.spec}}{self.unit}"


@dataclass(frozen=True)
class Chart:
    """What `chart.svg` draws: everything in the units of its view box."""

    title: str
    summary: str
    x_title: str
    y_title: str
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    paths: tuple[tuple[str, str], ...]  # class and SVG path
    dots: tuple[tuple[str, float, float], ...]
    legend: tuple[tuple[str, str], ...]  # class and name


def draw_lines(title: str, lines: Sequence[Line], *, x: Axis, y: Axis) -> Chart:
    """Returns a chart of some lines; a summary of their ends stands in for those who do not see it."""
    paths: list[tuple[str, str]] = []
    dots: list[tuple[str, float, float]] = []
    legend, ends, place = [], [], 0
    for line in lines:
        style = "reference" if line.is_reference else f"series series-{(place := place + 1)}"
        # Counted from the end, which is what a curve comes to.
        thin = slice((len(line.x) - 1) % (step := max(1, -(-len(line.x) // _MOST_POINTS))), None, step)
        points = [
            (_scale(u, x.low, x.high, _LEFT, _RIGHT), _scale(v, y.low, y.high, _BOTTOM, _TOP))
            for u, v in zip(line.x[thin].tolist(), line.y[thin].tolist(), strict=True)
            if not math.isnan(u) and not math.isnan(v)
        ]
        paths.append((style, "M" + "L".join(f"{u:.1f} {v:.1f}" for u, v in points) if points else ""))
        if len(points) <= 30 and not line.is_reference:
            dots += [(style, round(u, 1), round(v, 1)) for u, v in points]
        legend.append((style, line.name))
        known = line.y[~np.isnan(line.y)]
        if len(known) and not line.is_reference:
            ends.append(f"{line.name} from {y.text(float(known[0]))} to {y.text(float(known[-1]))}")
    return Chart(
        title=title,
        summary=f"{title}: {'; '.join(ends)}.",
        x_title=x.title,
        y_title=y.title,
        x_ticks=tuple((round(_scale(t, x.low, x.high, _LEFT, _RIGHT), 1), x.text(t)) for t in x.ticks()),
        y_ticks=tuple((round(_scale(t, y.low, y.high, _BOTTOM, _TOP), 1), y.text(t)) for t in y.ticks()),
        paths=tuple(paths),
        dots=tuple(dots),
        legend=tuple(legend),
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


def _scale(value: float, low: float, high: float, start: float, end: float) -> float:
    share = (value - low) / (high - low) if high > low else 0.5
    return start + min(max(share, -0.02), 1.02) * (end - start)


def split_at_gaps(positions: Floats) -> list[NDArray[np.intp]]:
    """Returns the bands in ascending order of wavelength `(bands,)`, split where bands were left out."""
    order = np.argsort(positions, kind="stable")
    steps = np.diff(positions[order])
    gaps = np.flatnonzero(steps > _GAP * np.median(steps)) + 1 if len(steps) else np.array([], dtype=np.intp)
    return np.split(order, gaps)
