"""An image in a file, read row by row: what every format becomes. Axes: rows, cols, bands."""

import importlib
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_se.errors import HsiError, SceneError

NATURAL_COLOUR_NM = (640, 550, 460)
_FALSE_COLOUR = (0.4, 0.2, 0.1)  # of the bands
ROWS_PER_CHUNK = 32
_MOST_PER_BYTE = 1100  # deflate packs 1032 bytes into one at most
_ALWAYS_ALLOWED = 2**24  # bytes: sparse and constant images may pack tighter than deflate
_IN_WORDS = re.compile(r"(\d[\d.]*)\s*(nm|nano\w*|um|µm|micro\w*)\b", re.IGNORECASE)
_NANOMETRES = {  # of a unit by how it begins, the longer beginnings first
    "nano": 1.0, "nm": 1.0, "micro": 1e3, "um": 1e3, "µm": 1e3, "μm": 1e3, "milli": 1e6, "mm": 1e6,
    "ang": 0.1, "ång": 0.1, "å": 0.1, "meter": 1e9, "metre": 1e9,
}  # fmt: skip
_LONGEST_MICROMETRES = 100.0  # above it, a wavelength without a unit is in nanometres

Floats = NDArray[np.float64]
Colour = tuple[int, int, int]  # 8-bit red, green, blue


@dataclass(frozen=True)
class Georeference:
    """Where a raster lies.

    Attributes:
        crs: the coordinate system, as WKT or `EPSG:n`.
        transform: `(a, b, c, d, e, f)`: a pixel's upper left corner is at x = a·col + b·row + c and
            y = d·col + e·row + f.
    """

    crs: str | None
    transform: tuple[float, float, float, float, float, float] | None

    @property
    def pixel_area_m2(self) -> float | None:
        """Area of a pixel in the plane of the map; None where the system is in degrees or not known.

        Without rasterio, UTM on WGS 84 alone is known.
        """
        known = parse_crs(self.crs or "")
        if known is not None:
            metres = known.linear_units_factor[1] if known.is_projected else None
        else:
            metres = 1 if re.fullmatch(r"EPSG:32[67]\d\d", self.crs or "") else None
        if metres is None or self.transform is None:
            return None
        a, b, _, d, e, _ = self.transform
        return float(abs(a * e - b * d) * metres**2)


def parse_crs(crs: str) -> Any:
    """Returns rasterio's coordinate system; None if it knows none of that name, or is not installed."""
    try:
        import rasterio.crs
        import rasterio.errors
    except ImportError:
        return None
    try:
        return rasterio.crs.CRS.from_user_input(crs)
    except rasterio.errors.CRSError:
        return None


@dataclass(frozen=True, eq=False, kw_only=True)
class Raster:
    """One numeric array of a file and what the file says about it; nothing is read until it is asked for.

    Attributes:
        path, key: the file, and the array's name in it where it has one.
        shape: `(rows, cols, bands)`; a label map has one band.
        dtype: as stored.
        rows_of: `(first, last)` to the rows `first..last-1`, `(rows, cols, bands)` as stored.
        wavelengths_nm: `(bands,)` band centres.
        nodata: the stored value that means "nothing was measured"; may be NaN.
        gain, offset: `(bands,)`: value = stored · gain + offset; None where values are as stored.
        bad_bands: 0-based bands that the file declares bad, with the reason.
        georeference: where it lies.
        class_names, palette: of a classification, by label.
        natural_colour: 0-based bands that the file names for display.
        notes: what in the file could not be used, one sentence each.
    """

    path: Path
    key: str = ""
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    rows_of: Callable[[int, int], NDArray[Any]]
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
    """What a file holds: its format, its numeric 2-D and 3-D arrays by name, and all of it in words."""

    format: str
    rasters: Mapping[str, Raster]
    listing: str


def chunk_rows(rows: int) -> Iterator[slice]:
    """Yields the parts in which a file of so many rows is read: what a pass over it holds in memory."""
    return (slice(first, min(first + ROWS_PER_CHUNK, rows)) for first in range(0, rows, ROWS_PER_CHUNK))


def describe_array(key: str, shape: Sequence[int], dtype: object) -> str:
    """Returns how a listing names an array: `labels 145×145 uint8`."""
    return f"{key} {'×'.join(map(str, shape))} {dtype}".strip()


def import_extra(name: str, *, path: Path) -> Any:
    """Returns a library that only some files need, of the extra `[geo]`.

    Raises:
        SceneError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        raise SceneError(f"{path}: reading it needs {name}; pip install 'hsi-se[geo]'") from None


@contextmanager
def blaming(path: Path, what: str, *, remedy: str) -> Iterator[None]:
    """Turns any error of a format's library inside the block into one line about the file."""
    try:
        yield
    except HsiError:
        raise
    except Exception as error:  # a foreign file can break a parser in any way
        line = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise SceneError(f"{path}: {what} ({line}); {remedy}") from None


def check_declared(path: Path, *, shape: Sequence[int], itemsize: int, stored: int, is_packed: bool) -> None:
    """Proves that an array of a declared size can come out of the bytes that are there.

    Args:
        path: the file, for the message.
        shape: as declared.
        itemsize: bytes a value.
        stored: bytes that the file holds for it.
        is_packed: whether they may be compressed.

    Raises:
        SceneError: a size is below one, or no compression makes so much out of so little.
    """
    size = "×".join(map(str, shape))
    if any(length < 1 for length in shape):
        raise SceneError(f"{path}: declares an array of {size}; give one with at least one pixel")
    declared = math.prod(int(length) for length in shape) * itemsize
    if declared > (max(_ALWAYS_ALLOWED, stored * _MOST_PER_BYTE) if is_packed else stored):
        raise SceneError(
            f"{path}: declares an array of {size}, {declared:,} bytes, which {stored:,} bytes of data "
            "cannot hold; get the file again"
        )


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
