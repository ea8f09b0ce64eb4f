"""Map layers on disk: raw rows while a map is made, then ENVI headers and Cloud-Optimised GeoTIFF copies.

A layer is band-interleaved by line and little-endian, so that the rows of a tile are contiguous in the file.
"""

import errno
import importlib.util
import math
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_se.runs.bundle import ModelBundle
from hsi_se.scene.georeference import Georeference, parse_crs
from hsi_se.scene.ground import LookupTable
from hsi_se.scene.raster import Colour
from hsi_se.scene.scene import UNLABELLED, parse_colour
from hsi_se.system.files import fill_template, read_facts

NODATA_NAME = "nodata"
_ROWS_PER_BLOCK = 128
_SAME_ANGLE = 1e-6  # degrees
_RAT_COLUMNS = (("Value", 0, 5), ("Class", 2, 2), ("Red", 0, 6), ("Green", 0, 7), ("Blue", 0, 8))


@dataclass(frozen=True)
class Layer:
    """A raster that is written in blocks of rows, with the value that stands for no data."""

    path: Path
    shape: tuple[int, int, int]  # rows, cols, bands
    dtype: str  # uint8, uint16 or float32
    nodata: float
    band_names: tuple[str, ...]

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def create(self) -> None:
        """Creates the file at its full length; an existing one is replaced."""
        with self.path.open("wb") as stream:
            stream.truncate(self.num_bytes)

    def is_there(self) -> bool:
        """Whether the file exists at its full length."""
        return self.path.is_file() and self.path.stat().st_size == self.num_bytes

    def write(self, first: int, values: NDArray[Any]) -> None:
        """Writes `(some rows, cols, bands)` from row `first` on, and syncs them to the disk."""
        stored = np.ascontiguousarray(values.transpose(0, 2, 1), dtype=np.dtype(self.dtype).newbyteorder("<"))
        with self.path.open("r+b") as stream:
            stream.seek(first * stored[0].nbytes)
            stream.write(stored.data)
            stream.flush()
            os.fsync(stream.fileno())

    def blocks(self) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yields the first row of each block of rows, and the block `(some rows, cols, bands)`."""
        rows, cols, bands = self.shape
        dtype = np.dtype(self.dtype).newbyteorder("<")
        for first in range(0, rows, _ROWS_PER_BLOCK):
            count = min(_ROWS_PER_BLOCK, rows - first) * cols * bands
            offset = first * cols * bands * dtype.itemsize
            values = np.fromfile(self.path, dtype=dtype, count=count, offset=offset)
            yield first, values.reshape(-1, bands, cols).transpose(0, 2, 1).astype(self.dtype)


def put_on_ground(layer: Layer, ground: LookupTable) -> Layer:
    """Returns a layer of a swath on the ground grid of its lookup table, in the place of its file."""
    rows, cols, bands = layer.shape
    stored = np.memmap(layer.path, np.dtype(layer.dtype).newbyteorder("<"), "r", shape=(rows, bands, cols))
    draft = replace(layer, path=layer.path.with_name(f".{layer.path.name}"), shape=(*ground.shape, bands))
    draft.create()
    for first, block in ground.put_on_ground(stored.transpose(0, 2, 1), fill=layer.nodata):
        draft.write(first, block)
    del stored
    draft.path.replace(layer.path)
    return replace(draft, path=layer.path)


@dataclass(frozen=True)
class Classes:
    """The classes of a classification map: names and 8-bit colours by id; 0 means no data."""

    names: Mapping[int, str]
    palette: Mapping[int, Colour]

    def list_all(self) -> list[tuple[str, Colour]]:
        """Returns a name and a colour for each id from 0 to the highest; ids without a class are `unused`."""
        names = {UNLABELLED: NODATA_NAME, **self.names}
        return [
            (names.get(label, f"unused {label}"), self.palette.get(label, (0, 0, 0))) for label in range(max(names) + 1)
        ]


def list_classes(bundle: ModelBundle, *, min_probability: float | None = None) -> Classes:
    """Returns the classes of a bundle and, with a least probability, one above them for pixels left unclassified."""
    names, palette = dict(bundle.class_names), dict(bundle.facts.palette)
    if min_probability is not None:
        label, name = max(names) + 1, f"unclassified (p < {min_probability:g})"
        greys = map(parse_colour, read_facts("hsi_se.scene", "palette.toml")["unclassified"])
        palette[label] = next((grey for grey in greys if grey not in palette.values()), (127, 127, 127))
        names[label] = f"{name}, {label}" if name in names.values() else name
    return Classes(names, palette)


def write_envi_header(layer: Layer, georeference: Georeference, *, about: Classes | str) -> None:
    """Writes the `.hdr` beside a layer's raw data, with its classes or a sentence about its values.

    The georeference is written if ENVI's map info can express it, see `find_rotation`.
    """
    entries, sentence = (about.list_all(), "") if isinstance(about, Classes) else ([], f"; {about}")
    facts = {
        "layer": layer,
        "description": _to_envi(f"written by hsi-se: {layer.path.stem}{sentence}"),
        "band_names": [_to_envi(name) for name in layer.band_names],
        "class_names": [_to_envi(name) for name, _ in entries],
        "class_lookup": [value for _, colour in entries for value in colour],
        "place": _describe_place(georeference),
    }
    text = fill_template("hsi_se.maps", "map.hdr", **facts)
    layer.path.with_suffix(".hdr").write_text(f"{text}\n", encoding="utf-8")


def find_rotation(georeference: Georeference) -> float | None:
    """Returns the rotation for ENVI's map info in degrees, as GDAL reads it; None if it cannot express the grid."""
    if georeference.transform is None:
        return None
    a, b, _, d, e, _ = georeference.transform
    if b == d == 0 and a > 0 and e > 0:
        return 180  # which GDAL takes for rows that run north
    of_cols, of_rows = math.degrees(math.atan2(b, a)), math.degrees(math.atan2(d, -e))
    if abs((of_cols - of_rows + 180) % 360 - 180) > _SAME_ANGLE:
        return None  # mirrored or sheared, or pixels that are not square are turned
    return of_cols if abs(abs(of_cols) - 180) > _SAME_ANGLE else 540


