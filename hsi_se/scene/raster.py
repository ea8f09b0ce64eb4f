"""Represents an image in a file of any format, and what a scene uses of it. Axes: rows, cols, bands."""

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_se.errors import SceneError
from hsi_se.scene.georeference import Georeference
from hsi_se.scene.ground import LookupTable
from hsi_se.scene.guards import blaming, refuse

ROWS_PER_CHUNK = 32
UNLABELLED, HIGHEST_LABEL = 0, 2**16 - 1  # what a map can store

Floats = NDArray[np.float64]
Shape = tuple[int, int, int]  # rows, cols, bands
RowReader = Callable[[int, int], NDArray[Any]]  # returns rows `first..last-1`, `(rows, cols, bands)`, as stored
Slicer = Callable[[int, int, int], NDArray[Any]]
Mask = NDArray[np.bool_]
Colour = tuple[int, int, int]  # 8-bit red, green, blue


@dataclass(frozen=True, eq=False)
class StoredArray:
    """A 2-D or 3-D array: `take(axis, first, last)` returns the slice `first..last-1` of an axis, which comes first.

    `flat_order` tells how its format, as a rule, unrolls an image into pixels: by "rows-cols" or "cols-rows".
    """

    shape: tuple[int, ...]
    take: Slicer
    flat_order: str = "rows-cols"


@dataclass(frozen=True, eq=False, kw_only=True)
class Raster:
    """One numeric array of a file with its metadata; values are read only on request.

    Attributes:
        path, key: the file, and the name of the array in it, if it has one.
        shape: `(rows, cols, bands)`; a label map has one band.
        rows_of: reads rows of the file.
        wavelengths_nm, fwhm_nm: `(bands,)` band centres and full widths at half maximum in nanometres; a band that
            the sensor lacks has NaN, and is bad.
        nodata: the stored value that marks missing data; may be NaN.
        is_fill: whether it does so only in pixels that have it in all bands, as it may be a value elsewhere.
        gain, offset: `(bands,)`; value = stored · gain + offset; None if stored values are used unchanged.
        bad_bands: 0-based bands that the file marks as bad, each with the reason.
        class_names, palette: names and colours of a classification, by label.
        natural_colour: 0-based red, green and blue bands that the file suggests for display.
        ground: the table that puts the rows and columns of a swath on the ground; such a raster has no georeference.
        stored: the array of a file that does not state the order of its axes.
        notes: metadata that could not be used, one sentence each.
    """

    path: Path
    key: str = ""
    shape: Shape
    dtype: np.dtype[Any]
    rows_of: RowReader
    wavelengths_nm: Floats | None = None
    fwhm_nm: Floats | None = None
    nodata: float | None = None
    is_fill: bool = False
    gain: Floats | None = None
    offset: Floats | None = None
    bad_bands: Mapping[int, str] = field(default_factory=dict)
    georeference: Georeference | None = None
    class_names: Mapping[int, str] = field(default_factory=dict)
    palette: Mapping[int, Colour] = field(default_factory=dict)
    natural_colour: tuple[int, int, int] | None = None
    ground: LookupTable | None = None
    stored: StoredArray | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, of in (("georeference", self.georeference), ("ground", self.ground and self.ground.georeference)):
            place, notes = (of or Georeference(None, None)).drop_unusable()
            if notes:
                clean = replace(self.ground, georeference=place) if name == "ground" and self.ground else place
                object.__setattr__(self, name, clean)
                object.__setattr__(self, "notes", (*self.notes, *notes))

    @property
    def place(self) -> Georeference:
        """Returns the georeference of a map of this raster; without one, both of its parts are None."""
        return (self.ground.georeference if self.ground else self.georeference) or Georeference(None, None)

    @property
    def is_map(self) -> bool:
        return self.shape[2] == 1

    def read_rows(self, first: int, last: int) -> NDArray[Any]:
        """Returns rows `first..last-1` as stored, `(rows, cols, bands)`, a view if possible; SceneError if damaged."""
        name = self.key or "the image"
        with blaming(self.path, f"{name} cannot be read", remedy="get the file again"):
            return self.rows_of(first, last)


