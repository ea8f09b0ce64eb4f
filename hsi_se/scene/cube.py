"""A cube, in memory or, if it is large, in its files, read by rows. Axes: rows, cols, bands."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_se.scene.guards import refuse
from hsi_se.scene.raster import ROWS_PER_CHUNK, Image, Mask, Shape, chunk_rows

_MOST_IN_MEMORY, _LEAST_OF_PIXEL = 2**28, 64  # bytes of a cube; of each pixel, for what else is kept of it
_BLOCKS = 2  # in memory at one time: pairs of neighbouring pixels lie in two


class StoredCube:
    """A cube `(rows, cols, bands)` of which a few rows are in memory at one time.

    It is indexed like an array, by rows, `cube[first:last]`, or by pixels `(n,)` each, `cube[rows, cols]`. Pixels in
    ascending order are read once.

    Args:
        read_rows: returns rows `first..last-1`, `(rows, cols, bands)`.
    """

    def __init__(self, shape: Shape, dtype: np.dtype[Any], read_rows: Callable[[int, int], NDArray[Any]]) -> None:
        self.shape, self.dtype, self.ndim = shape, dtype, 3
        self._read_rows = read_rows
        self._block = functools.lru_cache(maxsize=_BLOCKS)(self._read_block)

    def __len__(self) -> int:
        return self.shape[0]

    def _read_block(self, number: int) -> NDArray[Any]:
        first = number * ROWS_PER_CHUNK
        return self._read_rows(first, min(first + ROWS_PER_CHUNK, len(self)))

    def __getitem__(self, index: slice | tuple[NDArray[np.integer], NDArray[np.integer]]) -> NDArray[Any]:
        if isinstance(index, slice):
            first, last, _ = index.indices(len(self))
            numbers = range(first // ROWS_PER_CHUNK, -(-last // ROWS_PER_CHUNK))
            parts = [self._block(number) for number in numbers]
            rows = parts[0] if len(parts) == 1 else np.concatenate(parts)
            return rows[first - numbers[0] * ROWS_PER_CHUNK :][: last - first]
        rows, cols = index
        values = np.empty((*rows.shape, self.shape[2]), self.dtype)
        for number in np.unique(rows // ROWS_PER_CHUNK).tolist():
            here = rows // ROWS_PER_CHUNK == number
            values[here] = self._block(number)[rows[here] % ROWS_PER_CHUNK, cols[here]]
        return values


Cube = NDArray[Any] | StoredCube


def is_large(shape: Shape, *, itemsize: int) -> bool:
    """Returns whether values `(rows, cols, …)` of that many bytes each would take too much memory."""
    rows, cols, depth = shape
    return rows * cols * max(depth * itemsize, _LEAST_OF_PIXEL) > _MOST_IN_MEMORY


def read_cube(image: Image, *, name: str) -> tuple[Cube, Mask | None]:
    """Returns the cube of an image and its nodata mask; a large one stays where it is, and is checked here."""
    first, _ = image.read_rows(0, 1)
    if not is_large(image.shape, itemsize=first.itemsize):
        return image.read()
    cube = StoredCube(image.shape, first.dtype, lambda *ends: image.read_rows(*ends)[0])
    check_finite(name, cube)
    return cube, image.read_nodata()


def check_finite(name: str, cube: Cube) -> None:
    """Raises SceneError if a value of a scene's cube is NaN or infinite."""
    if np.issubdtype(cube.dtype, np.inexact):
        parts = chunk_rows(len(cube))
        found = [np.argwhere(~np.isfinite(cube[part])) + np.array((part.start, 0, 0)) for part in parts]
        if len(wrong := np.concatenate(found)):
            row, col, band = wrong[0]
            raise refuse(f"scene {name}", "not_finite", count=len(wrong), row=row, col=col, band=band)
