"""Opens ENVI images with Spectral Python: a text header and raw data beside it."""

import functools
import math
import re
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import spectral.io.envi
from numpy.typing import NDArray

from hsi_se.errors import SceneError
from hsi_se.scene.georeference import Georeference, parse_crs
from hsi_se.scene.guards import blaming, check_declared, describe_unread, is_packed, refuse, tell
from hsi_se.scene.raster import FileContents, Floats, Raster, RowReader, Shape, describe_array
from hsi_se.scene.wavelengths import to_nanometres, to_widths
from hsi_se.system.files import fill_template

_BYTE_ORDERS = {"little": "0", "big": "1"}
_STORED_AXES = {"bsq": (2, 0, 1), "bil": (0, 2, 1), "bip": (0, 1, 2)}  # of rows, cols, bands, by interleave
_SMOOTH = 0.4  # median step between bands, in median deviations of a spectrum; 0.03 to 0.25 in real images
_FEWEST_BANDS = 16
_ONLY = {"byte order": ("01", ""), "file compression": ("0", ", and decompress the data, as with ENVI itself")}
_MAX_HEADER, _MOST_LINES = 2**20, 20_000  # bytes and lines, for which Spectral takes a second

Header = dict[str, Any]


def open_envi(header_path: Path, data_path: Path | None, *, byte_order: str | None) -> FileContents:
    """Returns the image described by a header; the data may have to be searched for."""
    blaming_header = functools.partial(blaming, header_path, "not a readable ENVI header", remedy="correct the header")
    with blaming_header():
        header = _read_header(header_path)
        if "library" in str(header.get("file type")).casefold():
            raise SceneError(f"{header_path}: is a spectral library, without pixels; give an image and its labels")
        if "byte order" not in header:
            if byte_order is None:
                raise refuse(header_path, "byte_order")
            header["byte order"] = _BYTE_ORDERS[byte_order]
        for key, (allowed, remedy) in _ONLY.items():
            if str(header.get(key, allowed[0])).strip() not in allowed:
                raise SceneError(f"{header_path}: {key} = {header[key]}: write {' or '.join(allowed)}{remedy}")
        before, after = map(int, _list(header, "major frame offsets") or (0, 0))
        if min(before, after) < 0:
            raise ValueError("major frame offsets are negative")
        header.pop("major frame offsets", None)  # Spectral does not know them
        spectral.io.envi.check_compatibility(header)
        layout = spectral.io.envi.gen_params(header)
        shape, dtype = (layout.nrows, layout.ncols, layout.nbands), np.dtype(layout.dtype)
        interleave = str(header["interleave"]).lower()
    if interleave not in _STORED_AXES:
        raise SceneError(f"{header_path}: interleave = {interleave}: choose from {', '.join(_STORED_AXES)}")
    if dtype.kind == "c":
        raise SceneError(f"{header_path}: the data are complex; give real values")
    if layout.offset < 0:
        raise SceneError(f"{header_path}: header offset = {layout.offset}: give a non-negative integer")
    data_path = data_path or _find_data(header_path, interleave)
    num_frames = shape[2] if interleave == "bsq" else shape[0]
    stored = data_path.stat().st_size - layout.offset - num_frames * (before + after)
    axis, itemsize = (2 if interleave == "bsq" else 0), dtype.itemsize
    facts = {"shape": shape, "itemsize": itemsize, "stored": stored, "offset": layout.offset, "axis": axis}
    cause = fill_template("hsi_se.scene", "envi_size.txt", **facts) if min(shape) > 0 else ""
    check_declared(data_path, shape=shape, itemsize=itemsize, stored=stored, is_packed=False, cause=cause)
    read = _make_reader(data_path, shape, dtype, interleave, start=layout.offset, frame=(before, after))
    with blaming_header():
        raster = _make_raster(data_path, header, shape, dtype, read)
    return FileContents(f"ENVI {interleave.upper()}", {"": raster}, describe_array("image", shape, dtype))


