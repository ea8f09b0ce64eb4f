"""The area that a map is limited to: polygons of a vector file, or the pixels of a raster that are not 0."""

import importlib.util
from pathlib import Path
from typing import Any

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

    `name` is a vector file or a raster with one band, on the same grid or anywhere else with a georeference (nearest
    neighbour); `FILE|layername=NAME` names one of several layers or arrays. HsiError if the file cannot be read or
    placed, has no polygons or several layers, or contains no pixel with data.
    """
    path, notes = Path(name.partition(_LAYER)[0]), list[str]()
    place = image.raster.georeference or Georeference(None, None)
    if not path.is_file():
        raise ConfigError(f"--mask {path}: no such file; check the path")
    with blaming(path, "cannot be placed on the scene", remedy="correct its georeference"):
        shapes = _read_polygons(name, path)
        if shapes is None:
            inside = _read_raster(name, image.shape[:2], place, notes)
        elif place.transform is None:
            problem = f"{image.raster.path} has no georeference, so that polygons cannot be placed on it"
            raise ConfigError(f"--mask {name}: {problem}; give a raster mask of the same size")
        else:
            from affine import Affine
            from rasterio.features import rasterize

            own, wanted = _pair(shapes.crs and shapes.crs.to_wkt(), place.crs, name, notes)
            shapes = shapes.set_crs(own, allow_override=True).to_crs(wanted)
            grid = Affine(*place.transform)
            inside = np.asarray(rasterize(shapes, out_shape=image.shape[:2], transform=grid, dtype="uint8") == 1)
    missing = (read_finite_rows(image, part.start, part.stop)[1] | ~inside[part] for part in chunk_rows(len(inside)))
    if not inside.any() or all(each.all() for each in missing):
        problem = f"no pixel of {image.raster.path} {'that has data ' if inside.any() else ''}is inside"
        raise ConfigError(f"--mask {name}: {problem}; give an area that overlaps the scene")
    outside = f"{(~inside).sum():,} of {inside.size:,} pixels are outside {name}"
    return inside, [*notes, f"{outside} and are nodata in the map"]


def _pair(own: str | None, wanted: str | None, name: str, notes: list[str]) -> list[str]:
    """Returns two coordinate systems as WKT; if one is unknown, the other is taken for both."""
    known = [parse_crs(crs or "") for crs in (own, wanted)]
    if None in known:
        notes.append(f"--mask {name}: one file names no coordinate system, so that of the other is taken for both")
        known = [known[0] or known[1] or parse_crs("EPSG:3857")] * 2  # any will do
    return [crs.to_wkt() for crs in known]


def _read_polygons(name: str, path: Path) -> Any:
    """Returns the polygons of a vector file as a GeoSeries; None if the file is of another kind."""
    if importlib.util.find_spec("pyogrio") is None:
        return None  # then the message about the file tells what it is
    import pyogrio

    try:
        layers, asked = [str(layer) for layer, _ in pyogrio.list_layers(path)], name.partition(_LAYER)[2]
    except pyogrio.errors.DataSourceError:
        return None
    if not layers:
        return None
    if asked not in layers and (asked or len(layers) > 1):
        choices = " or ".join(f'"{path}{_LAYER}{layer}"' for layer in layers)
        raise ConfigError(f"--mask {name}: has {len(layers)} layers; choose one with --mask {choices}")
    frame = import_extra("geopandas", path=path).read_file(path, layer=asked or layers[0])
    shapes = getattr(frame, "geometry", None)  # a table has none
    shapes = None if shapes is None else shapes[shapes.geom_type.isin(("Polygon", "MultiPolygon")) & ~shapes.is_empty]
    if shapes is None or not len(shapes):
        raise ConfigError(f"--mask {name}: contains no polygons; give a file with polygons or a raster mask")
    return shapes


def _read_raster(name: str, shape: tuple[int, int], place: Georeference, notes: list[str]) -> Mask:
    path, key = Path(name.partition(_LAYER)[0]), name.partition(_LAYER)[2] or None
    option = f'--mask "{path}{_LAYER}NAME"'
    raster = pick_raster(open_file(path), path, is_map=True, key=key, setting=option, shape=shape)
    notes += [f"{path.name}: {note}" for note in raster.notes]
    stored = raster.read_rows(0, raster.shape[0])[..., 0]
    inside = np.asarray((stored != 0) & ~np.isnan(stored.astype(np.float64)))
    if raster.nodata is not None:
        inside &= ~is_nodata(stored, raster.nodata)
    own = raster.georeference or Georeference(None, None)
    if inside.shape == shape and (own == place or None in (own.transform, place.transform)):
        return inside
    if own.transform is None or place.transform is None:
        size, other = (" × ".join(map(str, each)) for each in (inside.shape, shape))
        problem = f"has {size} pixels and the scene {other} (rows × cols), and not both have a georeference"
        raise ConfigError(f"--mask {path}: {problem}; give a mask of the same size, or polygons")
    import_extra("rasterio", path=path)
    from affine import Affine
    from rasterio.warp import Resampling, reproject

    grids = {"src_transform": Affine(*own.transform), "dst_transform": Affine(*place.transform)}
    systems = zip(("src_crs", "dst_crs"), _pair(own.crs, place.crs, str(path), notes), strict=True)
    found, how = np.zeros(shape, np.uint8), {"resampling": Resampling.nearest, "tolerance": 0}
    reproject(inside.astype(np.uint8), found, **grids, **dict(systems), **how)
    return np.asarray(found == 1)
