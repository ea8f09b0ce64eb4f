"""Opens HDF5, netCDF 4 and MATLAB v7.3 files with h5py, and knows the products in `products.toml`.

A fact that a product's table does not name is searched for under the names of the CF conventions, HDF-EOS5 and GDAL.
"""

import fnmatch
import functools
import itertools
import math
import re
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_se.errors import SceneError
from hsi_se.scene.formats.arrays import ROWS_FIRST, is_image, make_raster
from hsi_se.scene.georeference import Georeference
from hsi_se.scene.ground import LookupTable
from hsi_se.scene.guards import blaming, check_declared, import_extra
from hsi_se.scene.raster import FileContents, Floats, Raster, Slicer, StoredArray, describe_array, join_bands
from hsi_se.scene.wavelengths import to_nanometres, to_widths
from hsi_se.system.files import read_facts

_MOST_DATASETS = 2000
_MOST_VALUES = 2**20  # of a list of wavelengths or a text
_MOST_CACHED = 2**29  # bytes of the chunks that are kept, as a later block of rows needs them too
_LISTED = 8
_UNEVEN = 1e-3  # of a step: coordinates are rounded
_CORNERS = re.compile(r"(?:UpperLeftPointMtrs|LowerRightMtrs)=\(([-\d.eE+]+),([-\d.eE+]+)\)")  # of HDF-EOS5
_ZONE = re.compile(r"ZoneCode=(-?)(\d+)")  # of UTM; negative in the south
_OF_WAVELENGTHS = ("nm", "nano", "um", "µm", "micro")  # how units begin
_FLAT_ORDERS = {False: "rows-cols", True: "cols-rows"}  # as NumPy and as MATLAB unroll an image

Names = Sequence[str]
Transform = tuple[float, float, float, float, float, float]
Lookup = tuple[NDArray[Any], NDArray[Any]]
Facts = Mapping[str, Any]  # of a cube, from `products.toml`


def open_hdf5(path: Path) -> FileContents:
    """Returns the arrays of an HDF5 file, without links to other files; MATLAB v7.3 reverses their axes.

    Arrays in groups are named GROUP/NAME, or STRUCT.FIELD if MATLAB wrote them. The cube of a known product is the
    main one.
    """
    h5py = import_extra("h5py", path=path)
    with (
        blaming(path, "not a readable HDF5 or MATLAB v7.3 file", remedy="get the file again"),
        h5py.File(path, "r") as file,
    ):
        source = _Source(path, file, file.userblock_size > 0)
        file.visititems(source.add)  # follows hard links only
        images = [key for key in source.datasets if source.is_image(key)]
        rasters = {source.name(key): source.describe(key) for key in images}
        title, main = source.product[0], [*source.product[1]]
        if len(main) > 1:
            joined = "+".join(key.rpartition("/")[2] for key in main)
            rasters[joined] = replace(join_bands([rasters[key] for key in main], is_sorted=True), key=joined)
            main = [joined]
        top = [key for key in source.datasets if "/" not in key]
        shown = top if {*top} & {*images} else [*top, *(key for key in source.datasets if key not in top)]
        entries = [f"{key} group" for key in file if key not in top and not key.startswith("#")]
        entries += [
            describe_array(source.name(key), source.shape(key), source.datasets[key].dtype) for key in shown[:_LISTED]
        ]
    kind = title or ("MATLAB v7.3" if source.is_matlab else "HDF5")
    return FileContents(kind, rasters, ", ".join(entries), main[0] if main else None)


