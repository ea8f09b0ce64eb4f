"""Opens ENVI images with Spectral Python: a text header and memory-mapped raw data beside it."""

import math
import re
import tempfile
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import spectral.io.envi
from numpy.typing import NDArray

from hsi_se.errors import SceneError
from hsi_se.scene.georeference import Georeference
from hsi_se.scene.guards import blaming, check_declared
from hsi_se.scene.misfits import PACKED, describe_unread
from hsi_se.scene.raster import Colour, FileContents, Floats, Raster, describe_array
from hsi_se.scene.wavelengths import find_wavelengths_in, to_nanometres

_BYTE_ORDERS = {"little": "0", "big": "1"}
_INTERLEAVES = ("bsq", "bil", "bip")
_MAX_HEADER = 2**24  # bytes

Header = dict[str, Any]


def find_header(path: Path) -> Path | None:
    """Returns the ENVI header beside a data file, `NAME.dat.hdr` or `NAME.hdr`, or None."""
    wanted = {f"{name}.hdr".casefold() for name in (path.name, path.stem)}
    others = (other for other in sorted(path.parent.iterdir()) if other != path)
    return next((other for other in others if other.name.casefold() in wanted), None)


def lacks_byte_order(path: Path) -> bool:
    """Returns whether a file is an ENVI image whose header does not state the byte order."""
    with (find_header(path) or path).open("rb") as stream:
        text = stream.read(_MAX_HEADER).lower()
    return text.lstrip(b"\xef\xbb\xbf").startswith(b"envi") and b"byte order" not in text


def open_envi(header_path: Path, data_path: Path | None, *, byte_order: str | None) -> FileContents:
    """Returns the image described by a header, memory-mapped; the data may have to be searched for."""
    remedy = "correct the header"
    with blaming(header_path, "not a readable ENVI header", remedy=remedy):
        header = _read_header(header_path)
    if "library" in str(header.get("file type")).casefold():
        raise SceneError(
            f"{header_path}: is a spectral library, without pixels; give an image and its labels"
        )
    if "byte order" not in header:
        if byte_order is None:
            raise SceneError(
                f"{header_path}: the header does not state the byte order; set scene.byte_order: little "
                "(usual on PCs) or big; for a mask, add byte order = 0 (little) or 1 (big) to the header"
            )
        header["byte order"] = _BYTE_ORDERS[byte_order]
    with blaming(header_path, "not a readable ENVI header", remedy=remedy):
        spectral.io.envi.check_compatibility(header)
        layout = spectral.io.envi.gen_params(header)
        shape, dtype = (layout.nrows, layout.ncols, layout.nbands), np.dtype(layout.dtype)
        interleave = header["interleave"] = str(header["interleave"]).lower()
    if interleave not in _INTERLEAVES:
        raise SceneError(f"{header_path}: interleave = {interleave}: choose from {', '.join(_INTERLEAVES)}")
    if dtype.kind == "c":
        raise SceneError(f"{header_path}: the data are complex; give real values")
    if layout.offset < 0:
        raise SceneError(f"{header_path}: header offset = {layout.offset}: give a non-negative integer")
    data_path = data_path or _find_data(header_path, interleave)
    stored = data_path.stat().st_size - layout.offset
    check_declared(data_path, shape=shape, itemsize=dtype.itemsize, stored=stored, is_packed=False)

    with blaming(header_path, "not a readable ENVI header", remedy=remedy):
        raster = _make_raster(data_path, header, shape, dtype, header_bytes=layout.offset)
    return FileContents(f"ENVI {interleave.upper()}", {"": raster}, describe_array("image", shape, dtype))


def _make_raster(
    data_path: Path, header: Header, shape: tuple[int, int, int], dtype: np.dtype[Any], *, header_bytes: int
) -> Raster:
    rows, cols, bands = shape
    stored_shape, axes, num_planes, row_size = {
        "bsq": ((bands, rows, cols), (1, 2, 0), bands, cols),
        "bil": ((rows, bands, cols), (0, 2, 1), 1, cols * bands),
        "bip": ((rows, cols, bands), (0, 1, 2), 1, cols * bands),
    }[header["interleave"]]

    def read(first: int, last: int) -> NDArray[Any]:
        if (first, last) == (0, rows):
            mapped = np.memmap(data_path, dtype=dtype, mode="r", offset=header_bytes, shape=stored_shape)
            return mapped.transpose(axes)
        # Not memory-mapped, because the kernel may load far more than these rows.
        count = (last - first) * row_size
        starts = [(plane * rows + first) * row_size * dtype.itemsize for plane in range(num_planes)]
        planes = [np.fromfile(data_path, dtype, count, offset=header_bytes + start) for start in starts]
        part = [last - first if axis == axes[0] else size for axis, size in enumerate(stored_shape)]
        return np.concatenate(planes).reshape(part).transpose(axes)

    notes: tuple[str, ...] = ()
    wavelengths_nm: Floats | None = None
    values, unit = _list(header, "wavelength"), header.get("wavelength units")
    if not values:
        values, unit = find_wavelengths_in(_list(header, "band names"))
    if values:
        wavelengths_nm, notes = to_nanometres(values, unit=unit, bands=bands)
    scale = float(header.get("reflectance scale factor", 1))
    gain = np.full(bands, 1 / scale) if scale not in (0, 1) and math.isfinite(scale) else None
    offset: Floats | None = None
    gains, offsets = (_list_numbers(header, f"data {what} values") for what in ("gain", "offset"))
    if gains or offsets:
        is_one_a_band = {len(gains), len(offsets)} <= {0, bands} and np.isfinite(gains + offsets).all()
        if gain is None and is_one_a_band:
            gain = np.array(gains) if gains else np.ones(bands)
            offset = np.array(offsets) if offsets else None
        else:
            notes += (
                "the file's data gain or offset values are not one per band, or are combined with a "
                "reflectance scale factor; both ignored",
            )
    bad = _list_numbers(header, "bbl")
    if bad and len(bad) != bands:
        notes += (f"the file's bad band list has {len(bad)} entries for {bands} bands; list ignored",)
        bad = []
    class_names = {label: name for label, name in enumerate(_list(header, "class names")) if name}
    return Raster(
        path=data_path,
        shape=shape,
        dtype=dtype,
        rows_of=read,
        wavelengths_nm=wavelengths_nm,
        nodata=float(header["data ignore value"]) if "data ignore value" in header else None,
        gain=gain,
        offset=offset,
        bad_bands={band: "marked bad in the file" for band, flag in enumerate(bad) if flag == 0},
        georeference=_find_georeference(header),
        class_names=class_names,
        palette=_find_palette(header, class_names),
        natural_colour=_find_display_bands(header, bands),
        notes=notes,
    )


