"""Opens files of named arrays: MATLAB v5 with SciPy, HDF5 and MATLAB v7.3 with h5py, .npy and .npz with NumPy."""

import functools
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from hsi_se.errors import SceneError
from hsi_se.scene.guards import blaming, check_declared, describe_unread, import_extra
from hsi_se.scene.raster import FileContents, Raster, RowReader, describe_array

_NPY_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
# MATLAB's names of numeric types; structs and cells are never parsed, as they may be nested endlessly.
_MATLAB_KINDS = ("single", "double", "logical", *(f"{u}int{n}" for u in ("", "u") for n in (8, 16, 32, 64)))


def open_matlab(path: Path) -> FileContents:
    """Returns the arrays of a MATLAB v5 file; an array is read completely on its first use."""
    import scipy.io

    with blaming(path, "not a readable MATLAB file", remedy="give a .mat file"):
        contents = scipy.io.whosmat(path)

    def load(key: str) -> NDArray[Any]:
        array = np.asarray(scipy.io.loadmat(path, variable_names=[key])[key])
        if np.iscomplexobj(array):
            raise SceneError(f"{path}: {key} is complex; give real values")
        return array

    rasters = {}
    for key, shape, kind in contents:
        if kind in _MATLAB_KINDS and len(shape) in (2, 3) and shape != (1, 1):  # a number is no map
            # MATLAB stores integers in as few bytes as they need, whatever the type.
            check_declared(path, shape=shape, itemsize=1, stored=path.stat().st_size, is_packed=True)
            dtype = np.dtype("uint8" if kind == "logical" else kind)
            rasters[key] = _make_raster(path, key, shape, dtype, _read_once(load, key))
    return FileContents("MATLAB v5", rasters, ", ".join(describe_array(*entry) for entry in contents))


def open_hdf5(path: Path) -> FileContents:
    """Returns the top-level arrays of an HDF5 file, without links to other files; MATLAB v7.3 reverses their axes."""
    h5py = import_extra("h5py", path=path)
    rasters, entries = {}, []
    with (
        blaming(path, "not a readable HDF5 or MATLAB v7.3 file", remedy="get the file again"),
        h5py.File(path, "r") as file,
    ):
        is_matlab = file.userblock_size > 0
        order = slice(None, None, -1 if is_matlab else 1)
        for key in file:
            if not isinstance(file.get(key, getlink=True), h5py.HardLink):
                continue
            item = file[key]
            if not isinstance(item, h5py.Dataset):
                entries.append(f"{key} group")
                continue
            shape = (item.shape or ())[order]
            entries.append(describe_array(key, shape, item.dtype))
            if not _is_image(shape, item.dtype) or item.attrs.get("MATLAB_class") == b"char" or 0 in shape:
                continue
            if item.is_virtual or item.external:
                raise SceneError(f"{path}: {key} has its data in another file; give a file that contains it")
            stored, itemsize, is_packed = item.id.get_storage_size(), item.dtype.itemsize, bool(item.chunks)
            for size in (shape, *filter(None, [item.chunks])):
                check_declared(path, shape=size, itemsize=itemsize, stored=stored, is_packed=is_packed)
            read = functools.partial(_read_hdf5, path, key, is_matlab)
            rasters[key] = _make_raster(path, key, shape, item.dtype, read)
        if not rasters:  # lists what is in groups, as its names tell what the file is
            names: list[str] = []
            file.visit(names.append)
            nested = [(name, file[name]) for name in names if "/" in name and not name.startswith("#")]
            arrays = [(name, item) for name, item in nested if isinstance(item, h5py.Dataset)][:8]
            entries += [describe_array(name, (item.shape or ())[order], item.dtype) for name, item in arrays]
    return FileContents("MATLAB v7.3" if is_matlab else "HDF5", rasters, ", ".join(entries))


def _read_hdf5(path: Path, key: str, is_reversed: bool, first: int, last: int) -> NDArray[Any]:
    import h5py

    with h5py.File(path, "r") as file:
        return np.asarray(file[key][..., first:last].T if is_reversed else file[key][first:last])


def open_numpy(path: Path) -> FileContents:
    """Returns the array of a .npy file, memory-mapped, or those of a .npz file. Object arrays are refused."""
    rasters, entries = {}, []

    def add(key: str, stream: IO[bytes], num_bytes: int, read: RowReader) -> None:
        version = np.lib.format.read_magic(stream)
        if version not in _NPY_HEADERS:
            raise ValueError(f"format version {version}")
        shape, _, dtype = _NPY_HEADERS[version](stream)
        if dtype.hasobject:
            raise SceneError(f"{path}: {key or 'the array'} contains Python objects; save plain numbers instead")
        entries.append(describe_array(key, shape, dtype))
        if _is_image(shape, dtype):
            stored = num_bytes - stream.tell()
            check_declared(path, shape=shape, itemsize=dtype.itemsize, stored=stored, is_packed=False)
            rasters[key] = _make_raster(path, key, shape, dtype, read)

    def read_mapped(first: int, last: int) -> NDArray[Any]:
        # The file is mapped anew each time, so that pages read before are released.
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        return array[first:last]

    def load(key: str) -> NDArray[Any]:
        with np.load(path, allow_pickle=False) as arrays:
            return np.asarray(arrays[key])

    with blaming(path, "not a readable .npy or .npz file of plain arrays", remedy="get the file again"):
        if not zipfile.is_zipfile(path):
            with path.open("rb") as stream:
                add("", stream, path.stat().st_size, read_mapped)
            return FileContents(".npy", rasters, entries[0])
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                key, size = member.filename.removesuffix(".npy"), member.file_size
                if key != member.filename:
                    check_declared(path, shape=(size,), itemsize=1, stored=member.compress_size, is_packed=True)
                    with archive.open(member) as unpacked:
                        add(key, unpacked, size, _read_once(load, key))
        if not entries:
            raise SceneError(describe_unread(path, b"PK"))
        return FileContents(".npz", rasters, ", ".join(entries))


def _is_image(shape: Sequence[int], dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "iufb" and len(shape) in (2, 3)


def _read_once(load: Callable[[str], NDArray[Any]], key: str) -> RowReader:
    """Returns a function that reads rows of an array which is loaded as a whole, and kept."""
    load = functools.cache(load)
    return lambda first, last: load(key)[first:last]


def _make_raster(path: Path, key: str, shape: Sequence[int], dtype: np.dtype[Any], read: RowReader) -> Raster:
    """Returns the raster of a 2-D or 3-D array from a function that reads its rows."""
    rows, cols, bands = (*shape, 1)[:3]

    def read_rows(first: int, last: int) -> NDArray[Any]:
        return read(first, last).reshape(last - first, cols, bands)

    return Raster(path=path, key=key, shape=(rows, cols, bands), dtype=dtype, rows_of=read_rows)