def _make_reader(
    path: Path, shape: Shape, dtype: np.dtype[Any], interleave: str, *, start: int, frame: tuple[int, int]
) -> RowReader:
    """Returns a function that reads rows. A frame is a band (BSQ) or a row, with bytes before and after its values."""
    stored_axes = _STORED_AXES[interleave]
    stored_shape, axes = [shape[axis] for axis in stored_axes], np.argsort(stored_axes)
    size = math.prod(stored_shape[1:]) * dtype.itemsize
    step = size + sum(frame)

    def read(first: int, last: int) -> NDArray[Any]:
        # Not memory-mapped: the kernel may load far more than these rows, and a file may be cut short meanwhile.
        part = [last - first if axis == 0 else shape[axis] for axis in stored_axes]
        frames, skipped = range(first, last), 0
        if interleave == "bsq":
            frames, skipped = range(shape[2]), first * shape[1] * dtype.itemsize
        starts = [start + number * step + frame[0] + skipped for number in frames]
        values = [np.fromfile(path, dtype, math.prod(part[1:]), offset=offset) for offset in starts]
        return np.concatenate(values).reshape(part).transpose(axes)

    return read


def _make_raster(path: Path, header: Header, shape: Shape, dtype: np.dtype[Any], read: RowReader) -> Raster:
    rows, _, bands = shape
    values, unit = _list(header, "wavelength"), header.get("wavelength units")
    wavelengths_nm, notes = to_nanometres(values, unit=unit, bands=bands, names=_list(header, "band names"))
    scale = float(header.get("reflectance scale factor", 1))
    is_scale = scale != 0 and math.isfinite(scale)
    gain = np.full(bands, 1 / scale) if is_scale and scale != 1 else None
    notes += () if is_scale else (tell("no_scale", scale=scale),)
    offset: Floats | None = None
    gains, offsets = (_list_numbers(header, f"data {what} values") for what in ("gain", "offset"))
    if gains or offsets:
        is_one_a_band = {len(gains), len(offsets)} <= {0, bands} and np.isfinite(gains + offsets).all()
        if gain is None and is_one_a_band:
            gain = np.array(gains) if gains else np.ones(bands)
            offset = np.array(offsets) if offsets else None
        else:
            notes += (tell("scales"),)
    bad = _list_numbers(header, "bbl")
    if bad and len(bad) != bands:
        notes += (f"the file's bad band list has {len(bad)} entries for {bands} bands; list ignored",)
        bad = []
    listed = _list(header, "class names")
    class_names = {label: name for label, name in enumerate(listed) if name}
    if listed and len(listed) != int(header.get("classes", len(listed))):
        notes += (f"the header declares {header['classes']} classes, but names {len(listed)}",)
    stated = ",".join(_list(header, "coordinate system string"))
    georeference = place_by_map_info(_list(header, "map info"), crs=stated)
    crs, other = georeference and georeference.crs, _name_crs(_list(header, "map info"))
    if crs and other and (known := parse_crs(crs)) and known != parse_crs(other):
        notes += (f"the header's map info is {other}, its coordinate system string another; the latter is used",)
    values_of_colours = [int(value) for value in _list_numbers(header, "class lookup")]
    colours = enumerate(zip(*(values_of_colours[channel::3] for channel in range(3)), strict=False))
    shown = [int(band) - 1 for band in _list_numbers(header, "default bands")]
    is_shown = len(shown) == 3 and {*shown} <= {*range(bands)}
    return Raster(
        path=path,
        shape=shape,
        dtype=dtype,
        rows_of=read,
        wavelengths_nm=wavelengths_nm,
        fwhm_nm=to_widths(_list(header, "fwhm"), wavelengths=values, nanometres=wavelengths_nm),
        nodata=float(header["data ignore value"]) if "data ignore value" in header else None,
        gain=gain,
        offset=offset,
        bad_bands={band: "marked bad in the file" for band, flag in enumerate(bad) if flag == 0},
        georeference=georeference,
        class_names=class_names,
        palette={label: rgb for label, rgb in colours if label in class_names and {*rgb} <= {*range(256)}},
        natural_colour=(shown[0], shown[1], shown[2]) if is_shown else None,
        notes=notes + _judge_byte_order(read(rows // 2, rows // 2 + 1)),
    )


def _judge_byte_order(spectra: NDArray[Any]) -> tuple[str, ...]:
    """Returns a note if spectra `(rows, cols, bands)` are smooth only in the other byte order."""
    if spectra.shape[2] < _FEWEST_BANDS or spectra.dtype.itemsize == 1:
        return ()
    roughness = []
    with np.errstate(all="ignore"):
        for values in (spectra.astype(float), spectra.byteswap().astype(float)):
            spread = np.median(np.abs(values - np.median(values, axis=2, keepdims=True)))
            roughness.append(np.median(np.abs(np.diff(values, axis=2))) / spread)
    if not (roughness[1] < _SMOOTH and roughness[0] > 2 * roughness[1]):
        return ()
    return ("the spectra would be much smoother in the other byte order; check byte order in header or config",)


def _read_header(path: Path) -> Header:
    """Returns the header as Spectral reads it; one that is not UTF-8 is read as Latin-1 (for "µm")."""
    if path.stat().st_size > _MAX_HEADER:
        raise ValueError("longer than any header")
    text = path.read_bytes()
    if text.count(b"\n") > _MOST_LINES:
        raise ValueError("more lines than any header has")
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
    endings = (*spectral.io.envi.KNOWN_EXTS, interleave, *_STORED_AXES, "pix", "bin", "cube")
    stem = re.sub(r"\.hdr$", "", header_path.name, flags=re.IGNORECASE)
    wanted = [name.casefold() for name in (stem, *(f"{stem}.{ending}" for ending in endings))]
    files = {path.name.casefold(): path for path in sorted(header_path.parent.iterdir()) if path.is_file()}
    found = next((files[name] for name in wanted if name in files), None)
    for path in files.values():
        with path.open("rb") as stream:
            head = stream.read(8) if path.stem.casefold() in wanted else b""
        if found is None and is_packed(head):
            raise SceneError(describe_unread(path, head))
    if found is None or found == header_path:
        raise SceneError(f"{header_path}: no data file {stem} (.img, .dat, .raw, …) in the same folder; put it there")
    return found


def _list(header: Header, key: str) -> list[str]:
    value: str | list[str] = header.get(key, [])
    return value if isinstance(value, list) else [value]


def _list_numbers(header: Header, key: str) -> list[float]:
    return [float(value) for value in _list(header, key)]


def place_by_map_info(info: list[str], *, crs: str | None = None) -> Georeference | None:
    """Returns the georeference in ENVI's `map info`, which refers to pixel corners and counts pixels from 1."""
    if len(info) < 7 or info[0].strip().casefold() == "arbitrary":
        return None
    try:
        ref_col, ref_row, easting, northing, width, height = (float(value) for value in info[1:7])
        turn = next((float(part.split("=")[1]) for part in info if part.lower().startswith("rotation=")), 0.0)
    except ValueError:  # what is no number cannot place it; see `Georeference.drop_unusable`
        return Georeference(crs, (math.nan,) * 6)
    cos, sin = math.cos(math.radians(-turn)), math.sin(math.radians(-turn))
    a, b, d, e = cos * width, -sin * width, -sin * height, -cos * height
    corner = (easting - (ref_col - 1) * width, northing + (ref_row - 1) * height)
    return Georeference(crs or _name_crs(info), (a, b, corner[0], d, e, corner[1]))


def _name_crs(info: list[str]) -> str | None:
    """Returns `EPSG:n` for the systems fully specified by `map info`: UTM and degrees, both on WGS 84."""
    words = [part.strip().casefold() for part in info]
    if not any("wgs" in word and "84" in word for word in words):
        return None
    if words[0] == "utm" and len(words) > 8:
        zone = re.match(r"\d{1,2}", words[7])  # some write 33N
        return zone and f"EPSG:{326 if words[8].startswith('n') else 327}{int(zone[0]):02d}"
    return "EPSG:4326" if words[0].startswith("geographic") else None
