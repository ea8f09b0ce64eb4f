"""Opens image files and folders; each format is recognised by content, not by file name."""

import functools
from pathlib import Path

from hsi_se.errors import SceneError
from hsi_se.scene.formats.arrays import open_matlab, open_numpy
from hsi_se.scene.formats.geotiff import open_geotiff
from hsi_se.scene.formats.hdf5 import open_hdf5
from hsi_se.scene.formats.products import add_metadata, find_image, open_folder
from hsi_se.scene.guards import describe_unread, is_packed
from hsi_se.scene.raster import FileContents

_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_HDF5_OFFSETS = (0, 512, 1024, 2048)  # MATLAB writes a user block first
_MARK = b"\xef\xbb\xbf"  # which some editors write before UTF-8
_MAX_HEADER = 2**24  # bytes of an ENVI header
_TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
PICTURES = {"PNG": b"\x89PNG", "GIF": b"GIF8", "BMP": b"BM"}  # without loss, by GDAL's name


def open_file(path: Path, *, byte_order: str | None = None) -> FileContents:
    """Returns the contents of a file of any supported format, or of the cube in a folder; arrays are not read yet.

    A product may be named by its image, its metadata or its folder.

    Of an ENVI image, `path` is the header or the data, and `byte_order` is `little` or `big` if the header does not
    state it. SceneError if the format is not supported, the library that reads it is missing, or the file is damaged
    or declares an impossible size.
    """
    if path.is_dir():
        return open_folder(path, functools.partial(open_file, byte_order=byte_order))
    with path.open("rb") as stream:
        head = stream.read(_HDF5_OFFSETS[-1] + len(_HDF5_SIGNATURE))
    if any(head.startswith(_HDF5_SIGNATURE, offset) for offset in _HDF5_OFFSETS):
        return open_hdf5(path)
    if head[126:128] in (b"IM", b"MI"):
        return open_matlab(path)
    text = head.removeprefix(_MARK).lstrip()
    if text.startswith(b"<"):
        image = find_image(path)
        if image is not None:
            return open_file(image, byte_order=byte_order)
        if b"<VRTDataset" in text:
            return open_geotiff(path, driver="VRT")
    if head.startswith(_TIFF_SIGNATURES):
        return add_metadata(open_geotiff(path), path)
    if (driver := next((name for name, start in PICTURES.items() if head.startswith(start)), None)) is not None:
        return open_geotiff(path, driver=driver)
    if head.startswith((b"\x93NUMPY", b"PK\x03\x04")):
        return open_numpy(path)
    header = path if head.lstrip(_MARK).startswith(b"ENVI") else _find_header(path)
    if header is not None and not is_packed(head):
        from hsi_se.scene.formats.envi import open_envi  # which loads Spectral Python

        return add_metadata(open_envi(header, path if header != path else None, byte_order=byte_order), path)
    raise SceneError(describe_unread(path, head))


def _find_header(path: Path) -> Path | None:
    """Returns the ENVI header beside a data file, `NAME.dat.hdr` or `NAME.hdr`, or None."""
    wanted = {f"{name}.hdr".casefold() for name in (path.name, path.stem)}
    others = (other for other in sorted(path.parent.iterdir()) if other != path)
    return next((other for other in others if other.name.casefold() in wanted), None)


def lacks_byte_order(path: Path) -> bool:
    """Returns whether a file is an ENVI image whose header does not state the byte order."""
    with (_find_header(path) or path).open("rb") as stream:
        text = stream.read(_MAX_HEADER).lower()
    return text.lstrip(_MARK).startswith(b"envi") and b"byte order" not in text
