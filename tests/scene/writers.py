"""Writes one small scene in every format."""

import h5py
import numpy as np
import rasterio
import scipy.io
import spectral.io.envi
from affine import Affine
from rasterio.crs import CRS

from hsi_se import load_scene
from hsi_se.config.scene import SceneFiles

ROWS, COLS, BANDS = 7, 6, 5
CUBE = np.random.default_rng(0).integers(1, 9000, (ROWS, COLS, BANDS)).astype(np.int16)
LABELS = np.resize([0, 1, 10, 11], (ROWS, COLS)).astype(np.uint8)
WAVELENGTHS_NM = np.array([460.0, 550.0, 640.0, 1400.0, 2200.0])


def write_matlab(folder, cube, labels):
    scipy.io.savemat(folder / "scene.mat", {"cube": cube, "labels": labels}, do_compression=True)
    return folder / "scene.mat", folder / "scene.mat"


def write_matlab_73(folder, cube, labels):
    """As MATLAB does: a user block that names the version, and axes in reverse."""
    path = folder / "scene.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in (("cube", cube), ("labels", labels)):
            chunks = tuple(min(4, length) for length in array.T.shape)
            stored = file.create_dataset(name, data=array.T, chunks=chunks, compression="gzip")
            stored.attrs["MATLAB_class"] = np.bytes_(array.dtype.name)
        file.create_group("#refs#")
    with path.open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")
    return path, path


def write_envi(folder, cube, labels, *, interleave="bsq", **metadata):
    for name, array, facts in (("cube", cube, metadata), ("labels", labels[..., None], {})):
        spectral.io.envi.save_image(
            str(folder / f"{name}.hdr"), array, dtype=array.dtype, interleave=interleave, metadata=facts
        )
    return folder / "cube.hdr", folder / "labels.img"


def write_geotiff(folder, cube, labels, *, nodata=None, band_tags=(), **profile):
    for name, array, fill in (("cube", cube, nodata), ("labels", labels[..., None], None)):
        rows, cols, bands = array.shape
        with rasterio.open(
            folder / f"{name}.tif", "w", driver="GTiff", height=rows, width=cols, count=bands,
            dtype=array.dtype, nodata=fill, crs=CRS.from_epsg(32633),
            transform=Affine(30, 0, 365055, 0, -30, 5806125), **profile,
        ) as image:  # fmt: skip
            image.write(np.moveaxis(array, 2, 0))
            if name == "cube":
                for band, tags in enumerate(band_tags, start=1):
                    image.update_tags(band, **tags)
    return folder / "cube.tif", folder / "labels.tif"


def write_npy(folder, cube, labels):
    np.save(folder / "cube.npy", cube)
    np.save(folder / "labels.npy", labels)
    return folder / "cube.npy", folder / "labels.npy"


def write_npz(folder, cube, labels):
    np.savez_compressed(folder / "scene.npz", cube=cube, labels=labels)
    return folder / "scene.npz", folder / "scene.npz"


WRITERS = {
    "MATLAB v5": write_matlab,
    "MATLAB v7.3": write_matlab_73,
    "ENVI BSQ": write_envi,
    "ENVI BIL": lambda *args: write_envi(*args, interleave="bil"),
    "ENVI BIP": lambda *args: write_envi(*args, interleave="bip"),
    "GeoTIFF": write_geotiff,
    ".npy": write_npy,
    ".npz": write_npz,
}


def load(paths, data=None, **settings):
    cube, labels = paths
    return load_scene(SceneFiles(cube=str(cube), labels=str(labels), **settings), data)
