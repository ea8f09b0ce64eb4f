"""File formats, one a module; which one a file is in is seen from its content, not from its name."""

from pathlib import Path

from hsi_se.errors import SceneError
from hsi_se.scene.raster import FileContents

_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_HDF5_PLACES = (0, 512, 1024, 2048)  # behind a user block, as MATLAB writes it
_TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
READABLE = "MATLAB v5 and v7.3, ENVI, GeoTIFF, .npy and .npz"


def open_file(path: Path, *, byte_order: str | None = None) -> FileContents:
    """Returns what a file holds, whatever its format; no array is read yet.

    Args:
        path: the file; of an ENVI image, either the header or the data.
        byte_order: `little` or `big`, for an ENVI header that leaves it out.

    Raises:
        SceneError: the format is none that can be read, or the file is damaged.
    """
    with path.open("rb") as stream:
        head = stream.read(_HDF5_PLACES[-1] + len(_HDF5_SIGNATURE))
    if any(head[place : place + 8] == _HDF5_SIGNATURE for place in _HDF5_PLACES):
        from hsi_se.scene.formats.hdf5 import open_hdf5

        return open_hdf5(path)
    if head[126:128] in (b"IM", b"MI"):
        from hsi_se.scene.formats.matlab import open_matlab

        return open_matlab(path)
    if head.startswith(_TIFF_SIGNATURES):
        from hsi_se.scene.formats.geotiff import open_geotiff

        return open_geotiff(path)
    if head.startswith((b"\x93NUMPY", b"PK\x03\x04")):
        from hsi_se.scene.formats.numpy_files import open_numpy

        return open_numpy(path)
    from hsi_se.scene.formats.envi import find_header, open_envi

    header = path if head.lstrip(b"\xef\xbb\xbf").startswith(b"ENVI") else find_header(path)
    if header is not None:
        return open_envi(header, path if header != path else None, byte_order=byte_order)
    raise SceneError(
        f"{path}: no file of a format that can be read ({READABLE}; an ENVI image needs its .hdr beside it); "
        "give another file"
    )