@dataclass(eq=False)
class _Source:
    """An open HDF5 file: its datasets by path."""

    path: Path
    file: Any
    is_matlab: bool
    datasets: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str, item: Any) -> None:
        if hasattr(item, "chunks") and not name.startswith("#"):
            self.datasets[name] = item
        if len(self.datasets) > _MOST_DATASETS:
            raise SceneError(f"{self.path}: contains more than {_MOST_DATASETS:,} arrays; save the cube by itself")

    def name(self, key: str) -> str:
        return key.replace("/", ".") if self.is_matlab else key

    def shape(self, key: str) -> tuple[int, ...]:
        return tuple(self.datasets[key].shape or ())[:: -1 if self.is_matlab else 1]

    def is_image(self, key: str) -> bool:
        item = self.datasets[key]
        is_text = item.attrs.get("MATLAB_class") == b"char"
        return is_image(item.shape or (), item.dtype) and not is_text and 0 not in item.shape

    @functools.cached_property
    def product(self) -> tuple[str, dict[str, Facts]]:
        """Returns the title of the product that the file is, and what is known of its cubes, by path."""
        keys = [key for key in self.datasets if self.is_image(key)]
        for product in _read_table()["products"]:
            if product.get("needs", "") in ("", *self.datasets):
                found = [(fnmatch.filter(keys, part["cube"]), product | part) for part in product["parts"]]
                if all(matches for matches, _ in found):
                    return product["title"], {matches[0]: facts for matches, facts in found}
        return "", {}

    def look_up(self, key: str, names: Names) -> Any:
        """Returns the first fact that has one of these names, at a dataset or a group around it; texts as str."""
        steps = key.split("/")
        places = ["/".join(steps[:depth]) for depth in range(len(steps), -1, -1)]
        for name, place in itertools.product(names, places):
            base, _, attribute = name.partition("@")
            item = self.datasets.get(f"{place}/{base}".lstrip("/")) if base else self.file[place or "/"]
            value = None
            if item is not None and attribute:
                value = item.attrs.get(attribute)
            elif item is not None and math.prod(item.shape or ()) <= _MOST_VALUES:
                value = item[()]
            if value is not None:
                value = value.item() if isinstance(value, np.ndarray) and value.size == 1 else value
                return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        return None

    def list_numbers(self, key: str, names: Names) -> Floats | None:
        found = self.look_up(key, names)
        values = None if found is None or isinstance(found, str) else np.atleast_1d(np.asarray(found))
        return None if values is None or values.dtype.kind not in "iufb" else values.ravel().astype(np.float64)

    def describe(self, key: str) -> Raster:
        """Returns the raster of a dataset, with what the file says of it."""
        facts = _read_table()["conventions"] | self.product[1].get(key, {})
        item, shape = self.datasets[key], self.shape(key)
        if item.is_virtual or item.external:
            raise SceneError(f"{self.path}: {key} has its data in another file; give a file that contains it")
        stored, itemsize, is_packed = item.id.get_storage_size(), item.dtype.itemsize, bool(item.chunks)
        for size in (shape, *filter(None, [item.chunks])):
            check_declared(self.path, shape=size, itemsize=itemsize, stored=stored, is_packed=is_packed)
        array = StoredArray(shape, _make_slicer(self.path, item, self.is_matlab), _FLAT_ORDERS[self.is_matlab])
        scales = [dim[0].name[1:] for dim in item.dims if len(dim)]
        units = [str(self.look_up(name, ["@units"])).casefold() for name in scales]
        named = [name for name, unit in zip(scales, units, strict=True) if unit.startswith(_OF_WAVELENGTHS)]
        facts = {**facts, "wavelengths": [*facts["wavelengths"], *named]}
        listed = self.list_numbers(key, facts["wavelengths"])
        axes = self.order_axes(key, facts.get("axes"), 0 if listed is None else len(listed))
        raster = make_raster(self.path, self.name(key), array, item.dtype, axes=axes)
        bands = raster.shape[2]
        nodata = self.list_numbers(key, facts["nodata"])
        fill = facts.get("fill")
        if "axes" in facts:  # of a product, whose documentation states them
            raster = replace(raster, stored=None)
        raster = replace(raster, nodata=fill if nodata is None else float(nodata[0]), is_fill=fill is not None)
        if not raster.is_map:
            raster = self._scale(replace(raster, **self._tell_bands(key, facts, listed, bands)), key, facts)
        lookup = next((pair for pair in facts["lookup"] if all(name in self.datasets for name in pair)), None)
        if lookup is None or key in lookup:
            return replace(raster, georeference=self._find_place(key, facts, (raster.shape[0], raster.shape[1]), axes))
        lines, columns = self.shape(lookup[0])[:2]
        place = self._find_place(lookup[0], facts, (lines, columns), ROWS_FIRST) or Georeference(None, None)
        read = functools.partial(_read_lookup, self.path, lookup, raster.shape[:2])
        return replace(raster, ground=LookupTable((lines, columns), place, read))

    def order_axes(self, key: str, stated: str | None, num_wavelengths: int) -> str:
        """Returns the order of a cube's axes: by their names, else as `stated`, else by the number of wavelengths."""
        shape, names = self.shape(key), self.list_dimensions(key)
        if len(shape) == 2:
            return ROWS_FIRST
        known = _read_table()["axes"]
        of_bands = [axis for axis, name in enumerate(names) if name in known["bands"]]
        fitting = [axis for axis, length in enumerate(shape) if length == num_wavelengths]
        if len(of_bands) != 1 and stated and (not fitting or stated.split("-").index("bands") in fitting):
            return stated
        axis = next((found[0] for found in (of_bands, fitting) if len(found) == 1), 2)
        rest = [name for place, name in enumerate(names) if place != axis]
        order = ["cols", "rows"] if rest[0] in known["cols"] and rest[1] not in known["cols"] else ["rows", "cols"]
        order.insert(axis, "bands")
        return "-".join(order)

    def list_dimensions(self, key: str) -> list[str]:
        """Returns the names of a dataset's axes, in lower case; empty where they have none."""
        found = [dim.label or (dim[0].name if len(dim) else "") for dim in self.datasets[key].dims]
        return [name.rpartition("/")[2].casefold() for name in found][:: -1 if self.is_matlab else 1]

    def _tell_bands(self, key: str, facts: Facts, listed: Floats | None, bands: int) -> dict[str, Any]:
        """Returns wavelengths, FWHM, bad bands and notes."""
        if listed is None or len(listed) != bands:
            return {"notes": () if listed is None else to_nanometres(listed.tolist(), unit=None, bands=bands)[1]}
        is_there = np.isfinite(listed) & (listed > 0)
        unit = self.look_up(key, [f"{name}@units" for name in facts["wavelengths"] if name[0] != "@"])
        found, notes = to_nanometres(listed[is_there].tolist(), unit=unit, bands=int(is_there.sum()))
        good, fwhm = (self.list_numbers(key, facts[name]) for name in ("good", "fwhm"))
        bad = dict.fromkeys(np.flatnonzero(~is_there).tolist(), "not in the product (wavelength 0)")
        if good is not None and len(good) == bands:
            bad |= dict.fromkeys(np.flatnonzero((good == 0) & is_there).tolist(), "marked bad in the file")
        if found is None:
            return {"bad_bands": bad, "notes": notes}
        nm = np.full(bands, np.nan)
        nm[is_there] = found
        for name in facts["bad_windows"]:
            ends = self.list_numbers(key, [name])
            if ends is not None and len(ends) == 2:
                inside = np.flatnonzero((nm >= ends.min()) & (nm <= ends.max())).tolist()
                bad |= dict.fromkeys(inside, "in a window that the file marks as bad")
        width = np.full(bands, np.nan)
        if fwhm is not None and len(fwhm) == bands:
            given = to_widths(fwhm[is_there].tolist(), wavelengths=listed[is_there].tolist(), nanometres=found)
            width[is_there] = np.nan if given is None else given
        widths = None if np.isnan(width).all() else width
        return {"wavelengths_nm": nm, "fwhm_nm": widths, "bad_bands": bad, "notes": notes}

    def _scale(self, raster: Raster, key: str, facts: Facts) -> Raster:
        """Returns the raster with the gain and offset of its bands, if the file scales its values."""
        if "limits" in facts:
            low, high = (self.list_numbers(key, [name]) for name in facts["limits"])
            if low is None or high is None:
                return raster
            gain, offset = (high - low) / np.iinfo(raster.dtype).max, low
        else:
            factor, divisor, shift = (self.list_numbers(key, facts[name]) for name in ("gain", "divisor", "offset"))
            gain = factor if factor is not None else np.ones(1) if divisor is None else 1 / divisor
            offset = np.zeros(1) if shift is None else shift
        bands = raster.shape[2]
        if not ({len(gain), len(offset)} <= {1, bands} and np.isfinite([*gain, *offset]).all() and gain.all()):
            return replace(raster, notes=(*raster.notes, "the file's scale is not one per band; ignored"))
        if (gain == 1).all() and (offset == 0).all():
            return raster
        return replace(raster, gain=np.resize(gain, bands), offset=np.resize(offset, bands) if offset.any() else None)

    def _find_place(self, key: str, facts: Facts, shape: tuple[int, int], axes: str) -> Georeference | None:
        """Returns the georeference of a grid of `shape` (rows, cols)."""
        mapping = self.look_up(key, ["@grid_mapping"])
        named = [f"{mapping}{name}" for name in ("@crs_wkt", "@spatial_ref", "@GeoTransform")] if mapping else []
        crs = self.look_up(key, [*named[:2], *facts["crs"]])
        found = self.look_up(key, [*named[2:], *facts["transform"]])
        values = found.split() if isinstance(found, str) else [] if found is None else np.ravel(found).tolist()
        crs = f"EPSG:{int(crs)}" if re.fullmatch(r"\d{4,6}(\.0)?", str(crs)) else crs if isinstance(crs, str) else None
        if len(values) == 6:
            c, a, b, f, d, e = map(float, values)
            return Georeference(crs, (a, b, c, d, e, f))
        if text := self.look_up(key, facts["map_info"]):
            from hsi_se.scene.formats.envi import place_by_map_info

            return place_by_map_info([part.strip() for part in str(text).split(",")], crs=crs)
        text = str(self.look_up(key, facts["structure"]))
        ends = [float(end) for pair in _CORNERS.findall(text) for end in pair]
        if (zone := _ZONE.search(text)) and crs is None:
            crs = f"EPSG:{(32700 if zone[1] else 32600) + int(zone[2])}"
        if not ends and "corners" in facts:
            found = [self.list_numbers(key, [name]) for name in facts["corners"]]
            ends = [float(values[0]) for values in found if values is not None]
        transform = _place_corners(ends, shape, facts.get("pixel_m")) or self._place_coordinates(key, axes)
        if transform is not None and crs is None and {"lat", "lon"} <= {name[:3] for name in self.list_dimensions(key)}:
            crs = "EPSG:4326"
        return Georeference(crs, transform) if crs or transform else None

    def _place_coordinates(self, key: str, axes: str) -> Transform | None:
        """Returns the transform that evenly spaced coordinates of the rows and columns give, as netCDF has them."""
        found = {}
        for name, dim in zip(axes.split("-"), self.datasets[key].dims, strict=False):
            values = np.asarray(dim[0][()] if len(dim) else ())
            if name != "bands" and values.ndim == 1 and len(values) > 1 and values.dtype.kind in "iuf":
                steps = np.diff(values.astype(np.float64))
                if steps.mean() and np.ptp(steps) <= _UNEVEN * abs(steps.mean()):  # all 0 if netCDF has no coordinates
                    found[name] = float(values[0] - steps.mean() / 2), float(steps.mean())
        is_placed = len(found) == 2 and not any("track" in name for name in self.list_dimensions(key))
        return (found["cols"][1], 0, found["cols"][0], 0, found["rows"][1], found["rows"][0]) if is_placed else None


