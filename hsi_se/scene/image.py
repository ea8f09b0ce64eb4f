"""Presents a raster as a scene uses it: without bad bands, with scaled values and a nodata mask."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_se.errors import SceneError
from hsi_se.scene.raster import Floats, Raster, chunk_rows, is_nodata

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False, kw_only=True)
class Image:
    """The bands of a raster that a scene uses; read as a whole, or by rows in bounded memory.

    Attributes:
        raster: the raster in the file.
        bands: `(bands,)` indices of the kept bands, 0-based in the file.
        dropped: the other bands, 0-based in the file, each with the reason.
        wavelengths_nm, nodata, gain, offset: as in `Raster`, of the kept bands.
        has_nodata: whether any value of the file, also in a dropped band, is the nodata value.
        is_suspect: whether its values may contain fill that no setting declares.
    """

    raster: Raster
    bands: NDArray[np.intp]
    dropped: Mapping[int, str]
    wavelengths_nm: Floats | None
    nodata: float | None
    gain: Floats | None
    offset: Floats | None
    has_nodata: bool
    is_suspect: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        rows, cols, _ = self.raster.shape
        return rows, cols, len(self.bands)

    def list_dropped(self) -> dict[str, str]:
        """Returns the dropped bands as text, by the reason; see `describe_bands`."""
        by_reason: dict[str, set[int]] = {}
        for band, reason in self.dropped.items():
            by_reason.setdefault(reason, set()).add(band)
        nm = self.raster.wavelengths_nm
        return {reason: describe_bands(bands, wavelengths_nm=nm) for reason, bands in by_reason.items()}

    def read_rows(self, first: int, last: int) -> tuple[NDArray[Any], Mask | None]:
        """Returns rows `first..last-1`, `(rows, cols, bands)`, and their nodata mask `(rows, cols)`.

        A pixel with nodata in any band counts as nodata and is set to zero in all bands. The mask is None
        if no value marks nodata. Scaled values are float32.
        """
        cube = self.raster.read_rows(first, last)
        if self.dropped:
            cube = cube[..., self.bands]
        empty = None if self.nodata is None else np.asarray(is_nodata(cube, self.nodata).any(axis=2))
        if self.gain is not None:
            cube = np.multiply(cube, self.gain.astype(np.float32), dtype=np.float32, casting="unsafe")
            if self.offset is not None:
                cube += self.offset.astype(np.float32)
        if empty is not None and empty.any():
            cube = np.where(empty[..., None], cube.dtype.type(0), cube)
        return cube, empty

    def read(self) -> tuple[NDArray[Any], Mask | None]:
        """Returns the whole image as `read_rows` does; memory-mapped if stored values are used unchanged."""
        if not self.dropped and self.nodata is None and self.gain is None:
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
    raster: Raster, *, drop: Mapping[int, str], keep: Collection[int] | None = None, is_suspect: bool = True
) -> Image:
    """Returns the image of a raster, without bad bands and bands that are nodata in every pixel.

    Args:
        drop: further bands to drop, 0-based, each with the reason.
        keep: exactly the bands to keep, 0-based, regardless of the file's bad bands.
        is_suspect: see `Image`.

    Raises:
        SceneError: a band to drop does not exist, a band to keep is empty, or no band is left.
    """
    num_bands = raster.shape[2]
    if beyond := [band for band in drop if band >= num_bands]:
        raise SceneError(
            f"{raster.path}: scene.drop_bands = {beyond[0] + 1}: the file has bands 1 to {num_bands}; choose from these"
        )
    empty_bands, has_nodata = _find_nodata(raster)
    if keep is not None:
        dropped = {band: "not in the model" for band in range(num_bands) if band not in keep}
        if empty := empty_bands & set(keep):
            raise SceneError(
                f"{raster.path}: bands {describe_bands(empty)} are nodata in every pixel, but the "
                "network needs them; use a scene with data in these bands"
            )
    else:
        dropped = {**dict.fromkeys(sorted(empty_bands), "nodata in every pixel"), **raster.bad_bands, **drop}
    bands = np.array([band for band in range(num_bands) if band not in dropped], dtype=np.intp)
    if not len(bands):
        raise SceneError(f"{raster.path}: all {num_bands} bands are bad or dropped; keep at least one")
    wavelengths_nm, gain, offset = (
        None if values is None else values[bands] for values in (raster.wavelengths_nm, raster.gain, raster.offset)
    )
    return Image(
        raster=raster,
        bands=bands,
        dropped=dict(sorted(dropped.items())),
        wavelengths_nm=wavelengths_nm,
        nodata=raster.nodata,
        gain=gain,
        offset=offset,
        has_nodata=has_nodata,
        is_suspect=is_suspect,
    )


def describe_bands(bands: Collection[int], *, wavelengths_nm: Floats | None = None) -> str:
    """Returns 0-based bands as text that counts from 1: `104-108, 150 (1362-1410 nm, 1830 nm)`."""

    def describe(low: int, high: int) -> str:
        return f"{low}" if low == high else f"{low}-{high}"

    starts = [band for band in sorted(bands) if band - 1 not in bands]
    ends = [band for band in sorted(bands) if band + 1 not in bands]
    runs = list(zip(starts, ends, strict=True))
    text = ", ".join(describe(first + 1, last + 1) for first, last in runs)
    if wavelengths_nm is None or not runs:
        return text
    nm = [round(float(wavelength)) for wavelength in wavelengths_nm]
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
