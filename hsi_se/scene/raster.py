"""Represents an image in a file of any format, read by rows. Axes: rows, cols, bands."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_se.scene.georeference import Georeference
from hsi_se.scene.guards import blaming

ROWS_PER_CHUNK = 32

Floats = NDArray[np.float64]
Shape = tuple[int, int, int]  # rows, cols, bands
RowReader = Callable[[int, int], NDArray[Any]]  # returns rows `first..last-1`, `(rows, cols, bands)`, as stored
Colour = tuple[int, int, int]  # 8-bit red, green, blue


@dataclass(frozen=True, eq=False, kw_only=True)
class Raster:
    """One numeric array of a file with its metadata; values are read only on request.

    Attributes:
        path, key: the file, and the name of the array in it, if it has one.
        shape: `(rows, cols, bands)`; a label map has one band.
        rows_of: reads rows of the file.
        wavelengths_nm: `(bands,)` band centres in nanometres.
        nodata: the stored value that marks missing data; may be NaN.
        gain, offset: `(bands,)`; value = stored · gain + offset; None if stored values are used unchanged.
        bad_bands: 0-based bands that the file marks as bad, each with the reason.
        class_names, palette: names and colours of a classification, by label.
        natural_colour: 0-based red, green and blue bands that the file suggests for display.
        notes: metadata that could not be used, one sentence each.
    """

    path: Path
    key: str = ""
    shape: Shape
    dtype: np.dtype[Any]
    rows_of: RowReader
    wavelengths_nm: Floats | None = None
    nodata: float | None = None
    gain: Floats | None = None
    offset: Floats | None = None
    bad_bands: Mapping[int, str] = field(default_factory=dict)
    georeference: Georeference | None = None
    class_names: Mapping[int, str] = field(default_factory=dict)
    palette: Mapping[int, Colour] = field(default_factory=dict)
    natural_colour: tuple[int, int, int] | None = None
    notes: tuple[str, ...] = ()

    @property
    def is_map(self) -> bool:
        return self.shape[2] == 1

    def read_rows(self, first: int, last: int) -> NDArray[Any]:
        """Returns rows `first..last-1` as stored, `(rows, cols, bands)`; a view where the format allows.

        Raises:
            SceneError: the data cannot be read.
        """
        name = self.key or "the image"
        with blaming(self.path, f"{name} cannot be read", remedy="get the file again"):
            return self.rows_of(first, last)


@dataclass(frozen=True)
class FileContents:
    """The contents of a file: its format, its numeric 2-D and 3-D arrays by name, and a text listing."""

    format: str
    rasters: Mapping[str, Raster]
    listing: str


def is_nodata(values: NDArray[Any], nodata: float) -> NDArray[np.bool_]:
    """Returns the mask of stored values that mark missing data, of the same shape; `nodata` may be NaN."""
    if np.isnan(nodata):
        return np.asarray(np.isnan(values))
    if values.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return np.asarray(values == values.dtype.type(nodata))
    return np.asarray(values == nodata)


def chunk_rows(rows: int) -> Iterator[slice]:
    """Yields slices of `ROWS_PER_CHUNK` rows, the parts of a file that are in memory at one time."""
    return (slice(first, min(first + ROWS_PER_CHUNK, rows)) for first in range(0, rows, ROWS_PER_CHUNK))


def describe_array(key: str, shape: Sequence[int], dtype: object) -> str:
    """Returns the entry of an array in a listing: `labels 145×145 uint8`."""
    return f"{key} {'×'.join(map(str, shape))} {dtype}".strip()
