"""Opens what is delivered in several files: TIFF with metadata in XML, and folders of products or of bands."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from hsi_se.errors import SceneError
from hsi_se.scene.guards import blaming, read_xml, refuse
from hsi_se.scene.raster import FileContents, Raster, describe_array, join_bands
from hsi_se.scene.wavelengths import to_nanometres, to_widths
from hsi_se.system.files import read_facts

_METADATA, _IMAGE = "METADATA", "SPECTRAL_IMAGE"
_IMAGE_ENDINGS = (".tif", ".tiff", ".bsq", ".bil", ".bip")
_SUFFIXES = (".tif", ".tiff", ".vrt", ".h5", ".he5", ".hdf5", ".nc", ".mat", ".npy", ".npz", ".hdr")
_MAX_XML = 2**26  # bytes
_NUMBER = re.compile(r"(\d+(?:\.\d+)?)")
_LISTED = 5

Opener = Callable[[Path], FileContents]


def find_image(path: Path) -> Path | None:
    """Returns the image that a product's XML describes, or None."""
    return _find_partner(path, _METADATA, _IMAGE, _IMAGE_ENDINGS)


def _find_partner(path: Path, own: str, other: str, endings: Sequence[str]) -> Path | None:
    start, found, _ = path.name.upper().partition(own)
    if not found:
        return None
    partners = (each for each in sorted(path.parent.iterdir()) if each.suffix.lower() in endings)
    return next((each for each in partners if each.name.upper().startswith(start + other)), None)


def add_metadata(contents: FileContents, image: Path) -> FileContents:
    """Returns the contents of an image with what the XML beside it says of the bands, if it is part of a product.

    EnMAP describes each band in a `bandID`, DESIS in a `band`; the names of their elements are in `products.toml`.
    """
    path = _find_partner(image, _IMAGE, _METADATA, (".xml",))
    if path is None:
        return contents
    with blaming(path, "not readable metadata", remedy="get the file again, or move it away"):
        root, names = read_xml(path, longest=_MAX_XML), read_facts("hsi_se.scene", "products.toml")["xml"]
        raster = contents.rasters[""]
        bands = raster.shape[2]
        described = [band for parent in root.iterfind(names["bands"]) for band in parent]

        def read(kind: str) -> list[float]:
            texts = [
                next(filter(None, (band.findtext(f"{{*}}{name}") for name in names[kind])), "") for band in described
            ]
            return [float(text) for text in texts] if all(texts) and len(texts) == bands else []

        if len(described) != bands:
            note = f"{path.name} describes {len(described)} bands, but {raster.path.name} has {bands}; it is not used"
            return replace(contents, rasters={"": replace(raster, notes=(*raster.notes, note))})
        listed = read("wavelengths")
        nm, notes = to_nanometres(listed, unit="nm", bands=bands)
        fwhm = to_widths(read("fwhm"), wavelengths=listed, nanometres=nm)
        gain, offset = np.array(read("gain")), np.array(read("offset"))
        if raster.gain is None and len(gain) and ((gain != 1).any() or offset.any()) and gain.all():
            raster = replace(raster, gain=gain, offset=offset if offset.any() else None)
        nodata, expected = root.findtext(names["nodata"]), [root.findtext(name) or "" for name in names["expected"]]
        usable = {int(number) - 1 for number in re.findall(r"\d+", " ".join(expected))}
        bad = set(range(bands)) - usable if all(expected) and usable < set(range(bands)) else set()
        raster = replace(
            raster,
            wavelengths_nm=raster.wavelengths_nm if nm is None else nm,
            fwhm_nm=raster.fwhm_nm if nm is None else fwhm,
            nodata=float(nodata) if raster.nodata is None and nodata else raster.nodata,
            bad_bands={**raster.bad_bands, **dict.fromkeys(sorted(bad), f"not among the usable bands in {path.name}")},
            notes=(*raster.notes, *notes),
        )
    return replace(contents, format=f"{contents.format} with {path.name}", rasters={"": raster})


def open_folder(folder: Path, open_file: Opener) -> FileContents:
    """Returns the cube in a folder: of the only product or cube in it, or of TIFF files with a band each.

    SceneError if there are several cubes, or none.
    """
    files = [path for path in sorted(folder.iterdir()) if path.is_file()]
    described = [path for path in files if path.suffix.lower() == ".xml" and find_image(path)]
    if len(described) == 1:
        return open_file(described[0])
    found: dict[Path, FileContents] = {}
    bands: dict[Path, Raster] = {}
    for path in files:
        if path.suffix.lower() not in _SUFFIXES:
            continue
        contents = open_file(path)
        if not all(raster.is_map for raster in contents.rasters.values()):
            found[path] = contents
        elif path.suffix.lower() in (".tif", ".tiff"):
            bands[path] = contents.rasters[""]
    products = {path: contents for path, contents in found.items() if contents.main is not None}
    chosen = list((products if len(products) == 1 else found).items())
    if len(chosen) == 1:
        return chosen[0][1]
    if chosen:
        names = ", ".join(path.name for path, _ in chosen[:_LISTED])
        raise SceneError(f"{folder}: contains {len(chosen)} cubes ({names}{', …' * (len(chosen) > _LISTED)}); name one")
    if len(bands) < 2:
        raise SceneError(f"{folder}: contains no cube and no TIFF files with a band each; name the cube's file")
    return _stack(folder, bands)


def _stack(folder: Path, bands: dict[Path, Raster]) -> FileContents:
    """Returns the cube of TIFF files with a band each, in the order of the number in which their names differ."""
    parts = [_NUMBER.split(path.stem) for path in bands]
    columns = [*zip(*parts, strict=False)]
    varying = [place for place, column in enumerate(columns) if len({*column}) > 1]
    is_numbered = len({len(part) for part in parts}) == 1 and len(varying) == 1 and varying[0] % 2 == 1
    numbers = [float(part[varying[0]]) for part in parts] if is_numbered else []
    if len({*numbers}) < len(bands):
        names = ", ".join(path.name for path in [*bands][:_LISTED])
        raise refuse(folder, "unnumbered", names=names)
    ordered = [bands[path] for _, path in sorted(zip(numbers, bands, strict=True))]
    raster, shown = join_bands(ordered, is_sorted=False), [band.path.name for band in ordered]
    stems = [re.sub(r"[_-]", " ", name) for name in shown]
    nm, notes = to_nanometres((), unit=None, bands=len(stems), names=stems)
    shown = shown if len(shown) <= _LISTED else [*shown[:2], "…", shown[-1]]
    raster = replace(
        raster,
        path=folder,
        wavelengths_nm=nm if raster.wavelengths_nm is None else raster.wavelengths_nm,
        palette={},
        notes=(*raster.notes, *notes, f"{folder.name}: bands in the order of their numbers: {', '.join(shown)}"),
    )
    return FileContents("folder of GeoTIFF bands", {"": raster}, describe_array("image", raster.shape, raster.dtype))
