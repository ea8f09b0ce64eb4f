"""Reads label maps (rows, cols) from files that say which class a pixel has: rasters, pictures, shapes and tables."""

import re
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_se.config.scene import LabelFile
from hsi_se.errors import SceneError
from hsi_se.scene.encodings import WHOLE, LabelMap, Wanted, decode, read_lists, unite_masks
from hsi_se.scene.formats import PICTURES, open_file
from hsi_se.scene.guards import blaming, refuse, tell
from hsi_se.scene.raster import HIGHEST_LABEL, UNLABELLED, FileContents, Mask, Raster, is_nodata
from hsi_se.scene.styles import Style, read_style
from hsi_se.scene.vectors import find_vector, is_table, read_shapes, read_table
from hsi_se.system.files import read_facts

Labels = NDArray[np.int32]


def name_kind(path: Path) -> str | None:
    """Returns what a file of labels is, unless it is a raster."""
    if path.is_dir():
        return None
    return "shapes with classes" if find_vector(path) else "a table of labels" if is_table(path) else None


def may_be_labels(path: Path) -> bool:
    """Returns whether a file with a cube can also be read as labels."""
    with suppress(SceneError):
        return bool(read_label_map(path, setting="scene.labels_key").labels.any())
    return False


def read_label_map(
    path: Path, wanted: Wanted | None = None, *, setting: str, key: str | None = None, byte_order: str | None = None
) -> LabelMap:
    """Returns the label map named `key`, or the only one, in a file, on the grid of a cube if both have a place.

    If another value than 0 marks unlabelled pixels and 0 is a class, every label is raised by one.

    Args:
        path: a raster, a picture, a vector file, a table, or ENVI regions as text.
        wanted: size and place of the cube, which shapes and tables require, and the settings of the file.
        key, setting: see `pick_raster`; for byte_order, see `open_file`.

    Raises:
        SceneError: there is no such map, a label is not a non-negative integer, or a setting has no effect.
    """
    wanted = wanted or Wanted(LabelFile(file=str(path)))
    vector, style, options = find_vector(path), read_style(path), wanted.options
    kind = "shapes" if vector else "table" if is_table(path) else "array"
    for name in read_facts("hsi_se.scene", "labels.toml")["idle"][kind]:
        if getattr(options, name):
            raise refuse(path, "idle", name=name)
    if key is not None and kind != "array":
        wanted = replace(wanted, options=options.model_copy(update={"field": options.field or key}))
    with blaming(path, "cannot be read as labels", remedy="get the file again"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of GDAL and GEOS; what is not used is counted
        if vector is not None:
            label_map = read_shapes(vector, wanted, attribute=style.attribute)
        elif kind == "table":
            label_map = read_table(path, wanted)
        else:
            label_map = _read_array(path, wanted, key=key, setting=setting, byte_order=byte_order)
    if wanted.is_outline:
        label_map = replace(label_map, labels=(np.nan_to_num(label_map.labels) != 0).astype(float))
    label_map = finish(path, label_map, style, setting=setting, unlabelled=wanted.unlabelled)
    if wanted.place is None or wanted.shape is None:
        return label_map
    labels, notes = wanted.place.align(label_map.labels, label_map.georeference, shape=wanted.shape, path=path)
    return replace(label_map, labels=labels, notes=label_map.notes + notes)


def read_masks_of_classes(paths: Mapping[str, Path], wanted: Wanted, *, byte_order: str | None) -> LabelMap:
    """Returns the label map of a file for each class, which marks its pixels; SceneError if two mark the same ones."""
    masks: dict[str, NDArray[np.bool_]] = {}
    notes: tuple[str, ...] = ()
    polygons, wanted = np.zeros(1, dtype=np.int32), replace(wanted, is_mask=True)
    for name, path in paths.items():
        each = read_label_map(path, wanted, setting="scene.labels", byte_order=byte_order)
        if (count := len(np.setdiff1d(each.labels, [UNLABELLED]))) != 1:
            raise refuse(path, "not_one", name=name, count=count)
        masks[name] = each.labels > 0
        notes = (*notes, *each.notes)
        if each.polygons is not None:
            polygons = np.where(each.polygons > 0, each.polygons + polygons.max(), polygons)
    united, numbered = unite_masks("scene.labels", masks), polygons if polygons.any() else None
    united = replace(united, notes=notes, polygons=numbered)
    return finish(Path("scene.labels"), united, Style(), setting="scene.labels", unlabelled=UNLABELLED)


def _read_array(path: Path, wanted: Wanted, *, key: str | None, setting: str, byte_order: str | None) -> LabelMap:
    """Returns the labels in an array of a file; several arrays of 0 and 1 are a mask of a class each."""
    contents = open_file(path, byte_order=byte_order)
    maps = {name: raster for name, raster in contents.rasters.items() if raster.is_map}
    cubes = {name: raster for name, raster in contents.rasters.items() if not raster.is_map}
    if (
        key is None
        and wanted.options.pixel_order is None
        and not wanted.is_outline
        and (masks := _find_masks(maps, wanted.shape))
    ):
        note = f"{path.name}: each of its arrays {', '.join(masks)} is the mask of a class"
        return replace(unite_masks(path, masks), notes=(note,))
    lists = {} if key in contents.rasters or (maps and key is None) else read_lists(path, wanted.shape)
    others: Mapping[str, Any] = lists or cubes
    name = next(iter(others)) if key is None and len(others) == 1 and not maps else key
    if name in lists:
        return decode(path, lists[name], wanted)
    raster = None if name is None else cubes.get(name)
    raster = raster or pick_raster(contents, path, is_map=True, key=key, setting=setting, shape=wanted.shape)
    array = raster.read_rows(0, raster.shape[0])
    array = array[..., 0] if raster.is_map else array
    if contents.format in PICTURES and any(raster.palette.get(0, (0, 0, 0))):  # its numbers are arbitrary
        array = np.array([raster.palette.get(each, (0, 0, 0)) for each in range(256)], dtype=np.uint8)[array]
    found = decode(path, array, wanted)
    labels, notes = found.labels, tuple(f"{path.name}: {note}" for note in raster.notes)
    if raster.nodata is not None and labels.shape == array.shape:
        labels = np.where(is_nodata(array, raster.nodata), np.nan, labels)
    if not found.is_named:
        found = replace(found, class_names=raster.class_names, palette=raster.palette)
    return replace(found, labels=labels, georeference=raster.georeference, notes=notes + found.notes)


def _find_masks(maps: Mapping[str, Raster], shape: tuple[int, int] | None) -> dict[str, NDArray[np.bool_]]:
    """Returns the masks in a file, if its maps are several of one size, `shape` if known, and only of 0 and 1."""
    sizes = {raster.shape[:2] for raster in maps.values()}
    if len(maps) < 2 or len(sizes) > 1 or (shape is not None and sizes != {shape}):
        return {}
    arrays = {name: raster.read_rows(0, raster.shape[0])[..., 0] for name, raster in maps.items()}
    return {name: array > 0 for name, array in arrays.items()} if np.isin([*arrays.values()], (0, 1)).all() else {}


def finish(path: Path, read: LabelMap, style: Style, *, setting: str, unlabelled: int | str) -> LabelMap:
    """Returns a label map with integers for labels, and the names and colours of its style."""
    values, names, palette = read.labels, dict(read.class_names), dict(read.palette)
    if read.is_named:
        palette |= {label: style.colours[name] for label, name in names.items() if name in style.colours}
    else:
        names |= {int(float(value)): name for value, name in style.names.items() if WHOLE.fullmatch(value)}
        palette |= {int(float(value)): each for value, each in style.colours.items() if WHOLE.fullmatch(value)}
    if isinstance(unlabelled, str) and unlabelled != "nan":
        found = [UNLABELLED] if read.is_named else [label for label, name in names.items() if name == unlabelled]
        if not found:
            raise refuse(path, "no_name", name=unlabelled, names=", ".join(names.values()) or "the numbers in the file")
        unlabelled = found[0]
    number, is_missing = float(unlabelled), np.isnan(values)
    is_unlabelled = is_missing | (values == number)
    shift = int(unlabelled != UNLABELLED and bool((values[~is_unlabelled] == UNLABELLED).any()))
    labels = np.nan_to_num(values, nan=-1).clip(-1, HIGHEST_LABEL + 1).astype(np.int32)
    wrong = ((labels != values) | (labels < 0) | (labels + shift > HIGHEST_LABEL)) & ~is_unlabelled
    if wrong.any():
        row, col = np.argwhere(wrong)[0]
        first, remedy = float(values[row, col]), "give a label map"
        if (values[wrong] == first).all() and first.is_integer():
            instead = f"write scene.unlabelled: {first:.0f}" if setting.startswith("scene") else "save 0 in its place"
            remedy = f"if it marks unlabelled pixels, {instead}"
        facts = {"first": first, "row": row, "col": col, "highest": HIGHEST_LABEL}
        raise refuse(path, "not_whole", count=wrong.sum(), remedy=remedy, **facts)
    if unlabelled != UNLABELLED and not (is_missing if unlabelled == "nan" else values == number).any():
        raise refuse(path, "idle_unlabelled", value=unlabelled)
    notes = (*style.notes, *read.notes)
    if shift:
        notes += (f"{path.name}: 0 is a class in this file, so every label was raised by one",)
    if unlabelled == UNLABELLED and is_missing.any() and (values == UNLABELLED).any():
        instead = "set scene.unlabelled: nan" if setting.startswith("scene") else "add 1 to the labels"
        notes += (f"{path.name}: 0 is unlabelled, as NaN is; if 0 is a class, {instead}",)

    def raise_labels(facts: Mapping[int, Any]) -> dict[int, Any]:
        return {label + shift: fact for label, fact in facts.items() if label != unlabelled and label + shift > 0}

    labels = np.where(is_unlabelled, UNLABELLED, labels + shift).astype(np.int32)
    return replace(read, labels=labels, class_names=raise_labels(names), palette=raise_labels(palette), notes=notes)


def exclude_nodata(labels: Labels, nodata: Mask | None) -> tuple[Labels, Mask | None, tuple[str, ...]]:
    """Returns labels without those at nodata pixels, the mask, None if it is empty, and a note if it is not."""
    if nodata is None or not nodata.any():
        return labels, None, ()
    lost = int((nodata & (labels != UNLABELLED)).sum())
    excluded = f"; {lost:,} of them are labelled and were excluded" if lost else ""
    note = f"{int(nodata.sum()):,} pixels are nodata{excluded}"
    return np.where(nodata, UNLABELLED, labels).astype(np.int32), nodata, (note,)


def list_ids(labels: Labels) -> list[int]:
    """Returns the labels that pixels have, in ascending order, without 0."""
    return [int(label) for label in np.unique(labels) if label != UNLABELLED]


def one_each(values: Sequence[Any], labels: Labels, setting: str, what: str) -> dict[int, Any]:
    """Returns values, one for each label in ascending order, by label; SceneError if there are more or fewer."""
    ids = list_ids(labels)
    if len(values) != len(ids):
        raise SceneError(
            f"{setting}: {len(values)} {what} for {len(ids)} labels "
            f"({', '.join(map(str, ids))}); give one {what[:-1]} for each"
        )
    return dict(zip(ids, values, strict=True))


def pick_raster(
    contents: FileContents,
    path: Path,
    *,
    is_map: bool,
    key: str | None,
    setting: str,
    shape: tuple[int, int] | None = None,
) -> Raster:
    """Returns the raster named `key`, or the only map (one band, `is_map`) or cube in the file.

    `setting` is the setting that gives the name, if the file contains several; `shape` `(rows, cols)` selects the only
    array of this size. SceneError if it is absent or ambiguous; the message lists the file's contents.
    """
    axes, listing = (2 if is_map else 3), contents.listing or "nothing"
    fitting = {name: raster for name, raster in contents.rasters.items() if raster.is_map == is_map}
    if key is not None and fitting.keys() == {""}:
        raise SceneError(f"{path}: {setting} = {key!r}: the array in this file has no name; leave it out")
    if key is not None and key in fitting:
        return fitting[key]
    if key is None and contents.main in fitting:
        return fitting[contents.main]
    if key is None:  # arrays in groups and structs only if there are no others
        fitting = {name: each for name, each in fitting.items() if not re.search("[/.]", name)} or fitting
    wanted = "no" if key is None else f"{setting} = {key!r} is not a"
    if not fitting or key is not None:
        remedy = f"choose from {', '.join(fitting)}" if fitting else suggest_array(contents, is_map=is_map)
        raise refuse(path, "absent", wanted=wanted, axes=axes, listing=listing, remedy=remedy)
    chosen = list(fitting.values())
    if len(fitting) > 1:
        chosen = [raster for raster in chosen if raster.shape[:2] == shape]
    if len(chosen) != 1:
        is_flat = any(1 < 20 * min(raster.shape[:2]) < max(raster.shape[:2]) for raster in fitting.values())
        hint = ", and reshape a cube of bands × pixels to rows × cols × bands" if is_map and is_flat else ""
        names = ", ".join(fitting)
        raise refuse(path, "ambiguous", count=len(fitting), axes=axes, names=names, setting=setting, hint=hint)
    return chosen[0]


def suggest_array(contents: FileContents, *, is_map: bool) -> str:
    """Returns what to do with a file that has no cube, or no label map if `is_map`."""
    if contents.rasters:
        this = "a cube in place of a label map" if is_map else "a label map in place of a cube"
        return f"this may be {this}; {tell('planes' if is_map else 'reshape')}"
    return tell("names") if re.search(r"<U\d|\|S\d|\bchar\b", contents.listing) else "give another file"
