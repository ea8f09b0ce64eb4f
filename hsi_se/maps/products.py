"""What a map is handed over as besides its rasters: polygons of a vector file, and a STAC item."""

import datetime
import json
import re
import tempfile
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
from anyascii import anyascii

from hsi_se.maps.layers import NODATA_NAME, Classes, Layer
from hsi_se.reports.figures import to_hex
from hsi_se.scene.georeference import Georeference, parse_crs
from hsi_se.scene.scene import UNLABELLED
from hsi_se.system.files import fill_template
from hsi_se.version import __version__

ENDINGS = (".gpkg", ".geojson", ".shp")
# As in the names of EnMAP's (20220724T104526Z), EMIT's, DESIS's, PRISMA's (20200701102040) and AVIRIS's products.
_TIME = re.compile(r"(?<!\d)(20\d\d)(0\d|1[0-2])([0-2]\d|3[01])T?([01]\d|2[0-3])([0-5]\d)([0-5]\d)(?!\d)", re.I)


def write_polygons(geotiff: Path, path: Path, *, classes: Classes, place: Georeference) -> None:
    """Writes one polygon per connected area of a class (by edges), with its label, name and area in ha.

    The raster is read by rows, but all polygons are in memory until they are written. GeoJSON is in WGS 84, as RFC 7946
    requires. The areas are those on the map's own grid, and empty where its coordinate system is not metric.
    """
    import geopandas
    import rasterio.features
    from shapely.geometry import shape

    with rasterio.open(geotiff) as image:
        found = rasterio.features.shapes(rasterio.band(image, 1), transform=image.transform)
        labels, shapes = zip(*((int(label), shape(each)) for each, label in found if label != UNLABELLED), strict=True)
    columns = {"label": labels, "name": [classes.names[label] for label in labels], "area_ha": np.nan}
    frame = geopandas.GeoDataFrame(columns, geometry=list(shapes), crs=parse_crs(place.crs or "").to_wkt())
    a, b, _, d, e, _ = place.transform or (1, 0, 0, 0, 1, 0)
    if (pixel_m2 := place.pixel_area_m2) is not None:
        frame["area_ha"] = frame.area * (pixel_m2 / abs(a * e - b * d) / 10_000)
    frame = frame.to_crs("EPSG:4326") if path.suffix.casefold() == ".geojson" else frame
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".polygons-") as draft:
        frame.to_file(Path(draft) / path.name, layer=path.stem)
        for part in Path(draft).iterdir():  # a shapefile has several
            part.replace(path.parent / part.name)


def write_item(path: Path, *, title: str, scene: Path, layer: Layer, place: Georeference, classes: Classes) -> None:
    """Writes a STAC item (https://stacspec.org, version 1.1), which pystac has validated.

    Extensions: projection, classification and processing. Its assets are the files of `item.json` that lie beside
    `path`. Without a time of the `scene` it has that of the map.
    """
    from pystac.validation import validate_dict
    from rasterio.warp import transform_geom
    from shapely.geometry import Polygon, mapping
    from shapely.geometry import shape as to_shape
    from shapely.geometry.polygon import orient

    crs, (a, b, c, d, e, f) = parse_crs(place.crs or ""), place.transform or (1, 0, 0, 0, 1, 0)
    rows, cols, _ = layer.shape
    corners = ((0, 0), (0, rows), (cols, rows), (cols, 0))
    here = Polygon([(a * col + b * row + c, d * col + e * row + f) for col, row in corners])
    outline = orient(to_shape(transform_geom(crs, "EPSG:4326", mapping(here))))
    places = {"outline": mapping(outline), "bounds": outline.bounds, "extent": here.bounds, "shape": (rows, cols)}
    times = {"acquired": _find_time(scene), "now": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")}
    facts = {"title": title, "scene": scene.name, "transform": place.transform, "version": __version__}
    facts |= {"code": crs.to_epsg() and f"EPSG:{crs.to_epsg()}", "wkt2": crs.to_wkt(version="WKT2_2019")}
    names = {UNLABELLED: NODATA_NAME, **classes.names}
    colours = {label: to_hex(classes.palette.get(label, (0, 0, 0)))[1:].upper() for label in names}
    words = {"names": names, "colours": colours, "identify": _to_identifier}
    item = json.loads(fill_template("hsi_se.maps", "item.json", **places, **times, **facts, **words))
    item["assets"] = {key: each for key, each in item["assets"].items() if (path.parent / each["href"]).is_file()}
    validate_dict(item, extensions=[])  # whose schemas would have to be fetched
    path.write_text(f"{json.dumps(item, indent=2, ensure_ascii=False)}\n", encoding="utf-8")


def _to_identifier(text: str) -> str:
    return re.sub(r"[^0-9A-Za-z_-]+", "-", anyascii(text)).strip("-")


def _find_time(path: Path) -> str | None:
    """Returns when a scene was acquired, by ENVI's `acquisition time` as GDAL reads it or by the product's name."""
    import rasterio

    stated = ""
    with suppress(rasterio.errors.RasterioIOError), warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path) as image:
            stated = re.sub(r"[-:]", "", image.tags(ns="ENVI").get("acquisition_time", ""))
    found = _TIME.search(stated) or _TIME.search(path.name)
    return found and found.expand(r"\1-\2-\3T\4:\5:\6Z")