@functools.cache
def _read_table() -> dict[str, Any]:
    return read_facts("hsi_se.scene", "products.toml")


def _place_corners(ends: Sequence[float], shape: tuple[int, int], pixel_m: float | None) -> Transform | None:
    """Returns the transform of a north-up grid from its west, north, east and south ends, or from the first two.

    They are the centres of the corner pixels if these are one pixel of `pixel_m` less apart than the grid is long.
    """
    rows, cols = shape
    if len(ends) == 4:
        west, north, east, south = ends
        apart = int(pixel_m is not None and round((east - west) / pixel_m) == cols - 1)
        width, height = (east - west) / max(cols - apart, 1), (south - north) / max(rows - apart, 1)
        return width, 0.0, west - apart * width / 2, 0.0, height, north - apart * height / 2
    return None if len(ends) != 2 or pixel_m is None else (pixel_m, 0.0, ends[0], 0.0, -pixel_m, ends[1])


def _read_lookup(path: Path, names: Sequence[str], shape: tuple[int, int], first: int, last: int) -> Lookup:
    import h5py

    with blaming(path, "its lookup table cannot be read", remedy="get the file again"), h5py.File(path, "r") as file:
        cols, rows = (np.nan_to_num(file[name][first:last]).astype(np.int64) for name in names)
    rows, cols = (np.where(np.abs(values) > 2**31, 0, values) for values in (rows, cols))
    if np.abs(rows).max() > shape[0] or np.abs(cols).max() > shape[1]:
        raise SceneError(f"{path}: its lookup table names pixels outside the image; get the file again")
    return rows, cols