def join_bands(parts: Sequence[Raster], *, is_sorted: bool) -> Raster:
    """Returns the bands of several rasters as one, in ascending order of known wavelengths if `is_sorted`.

    SceneError if they differ in size, type or georeference.
    """
    first, sizes = parts[0], [part.shape[2] for part in parts]
    for other in parts[1:]:
        grids = [(each.shape[:2], each.dtype, each.georeference) for each in (other, first)]
        if grids[0] != grids[1]:
            raise refuse(other.path, "parts", part=other.key or "its image", first=first.key or first.path.name)

    def join(name: str, default: float) -> Floats:
        lists = zip((getattr(part, name) for part in parts), sizes, strict=True)
        return np.concatenate([np.full(size, default) if values is None else values for values, size in lists])

    nm = join("wavelengths_nm", np.nan)
    order = np.argsort(nm, kind="stable") if is_sorted else np.arange(len(nm))
    fwhm, gain, offset = (join(*each)[order] for each in (("fwhm_nm", np.nan), ("gain", 1), ("offset", 0)))
    starts = np.cumsum([0, *sizes]).tolist()
    bad = {
        start + band: why for start, part in zip(starts, parts, strict=False) for band, why in part.bad_bands.items()
    }
    return replace(
        first,
        shape=(*first.shape[:2], len(nm)),
        rows_of=lambda start, stop: np.concatenate([part.rows_of(start, stop) for part in parts], axis=2)[..., order],
        wavelengths_nm=None if np.isnan(nm).all() else nm[order],
        fwhm_nm=None if np.isnan(fwhm).all() else fwhm,
        gain=gain if (gain != 1).any() or offset.any() else None,
        offset=offset if offset.any() else None,
        bad_bands={place: bad[band] for place, band in enumerate(order.tolist()) if band in bad},
        stored=None,
        notes=tuple(dict.fromkeys(note for part in parts for note in part.notes)),
    )


@dataclass(frozen=True)
class FileContents:
    """The contents of a file: its format, its numeric 2-D and 3-D arrays by name, and a text listing.

    `main` is the name of a product's cube, which is used if no other one is named.
    """

    format: str
    rasters: Mapping[str, Raster]
    listing: str
    main: str | None = None


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


def digest_values(shape: Shape, parts: Iterable[tuple[NDArray[Any], Mask]]) -> str:
    """Returns the SHA-256 of an image `(rows, cols, bands)`, as float32, in parts by `chunk_rows` with nodata masks."""
    digest = hashlib.sha256(f"{tuple(shape)}".encode())
    for cube, missing in parts:
        digest.update(np.ascontiguousarray(cube, dtype="<f4").data)
        digest.update(np.ascontiguousarray(missing).data)
    return digest.hexdigest()


def describe_array(key: str, shape: Sequence[int], dtype: object) -> str:
    """Returns the entry of an array in a listing: `labels 145×145 uint8`."""
    return f"{key} {'×'.join(map(str, shape))} {dtype}".strip()


@dataclass(frozen=True, eq=False, kw_only=True)
class Image:
    """The bands of a raster that a scene uses; read as a whole, or by rows in bounded memory.

    Attributes:
        raster: the raster in the file.
        bands: `(bands,)` indices of the kept bands, 0-based in the file, in the order in which they are used.
        dropped: the other bands, 0-based in the file, each with the reason.
        wavelengths_nm, fwhm_nm, nodata, gain, offset: as in `Raster`, of the kept bands.
        has_nodata: whether any value of the file, also in a dropped band, is the nodata value.
        is_suspect: whether its values may contain fill that no setting declares.
    """

    raster: Raster
    bands: NDArray[np.intp]
    dropped: Mapping[int, str]
    wavelengths_nm: Floats | None
    fwhm_nm: Floats | None
    nodata: float | None
    gain: Floats | None
    offset: Floats | None
    has_nodata: bool
    is_suspect: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        rows, cols, _ = self.raster.shape
        return rows, cols, len(self.bands)

    @property
    def is_whole(self) -> bool:
        """Returns whether all bands of the file are kept in their order."""
        return np.array_equal(self.bands, np.arange(self.raster.shape[2]))

    def list_dropped(self) -> dict[str, str]:
        """Returns the dropped bands as text, by the reason; see `describe_bands`."""
        reasons, nm = self.dropped.values(), self.raster.wavelengths_nm
        by_reason = {reason: [band for band, why in self.dropped.items() if why == reason] for reason in reasons}
        return {reason: describe_bands(bands, wavelengths_nm=nm) for reason, bands in by_reason.items()}

    def read_rows(self, first: int, last: int) -> tuple[NDArray[Any], Mask | None]:
        """Returns rows `first..last-1`, `(rows, cols, bands)`, and their nodata mask `(rows, cols)`.

        A pixel with nodata in any band (in all of them if the raster `is_fill`) counts as nodata and is set to zero in
        all bands. The mask is None if no value marks nodata. Scaled values are float32.
        """
        cube = self.raster.read_rows(first, last)
        if not self.is_whole:
            cube = cube[..., self.bands]
        over_bands = np.all if self.raster.is_fill else np.any
        empty = None if self.nodata is None else np.asarray(over_bands(is_nodata(cube, self.nodata), axis=2))
        if self.gain is not None:
            cube = np.multiply(cube, self.gain.astype(np.float32), dtype=np.float32, casting="unsafe")
            if self.offset is not None:
                cube += self.offset.astype(np.float32)
        if empty is not None and empty.any():
            cube = np.where(empty[..., None], cube.dtype.type(0), cube)
        return cube, empty

    def read(self) -> tuple[NDArray[Any], Mask | None]:
        """Returns the whole image as `read_rows` does; memory-mapped if stored values are used unchanged."""
        if self.is_whole and self.nodata is None and self.gain is None:
            return self.read_rows(0, self.shape[0])
        # The dtype read may be smaller than the declared one.
        cube = np.empty(self.shape, self.read_rows(0, 1)[0].dtype)
        empty = np.zeros(self.shape[:2], dtype=bool)
        for part in chunk_rows(self.shape[0]):
            cube[part], mask = self.read_rows(part.start, part.stop)
            if mask is not None:
                empty[part] = mask
        return cube, None if self.nodata is None else empty

    def read_nodata(self) -> Mask | None:
        """Returns the nodata mask `(rows, cols)`, or None if no value marks nodata."""
        if self.nodata is None:
            return None
        masks = [self.read_rows(part.start, part.stop)[1] for part in chunk_rows(self.shape[0])]
        return np.concatenate([mask for mask in masks if mask is not None])


