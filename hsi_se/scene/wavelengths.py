"""Converts and matches band wavelengths, and chooses the bands to display."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from hsi_se.scene.guards import refuse
from hsi_se.scene.raster import Floats

_LISTED = 5
_OVERLAP = 0.5  # of the median step: smaller steps lie where two detectors overlap
_FAR, _ORDER = 1e12, 1e-9  # costs, in nm²
_GAP = 3.0  # times the median step: where the wavelengths step further, bands were left out
_SHORTEST_NM, _LONGEST_NM = 100.0, 100_000.0  # from the ultraviolet to the thermal infrared


def match_wavelengths(
    trained: Floats, given: Floats, *, widths: Floats | None, name: str, choices: Sequence[int]
) -> list[int]:
    """Returns the 0-based band of a file for each band of a model: the nearest wavelengths, each band used once.

    `trained` `(bands,)` are the model's band centres, `given` those of the file, in nanometres; `choices` are the bands
    of the file that may be used. SceneError if a model's band has none within half of its FWHM, given as `widths`
    `(bands,)`, or within half of the distance to its neighbour.
    """
    if widths is None or not np.isfinite(widths).all():
        steps = np.abs(np.diff(trained))
        steps = np.where(steps < _OVERLAP * np.median(steps), np.inf, steps) if len(steps) else steps
        widths = np.minimum(np.append(steps, np.inf), np.insert(steps, 0, np.inf))
    usable = np.array([band for band in choices if np.isfinite(given[band])], dtype=np.intp)
    apart = np.abs(trained[:, None] - given[usable])  # (bands of the model, bands of the file)
    is_near = apart <= np.asarray(widths)[:, None] / 2
    # Among bands of the same wavelength, the order decides.
    order = _ORDER * np.subtract.outer(np.arange(len(trained)), np.arange(len(usable))) ** 2
    rows, cols = linear_sum_assignment(np.where(is_near, apart**2 + order, _FAR))
    found = dict(zip(rows.tolist(), cols.tolist(), strict=True))
    lost = [row for row in range(len(trained)) if row not in found or not is_near[row, found[row]]]
    if lost:
        nearest = [f", nearest {given[usable[apart[row].argmin()]]:.1f}" if len(usable) else "" for row in lost]
        pairs = [f"{trained[row]:.1f} nm{near}" for row, near in zip(lost[:_LISTED], nearest, strict=False)]
        more = f" and {len(lost) - _LISTED} more" if len(lost) > _LISTED else ""
        raise refuse(name, "no_match", lost=len(lost), count=len(trained), pairs="; ".join(pairs), more=more)
    return [int(usable[found[row]]) for row in range(len(trained))]


NATURAL_COLOUR_NM = (640, 550, 460)  # red, green, blue
_IN_WORDS = re.compile(r"(\d[\d.]{0,20})\s{0,3}(nm|nano\w*|um|µm|micro\w*)\b", re.IGNORECASE)
_NANOMETRES = {  # by the beginning of the unit's name, longer ones first
    "nano": 1.0, "nm": 1.0, "micro": 1e3, "um": 1e3, "µm": 1e3, "μm": 1e3, "milli": 1e6, "mm": 1e6,
    "ang": 0.1, "ång": 0.1, "å": 0.1, "meter": 1e9, "metre": 1e9,
}  # fmt: skip
_LONGEST_MICROMETRES = 100.0  # larger values without a unit are nanometres


def to_nanometres(
    values: Sequence[Any], *, unit: str | None, bands: int, names: Sequence[str | None] = ()
) -> tuple[Floats | None, tuple[str, ...]]:
    """Returns band centres in nanometres, `(bands,)`, or None and a note why they cannot be used.

    Without a unit, values that are all below 100 are micrometres, others nanometres. Without values, they are taken
    from band names such as `band 1 (418.24 Nanometers)`, if each contains a number with a unit of length.
    """
    found = [match for name in names if (match := _IN_WORDS.search(name or ""))]
    if not values and found and len(found) == len(names):
        values, unit = [match[1] for match in found], found[0][2]
    if not values:
        return None, ()
    try:
        wavelengths = np.array([float(value) for value in values])
    except (TypeError, ValueError):
        return None, ("the file's wavelengths are not numbers; wavelengths ignored",)
    if len(wavelengths) != bands:
        return None, (f"the file lists {len(wavelengths)} wavelengths for {bands} bands; list ignored",)
    if not (np.isfinite(wavelengths).all() and (wavelengths > 0).all()):
        return None, ("the file's wavelengths are not all positive; wavelengths ignored",)
    name = (unit or "").strip().casefold()
    if name in ("", "unknown"):
        return wavelengths * (1000.0 if wavelengths.max() < _LONGEST_MICROMETRES else 1.0), ()
    factor = next((factor for start, factor in _NANOMETRES.items() if name.startswith(start)), None)
    if factor is not None:
        nanometres = wavelengths * factor
        if _SHORTEST_NM <= nanometres.max() <= _LONGEST_NM:
            return nanometres, ()
        listed = f"{wavelengths.min():g} to {wavelengths.max():g}"
        return None, (f"the file's wavelengths, {listed}, cannot be in {unit}; set scene.wavelengths",)
    return None, (f"unknown wavelength unit {name!r} in the file; wavelengths ignored",)


def to_widths(widths: Sequence[Any], *, wavelengths: Sequence[Any], nanometres: Floats | None) -> Floats | None:
    """Returns widths at half maximum in nanometres, `(bands,)`, from values in the unit of the listed wavelengths.

    `nanometres` are these wavelengths as converted. None if there is not one positive number for each band.
    """
    if nanometres is None or not len(widths) == len(wavelengths) == len(nanometres):
        return None
    found = np.array(widths, dtype=float) * nanometres / np.array(wavelengths, dtype=float)
    return found if (found > 0).all() else None


def pick_natural_colour(wavelengths_nm: Floats | None) -> tuple[int, int, int] | None:
    """Returns the 0-based bands nearest to red, green and blue; None if one is over 50 nm away."""
    if wavelengths_nm is None:
        return None
    distances = np.abs(wavelengths_nm[:, None] - NATURAL_COLOUR_NM)  # (bands, 3)
    red, green, blue = distances.argmin(axis=0).tolist()
    return None if (distances.min(axis=0) > 50).any() else (red, green, blue)


def pick_false_colour(num_bands: int) -> tuple[int, int, int]:
    """Returns three 0-based bands for a picture when the wavelengths are unknown."""
    return int(0.4 * num_bands), int(0.2 * num_bands), int(0.1 * num_bands)


def split_at_gaps(positions: Floats) -> list[NDArray[np.intp]]:
    """Returns the bands in ascending order of wavelength `(bands,)`, split where bands were left out."""
    order = np.argsort(positions, kind="stable")
    steps = np.diff(positions[order])
    gaps = np.flatnonzero(steps > _GAP * np.median(steps)) + 1 if len(steps) else np.array([], dtype=np.intp)
    return np.split(order, gaps)
