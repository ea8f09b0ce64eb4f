"""Says what a file is that cannot be read, or why two files do not fit each other, and what to do instead."""

import itertools
import re
from pathlib import Path

from hsi_se.scene.raster import FileContents

TO_RESHAPE = "a cube of bands × pixels must be reshaped to rows × cols × bands"
TO_NUMBERS = (
    "if its colours or bands are classes, save "
    "np.unique(a.reshape(-1, a.shape[2]), axis=0, return_inverse=True)[1].reshape(a.shape[:2])"
)
_RASTERISE = (
    "rasterise its shapes on the cube's grid, one number per class: in QGIS, or from GeoJSON with "
    "`rio rasterize {stem}.geojson labels.tif --like CUBE.tif --property NUMBER`"
)
_PACKED = {
    b"\x1f\x8b": "is compressed with gzip; unpack it: gunzip -k {file}",
    b"BZh": "is compressed with bzip2; unpack it: bunzip2 -k {file}",
    b"\xfd7zXZ": "is compressed with xz; unpack it: unxz -k {file}",
    b"\x28\xb5\x2f\xfd": "is compressed with Zstandard; unpack it: zstd -d {file}",
    b"7z\xbc\xaf": "is a 7-Zip archive; unpack it: 7z x {file}",
    b"Rar!": "is a RAR archive; unpack it: unrar x {file}",
}
PACKED = tuple(_PACKED)
_IMAGES = {
    b"\x89PNG": "a PNG picture", b"\xff\xd8\xff": "a JPEG picture", b"GIF8": "a GIF picture",
    b"BM": "a BMP picture", b"\0\0\0\x0cjP": "a JPEG 2000 image", b"EHFA": "an ERDAS Imagine image",
    b"PCIDSK": "a PCIDSK image",
}  # fmt: skip
_STARTS = {  # the first bytes of files that are not read
    **_PACKED,
    **{start: f"is {name}; convert it: rio convert {{file}} {{stem}}.tif" for start, name in _IMAGES.items()},
    b"PK": "is a zip archive or an Excel workbook; unpack it (unzip {file}), or save its table as CSV",
    b"\0\0\x27\x0a": f"is a shapefile; {_RASTERISE}",
    b"SQLite format 3": f"is a GeoPackage or another database; {_RASTERISE}",
    b"{": f"is GeoJSON or other JSON; {_RASTERISE}",
    b"\x0e\x03\x13\x01": "is HDF4; convert it to GeoTIFF with gdal_translate",
    b"CDF": "is netCDF 3; convert it: nccopy -k nc4 {file} NEW.nc",
    b"\x80": "is a Python pickle, which could run code; save its arrays with np.savez",
    b"<": "is XML, such as a product's metadata; name the image itself",
}
_ENDINGS = {
    **dict.fromkeys((".dbf", ".prj", ".cpg"), f"is a part of a shapefile; {_RASTERISE}"),
    **dict.fromkeys((".yaml", ".yml"), "is a config; name the files of its scene"),
    ".hdr": "is not an ENVI header, whose first line is ENVI; correct it",
}
_READABLE = (
    "unknown file format (readable are MATLAB v5 and v7.3, HDF5, netCDF 4, ENVI, GeoTIFF, .npy, .npz, and "
    "CSV tables of row, col, label; an ENVI image needs its .hdr in the same folder); give another file"
)


def describe_unread(path: Path, head: bytes) -> str:
    """Returns what a file is that cannot be read, by its first bytes or its ending, and what to do."""
    found = next((text for start, text in _STARTS.items() if head.startswith(start)), None)
    if head[257:262] == b"ustar":
        found = "is a tar archive; unpack it: tar -xf {file}"
    found = found or _ENDINGS.get(path.suffix.casefold(), _READABLE)
    return f"{path}: {found.format(file=path, stem=path.with_suffix(''))}"


def suggest_array(contents: FileContents, *, is_map: bool) -> str:
    """Returns what to do with a file that has no cube, or no label map if `is_map`."""
    listing = contents.listing
    if contents.rasters:
        this = "a cube in place of a label map" if is_map else "a label map in place of a cube"
        return f"this may be {this}; {TO_NUMBERS if is_map else TO_RESHAPE}"
    if re.search(r"<U\d|\|S\d|\bchar\b", listing):
        return "number the names, 0 for unlabelled: np.unique(a, return_inverse=True)[1].reshape(a.shape)"
    if re.search(r"\b(group|struct)\b", listing):
        prisma, name = re.search(r"PRS_(L\w+?)_", listing), "a struct or group"
        name = f"a PRISMA {prisma[1]} product" if prisma else name
        name = "a Planet Tanager product" if "SWATHS/HYP/" in listing else name
        return f"{name} is not read yet; save its cube, rows × cols × bands, as an array of its own (np.save)"
    return "give another file"


def explain_sizes(cube: tuple[int, ...], labels: tuple[int, ...]) -> str:
    """Returns what to do about a cube `(rows, cols, bands)` and labels `(rows, cols)` of different sizes."""
    if sorted(labels) == [1, cube[0] * cube[1]]:
        size = f"{cube[0]}, {cube[1]}"
        return f"reshape the labels: labels.reshape({size}), from MATLAB labels.reshape({size}, order='F')"
    orders = [axes for axes in itertools.permutations(range(3)) if (cube[axes[0]], cube[axes[1]]) == labels]
    ways = [*(f"np.transpose(cube, {axes})" for axes in orders), *["labels.T"][: (1, 0, 2) in orders]]
    if ways:
        return f"another order of the axes fits; save {' or '.join(ways)}, whichever is rows × cols × bands"
    return "give two files of the same scene"