def make_image(
    raster: Raster, *, drop: Mapping[int, str], keep: Sequence[int] | None = None, is_suspect: bool = True
) -> Image:
    """Returns the image of a raster, without bad bands and bands that are nodata in every pixel.

    Further bands, 0-based, are dropped for the reasons in `drop`, or exactly the bands in `keep` are kept, also bad
    ones, in that order. SceneError if a band to drop does not exist, a band to keep is empty, or no band is left.
    """
    num_bands = raster.shape[2]
    if beyond := [band for band in drop if band >= num_bands]:
        raise refuse(raster.path, "no_band", band=beyond[0] + 1, count=num_bands)
    empty_bands, has_nodata = _find_nodata(raster)
    if keep is not None:
        dropped = {band: "not in the model" for band in range(num_bands) if band not in keep}
        if empty := empty_bands & set(keep):
            raise refuse(raster.path, "empty_bands", bands=describe_bands(empty))
    else:
        dropped = {**dict.fromkeys(sorted(empty_bands), "nodata in every pixel"), **raster.bad_bands, **drop}
        keep = [band for band in range(num_bands) if band not in dropped]
    bands = np.array(keep, dtype=np.intp)
    if not len(bands):
        raise SceneError(f"{raster.path}: all {num_bands} bands are bad or dropped; keep at least one")
    of_file = {name: getattr(raster, name) for name in ("wavelengths_nm", "fwhm_nm", "gain", "offset")}
    return Image(
        raster=raster,
        bands=bands,
        dropped=dict(sorted(dropped.items())),
        nodata=raster.nodata,
        has_nodata=has_nodata,
        is_suspect=is_suspect,
        **{name: None if values is None else values[bands] for name, values in of_file.items()},
    )


def describe_bands(bands: Collection[int], *, wavelengths_nm: Floats | None = None) -> str:
    """Returns 0-based bands as text that counts from 1: `104-108, 150 (1362-1410 nm, 1830 nm)`."""

    def describe(low: int, high: int) -> str:
        return f"{low}" if low == high else f"{low}-{high}"

    starts = [band for band in sorted(bands) if band - 1 not in bands]
    ends = [band for band in sorted(bands) if band + 1 not in bands]
    runs = list(zip(starts, ends, strict=True))
    text = ", ".join(describe(first + 1, last + 1) for first, last in runs)
    if wavelengths_nm is None or not np.isfinite(wavelengths_nm[list(bands)]).all() or not runs:
        return text
    nm = {band: round(float(wavelengths_nm[band])) for band in bands}
    return f"{text} ({', '.join(f'{describe(nm[first], nm[last])} nm' for first, last in runs)})"


def _find_nodata(raster: Raster) -> tuple[set[int], bool]:
    """Returns the bands that are nodata in every pixel, and whether any value is nodata."""
    if raster.nodata is None:
        return set(), False
    is_empty, has_nodata = np.ones(raster.shape[2], dtype=bool), False
    for part in chunk_rows(raster.shape[0]):
        missing = is_nodata(raster.read_rows(part.start, part.stop), raster.nodata)
        is_empty &= missing.all(axis=(0, 1))
        has_nodata |= bool(missing.any())
    return set(np.flatnonzero(is_empty).tolist()), has_nodata
