"""Opens GeoTIFF files and VRT stacks with rasterio; tags give wavelengths, bad bands, scale, nodata, georeference."""

import functools
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_se.errors import SceneError
from hsi_se.scene.georeference import Georeference
from hsi_se.scene.guards import blaming, check_declared, import_extra, tell
from hsi_se.scene.raster import FileContents, Floats, Raster, describe_array
from hsi_se.scene.wavelengths import to_nanometres, to_widths

_CACHE_MB = 64


def open_geotiff(path: Path, *, driver: str = "GTiff") -> FileContents:
    """Returns the image of a TIFF file, of a VRT that stacks other files, or of a picture that GDAL reads, by rows."""
    import_extra("rasterio", path=path)
    name = {"GTiff": "GeoTIFF"}.get(driver, driver)
    remedy = "check the files that it names" if driver == "VRT" else "get the file again"
    with blaming(path, f"not a readable {name} file", remedy=remedy), _open(path, driver) as image:
        shape, kinds = (image.height, image.width, image.count), set(image.dtypes)
        if len(kinds) > 1 or np.dtype(image.dtypes[0]).kind not in "iuf":
            raise SceneError(f"{path}: contains {', '.join(sorted(kinds))} values; give bands of one real type")
        dtype = np.dtype(image.dtypes[0])
        stored = sum(Path(file).stat().st_size for file in image.files if Path(file).is_file())
        for block in (shape, *image.block_shapes):
            check_declared(path, shape=block, itemsize=dtype.itemsize, stored=stored, is_packed=True)
        tags = [image.tags(band) for band in image.indexes]
        wavelengths_nm, fwhm_nm, notes = _find_wavelengths(image, tags)
        georeference, doubts = _find_georeference(image)
        gain, offset = np.array(image.scales), np.array(image.offsets)
        bad = [band for band, tag in enumerate(tags) if tag.get("bbl", "1").strip() in ("0", "0.0")]
        is_scale = (np.isfinite(gain) & (gain != 0) & np.isfinite(offset)).all()
        is_scaled = bool(((gain != 1) | (offset != 0)).any() and is_scale)
        doubts += (
            () if is_scale else (tell("no_scale", scale=next(iter(gain[~(np.isfinite(gain) & (gain != 0))]), np.nan)),)
        )
        raster = Raster(
            path=path,
            shape=shape,
            dtype=dtype,
            rows_of=functools.partial(_read, path, driver),
            wavelengths_nm=wavelengths_nm,
            fwhm_nm=fwhm_nm,
            nodata=image.nodata,
            gain=gain if is_scaled else None,
            offset=offset if is_scaled else None,
            bad_bands=dict.fromkeys(bad, "marked bad in the file"),
            georeference=georeference,
            palette=_find_palette(image),
            notes=notes + doubts,
        )
    return FileContents(name, {"": raster}, describe_array("image", shape, dtype))


@contextmanager
def _open(path: Path, driver: str) -> Iterator[Any]:
    """Opens a file with one driver only, so that files of other formats are refused.

    Tracebacks that rasterio prints when it cannot decode a GDAL message are suppressed.
    """
    import rasterio

    hooks = sys.excepthook, sys.unraisablehook
    sys.excepthook, sys.unraisablehook = lambda *_: None, lambda _: None
    try:
        with warnings.catch_warnings(), rasterio.Env(GDAL_CACHEMAX=_CACHE_MB):
            warnings.simplefilter("ignore")  # a scene need not be georeferenced
            with rasterio.open(path, driver=driver, sharing=False) as image:
                yield image
    finally:
        sys.excepthook, sys.unraisablehook = hooks


def _read(path: Path, driver: str, first: int, last: int) -> NDArray[Any]:
    from rasterio.windows import Window

    with _open(path, driver) as image:
        stored = image.read(window=Window(0, first, image.width, last - first))  # (bands, rows, cols)
    return np.moveaxis(stored, 0, 2)


def _find_georeference(image: Any) -> tuple[Georeference | None, tuple[str, ...]]:
    """Returns the place of an image by its transform, or by ground control points that lie on a regular grid."""
    from rasterio.transform import from_gcps

    transform, crs = image.transform, image.crs
    if transform.is_identity and len(image.gcps[0]) > 2:
        points, crs = image.gcps
        transform = from_gcps(points)
        found = np.array([~transform @ (point.x, point.y) for point in points])
        if (off := np.abs(found - [(point.col, point.row) for point in points]).max()) > 0.5:
            return None, (tell("points", off=off),)
    place = Georeference(crs.to_wkt() if crs else None, None if transform.is_identity else tuple(transform)[:6])
    return (place if place.crs or place.transform else None), ()


def _find_wavelengths(image: Any, tags: list[dict[str, str]]) -> tuple[Floats | None, Floats | None, tuple[str, ...]]:
    """Returns wavelengths, widths and notes from band tags (`wavelength` or GDAL's own), else from descriptions."""
    values, widths = ([tag.get(name) for tag in tags] for name in ("wavelength", "fwhm"))
    unit = tags[0].get("wavelength_units") or tags[0].get("wavelength units")
    if None in values:
        tags, unit = [image.tags(band, ns="IMAGERY") for band in image.indexes], "um"
        values, widths = ([tag.get(name) for tag in tags] for name in ("CENTRAL_WAVELENGTH_UM", "FWHM_UM"))
    listed = [] if None in values else values
    nm, notes = to_nanometres(listed, unit=unit, bands=image.count, names=image.descriptions)
    return nm, to_widths([] if None in widths else widths, wavelengths=values, nanometres=nm), notes


def _find_palette(image: Any) -> dict[int, tuple[int, int, int]]:
    with suppress(ValueError):  # there is none
        if image.count == 1:
            return {label: colour[:3] for label, colour in image.colormap(1).items() if any(colour[:3])}
    return {}