def has_rasterio() -> bool:
    return importlib.util.find_spec("rasterio") is not None


def write_geotiff(layer: Layer, georeference: Georeference, *, about: Classes | str) -> None:
    """Writes a layer as Cloud-Optimised GeoTIFF beside its raw data, in bounded memory; with a georeference, if any.

    A classification gets overviews by mode, a colour table, and a file `.aux.xml` with the class names, which the
    format itself cannot store. Other layers get overviews by mean and a description, the sentence about their values.
    OSError if the file does not read back as written.
    """
    import rasterio
    import rasterio.shutil
    from rasterio.windows import Window

    path, cols = layer.path.with_suffix(".tif"), layer.shape[1]
    known, place = parse_crs(georeference.crs or ""), georeference.transform
    described = layer.path.with_suffix(".vrt")
    facts = {
        "layer": layer,
        "itemsize": np.dtype(layer.dtype).itemsize,
        "wkt": known.to_wkt() if known else "",
        "transform": place and [repr(float(place[index])) for index in (2, 0, 1, 5, 3, 4)],
        "sentence": about if isinstance(about, str) else "",
        "colours": [colour for _, colour in about.list_all()] if isinstance(about, Classes) else (),
    }
    described.write_text(fill_template("hsi_se.maps", "map.vrt", **facts), encoding="utf-8")
    resampling = "mode" if isinstance(about, Classes) else "average"
    options = {"compress": "deflate", "bigtiff": "if_safer", "blocksize": 256, "overview_resampling": resampling}
    path.unlink(missing_ok=True)  # GDAL would read what a killed process has left
    with warnings.catch_warnings(), rasterio.Env(GDAL_CACHEMAX=8, GDAL_PAM_ENABLED=False):
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        try:
            rasterio.shutil.copy(described, path, driver="COG", **options)
            with rasterio.open(path) as image:  # GDAL does not report what fails on closing a file
                is_whole = all(
                    np.array_equal(image.read(window=Window(0, first, cols, len(block))), np.moveaxis(block, 2, 0))
                    for first, block in layer.blocks()
                )
        except (rasterio.errors.RasterioError, rasterio.errors.RasterioIOError):
            is_whole = False
    described.unlink()
    if not is_whole:
        raise OSError(errno.EIO, "GDAL could not write it", str(path))
    if isinstance(about, Classes):  # GDAL's sidecar: category names, and an attribute table for the legend in QGIS
        labels = (UNLABELLED, *about.names)  # without an XML declaration, with which GDAL ignores a file
        facts = {"entries": about.list_all(), "columns": _RAT_COLUMNS, "labels": labels}
        text = fill_template("hsi_se.maps", "map.aux.xml", **facts)
        path.with_name(f"{path.name}.aux.xml").write_text(text, encoding="utf-8")


def _to_envi(name: str) -> str:
    """Returns a name without braces and commas, which delimit an ENVI list."""
    return re.sub(r"\s+", " ", name.translate(str.maketrans("{},", "();"))).strip()


def _describe_place(georeference: Georeference) -> dict[str, str]:
    turn = find_rotation(georeference)
    if georeference.transform is None or turn is None:
        return {}
    a, b, x, d, e, y = georeference.transform
    numbers = ["1", "1", *(f"{number:.12g}" for number in (x, y, math.hypot(a, b), math.hypot(d, e)))]
    crs = georeference.crs or ""
    known, code = parse_crs(crs) if has_rasterio() else None, re.fullmatch(r"EPSG:(\d+)", crs)
    epsg, wkt = (int(code[1]), "") if code else (None, crs)
    if known is not None:
        epsg, wkt = known.to_epsg(), known.to_wkt(version="WKT1_ESRI")  # the dialect that ENVI reads
    info = ["Arbitrary", *numbers]
    if epsg == 4326:
        info = ["Geographic Lat/Lon", *numbers, "WGS-84", "units=Degrees"]
    elif epsg is not None and epsg // 100 in (326, 327):
        half = "North" if epsg // 100 == 326 else "South"
        info = ["UTM", *numbers, str(epsg % 100), half, "WGS-84", "units=Meters"]
    info += [f"rotation={turn:.12g}"] if turn else []
    place = {"map info": ", ".join(info), "coordinate system string": wkt}
    return {key: f"{{{text}}}" for key, text in place.items() if text}
