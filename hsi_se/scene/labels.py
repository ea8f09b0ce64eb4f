"""Reads label maps (rows, cols) from raster files, ENVI classifications or row,col,label tables."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_se.errors import SceneError
from hsi_se.scene.formats import open_file
from hsi_se.scene.georeference import Georeference
from hsi_se.scene.raster import Colour, FileContents, Raster, is_nodata
from hsi_se.scene.scene import UNLABELLED
from hsi_se.system.files import read_facts

_COLUMNS = ("row", "col", "label")
_SNIFFED = 4096  # letters
_HIGHEST = np.iinfo(np.int32).max - 1

Labels = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class LabelMap:
    """Labels `(rows, cols)` with 0 for unlabelled, and the names and colours given by their file."""

    labels: Labels
    class_names: Mapping[int, str] = field(default_factory=dict)
    palette: Mapping[int, Colour] = field(default_factory=dict)
    georeference: Georeference | None = None
    notes: tuple[str, ...] = ()


def read_label_map(
    path: Path,
    *,
    key: str | None,
    setting: str,
    unlabelled: int = 0,
    shape: tuple[int, int] | None = None,
    byte_order: str | None = None,
) -> LabelMap:
    """Returns the label map named `key`, or the only one, in a file.

    If another value than 0 marks unlabelled pixels and 0 is a class, every label is raised by one.

    Args:
        path: a raster file, or a CSV table of 0-based row and col, and label.
        key, setting: see `pick_raster`; for byte_order, see `open_file`.
        unlabelled: the stored value of unlabelled pixels.
        shape: `(rows, cols)` of the cube; required for a CSV table, which does not state it.

    Raises:
        SceneError: there is no such map, or a label is not a non-negative integer.
    """
    if is_table(path):
        raster = _read_table(path, shape=shape, unlabelled=unlabelled)
    else:
        contents = open_file(path, byte_order=byte_order)
        raster = pick_raster(contents, path, is_map=True, key=key, setting=setting, shape=shape)
    values = raster.read_rows(0, raster.shape[0])[..., 0].astype(np.float64)
    is_unlabelled = values == unlabelled
    if raster.nodata is not None:
        is_unlabelled |= is_nodata(values, raster.nodata)
    shift = int(unlabelled != UNLABELLED and bool((values[~is_unlabelled] == UNLABELLED).any()))
    labels = np.nan_to_num(values, nan=-1).clip(-1, _HIGHEST).astype(np.int32)
    wrong = ((labels != values) | (labels < 0)) & ~is_unlabelled
    if wrong.any():
        row, col = np.argwhere(wrong)[0]
        found, others, remedy = float(values[row, col]), values[wrong], "give a label map"
        if np.isnan(others).all() or ((others == found).all() and found.is_integer()):
            is_settable = setting.startswith("scene") and found.is_integer()
            instead = f"write scene.unlabelled: {found:.0f}" if is_settable else "save 0 in its place"
            remedy = f"if it marks unlabelled pixels, {instead}"
        raise SceneError(
            f"{path}: {int(wrong.sum())} labels are not non-negative integers, the first is "
            f"{found:g} at row {row}, col {col}; {remedy}"
        )
    if unlabelled != UNLABELLED and not (values == unlabelled).any():
        raise SceneError(
            f"{path}: scene.unlabelled = {unlabelled}: no pixel has this value; correct it or leave it out"
        )
    labels = np.where(is_unlabelled, UNLABELLED, labels + shift).astype(np.int32)
    notes = tuple(f"{path.name}: {note}" for note in raster.notes)
    if shift:
        notes += (f"{path.name}: 0 is a class in this file, so every label was raised by one",)

    def raise_labels(facts: Mapping[int, Any]) -> dict[int, Any]:
        return {label + shift: fact for label, fact in facts.items() if label != unlabelled and label + shift > 0}

    return LabelMap(labels, raise_labels(raster.class_names), raise_labels(raster.palette), raster.georeference, notes)


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
        raise SceneError(f"{path}: {wanted} {axes}-D numeric array; the file contains {listing}; {remedy}")
    chosen = list(fitting.values())
    if len(fitting) > 1:
        chosen = [raster for raster in chosen if raster.shape[:2] == shape]
    if len(chosen) != 1:
        is_flat = any(1 < 20 * min(raster.shape[:2]) < max(raster.shape[:2]) for raster in fitting.values())
        hint = ", and reshape a cube of bands × pixels to rows × cols × bands" if is_map and is_flat else ""
        raise SceneError(
            f"{path}: {len(fitting)} {axes}-D arrays ({', '.join(fitting)}); choose one with {setting}{hint}"
        )
    return chosen[0]


def suggest_array(contents: FileContents, *, is_map: bool) -> str:
    """Returns what to do with a file that has no cube, or no label map if `is_map`."""
    listing, texts = contents.listing, read_remedies()
    if contents.rasters:
        this = "a cube in place of a label map" if is_map else "a label map in place of a cube"
        return f"this may be {this}; {texts['numbers' if is_map else 'reshape']}"
    if re.search(r"<U\d|\|S\d|\bchar\b", listing):
        return texts["names"]
    return "give another file"


def read_remedies() -> dict[str, str]:
    """Returns what to do with arrays that are not read as they are."""
    return dict(read_facts("hsi_se.scene", "unread.toml")["arrays"])


def is_table(path: Path) -> bool:
    """Returns whether the first line of a text file has three fields, or names a row and a col."""
    with path.open(encoding="utf-8-sig", errors="replace") as stream:
        first_line = stream.readline(_SNIFFED)
    fields = _split(first_line.casefold())
    is_of_labels = len(fields) == len(_COLUMNS) or {"row", "col"} <= {*fields}
    return not {"\0", "\ufffd"} & {*first_line} and first_line[:1] not in ("{", "<") and is_of_labels


def _split(line: str) -> list[str]:
    delimiter = next((sign for sign in ";\t" if sign in line), ",")
    return [part.strip() for part in line.split(delimiter)]


def _read_table(path: Path, *, shape: tuple[int, int] | None, unlabelled: int) -> Raster:
    """Returns the labels as stored; pixels missing from the table are unlabelled."""
    if shape is None:
        raise SceneError(f"{path}: a label table does not state the image size; give the cube as well")
    order = list(_COLUMNS)
    labels = np.full(shape, unlabelled, dtype=np.int32)
    is_given = np.zeros(shape, dtype=bool)
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
        for number, line in enumerate(stream, start=1):
            fields = _split(line)
            if number == 1 and not any(field.lstrip("-").isdecimal() for field in fields):
                order = list(map(str.casefold, fields))
                if sorted(order) != sorted(_COLUMNS):
                    raise SceneError(
                        f"{path}: has the columns {', '.join(fields)}; keep row, col and label, in pixels "
                        "from 0 (rasterio.transform.rowcol converts coordinates)"
                    )
                continue
            if not line.strip():
                continue
            try:
                row, col, label = (int(dict(zip(order, fields, strict=True))[name]) for name in _COLUMNS)
            except ValueError:
                raise SceneError(
                    f"{path}:{number}: {line.strip()[:60]!r} is not row,col,label; "
                    "give three integers per line, and number the classes"
                ) from None
            if not (0 <= row < shape[0] and 0 <= col < shape[1]):
                raise SceneError(
                    f"{path}:{number}: row {row}, col {col} is outside the cube of {shape[0]} × {shape[1]} "
                    "pixels; count both from 0"
                )
            is_kept = label == unlabelled or 0 <= label <= _HIGHEST
            if not is_kept or (is_given[row, col] and labels[row, col] != label):
                way_out = "" if is_kept else f", or write scene.unlabelled: {label} if it marks unlabelled pixels"
                raise SceneError(
                    f"{path}:{number}: label {label} for row {row}, col {col}: negative, too large, or "
                    f"a second label for this pixel; give one non-negative integer per pixel{way_out}"
                )
            labels[row, col], is_given[row, col] = label, True
    return Raster(
        path=path, shape=(*shape, 1), dtype=labels.dtype, rows_of=lambda first, last: labels[first:last, :, None]
    )
