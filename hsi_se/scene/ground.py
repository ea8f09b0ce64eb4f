"""Puts the pixels of a swath, as the sensor saw them, on the ground with a geographic lookup table (GLT).

Each cell of the ground grid names the row and column of the swath's pixel that is seen there. Axes: rows, cols of the
swath; y, x of the ground grid.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_se.scene.georeference import Georeference

_CELLS_PER_BLOCK = 2**20


@dataclass(frozen=True, eq=False)
class LookupTable:
    """The lookup table of a swath, read in blocks.

    Attributes:
        shape: `(y, x)`, the size of the ground grid, which `georeference` places.
        read: returns the rows and the columns of the swath, each `(last - first, x)` and counted from 1, for the
            lines `first..last-1` of the ground grid; 0 where no pixel of the swath lies, negative where a gap was
            filled with the nearest one.
    """

    shape: tuple[int, int]
    georeference: Georeference
    read: Callable[[int, int], tuple[NDArray[Any], NDArray[Any]]]

    def _blocks(self) -> Iterator[tuple[int, NDArray[np.bool_], NDArray[np.intp], NDArray[np.intp]]]:
        step = max(1, _CELLS_PER_BLOCK // self.shape[1])
        for first in range(0, self.shape[0], step):
            rows, cols = self.read(first, min(first + step, self.shape[0]))
            is_seen = (rows != 0) & (cols != 0)
            yield first, is_seen, np.abs(rows[is_seen].astype(np.intp)) - 1, np.abs(cols[is_seen].astype(np.intp)) - 1

    def put_on_ground(self, layer: NDArray[Any], *, fill: float) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yields a layer `(rows, cols, …)` of the swath on the ground grid, in blocks: first line, `(lines, x, …)`.

        Cells that see no pixel get `fill`. The layer may be memory-mapped.
        """
        for first, is_seen, rows, cols in self._blocks():
            block = np.full((*is_seen.shape, *layer.shape[2:]), fill, dtype=layer.dtype)
            block[is_seen] = layer[rows, cols]
            yield first, block

    def take_from_ground(self, layer: NDArray[Any], *, shape: tuple[int, int], fill: float) -> NDArray[Any]:
        """Returns a layer `(y, x)` of the ground grid, such as labels, on the swath's grid of `shape` `(rows, cols)`.

        A pixel that is seen in several cells gets the value of one of them, a pixel seen in none gets `fill`.
        """
        swath = np.full(shape, fill, dtype=layer.dtype)
        for first, is_seen, rows, cols in self._blocks():
            swath[rows, cols] = layer[first : first + len(is_seen)][is_seen]
        return swath
