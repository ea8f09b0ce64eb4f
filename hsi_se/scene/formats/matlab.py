"""Opens MATLAB v5 files with SciPy; MATLAB v7.3 files are HDF5."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from numpy.typing import NDArray

from hsi_se.errors import SceneError
from hsi_se.scene.guards import blaming, check_declared
from hsi_se.scene.raster import FileContents, describe_array, make_raster

# MATLAB's names of numeric types; structs and cells are never parsed, as they may be nested endlessly.
NUMERIC_CLASSES: dict[str, np.dtype[Any]] = {
    "single": np.dtype(np.float32),
    "double": np.dtype(np.float64),
    "logical": np.dtype(np.uint8),
    **{f"{u}int{n}": np.dtype(f"{u}int{n}") for u in ("", "u") for n in (8, 16, 32, 64)},
}


def open_matlab(path: Path) -> FileContents:
    """Returns the arrays of a MATLAB v5 file; an array is read completely on its first use."""
    with blaming(path, "not a readable MATLAB file", remedy="give a .mat file"):
        contents = scipy.io.whosmat(path)
    rasters = {}
    for key, shape, kind in contents:
        if kind in NUMERIC_CLASSES and len(shape) in (2, 3) and shape != (1, 1):  # a number is no map
            # MATLAB stores integers in as few bytes as they need, whatever the type.
            check_declared(path, shape=shape, itemsize=1, stored=path.stat().st_size, is_packed=True)
            dtype, read = NUMERIC_CLASSES[kind], _make_reader(path, key)
            rasters[key] = make_raster(path, key=key, shape=shape, dtype=dtype, read=read)
    return FileContents("MATLAB v5", rasters, ", ".join(describe_array(*entry) for entry in contents))


def _make_reader(path: Path, key: str) -> Any:
    @cache
    def read() -> NDArray[Any]:
        array = np.asarray(scipy.io.loadmat(path, variable_names=[key])[key])
        if np.iscomplexobj(array):
            raise SceneError(f"{path}: {key} is complex; give real values")
        return array

    return lambda first, last: read()[first:last]