def _read_header(path: Path) -> Header:
    """Returns the header as Spectral reads it; one that is not UTF-8 is read as Latin-1 (for "µm")."""
    if path.stat().st_size > _MAX_HEADER:
        raise ValueError("longer than any header")
    text = path.read_bytes()
    with warnings.catch_warnings(), tempfile.NamedTemporaryFile(suffix=".hdr") as copy:
        warnings.simplefilter("ignore")  # Spectral warns that it converts names to lower case
        try:
            text.decode("utf-8")
        except UnicodeDecodeError:
            copy.write(text.decode("latin-1").encode("utf-8"))
            copy.flush()
            path = Path(copy.name)
        header: Header = spectral.io.envi.read_envi_header(str(path))
        return header


def _find_data(header_path: Path, interleave: str) -> Path:
    """Returns the data file beside a header, with any of the usual endings."""
    endings = (*spectral.io.envi.KNOWN_EXTS, interleave, *_INTERLEAVES)
    stem = re.sub(r"\.hdr$", "", header_path.name, flags=re.IGNORECASE)
    wanted = [name.casefold() for name in (stem, *(f"{stem}.{ending}" for ending in endings))]
    files = {path.name.casefold(): path for path in sorted(header_path.parent.iterdir()) if path.is_file()}
    found = next((files[name] for name in wanted if name in files), None)
    for path in files.values():
        with path.open("rb") as stream:
            head = stream.read(8) if path.stem.casefold() in wanted else b""
        if found is None and head.startswith(PACKED):
            raise SceneError(describe_unread(path, head))
    if found is None or found == header_path:
        raise SceneError(
            f"{header_path}: no data file {stem} (.img, .dat, .raw, …) in the same folder; put it there"
        )
    return found


def _list(header: Header, key: str) -> list[str]:
    value: str | list[str] = header.get(key, [])
    return value if isinstance(value, list) else [value]


def _list_numbers(header: Header, key: str) -> list[float]:
    return [float(value) for value in _list(header, key)]


def _find_display_bands(header: Header, bands: int) -> tuple[int, int, int] | None:
    match [int(band) - 1 for band in _list_numbers(header, "default bands")]:
        case [red, green, blue] if all(0 <= band < bands for band in (red, green, blue)):
            return red, green, blue
    return None


def _find_palette(header: Header, labels: Collection[int]) -> dict[int, Colour]:
    values = [int(value) for value in _list_numbers(header, "class lookup")]
    colours = zip(values[0::3], values[1::3], values[2::3], strict=False)
    return {
        label: colour
        for label, colour in enumerate(colours)
        if label in labels and all(0 <= value <= 255 for value in colour)
    }


def _find_georeference(header: Header) -> Georeference | None:
    """Returns the georeference in `map info`, which refers to pixel corners and counts pixels from 1."""
    info = _list(header, "map info")
    if len(info) < 7:
        return None
    ref_col, ref_row, easting, northing, width, height = (float(value) for value in info[1:7])
    turn = next((float(part.split("=")[1]) for part in info if part.lower().startswith("rotation=")), 0.0)
    cos, sin = math.cos(math.radians(-turn)), math.sin(math.radians(-turn))
    a, b, d, e = cos * width, -sin * width, -sin * height, -cos * height
    corner = (easting - (ref_col - 1) * width, northing + (ref_row - 1) * height)
    crs = ",".join(_list(header, "coordinate system string"))
    return Georeference(crs or _name_crs(info), (a, b, corner[0], d, e, corner[1]))


def _name_crs(info: list[str]) -> str | None:
    """Returns `EPSG:n` for the systems fully specified by `map info`: UTM and degrees, both on WGS 84."""
    words = [part.strip().casefold() for part in info]
    if not any("wgs" in word and "84" in word for word in words):
        return None
    if words[0] == "utm" and len(words) > 8:
        return f"EPSG:{326 if words[8].startswith('n') else 327}{int(words[7]):02d}"
    return "EPSG:4326" if words[0].startswith("geographic") else None
