"""The area that a map is limited to: polygons of a vector file, or the pixels of a raster that are not 0."""

import importlib.util
from pathlib import Path

import numpy as np

from hsi_se.errors import ConfigError
from hsi_se.prediction.target import read_finite_rows
from hsi_se.scene.formats import open_file
from hsi_se.scene.georeference import Georeference, parse_crs
from hsi_se.scene.guards import blaming, import_extra
from hsi_se.scene.labels import pick_raster
from hsi_se.scene.raster import Image, Mask, chunk_rows, is_nodata

_LAYER = "|layername="  # before the name of a layer, as QGIS writes it


def read_area(name: str, image: Image) -> tuple[Mask, list[str]]:
    """Returns the mask `(rows, cols)` of the pixels of an image whose centres lie inside an area, and notes.

    `name` is a vector file, of which `FILE|layername=NAME` names a layer, or a raster with one band, on the same grid
    or anywhere else with a georeference (nearest neighbour). HsiError if the file cannot be read or placed, has no
    polygons or several layers, or contains no pixel with data.
    """
    path = Path(name.partition(_LAYER)[0])
    if not path.is_file():
        raise ConfigError(f"--mask {path}: no such file; check the path")
    place, notes = image.raster.georeference or Georeference(None, None), list[str]()
    with blaming(path, "cannot be placed on the scene", remedy="correct its georeference"):
        inside = _burn(name, path, image, place, notes)
        inside = _align(path, image, place, notes) if inside is None else inside
    missing = (read_finite_rows(image, part.start, part.stop)[1] | ~inside[part] for part in chunk_rows(len(inside)))
    if not inside.any() or all(each.all() for each in missing):
        problem = f"no pixel of {image.raster.path} {'that has data ' if inside.any() else ''}is inside"
        raise ConfigError(f"--mask {name}: {problem}; give an area that overlaps the scene")
    return inside, [
        *notes,
        f"{(~inside).sum():,} of {inside.size:,} pixels are outside {name} and are nodata in the map",
    ]


def _burn(name: str, path: Path, image: Image, place: Georeference, notes: list[str]) -> Mask | None:
    """Returns the mask of a vector file; None if the file is of another kind."""
    if importlib.util.find_spec("pyogrio") is None:
        return None  # then the message about the file tells what it is
    import pyogrio

    try:
        layers, asked = [str(layer) for layer, _ in pyogrio.list_layers(path)], name.partition(_LAYER)[2]
    except pyogrio.errors.DataSourceError:
        layers = []
    if not layers:
        return None
    if asked not in layers and (asked or len(layers) > 1):
        choices = " or ".join(f'"{path}{_LAYER}{layer}"' for layer in layers)
        raise ConfigError(f"--mask {name}: has {len(layers)} layers; choose one with --mask {choices}")
    shapes = getattr(import_extra("geopandas", path=path).read_file(path, layer=asked or layers[0]), "geometry", None)
    shapes = None if shapes is None else shapes[shapes.geom_type.isin(("Polygon", "MultiPolygon")) & ~shapes.is_empty]
    if shapes is None or not len(shapes):
        raise ConfigError(f"--mask {name}: contains no polygons; give a file with polygons or a raster mask")
    if place.transform is None:
        problem = f"{image.raster.path} has no georeference, so that polygons cannot be placed on it"
        raise ConfigError(f"--mask {name}: {problem}; give a raster mask of the same size")
    known = parse_crs(place.crs or "")
    if known and shapes.crs:
        shapes = shapes.to_crs(known.to_wkt())
    else:
        which = "scene" if shapes.crs else "mask"
        notes.append(f"--mask {name}: the {which} names no coordinate system, so that of the other is taken for both")
    from affine import Affine
    from rasterio.features import rasterize

    found = rasterize(shapes, out_shape=image.shape[:2], transform=Affine(*place.transform), dtype="uint8")
    return np.asarray(found == 1)


def _align(path: Path, image: Image, place: Georeference, notes: list[str]) -> Mask:
    raster, shape = (
        pick_raster(open_file(path), path, is_map=True, key=None, setting="--mask", shape=image.shape[:2]),
        image.shape[:2],
    )
    notes += [f"{path.name}: {note}" for note in raster.notes]
    stored = raster.read_rows(0, raster.shape[0])[..., 0]
    inside = np.asarray((stored != 0) & ~np.isnan(stored.astype(np.float64)))
    if raster.nodata is not None:
        inside &= ~is_nodata(stored, raster.nodata)
    own = raster.georeference or Georeference(None, None)
    if own.transform is None or place.transform is None or (own == place and inside.shape == shape):
        if inside.shape != shape:
            size, other = (" × ".join(map(str, each)) for each in (inside.shape, shape))
            problem = f"has {size} pixels and the scene {other} (rows × cols), and not both have a georeference"
            raise ConfigError(f"--mask {path}: {problem}; give a mask of the same size, or polygons")
        return inside
    import_extra("rasterio", path=path)
    from affine import Affine
    from rasterio.warp import Resampling, reproject

    crs = [parse_crs(each.crs or "") for each in (own, place)]
    if None in crs:
        notes.append(f"--mask {path}: not both name a coordinate system, so the same is taken for both")
        crs = [crs[0] or crs[1] or parse_crs("EPSG:3857")] * 2  # any will do
    grids = {"src_transform": Affine(*own.transform), "dst_transform": Affine(*place.transform)}
    found, how = np.zeros(shape, np.uint8), {"resampling": Resampling.nearest, "tolerance": 0}
    reproject(inside.astype(np.uint8), found, **grids, src_crs=crs[0], dst_crs=crs[1], **how)
    return np.asarray(found == 1)
