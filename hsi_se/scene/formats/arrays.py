"""Opens files of named arrays: MATLAB v5 with SciPy, .npy and .npz with NumPy; and lays stored arrays out as images."""

import functools
import io
import math
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from hsi_se.errors import SceneError
from hsi_se.scene.guards import ALWAYS_ALLOWED, MOST_PER_BYTE, blaming, check_declared, describe_unread
from hsi_se.scene.raster import FileContents, Raster, Slicer, StoredArray, describe_array

ROWS_FIRST, BANDS_FIRST = "rows-cols-bands", "bands-rows-cols"

_NPY_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_PLANE = ("rows", "cols", "bands")
_LISTED, _MOST_ARRAYS_IN_ZIP, _LONGEST_HEADER = 8, 2000, 2**16
_MATRIX, _COMPRESSED = 14, 15  # data types of MATLAB v5 elements
_DEEPEST, _MOST_ARRAYS = 16, 2**20  # of arrays in structs and cells
# MATLAB's names of numeric types.
_NAMES = {"float64": "double", "float32": "single", "bool": "logical"}
_MATLAB_KINDS = ("single", "double", "logical", *(f"{u}int{n}" for u in ("", "u") for n in (8, 16, 32, 64)))


def open_matlab(path: Path) -> FileContents:
    """Returns the arrays of a MATLAB v5 file; an array is read completely on its first use."""
    import scipy.io

    with blaming(path, "not a readable MATLAB file", remedy="give a .mat file"):
        contents: list[tuple[str, tuple[int, ...], str]] = [*scipy.io.whosmat(path)]
        if len({name for name, *_ in contents}) < len(contents):  # of which SciPy would read all
            raise ValueError("two of its variables have one name")

    def load(key: str) -> NDArray[Any]:
        name, *fields = key.split(".")
        array = scipy.io.loadmat(path, variable_names=[name], struct_as_record=False)[name]
        for field in fields:
            array = getattr(array.item(), field)
        array = np.asarray(array)
        if np.iscomplexobj(array):
            raise SceneError(f"{path}: {key} is complex; give real values")
        return array

    size, entries = path.stat().st_size, [describe_array(*entry) for entry in contents]
    if any(kind == "struct" for _, _, kind in contents):
        with blaming(path, "not a readable MATLAB file", remedy="get the file again"):
            _check_nesting(path.read_bytes())
            found = dict(_list_fields({key: load(key) for key, _, kind in contents if kind == "struct"}))
        contents += [(key, array.shape, _NAMES.get(array.dtype.name, array.dtype.name)) for key, array in found.items()]
        entries += [describe_array(key, array.shape, array.dtype) for key, array in found.items()][:_LISTED]
    rasters = {}
    for key, shape, kind in contents:
        if kind in _MATLAB_KINDS and len(shape) in (2, 3) and shape != (1, 1):  # a number is no map
            # MATLAB stores integers in as few bytes as they need, whatever the type.
            check_declared(path, shape=shape, itemsize=1, stored=size, is_packed=True)
            stored = _load_once(functools.partial(load, key), shape, flat_order="cols-rows")
            rasters[key] = make_raster(path, key, stored, np.dtype("uint8" if kind == "logical" else kind))
    return FileContents("MATLAB v5", rasters, ", ".join(entries))


def read_texts(path: Path) -> dict[str, NDArray[Any]]:
    """Returns the cells and letters in a MATLAB v5 file as arrays of texts; a cell without a text is empty."""
    import scipy.io

    _check_nesting(path.read_bytes())
    found = {}
    for key, shape, kind in scipy.io.whosmat(path):
        if kind in ("cell", "char"):
            check_declared(path, shape=shape, itemsize=1, stored=path.stat().st_size, is_packed=True)
            array = scipy.io.loadmat(path, variable_names=[key])[key]
            texts = [str(cell.flat[0]) if cell.size and cell.dtype.kind == "U" else "" for cell in array.flat]
            found[key] = np.array(texts, dtype=str).reshape(array.shape)
    return found


