"""Finds undeclared fill: pixels that share one spectrum exactly. Axes: rows, cols, bands; n pixels."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_se.errors import SceneError
from hsi_se.scene.labels import Labels
from hsi_se.scene.raster import Floats, Image, Mask, chunk_rows

_FEWEST_BANDS = 4  # with fewer, grey and saturated pixels are common
_SIZEABLE = 10  # pixels
_MOST_GROUPS = 16  # per part: a noise-free or enlarged image has thousands
_STRONGEST_GAIN, _BRIGHTEST = 0.01, 2.0  # reflectances that are divided by 100 or more were scaled before
_LONGEST = 2**53  # whole numbers below are exact


@dataclass(eq=False)
class _Group:
    """Pixels that share a spectrum `(bands,)`; the first is at `row` and `col`."""

    row: int
    col: int
    spectrum: Floats
    num_pixels: int = 0


@dataclass(eq=False)
class FillFinder:
    """Collects the range of each band and the spectra that several pixels share, in one pass over a cube."""

    _groups: dict[bytes, _Group] = field(default_factory=dict)
    _lows: list[Floats] = field(default_factory=list)  # (bands,) of the pixels that are in no group, by part
    _highs: list[Floats] = field(default_factory=list)
    _num_others: int = 0

    def add(self, cube: NDArray[Any], *, first_row: int, missing: Mask | None = None) -> None:
        """Adds rows of the cube, of which `first_row` is the first; `missing` marks nodata."""
        valid = np.ones(cube.shape[:2], dtype=bool) if missing is None else ~missing
        is_flat, first_band = np.zeros_like(valid), cube[..., 0]
        shared = is_flat.copy()
        if cube.shape[2] >= _FEWEST_BANDS:
            flat = np.nonzero(valid & (first_band == cube[..., -1]))
            is_flat[flat] = shared[flat] = (cube[flat] == cube[flat][:, :1]).all(axis=1)
            for one, two in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):  # neighbours
                row, col = np.nonzero(valid[one] & valid[two] & (first_band[one] == first_band[two]))
                same = (cube[one][row, col] == cube[two][row, col]).all(axis=1)
                shared[one][row[same], col[same]] = shared[two][row[same], col[same]] = True
        todo = shared.copy()
        for _ in range(_MOST_GROUPS):
            if not todo.any():
                break
            row, col = divmod(int(np.argmax(todo + 1 * (todo & is_flat))), todo.shape[1])
            spectrum = cube[row, col]
            place = np.nonzero(valid & (first_band == spectrum[0]))
            same = (cube[place] == spectrum).all(axis=1)
            shared[place] |= same
            todo[place] &= ~same
            group = _Group(first_row + row, col, spectrum.astype(np.float64))
            self._groups.setdefault(spectrum.tobytes(), group).num_pixels += int(same.sum())
        others = valid & (todo | ~shared)
        pixels = cube.reshape(-1, cube.shape[2]) if others.all() else cube[others]
        if len(pixels):
            self._num_others += len(pixels)
            self._lows.append(np.fmin.reduce(pixels, axis=0).astype(np.float64))
            self._highs.append(np.fmax.reduce(pixels, axis=0).astype(np.float64))

    def check(self, image: Image, *, labels: Labels | None = None) -> tuple[str, ...]:
        """Returns notes on fill, on a nodata value that occurs nowhere and on a doubtful scale.

        `image` is the one whose rows were added. With `labels` `(rows, cols)`, labelled fill is counted.

        Raises:
            SceneError: a spectrum is surely fill: in most bands it lies outside the range of all other
                pixels, and ten pixels have it, or it is farther outside than the range is wide.
        """
        if not self._lows or not image.is_suspect:
            return ()
        lowest, highest = np.fmin.reduce(self._lows), np.fmax.reduce(self._highs)
        found, is_sure = self._find(lowest, highest)
        stored = np.array([lowest, highest, *(group.spectrum for group in self._groups.values())])
        if image.gain is not None:
            stored = (stored - (0 if image.offset is None else image.offset)) / image.gain
        low, high = (float(end.reduce(stored, axis=None)) for end in (np.fmin, np.fmax))
        name, notes = image.raster.path.name, []
        is_absent = image.nodata is not None and not image.has_nodata
        if found is not None:
            text = _describe(found, image, labels=labels, is_absent=is_absent)
            if is_sure:
                raise SceneError(f"{image.raster.path}: {text}")
            notes.append(f"{name}: {text}")
        if is_absent:
            notes.append(
                f"{name}: no pixel contains the nodata value {image.nodata:.9g}; the stored values range "
                f"from {low:.7g} to {high:.7g}; if one of them marks missing data, set scene.nodata to it; "
                "otherwise set scene.nodata: none"
            )
        if image.gain is not None and image.gain.max() <= _STRONGEST_GAIN and 0 < high <= _BRIGHTEST:
            notes.append(
                f"{name}: stored values of at most {high:.3g} are divided by {1 / image.gain.max():g}; "
                "if they are reflectances already, set scene.scale: 1"
            )
        return tuple(notes)

    def _find(self, low: Floats, high: Floats) -> tuple[_Group | None, bool]:
        """Returns the spectrum that is surely fill and True, or else the most frequent one and False."""
        groups = sorted(self._groups.values(), key=lambda group: -group.num_pixels)
        num_pixels, found = self._num_others + sum(group.num_pixels for group in groups), None
        for group in groups[:_MOST_GROUPS]:
            if 2 * self._num_others < num_pixels - group.num_pixels:
                continue  # most others are shared too: an image without noise, or enlarged
            others = [other.spectrum for other in groups if other is not group]
            lowest, highest = np.fmin.reduce([low, *others]), np.fmax.reduce([high, *others])
            apart = np.maximum(lowest - group.spectrum, group.spectrum - highest)
            is_large = group.num_pixels >= _SIZEABLE
            if np.median(apart - (0 if is_large else highest - lowest)) > 0:
                return group, True
            found = group if is_large and found is None else found
        return found, False


def _describe(group: _Group, image: Image, *, labels: Labels | None, is_absent: bool) -> str:
    """Returns a sentence that names the stored value, the pixels that contain it and the setting."""
    stored = image.raster.read_rows(group.row, group.row + 1)[0, group.col][image.bands]
    values, counts = np.unique(stored, return_counts=True)
    fill = values[counts.argmax()]  # a band that is constant in the whole image may have another value
    same, has_value = np.zeros((2, *image.shape[:2]), dtype=bool)
    for part in chunk_rows(image.shape[0]):
        rows = image.raster.read_rows(part.start, part.stop)[..., image.bands]
        same[part], has_value[part] = (rows == stored).all(axis=2), (rows == fill).any(axis=2)
    exact = float(fill)
    value = f"{exact:.0f}" if exact.is_integer() and abs(exact) < _LONGEST else repr(exact)
    what, where = value, " in every band"
    if len(values) > 1:
        band = image.bands[int(np.argmax(stored == fill))] + 1
        what, where = f"one spectrum, with {value} in band {band},", ""
    count, others = int(same.sum()), int((has_value & ~same).sum())
    labelled = "" if labels is None else f" ({int((labels[same] != 0).sum()):,} of them labelled)"
    also = f" (and {others:,} with {value} in some bands)" if others else ""
    remedy = f"set scene.nodata: {value} to exclude them{also}, or scene.nodata: none if they are data"
    if image.nodata is not None and not is_absent:
        remedy = f"replace {value} by the nodata value {image.nodata:.9g} in the file"
    return f"{what} fills {count:,} pixel{'s' * (count > 1)}{labelled}{where}; {remedy}"
