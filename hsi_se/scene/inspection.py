"""Computes statistics of a cube in one pass of bounded memory. Axes: rows, cols, bands; C classes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hsi_se.scene.fill import FillFinder
from hsi_se.scene.labels import Labels
from hsi_se.scene.raster import Floats, Image, chunk_rows

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

    `natural_colour` are the red, green and blue band of the picture, 0-based in the image.

    Raises:
        SceneError: see `FillFinder.check`.
    """
    rows, cols, bands = image.shape
    fill, given = FillFinder(), labels
    if labels is None:
        labels = np.zeros((rows, cols), dtype=np.int32)
    ids = np.setdiff1d(labels, [0])
    low, high, num_not_finite = np.inf, -np.inf, 0
    empty = np.zeros((rows, cols), dtype=bool)
    channels = np.zeros((rows, cols, 3))
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
        pixels, pixel_labels = pixels[whole], labels[part][~empty[part]][whole]
        if not len(pixels):
            continue
        if origin is None:
            origin = pixels.mean(axis=0)
        for index, label in enumerate(ids):
            spectra = pixels[pixel_labels == label] - origin
            counts[index] += len(spectra)
            sums[index] += spectra.sum(axis=0)
            squares[index] += (spectra**2).sum(axis=0)
    notes = fill.check(image, labels=given)
    if num_not_finite:
        notes += (f"{num_not_finite:,} values are not finite; if they are missing data, set scene.nodata: nan",)
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


def stretch(channels: Floats, empty: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Returns channels `(rows, cols, 3)` as an 8-bit picture, see `CubeFacts`; `empty` marks nodata."""
    picture = np.full(channels.shape, _NODATA_GREY, dtype=np.uint8)
    for channel in range(channels.shape[2]):
        values = channels[..., channel]
        usable = np.isfinite(values) & ~empty
        if usable.any():
            black, white = np.percentile(values[usable], (2, 98))
            share = (values[usable] - black) / max(white - black, np.finfo(float).tiny)
            picture[usable, channel] = np.clip(255 * share, 0, 255).astype(np.uint8)
    return picture