def _check_nesting(content: bytes) -> None:
    """Refuses a MATLAB v5 file whose arrays are nested so deeply, or so many, that a parser may not come back."""
    order = "<" if content[126:128] == b"IM" else ">"
    todo, count = [(memoryview(content)[128:], 0)], 0
    while todo:
        part, depth = todo.pop()
        place = 0
        while place + 8 <= len(part):
            kind, size = struct.unpack_from(f"{order}II", part, place)
            place += 8
            if kind >> 16:  # the value is inside the tag
                continue
            count += kind == _MATRIX
            if size > len(part) - place or depth > _DEEPEST or count > _MOST_ARRAYS:
                raise ValueError("arrays are cut off, or nested too deeply")
            inner = part[place : place + size]
            if kind == _COMPRESSED:
                unpacked = zlib.decompressobj().decompress(inner, max(ALWAYS_ALLOWED, MOST_PER_BYTE * size))
                todo.append((memoryview(unpacked), depth))
            elif kind == _MATRIX:
                todo.append((inner, depth + 1))
            place += size if kind == _COMPRESSED else -(-size // 8) * 8


def _list_fields(structs: Mapping[str, Any]) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yields the numeric arrays in MATLAB structs, each named STRUCT.FIELD."""
    for name, value in structs.items():
        array = np.asarray(value)
        if array.dtype == object and array.size == 1 and hasattr(array.item(), "_fieldnames"):
            inner = array.item()
            yield from _list_fields({f"{name}.{field}": getattr(inner, field) for field in inner._fieldnames})
        elif is_image(array.shape, array.dtype) and array.size > 1:
            yield name, array


def open_numpy(path: Path) -> FileContents:
    """Returns the array of a .npy file, memory-mapped, or those of a .npz file. Object arrays are refused."""
    rasters, entries = {}, []

    def add(key: str, stream: IO[bytes], num_bytes: int, take: Slicer) -> None:
        stream = io.BytesIO(stream.read(_LONGEST_HEADER))
        version = np.lib.format.read_magic(stream)
        if version not in _NPY_HEADERS:
            raise ValueError(f"format version {version}")
        shape, _, dtype = _NPY_HEADERS[version](stream)
        if dtype.hasobject:
            raise SceneError(f"{path}: {key or 'the array'} contains Python objects; save plain numbers instead")
        entries.append(describe_array(key, shape, dtype))
        if is_image(shape, dtype) or dtype.kind in "US":  # texts may be names of classes
            stored = num_bytes - stream.tell()
            check_declared(path, shape=shape, itemsize=dtype.itemsize, stored=stored, is_packed=False)
        if is_image(shape, dtype):
            rasters[key] = make_raster(path, key, StoredArray(shape, take), dtype)

    def take_mapped(axis: int, first: int, last: int) -> NDArray[Any]:
        # Mapped for a moment: pages read before are released, and a file may be cut short later.
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        return np.array(np.moveaxis(array, axis, 0)[first:last])

    def load(key: str) -> NDArray[Any]:
        with np.load(path, allow_pickle=False) as arrays:
            return np.asarray(arrays[key])

    with blaming(path, "not a readable .npy or .npz file of plain arrays", remedy="get the file again"):
        if not zipfile.is_zipfile(path):
            with path.open("rb") as stream:
                add("", stream, path.stat().st_size, take_mapped)
            return FileContents(".npy", rasters, entries[0])
        with zipfile.ZipFile(path) as archive:
            names = [member.filename.removesuffix(".npy") for member in archive.infolist()]
            if len({*names}) < len(names) or len(names) > _MOST_ARRAYS_IN_ZIP:
                raise ValueError("two of its members have one name, or there are too many")
            for member in archive.infolist():
                if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise ValueError(f"{member.filename} is compressed as NumPy does not")
                key, size = member.filename.removesuffix(".npy"), member.file_size
                if key != member.filename:
                    check_declared(path, shape=(size,), itemsize=1, stored=member.compress_size, is_packed=True)
                    with archive.open(member) as unpacked:
                        add(key, unpacked, size, _load_once(functools.partial(load, key), ()).take)
        if not entries:
            raise SceneError(describe_unread(path, b"PK"))
        return FileContents(".npz", rasters, ", ".join(entries))


def is_image(shape: Sequence[int], dtype: np.dtype[Any]) -> bool:
    """Returns whether an array can be a cube or a label map."""
    return dtype.kind in "iufb" and len(shape) in (2, 3)


def _load_once(load: Callable[[], NDArray[Any]], shape: Sequence[int], *, flat_order: str = "rows-cols") -> StoredArray:
    """Returns an array that is loaded as a whole on its first use, and kept."""
    load = functools.cache(load)
    return StoredArray(tuple(shape), lambda axis, first, last: np.moveaxis(load(), axis, 0)[first:last], flat_order)


def make_raster(path: Path, key: str, stored: StoredArray, dtype: np.dtype[Any], *, axes: str = ROWS_FIRST) -> Raster:
    """Returns the raster of a map (rows, cols), or of a cube with its `axes` in an order such as `rows-cols-bands`."""
    names, shape = axes.split("-") if len(stored.shape) == 3 else _PLANE, stored.shape
    rows, cols, bands = (dict(zip(names, (*shape, 1), strict=False))[name] for name in _PLANE)

    def read_rows(first: int, last: int) -> NDArray[Any]:
        part = stored.take(names.index("rows"), first, last)
        part = part if len(shape) == 3 else part[:, :, None]
        return part if names.index("cols") < names.index("bands") else part.swapaxes(1, 2)

    return Raster(path=path, key=key, shape=(rows, cols, bands), dtype=dtype, rows_of=read_rows, stored=stored)


def arrange(raster: Raster, *, axes: str | None, grid: tuple[int, int] | None) -> Raster:
    """Returns a raster with the order of axes that the config gives.

    With a `grid` (rows, cols), an array of pixels × bands, or bands × pixels, is a cube; `axes` then also says in which
    order the pixels follow each other. SceneError if the file itself states the order of its axes, or the array has
    another number of pixels.
    """
    stored, name = raster.stored, f"{raster.path}: {raster.key or 'the array'}"
    if stored is None:
        setting = f"scene.axes = {axes!r}" if axes else f"scene.shape = {list(grid or ())}"
        raise SceneError(f"{setting}: has no effect, as {raster.path} states the order of its axes; leave it out")
    if grid is not None:
        size, num_pixels = "×".join(map(str, stored.shape)), math.prod(grid)
        if num_pixels not in stored.shape:
            setting = f"scene.shape = {list(grid)}: {grid[0]} × {grid[1]} are {num_pixels:,} pixels"
            raise SceneError(f"{setting}, but {name} is {size}; give the rows and columns of the image")
        if axes is None and stored.shape[0] == stored.shape[1]:
            raise SceneError(f"{name} is {size}: set scene.axes to bands-first or rows-cols-bands")
        is_first = axes.startswith("bands") if axes else num_pixels == stored.shape[1]
        default = f"bands-{stored.flat_order}" if is_first else f"{stored.flat_order}-bands"
        axes = default if axes in (None, "bands-first") else axes
        if "-bands-" in axes or stored.shape[is_first] != num_pixels:
            raise SceneError(f"scene.axes = {axes!r}: does not fit {name}, {size}; leave it out, or use bands-first")
        lengths = {"rows": grid[0], "cols": grid[1], "bands": stored.shape[not is_first]}
        flat, unrolled = stored, tuple(lengths[name] for name in axes.split("-"))
        stored = _load_once(lambda: flat.take(0, 0, flat.shape[0]).reshape(unrolled), unrolled)
    axes = BANDS_FIRST if axes == "bands-first" else axes or ROWS_FIRST
    found = make_raster(raster.path, raster.key, stored, raster.dtype, axes=axes)
    names = ["nodata", "is_fill", "notes"]
    if found.shape[2] == raster.shape[2]:
        names += ["wavelengths_nm", "fwhm_nm", "gain", "offset", "bad_bands"]
    if found.shape == raster.shape:
        names += ["georeference", "ground"]
    return replace(found, **{name: getattr(raster, name) for name in names})
