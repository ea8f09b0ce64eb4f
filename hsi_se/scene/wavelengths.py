"""Wavelengths of bands: their units, the bands to display, and whether two scenes have the same ones."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from hsi_se.errors import SceneError
from hsi_se.scene.raster import Floats

_LISTED = 5


def compare_wavelengths(
    trained: Sequence[float] | None, given: Sequence[float] | None, *, name: str, bands: Sequence[int]
) -> tuple[str, ...]:
    """Proves that as many bands lie where they lay in training, where both are known.

    Args:
        trained: `(bands,)` nanometres of the training.
        given: `(bands,)` nanometres of the other scene.
        name: what the message calls that scene.
        bands: `(bands,)` what it calls the bands.

    Returns:
        What the user should know, one sentence each.

    Raises:
        SceneError: a band lies more than half a band from that of the training; half a band is half
            the distance to the nearer neighbour.
    """
    if trained is None or given is None:
        who = "the training scene" if trained is None else name
        return (f"the wavelengths of {who} are unknown, so the bands were compared by their number alone",)
    if len(trained) < 2:
        return ()
    steps = np.abs(np.diff(trained))
    widths = np.minimum(np.append(steps, np.inf), np.insert(steps, 0, np.inf))
    apart = np.flatnonzero(np.abs(np.subtract(given, trained)) > widths / 2).tolist()
    if apart:
        pairs = [
            f"band {bands[band]}: {trained[band]:.1f} and {given[band]:.1f} nm" for band in apart[:_LISTED]
        ]
        more = f" and {len(apart) - _LISTED} more" if len(apart) > _LISTED else ""
        raise SceneError(
            f"{name}: {len(apart)} of {len(trained)} bands are more than half a band from those of the "
            f"training (trained and given: {', '.join(pairs)}{more}); "
            "give a scene of the same sensor, or resample it"
        )
    return ()


NATURAL_COLOUR_NM = (640, 550, 460)
_FALSE_COLOUR = (0.4, 0.2, 0.1)  # of the bands
_IN_WORDS = re.compile(r"(\d[\d.]*)\s*(nm|nano\w*|um|µm|micro\w*)\b", re.IGNORECASE)
_NANOMETRES = {  # of a unit by how it begins, the longer beginnings first
    "nano": 1.0, "nm": 1.0, "micro": 1e3, "um": 1e3, "µm": 1e3, "μm": 1e3, "milli": 1e6, "mm": 1e6,
    "ang": 0.1, "ång": 0.1, "å": 0.1, "meter": 1e9, "metre": 1e9,
}  # fmt: skip
_LONGEST_MICROMETRES = 100.0  # above it, a wavelength without a unit is in nanometres


def to_nanometres(
    values: Sequence[Any], *, unit: str | None, bands: int
) -> tuple[Floats | None, tuple[str, ...]]:
    """Returns band centres in nanometres, or None with a note that says why they cannot be used.

    Without a unit, values of which none reaches 100 are taken for micrometres.
    """
    try:
        wavelengths = np.array([float(value) for value in values])
    except (TypeError, ValueError):
        return None, ("the file's wavelengths are no numbers, and are not used",)
    if len(wavelengths) != bands:
        return None, (f"the file lists {len(wavelengths)} wavelengths for {bands} bands; they are not used",)
    if not (np.isfinite(wavelengths).all() and (wavelengths > 0).all()):
        return None, ("the file's wavelengths are not all positive, and are not used",)
    name = (unit or "").strip().casefold()
    factor = next((factor for start, factor in _NANOMETRES.items() if name.startswith(start)), None)
    if factor is None and name not in ("", "unknown"):
        return None, (f"the file's wavelengths are in {name}, which is no length here; they are not used",)
    if factor is None:
        factor = 1000.0 if wavelengths.max() < _LONGEST_MICROMETRES else 1.0
    return wavelengths * factor, ()


def find_wavelengths_in(names: Sequence[str | None]) -> tuple[list[str], str | None]:
    """Returns the numbers with a unit of length in band names, `band 1 (418.24 Nanometers)`, and the unit.

    Nothing is returned unless every name has one.
    """
    found = [match for name in names if (match := _IN_WORDS.search(name or ""))]
    if not found or len(found) < len(names):
        return [], None
    return [match[1] for match in found], found[0][2]


def pick_natural_colour(wavelengths_nm: Floats | None) -> tuple[int, int, int] | None:
    """Returns the 0-based bands nearest to red, green and blue, or None if none is within 50 nm."""
    if wavelengths_nm is None:
        return None
    distances = np.abs(wavelengths_nm[:, None] - np.array(NATURAL_COLOUR_NM))  # (bands, 3)
    if (distances.min(axis=0) > 50).any():
        return None
    red, green, blue = distances.argmin(axis=0).tolist()
    return red, green, blue


def pick_false_colour(num_bands: int) -> tuple[int, int, int]:
    """Returns three 0-based bands for a picture, where nothing says which are red, green and blue."""
    red, green, blue = (int(share * num_bands) for share in _FALSE_COLOUR)
    return red, green, blue
