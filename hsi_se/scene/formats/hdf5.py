"""Opens HDF5 files with h5py: MATLAB v7.3, which stores axes in reverse order, and plain HDF5."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_se.errors import SceneError
from hsi_se.scene.guards import blaming, check_declared, import_extra
from hsi_se.scene.raster import FileContents, Raster, describe_array, make_raster


def open_hdf5(path: Path) -> FileContents:
    """Returns the top-level arrays of an HDF5 file; links to other files are not followed."""
    h5py = import_extra("h5py", path=path)
    rasters: dict[str, Raster] = {}
    entries: list[str] = []
    with (
        blaming(path, "not a readable HDF5 or MATLAB v7.3 file", remedy="get the file again"),
        h5py.File(path, "r") as file,
    ):
        is_matlab = file.userblock_size > 0
        for key in file:
            if not isinstance(file.get(key, getlink=True), h5py.HardLink):
                continue
            item = file[key]
            if not isinstance(item, h5py.Dataset):
                entries.append(f"{key} group")
                continue
            shape = (item.shape or ())[:: -1 if is_matlab else 1]
            entries.append(describe_array(key, shape, item.dtype))
            is_text = item.attrs.get("MATLAB_class") == b"char"
            if item.dtype.kind not in "iufb" or len(shape) not in (2, 3) or is_text or 0 in shape:
                continue
            if item.is_virtual or item.external:
                raise SceneError(f"{path}: {key} has its data in another file; give a file that contains it")
            stored, itemsize, is_packed = item.id.get_storage_size(), item.dtype.itemsize, bool(item.chunks)
            for size in (shape, *filter(None, [item.chunks])):
                check_declared(path, shape=size, itemsize=itemsize, stored=stored, is_packed=is_packed)
            read = functools.partial(_read, path, key, is_matlab)
            rasters[key] = make_raster(path, key=key, shape=shape, dtype=item.dtype, read=read)
        if not rasters:  # lists what is in groups, as its names tell what the file is
            names: list[str] = []
            file.visit(names.append)
            nested = [(name, file[name]) for name in names if "/" in name and not name.startswith("#")]
            arrays = [(name, item) for name, item in nested if isinstance(item, h5py.Dataset)][:8]
            order = slice(None, None, -1 if is_matlab else 1)
            entries += [describe_array(name, (item.shape or ())[order], item.dtype) for name, item in arrays]
    return FileContents("MATLAB v7.3" if is_matlab else "HDF5", rasters, ", ".join(entries))


def _read(path: Path, key: str, is_reversed: bool, first: int, last: int) -> NDArray[Any]:
    import h5py

    with h5py.File(path, "r") as file:
        return np.asarray(file[key][..., first:last].T if is_reversed else file[key][first:last])