def _make_slicer(path: Path, item: Any, is_reversed: bool) -> Slicer:
    """Returns a function that reads slices of a dataset, and decodes each chunk once in a pass over an axis.

    The chunks of the last slice are kept. If they are too large, as chunks that reach through the whole axis are, the
    decoded array is put into a temporary file first.
    """
    key, item_type, itemsize = item.name, item.dtype, item.dtype.itemsize
    shape, chunks = (values and values[:: -1 if is_reversed else 1] for values in (item.shape, item.chunks))

    def load(axis: int, first: int, last: int) -> NDArray[Any]:
        import h5py

        where = [slice(None)] * len(shape)
        where[axis] = slice(first, last)
        with h5py.File(path, "r") as file:
            part = file[key][tuple(where[:: -1 if is_reversed else 1])]
        return np.moveaxis(part.T if is_reversed else part, axis, 0)

    @functools.lru_cache(maxsize=1)
    def load_chunks(axis: int, number: int) -> NDArray[Any]:
        return load(axis, number * chunks[axis], min((number + 1) * chunks[axis], shape[axis]))

    @functools.cache
    def unpack(axis: int) -> tuple[Any, int]:
        """Returns a file of the array, by the axis cut most, `axis` and the third; and the first of these."""
        other = max({0, 1, 2} - {axis}, key=lambda place: shape[place] / chunks[place])
        file = tempfile.TemporaryFile()  # noqa: SIM115 - is closed with the raster
        weakref.finalize(take, file.close)
        for first in range(0, shape[other], chunks[other]):
            part = load(other, first, min(first + chunks[other], shape[other]))
            file.write(np.ascontiguousarray(part if axis < 3 - other - axis else part.swapaxes(1, 2)).data)
        return file, other

    def take_unpacked(axis: int, first: int, last: int) -> NDArray[Any]:
        file, other = unpack(axis)
        third = 3 - other - axis
        mapped = np.memmap(file, item_type, "r", shape=(shape[other], shape[axis], shape[third]))
        part = np.array(mapped[:, first:last]).swapaxes(0, 1)
        return part if other < third else part.swapaxes(1, 2)

    def take(axis: int, first: int, last: int) -> NDArray[Any]:
        length = shape[axis]
        if not chunks or chunks[axis] == 1 or (first, last) == (0, length):
            return load(axis, first, last)
        step, size = chunks[axis], math.prod(shape) // length * itemsize
        if step * size > _MOST_CACHED and len(shape) == 3:
            return take_unpacked(axis, first, last)
        numbers = range(first // step, (last - 1) // step + 1)
        parts = [load_chunks(axis, number)[max(first - number * step, 0) : last - number * step] for number in numbers]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    return take
