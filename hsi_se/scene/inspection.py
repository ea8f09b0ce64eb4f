"""Inspects the values of a cube in one pass of bounded memory: statistics, and fill that no setting declares.

Fill is a spectrum that several pixels share exactly. Axes: rows, cols, bands; n pixels, C classes.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_se.errors import SceneError
from hsi_se.scene.cube import Cube
from hsi_se.scene.guards import tell
from hsi_se.scene.labels import Labels
from hsi_se.scene.raster import Floats, Image, Mask, chunk_rows
from hsi_se.system.files import fill_template

_FEWEST_BANDS = 4  # with fewer, grey and saturated pixels are common
_SIZEABLE = 10  # pixels
_MOST_GROUPS = 16  # per part: a noise-free or enlarged image has thousands
_STRONGEST_GAIN, _BRIGHTEST = 0.01, 2.0  # reflectances that are divided by 100 or more were scaled before
_LONGEST = 2**53  # whole numbers below are exact
_NODATA_GREY = 128


@dataclass(frozen=True, eq=False)
class CubeFacts:
    """Statistics of one cube, to be checked before training.

    Attributes:
        dtype: of the stored values.
        lowest, highest: range of the finite values outside nodata.
        num_not_finite: number of NaN or infinite values outside nodata.
        picture: `(rows, cols, 3)` 8-bit, stretched from the 2nd to the 98th percentile of each band; nodata is grey.
        class_means, class_deviations: `(C, bands)` mean and standard deviation of the spectra, in ascending order of
            label; empty without labels.
        notes: what is doubtful about the values, see `FillFinder.check`.
    """

    dtype: str
    lowest: float
    highest: float
    num_not_finite: int
    num_nodata: int
    picture: NDArray[np.uint8]
    class_means: Floats
    class_deviations: Floats
    notes: tuple[str, ...]


def inspect_cube(image: Image, *, natural_colour: tuple[int, int, int], labels: Labels | None = None) -> CubeFacts:
    """Returns the statistics of an image; those of the classes need its `labels` `(rows, cols)`.

    `natural_colour` are the red, green and blue band of the picture, 0-based. SceneError as in `FillFinder.check`.
    """
    rows, cols, bands = image.shape
    fill, classes = FillFinder(), np.zeros((rows, cols), dtype=np.int32) if labels is None else labels
    ids = np.setdiff1d(classes, [0])
    low, high, num_not_finite = np.inf, -np.inf, 0
    empty = np.zeros((rows, cols), dtype=bool)
    channels = np.zeros((rows, cols, 3), image.read_rows(0, 1)[0].dtype)
    counts = np.zeros((len(ids), 1))
    sums, squares = np.zeros((len(ids), bands)), np.zeros((len(ids), bands))
    origin: Floats | None = None  # close to the mean: keeps the squared sums accurate
    for part in chunk_rows(rows):
        cube, mask = image.read_rows(part.start, part.stop)
        if mask is not None:
            empty[part] = mask
        fill.add(cube, first_row=part.start, missing=mask)
        pixels = cube[~empty[part]].astype(np.float64)  # (n, bands)
        finite = np.isfinite(pixels)
        num_not_finite += int((~finite).sum())
        if finite.any():
            low, high = min(low, pixels[finite].min()), max(high, pixels[finite].max())
        channels[part] = cube[..., list(natural_colour)]
        whole = finite.all(axis=1)
        pixels, pixel_labels = pixels[whole], classes[part][~empty[part]][whole]
        if not len(pixels):
            continue
        if origin is None:
            origin = pixels.mean(axis=0)
        for index, label in enumerate(ids):
            spectra = pixels[pixel_labels == label] - origin
            counts[index] += len(spectra)
            sums[index] += spectra.sum(axis=0)
            squares[index] += (spectra**2).sum(axis=0)
    notes = fill.check(image, labels=labels)
    if num_not_finite:
        notes += (tell("infinite", count=num_not_finite),)
    means = sums / np.maximum(counts, 1)
    variances = np.maximum(squares - counts * means**2, 0) / np.maximum(counts - 1, 1)
    return CubeFacts(
        dtype=str(image.raster.read_rows(0, 1).dtype),
        lowest=float(low),
        highest=float(high),
        num_not_finite=num_not_finite,
        num_nodata=int(empty.sum()),
        picture=stretch(channels, empty),
        class_means=means + (0 if origin is None else origin),
        class_deviations=np.sqrt(variances),
        notes=notes,
    )


def stretch(channels: NDArray[Any], empty: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Returns channels `(rows, cols, 3)` as an 8-bit picture, see `CubeFacts`; `empty` marks nodata."""
    picture = np.full(channels.shape, _NODATA_GREY, dtype=np.uint8)
    for channel in range(channels.shape[2]):
        values = channels[..., channel]
        usable = np.isfinite(values) & ~empty
        if usable.any():
            black, white = np.percentile(values[usable].astype(np.float64), (2, 98), overwrite_input=True)
            for part in chunk_rows(len(values)):
                share = (values[part][usable[part]] - black) / max(white - black, np.finfo(float).tiny)
                picture[part, :, channel][usable[part]] = np.clip(255 * share, 0, 255).astype(np.uint8)
    return picture


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

        `image` is the one whose rows were added. With `labels` `(rows, cols)`, labelled fill is counted. SceneError if
        a spectrum is surely fill: in most bands it lies outside the range of all other pixels, and ten pixels have
        it, or it is farther outside than the range is wide.
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
            notes.append(f"{name}: {tell('no_nodata', nodata=image.nodata, low=low, high=high)}")
        if image.gain is not None and image.gain.max() <= _STRONGEST_GAIN and 0 < high <= _BRIGHTEST:
            notes.append(f"{name}: {tell('scaled', high=high, divisor=1 / image.gain.max())}")
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
    return fill_template(
        "hsi_se.scene",
        "fill.txt",
        value=value,
        band=image.bands[int(np.argmax(stored == fill))] + 1 if len(values) > 1 else 0,
        count=int(same.sum()),
        others=int((has_value & ~same).sum()),
        labelled=None if labels is None else int((labels[same] != 0).sum()),
        nodata=None if is_absent else image.nodata,
    )


def list_notes(image: Image, cube: Cube, nodata: Mask | None, *, labels: Labels, name: str) -> tuple[str, ...]:
    """Returns what the user should know of a cube that was read from an image; SceneError as in `FillFinder.check`."""
    dropped = image.list_dropped().items()
    fill = FillFinder()
    for part in chunk_rows(len(cube) if image.is_suspect else 0):
        fill.add(cube[part], first_row=part.start, missing=None if nodata is None else nodata[part])
    excluded = (f"bands {bands} of {name} are excluded: {reason}" for reason, bands in dropped)
    return (*image.raster.notes, *excluded, *fill.check(image, labels=labels))
