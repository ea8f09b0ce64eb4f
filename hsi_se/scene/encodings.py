"""Turns what labels are stored as into numbers `(rows, cols)`: names, colours, a plane per class, lists of pixels."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_se.config.scene import LabelFile
from hsi_se.scene.formats.arrays import read_texts
from hsi_se.scene.georeference import Georeference
from hsi_se.scene.guards import refuse
from hsi_se.scene.raster import HIGHEST_LABEL, Colour, Floats

_MOST_COLOURS, _MOST_NAMES = 256, 1000
WHOLE = re.compile(r"[+-]?\d{1,15}(\.0*)?")


@dataclass(frozen=True, eq=False, kw_only=True)
class LabelMap:
    """Labels with the names and colours given by their file.

    Attributes:
        labels: `(rows, cols)`, int32 with 0 for unlabelled; float64 with NaN for unlabelled while they are read.
        polygons: `(rows, cols)` number in its file, from 1, of the polygon that labels a pixel; 0 elsewhere. None
            unless labels are polygons.
        is_named: whether labels are names, which were numbered in the alphabetical order of all names in the file.
    """

    labels: NDArray[Any]
    class_names: Mapping[int, str] = field(default_factory=dict)
    palette: Mapping[int, Colour] = field(default_factory=dict)
    georeference: Georeference | None = None
    notes: tuple[str, ...] = ()
    polygons: NDArray[np.int32] | None = None
    is_named: bool = False


@dataclass(frozen=True)
class Wanted:
    """The size `(rows, cols)` and the georeference of a cube, if known, and the settings of its label file.

    `unlabelled` is the stored value of unlabelled pixels, or their name; `setting` the one that names an attribute. A
    cube that `is_part` of several may have no labels. All that a file marks is of one class if it `is_mask`; if it
    `is_outline`, whatever its values are.
    """

    options: LabelFile
    unlabelled: int | str = 0
    shape: tuple[int, int] | None = None
    place: Georeference | None = None
    setting: str = "scene.labels.field"
    is_part: bool = False
    is_mask: bool = False
    is_outline: bool = False


def number_classes(
    path: Path | str, values: Iterable[object], unlabelled: int | str = 0, *, blank: str = ""
) -> tuple[Floats, dict[int, str]]:
    """Returns the number `(n,)` of each value, and the names by number: from 1, in alphabetical order.

    Whole numbers stay as they are and have no names. Missing values are NaN, and so are those `unlabelled`, or `blank`
    if that is a number. SceneError if no value has this name, or there are too many names.
    """
    texts = ["" if value is None or value != value else str(value).strip() for value in values]
    found, places = np.unique(np.array(texts), return_inverse=True)
    names, is_by_name = found.tolist(), isinstance(unlabelled, str) and unlabelled != "nan"
    if is_by_name and unlabelled not in names:
        raise refuse(path, "no_name", name=unlabelled, names=", ".join(filter(None, names[:20])))
    kept = [name for name in names if name not in ("", unlabelled if is_by_name else blank)]
    if len(kept) > _MOST_NAMES:
        raise refuse(path, "too_many", count=len(kept), first=kept[0])
    is_numeric = all(WHOLE.fullmatch(name) and float(name) <= HIGHEST_LABEL for name in kept)  # longer ones are codes
    numbers = {name: float(name) if is_numeric else float(place) for place, name in enumerate(kept, start=1)}
    values_by_name = np.array([numbers.get(name, np.nan) for name in names])
    return values_by_name[places.reshape(-1)], {} if is_numeric else dict(enumerate(kept, start=1))


def decode(path: Path, array: NDArray[Any], wanted: Wanted) -> LabelMap:
    """Returns the labels in an array: numbers, names, colours `(…, 3 or 4)`, or a plane of 0 and 1 for each class.

    It may also be a list of all pixels of the cube, or have the planes first. SceneError if a list has no order, or
    planes are not of classes.
    """
    shape, order = wanted.shape, wanted.options.pixel_order
    is_list = shape is not None and array.shape != shape and array.ndim < 3 and np.prod(shape) in array.shape
    if order is not None and not is_list:
        raise refuse(path, "idle_pixel_order")
    if is_list and shape is not None:
        if order is None:
            raise refuse(path, "list", size=" × ".join(map(str, array.shape)))
        pixels = array.T if array.shape[0] != np.prod(shape) else array  # (n,) or (n, C)
        placed = pixels.reshape(*(shape if order == "rows" else shape[::-1]), -1)
        placed = placed if order == "rows" else placed.swapaxes(0, 1)  # (rows, cols, C)
        array = placed[..., 0] if placed.shape[2] == 1 else placed
    if array.ndim == 3:
        is_last = shape is None or array.shape[:2] == shape or array.shape[1:] != shape
        return _decode_planes(path, array if is_last else np.moveaxis(array, 0, 2), wanted.unlabelled)
    if array.dtype.kind != "U":
        return LabelMap(labels=array.astype(np.float64))
    numbers, names = number_classes(path, array.ravel().tolist(), wanted.unlabelled)
    return LabelMap(labels=numbers.reshape(array.shape), class_names=names, is_named=bool(names))


def _decode_planes(path: Path, planes: NDArray[Any], unlabelled: int | str) -> LabelMap:
    """Returns the labels in planes `(rows, cols, C)`: colours, or one plane per class."""
    num_planes, low, high, is_whole = planes.shape[2], planes.min(), planes.max(), planes.dtype.kind in "iub"
    if is_whole and num_planes in (3, 4) and low >= 0 and 1 < high < 256:
        return _decode_colours(path, planes.astype(np.int64), unlabelled)
    if not np.isin(planes, (0, high if is_whole else 1)).all():
        raise refuse(path, "shares" if not is_whole and low >= 0 and high <= 1 else "cube")
    is_class = planes > 0
    if several := int((is_class.sum(axis=2) > 1).sum()):
        raise refuse(path, "several", count=several, planes=num_planes)
    labels = np.where(is_class.any(axis=2), is_class.argmax(axis=2) + 1.0, np.nan)
    hint = "scene.unlabelled: 1 leaves the first one out"
    return LabelMap(labels=labels, notes=(f"{path.name}: each of its {num_planes} planes is a class; {hint}",))


def _decode_colours(path: Path, planes: NDArray[np.int64], unlabelled: int | str) -> LabelMap:
    """Returns a class for each colour, named `#rrggbb`; black and transparent pixels are unlabelled by default."""
    packed = planes[..., :3] @ np.array([2**16, 2**8, 1])
    if planes.shape[2] == 4 and planes[..., 3].any():
        packed[planes[..., 3] == 0] = -1
    colours, places = np.unique(packed, return_inverse=True)
    if len(colours) > _MOST_COLOURS:
        raise refuse(path, "colours", count=len(colours))
    unlabelled = unlabelled.casefold() if isinstance(unlabelled, str) else unlabelled
    listed = ["" if colour < 0 else f"#{colour:06x}" for colour in colours.tolist()]
    numbers, names = number_classes(path, listed, unlabelled, blank="#000000")
    palette = {label: (int(name[1:3], 16), int(name[3:5], 16), int(name[5:], 16)) for label, name in names.items()}
    gone = unlabelled if isinstance(unlabelled, str) else "black"
    note = f'{path.name}: each colour is a class, and {gone} is unlabelled; scene.unlabelled: "#rrggbb" sets another'
    labels = numbers[places].reshape(packed.shape)
    return LabelMap(labels=labels, class_names=names, palette=palette, notes=(note,), is_named=True)


def read_lists(path: Path, shape: tuple[int, int] | None) -> dict[str, NDArray[Any]]:
    """Returns the arrays of names, and lists of all pixels of the cube, in a NumPy or MATLAB v5 file."""
    with path.open("rb") as stream:
        head = stream.read(128)
    if head[126:128] in (b"IM", b"MI"):
        return {key: each for key, each in read_texts(path).items() if each.ndim == 2}
    if not head.startswith((b"\x93NUMPY", b"PK\x03\x04")):
        return {}
    loaded, num_pixels = np.load(path, allow_pickle=False), 0 if shape is None else shape[0] * shape[1]
    arrays = {"": loaded} if isinstance(loaded, np.ndarray) else {key: loaded[key] for key in loaded}
    for key in [key for key, each in arrays.items() if each.dtype.kind == "S"]:
        arrays[key] = np.char.decode(arrays[key], "utf-8", "replace")
    are_names = {key: each.dtype.kind == "U" and each.ndim == 2 for key, each in arrays.items()}
    return {key: each for key, each in arrays.items() if are_names[key] or each.shape == (num_pixels,)}


def unite_masks(path: Path | str, masks: Mapping[str, NDArray[np.bool_]]) -> LabelMap:
    """Returns the labels of masks `(rows, cols)` by the name of their class; SceneError if they overlap."""
    numbers, names = number_classes(path, masks)
    if len(sizes := {mask.shape for mask in masks.values()}) > 1:
        raise refuse(path, "sizes", sizes=", ".join(f"{rows} × {cols}" for rows, cols in sorted(sizes)))
    stack = np.stack(list(masks.values()))  # (C, rows, cols)
    if (overlap := stack.sum(axis=0) > 1).any():
        row, col = np.argwhere(overlap)[0].tolist()
        both = " and ".join(name for name, mask in masks.items() if mask[row, col])
        raise refuse(path, "overlap", count=int(overlap.sum()), row=row, col=col, names=both)
    labels = np.where(stack.any(axis=0), numbers[stack.argmax(axis=0)], np.nan)
    return LabelMap(labels=labels, class_names=names, is_named=bool(names))


def renumber(
    labels: NDArray[np.int32], names: Mapping[int, str], *, like: Mapping[int, str]
) -> tuple[NDArray[np.int32], dict[int, str]]:
    """Returns labels and their names with the numbers that the same names have in `like`; other names come after."""
    ids, last = {name: label for label, name in like.items()}, max(like)
    after = {label: ids.get(name, last + label) for label, name in names.items()}
    lookup = np.array([after.get(label, 0) for label in range(max(names) + 1)], dtype=np.int32)
    return lookup[labels], dict(sorted((after[label], name) for label, name in names.items()))
