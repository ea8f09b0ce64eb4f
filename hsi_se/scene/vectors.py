"""Puts shapes of vector files, points and pixels in tables, and ENVI regions onto the grid of a cube `(rows, cols)`."""

import csv
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_se.config.nearest import did_you_mean
from hsi_se.errors import SceneError
from hsi_se.scene.encodings import LabelMap, Wanted, number_classes
from hsi_se.scene.guards import blaming, import_extra, refuse
from hsi_se.scene.raster import Floats
from hsi_se.system.files import fill_template, read_facts

_SNIFFED = 4096  # letters
_NUMBER = re.compile(r"[+-]?(\d+(?:\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_LONGEST_TABLE = 2**24  # bytes; in memory, a table takes about a hundred times as much
_REGIONS = re.compile(r";.*\bROIs?\b")
_FACTS = "hsi_se.scene", "labels.toml"
OF_LAYER = "|layername="  # before the name of a layer, as QGIS writes it

Coded = tuple[Floats, Mapping[int, str]]  # (n,) numbers of classes, and their names if they were names


def find_vector(path: Path) -> Path | None:
    """Returns the file that GDAL opens for a vector file, or for a part of a shapefile; None for any other file."""
    facts, ending = read_facts(*_FACTS)["vectors"], path.suffix.casefold()
    if ending in facts["parts"]:
        return next((path.with_suffix(shp) for shp in (".shp", ".SHP") if path.with_suffix(shp).is_file()), None)
    with path.open("rb") as stream:
        head = stream.read(_SNIFFED).removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n")
    if head.startswith(b"PK") and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = [name.casefold() for name in archive.namelist()]
        return path if any(name.endswith((".shp", ".gpkg", *facts["texts"])) for name in names) else None
    is_binary = head.startswith(tuple(start.encode("latin-1") for start in facts["starts"]))
    is_text = head.startswith((b"{", b"<")) and (ending in facts["texts"] or b'"Feature' in head)
    return path if is_binary or is_text else None


def is_table(path: Path) -> bool:
    """Returns whether a text file begins with a heading that names positions, three fields, or ENVI's regions."""
    with path.open(encoding="utf-8-sig", errors="replace") as stream:
        first_line = stream.readline(_SNIFFED)
    fields, is_split = _split(first_line), any(sign in first_line for sign in ";\t|,0123456789")
    is_of_labels = (
        (len(fields) == 3 and is_split) or (len(fields) > 2 and _find_position(fields)) or _REGIONS.match(first_line)
    )
    return not {"\0", "\ufffd"} & {*first_line} and first_line[:1] not in ("{", "<") and bool(is_of_labels)


def _split(line: str) -> list[str]:
    delimiter = next((sign for sign in ";\t|," if sign in line), None)
    line = line.strip(" #\r\n")
    fields = line.split() if delimiter is None else next(csv.reader([line], delimiter=delimiter), [])
    return [field.strip() for field in fields]


def _find_position(heading: Sequence[str]) -> tuple[str, str, str] | None:
    """Returns which position a heading names, `row`, `lon` or `x`, and its two columns."""
    words = read_facts(*_FACTS)["positions"]
    for kinds in (("row", "col"), ("lon", "lat"), ("x", "y")):
        found = [next((name for name in heading if name.casefold() in words[kind]), "") for kind in kinds]
        if all(found):
            return kinds[0], found[0], found[1]
    return None


def read_shapes(path: Path, wanted: Wanted, *, attribute: str | None) -> LabelMap:
    """Returns the classes of the shapes in a vector file, by an attribute; they are all 1 in a mask.

    SceneError if there are several layers or attributes and none is chosen, or no shape lies on the cube.
    """
    geopandas, pyogrio = (import_extra(name, path=path) for name in ("geopandas", "pyogrio"))
    layers = [str(name) for name, kind in pyogrio.list_layers(path) if kind]
    layer = wanted.options.layer or (layers[0] if len(layers) == 1 else None)
    if layer not in layers:
        reason = "layers" if layer is None else "no_layer"
        choices = " or ".join(f'"{path}{OF_LAYER}{each}"' for each in layers)
        reason, names = ("outlines", choices) if wanted.is_outline else (reason, ", ".join(layers))
        raise refuse(path, reason, name=layer, count=len(layers), names=names)
    frame = geopandas.read_file(path, layer=layer)
    columns = {name: frame[name].astype(object).tolist() for name in frame.columns if name != frame.geometry.name}
    shapes = frame.geometry
    if wanted.is_outline:
        shapes = shapes[shapes.geom_type.isin(("Polygon", "MultiPolygon"))]
        if not len(shapes):
            raise refuse(path, "no_polygons")
    if wanted.is_mask:
        return _burn(path, wanted, shapes, (np.ones(len(shapes)), {}))
    field, notes = _pick_field(path, wanted, columns, style=attribute)
    return _burn(path, wanted, shapes, number_classes(path, columns[field], wanted.unlabelled), notes)


def _pick_field(
    path: Path, wanted: Wanted, columns: Mapping[str, Sequence[object]], *, style: str | None = None
) -> tuple[str, tuple[str, ...]]:
    """Returns the column that is named, or shown by the `style`, or the only one that can be the class, and a note."""
    values = {
        name: [str(each) for each in column if each is not None and each == each] for name, column in columns.items()
    }
    choices = ", ".join(f"{name} ({len({*column})} values)" for name, column in values.items())
    field = wanted.options.field or (style if style in values else None)
    if field is not None and field not in values:
        raise refuse(
            path, "no_field", setting=wanted.setting, name=field, hint=did_you_mean(field, tuple(values)), names=choices
        )
    texts = [name for name, column in values.items() if not all(map(_NUMBER.fullmatch, column))]
    known = [name for name in values if name.casefold() in read_facts(*_FACTS)["classes"]]
    repeated = [name for name in texts if not known and len({*values[name]}) < len(values[name])]
    ways = ([field] if field else [], [*values], [name for name in known if name in texts], known, repeated)
    chosen = next((names[0] for names in ways if len(names) == 1), None)
    if chosen is None:
        raise refuse(path, "fields" if values else "no_fields", setting=wanted.setting, names=choices)
    note = f"{path.name}: the classes are those of the attribute {chosen}"
    return chosen, (note,) if field is None and len(values) > 1 else ()


def _burn(path: Path, wanted: Wanted, shapes: Any, coded: Coded, notes: tuple[str, ...] = ()) -> LabelMap:
    """Returns the classes of shapes, a GeoSeries, at the pixels whose centre they contain; points at their own pixel.

    Pixels of several classes are unlabelled. They are counted in a note, and so are shapes that are not used.
    """
    import shapely
    from affine import Affine
    from rasterio.features import rasterize

    (values, names), shape, place, crs = coded, wanted.shape, wanted.place, wanted.options.crs
    if shape is None or place is None or place.transform is None:
        raise refuse(path, "no_size" if shape is None else "no_place")
    if crs is not None:
        with blaming(path, f"scene.labels.crs = {crs!r}: is unknown", remedy="write a code such as EPSG:32633"):
            shapes = shapes.set_crs(crs, allow_override=True)
    if shapes.crs is None or not place.crs:
        which = "file" if shapes.crs is None else "cube"
        notes += (f"{path.name}: the {which} names no coordinate system; it is taken to have that of the other",)
    else:
        shapes = shapes.to_crs(place.crs)
    to_ground = Affine(*place.transform)
    a, b, c, d, e, f = (~to_ground)[:6]
    pieces = shapes.affine_transform([a, b, d, e, c, f]).to_numpy()  # (n,), in columns and rows
    is_drawn = ~(shapely.is_missing(pieces) | shapely.is_empty(pieces))
    is_inside = is_drawn & shapely.intersects(pieces, shapely.box(0, 0, shape[1], shape[0]))
    is_used, is_area = is_inside & ~np.isnan(values), shapely.get_dimensions(pieces) == 2
    if not is_used.any() and not wanted.is_part:
        corners = shapely.MultiPoint([to_ground @ (col, row) for row in (0, shape[0]) for col in (0, shape[1])])
        spans = {"shapes": shapes[np.isfinite(shapes.bounds).all(axis=1)].total_bounds, "cube": corners.bounds}
        raise SceneError(f"{path}: {fill_template('hsi_se.scene', 'off_cube.txt', **spans)}")

    def draw(which: NDArray[np.intp]) -> NDArray[np.int32]:
        """Returns the number of the last of some shapes at each pixel, from 1; 0 elsewhere."""
        drawn = list(zip(pieces[which], (which + 1).tolist(), strict=True))
        empty = np.zeros(shape, dtype=np.int32)
        return np.asarray(rasterize(drawn, out=empty, all_touched=wanted.options.all_touched)) if drawn else empty

    order = np.argsort(np.where(is_used, values, np.nan))[: is_used.sum()]  # by class
    lowest, highest = (np.append(np.nan, values)[draw(each)] for each in (order[::-1], order))
    is_mixed, polygons = lowest < highest, draw(np.flatnonzero(is_used & is_area))
    is_lost = is_used & is_area & ~np.isin(np.arange(len(pieces)) + 1, polygons) & (not wanted.is_outline)
    labels, polygons = np.where(is_mixed, np.nan, lowest), np.where(is_mixed, 0, polygons)
    reasons = {
        "shapes without geometry or class are left out": ~is_drawn | np.isnan(values),
        "shapes lie outside the cube": is_drawn & ~is_inside,
        "polygons have no pixel of their own; scene.labels.all_touched: true takes all that they touch": is_lost,
        "pixels are in shapes of several classes and are left unlabelled": is_mixed,
    }
    notes += tuple(f"{path.name}: {int(each.sum()):,} {reason}" for reason, each in reasons.items() if each.any())
    numbered = polygons if polygons.any() else None
    return LabelMap(labels=labels, class_names=names, polygons=numbered, notes=notes, is_named=bool(names))


def read_table(path: Path, wanted: Wanted) -> LabelMap:
    """Returns the labels in a table of pixels (row and col from 0), points (x and y, or lon and lat) or ENVI regions.

    Without a heading, the columns are row, col and label. Pixels that are not in the table are unlabelled.
    """
    if wanted.shape is None:
        raise refuse(path, "no_size")
    if (size := path.stat().st_size) > _LONGEST_TABLE:
        raise refuse(path, "long_table", size=size, most=_LONGEST_TABLE)
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
        lines = {number: line.strip(" #\r\n") for number, line in enumerate(stream, start=1) if line.strip(" ,;\t\r\n")}
    first_line = next(iter(lines.values()))
    if _REGIONS.match(first_line):
        return _read_regions(path, wanted, list(lines.values()))
    heading, kind, x, y = ["row", "col", "label"], "row", "row", "col"
    if not any(map(_NUMBER.fullmatch, _split(first_line))):
        heading = _split(lines.pop(min(lines)))
        if (found := _find_position(heading)) is None:
            raise refuse(path, "heading", names=", ".join(heading))
        kind, x, y = found
    table, pattern = {}, re.compile(r"[+-]?\d{1,9}") if kind == "row" else _NUMBER
    for number, line in lines.items():
        fields = table[number] = dict(zip(heading, _split(line), strict=False))
        if "," not in first_line:  # it may be a decimal sign
            fields |= {name: fields[name].replace(",", ".") for name in {x, y} & {*fields}}
        if len(fields) < len(heading) or not (pattern.fullmatch(fields[x]) and pattern.fullmatch(fields[y])):
            remedy = "give whole numbers, or a heading that names x and y" if kind == "row" else "give numbers"
            raise SceneError(f"{path}:{number}: {line[:60]!r} is not {','.join(heading)}; {remedy}")
    columns = {name: [fields[name] for fields in table.values()] for name in heading if name not in (x, y)}
    field, notes = _pick_field(path, wanted, columns)
    coded = number_classes(path, columns[field], wanted.unlabelled)
    at = np.array([[float(fields[name]) for name in (x, y)] for fields in table.values()]).reshape(-1, 2)
    if kind == "row":
        return _fill(path, wanted, at.astype(np.int64), coded, notes, lines=list(table))
    points = import_extra("geopandas", path=path).GeoSeries.from_xy(*at.T, crs="EPSG:4326" if kind == "lon" else None)
    return _burn(path, wanted, points, coded, notes)


def _fill(
    path: Path, wanted: Wanted, pixels: NDArray[np.int64], coded: Coded, notes: tuple[str, ...] = (),
    *, lines: Sequence[int] = (),
) -> LabelMap:  # fmt: skip
    """Returns the classes of pixels `(n, 2)`; a second class of one is an error if the `lines` of a table are given."""
    (values, names), (rows, cols) = coded, wanted.shape or (0, 0)
    labels, is_doubtful = np.full((rows, cols), np.nan), np.zeros((rows, cols), dtype=bool)
    for place, (row, col) in enumerate(pixels.tolist()):
        where = f"{path}:{lines[place]}" if lines else str(path)
        if not (0 <= row < rows and 0 <= col < cols):
            raise refuse(where, "outside", row=row, col=col, rows=rows, cols=cols)
        is_doubtful[row, col] |= not np.isnan(labels[row, col]) and labels[row, col] != values[place]
        if lines and is_doubtful[row, col]:
            label = names.get(int(values[place]), f"{values[place]:g}")
            raise SceneError(f"{where}: label {label} for row {row}, col {col} is its second; give one per pixel")
        labels[row, col] = values[place]
    labels[is_doubtful] = np.nan
    if is_doubtful.any():
        notes += (f"{path.name}: {int(is_doubtful.sum()):,} pixels are of several classes and are left unlabelled",)
    return LabelMap(labels=labels, class_names=names, notes=notes, is_named=bool(names))


def _read_regions(path: Path, wanted: Wanted, lines: Sequence[str]) -> LabelMap:
    """Returns the regions of interest that ENVI exports as text: names and numbers of pixels, then x and y from 1."""
    told = {
        key: [line.partition(":")[2].strip() for line in lines if re.match(rf";\s*{key}", line)]
        for key in ("ROI name", "ROI npts", "File Dimension")
    }
    size = [int(part) for part in re.findall(r"\d+", "".join(told["File Dimension"]))]
    if size and wanted.shape and (rows_cols := wanted.shape) != (*size[::-1],):
        raise refuse(path, "regions", lines=size[1], samples=size[0], rows=rows_cols[0], cols=rows_cols[1])
    headings = [line.strip("; ").split() for line in lines if re.match(r";\s*(ID\s+)?X\s+Y", line)]
    x = headings[0].index("X") if headings else 1
    rows = [line.split() for line in lines if not line.startswith(";")]
    sizes = [int(number) for number in told["ROI npts"]]
    if sum(sizes) != len(rows):
        raise ValueError(f"{sum(sizes)} pixels are declared, {len(rows)} listed")
    names = np.repeat(told["ROI name"], sizes).tolist()
    pixels = np.array([[float(row[x + 1]), float(row[x])] for row in rows]).astype(np.int64) - 1
    return _fill(path, wanted, pixels, number_classes(path, names, wanted.unlabelled))
