"""Opens NumPy files: .npy, memory-mapped, and .npz. Object arrays, which are pickles, are refused."""

import zipfile
from functools import cache
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from hsi_se.errors import SceneError
from hsi_se.scene.guards import blaming, check_declared
from hsi_se.scene.misfits import describe_unread
from hsi_se.scene.raster import FileContents, Raster, describe_array, make_raster

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def open_numpy(path: Path) -> FileContents:
    """Returns the arrays of a .npy or .npz file."""
    with blaming(path, "not a readable .npy or .npz file of plain arrays", remedy="get the file again"):
        if not zipfile.is_zipfile(path):
            with path.open("rb") as stream:
                shape, dtype = _read_header(stream)
                stored = path.stat().st_size - stream.tell()
            raster = _make_raster(path, "", shape, dtype, stored)
            return FileContents(".npy", {"": raster} if raster else {}, describe_array("", shape, dtype))
        rasters: dict[str, Raster] = {}
        entries = []
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if not member.filename.endswith(".npy"):
                    continue
                key, size = member.filename.removesuffix(".npy"), member.file_size
                with archive.open(member) as stream:
                    shape, dtype = _read_header(stream)
                    stored = size - stream.tell()
                check_declared(path, shape=(size,), itemsize=1, stored=member.compress_size, is_packed=True)
                raster = _make_raster(path, key, shape, dtype, stored)
                rasters |= {key: raster} if raster else {}
                entries.append(describe_array(key, shape, dtype))
        if not entries:
            raise SceneError(describe_unread(path, b"PK"))
        return FileContents(".npz", rasters, ", ".join(entries))


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:
        raise ValueError(f"format version {version}")
    shape, _, dtype = _HEADERS[version](stream)
    return shape, dtype


def _make_raster(path: Path, key: str, shape: tuple[int, ...], dtype: np.dtype[Any], stored: int) -> Raster | None:
    if dtype.hasobject:
        raise SceneError(f"{path}: {key or 'the array'} contains Python objects; save plain numbers instead")
    if dtype.kind not in "iufb" or len(shape) not in (2, 3):
        return None
    check_declared(path, shape=shape, itemsize=dtype.itemsize, stored=stored, is_packed=False)

    @cache
    def read_member() -> NDArray[Any]:
        with np.load(path, allow_pickle=False) as arrays:
            return np.asarray(arrays[key])

    def read(first: int, last: int) -> NDArray[Any]:
        # A .npy file is mapped anew each time, so that pages read before are released.
        array: NDArray[Any] = read_member() if key else np.load(path, mmap_mode="r", allow_pickle=False)
        return array[first:last]

    return make_raster(path, key=key, shape=shape, dtype=dtype, read=read)
