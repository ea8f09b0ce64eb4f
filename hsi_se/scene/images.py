"""Several images as one scene: their files, and the canvas on which they lie apart from each other."""

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_se.config.scene import SceneFiles
from hsi_se.errors import SceneError
from hsi_se.scene.cube import StoredCube
from hsi_se.scene.folders import Folders
from hsi_se.scene.raster import Colour
from hsi_se.scene.scene import UNLABELLED, GroundTruth, PlacedImage, Scene

GAP = 40  # pixels between two images: a patch of up to 41 pixels does not reach from one to the next


def list_images(files: SceneFiles, folders: Folders) -> tuple[SceneFiles, ...]:
    """Returns the settings of each image of a scene, with a name of its own if there are several.

    Patterns such as `images/*.tif` are expanded in the alphabetical order of the files. SceneError if no file matches,
    or it is not clear which labels belong to which image.
    """
    if isinstance(files.cube, str) and not _is_pattern(files.cube) and not isinstance(files.labels, tuple):
        return (files,)
    if files.images:
        given = [(each.cube, each.labels, each.name) for each in files.images]
    else:
        cubes = _expand(files.cube, folders, setting="scene.cube")
        labels: Sequence[Any] = [files.labels]
        if isinstance(files.labels, str | tuple):
            labels = _expand(files.labels, folders, setting="scene.labels")
        if len(labels) == 1:
            labels = [*labels] * len(cubes)
        elif isinstance(files.cube, str) and isinstance(files.labels, str):
            labels = _match(cubes, files.cube, labels, files.labels)
        if len(labels) != len(cubes):
            problem = f"{len(labels)} files for {len(cubes)} images"
            raise SceneError(f"scene.labels: {problem}; list one for each in the order of scene.cube, or one for all")
        given = [(*pair, None) for pair in zip(cubes, labels, strict=True)]
    paths = [Path(cube) for cube, _, _ in given]
    stems = [path.stem for path in paths]
    if len({*stems}) < len(stems):
        stems = [f"{path.parent.name}-{path.stem}".lstrip("-") for path in paths]
    names = [name or stem for (_, _, name), stem in zip(given, stems, strict=True)]
    if twice := [name for name in names if names.count(name) > 1]:
        raise SceneError(
            f"scene: two images are called {twice[0]}; give each a name: images: [{{cube: …, labels: …, name: …}}]"
        )
    own: dict[str, Any] = {"images": None}
    if len(given) > 1 and isinstance(files.class_names, tuple):
        own["class_names"] = None  # they are those of all images together
    if len(given) > 1:
        own["palette"] = None
    alone = files.name if len(given) == 1 else None
    return tuple(
        files.model_copy(update={**own, "cube": cube, "labels": labels, "name": alone or name})
        for (cube, labels, _), name in zip(given, names, strict=True)
    )


def _is_pattern(name: object) -> bool:
    return isinstance(name, str) and any(sign in name for sign in "*?[") and not Path(name).exists()


def _expand(names: str | Sequence[str] | None, folders: Folders, *, setting: str) -> list[str]:
    """Returns file names, with patterns replaced by the files that match, first found below a folder."""
    found: list[str] = []
    for name in [names] if isinstance(names, str) else names or ():
        if not _is_pattern(name):
            found.append(name)
            continue
        path = Path(name).expanduser()
        starts = [Path(path.anchor)] if path.is_absolute() else [*folders.starts, *folders.below]
        pattern = str(path.relative_to(path.anchor))
        matches = next(filter(None, ([*start.glob(pattern)] for start in starts)), [])
        if not matches:
            raise SceneError(f"{setting} = {name}: no file matches; correct it, or give the folder with --data DIR")
        found += sorted(str(match) for match in matches if match.suffix.casefold() not in (".hdr", ".xml"))
    return found


def _match(cubes: Sequence[str], pattern: str, labels: Sequence[str], pattern_of_labels: str) -> list[str]:
    """Returns the labels of each cube: those in whose name the wildcards stand for the same."""

    def key(file: str, pattern: str) -> tuple[str, ...]:
        parts = re.split(r"(\*|\?|\[[^]]+\])", pattern)
        parts[::2] = map(re.escape, parts[::2])
        parts[1::2] = [{"*": "([^/]*)", "?": "([^/])"}.get(part, f"({part})") for part in parts[1::2]]
        found = re.search(f"{''.join(parts)}$", file)
        return found.groups() if found else ()

    of_key = {key(file, pattern_of_labels): file for file in labels}
    for cube in cubes:
        if key(cube, pattern) not in of_key:
            problem = f"no file of {pattern_of_labels} belongs to {cube}, by what the wildcards stand for"
            raise SceneError(f"scene.labels: {problem}; list them in the order of scene.cube")
    return [of_key[key(cube, pattern)] for cube in cubes]


def place(shapes: Sequence[tuple[int, int]]) -> tuple[list[tuple[int, int]], tuple[int, int]]:
    """Returns the upper left corner of each image on a canvas, and the canvas's `(rows, cols)`.

    Images lie in rows of about equal width, in their order, `GAP` pixels apart.
    """
    area = sum((rows + GAP) * (cols + GAP) for rows, cols in shapes)
    width = max(math.ceil(math.sqrt(area)), *(cols for _, cols in shapes))
    top = left = height = 0
    corners = []
    for rows, cols in shapes:
        if left + cols > width:
            top, left, height = top + height + GAP, 0, 0
        corners.append((top, left))
        left, height = left + cols + GAP, max(height, rows)
    ends = [(top + rows, left + cols) for (top, left), (rows, cols) in zip(corners, shapes, strict=True)]
    return corners, (max(end for end, _ in ends), max(end for _, end in ends))


def join_truths(truths: Sequence[GroundTruth], *, share_labels: bool) -> GroundTruth:
    """Returns the labels of several images as one scene; what lies between them is nodata.

    Classes are united by name if every image's labels are names, else by number. If all images read one file of labels,
    `share_labels`, a polygon of it may lie on several. SceneError if a number has two names, or no image has labels.
    """
    corners, shape = place([truth.shape for truth in truths])
    images = tuple(
        PlacedImage(truth.name, top, left, *truth.shape, truth.georeference)
        for truth, (top, left) in zip(truths, corners, strict=True)
    )
    class_names, ids = _unite_classes(truths)
    labels, nodata = np.zeros(shape, np.int32), np.ones(shape, bool)
    polygons = np.zeros(shape, np.int32)
    palette: dict[int, Colour] = {}
    for truth, image, new in zip(truths, images, ids, strict=True):
        nodata[image.window] = ~truth.valid
        if not truth.num_classes:
            continue
        if truth.polygons is not None:
            before = 0 if share_labels else polygons.max()
            polygons[image.window] = np.where(truth.polygons > 0, truth.polygons + before, 0)
        at = np.searchsorted(truth.class_ids, truth.labels).clip(max=truth.num_classes - 1)
        labels[image.window] = np.where(truth.labels == UNLABELLED, UNLABELLED, new[at])
        palette = {
            int(new[truth.class_ids == label][0]): colour
            for label, colour in truth.palette.items()
            if label in truth.class_ids
        } | palette
    alike: dict[str, list[str]] = {}  # the same note on several images
    for truth in truths:
        for note in truth.notes:
            key = re.sub(rf"\b{re.escape(truth.name)}\b", "", note)
            alike.setdefault(key, []).append(f"{truth.name}: {note}")
    more = {1: "", 2: "; likewise in another image"}
    notes = tuple(
        same[0] + more.get(len(same), f"; likewise in {len(same) - 1} other images") for same in alike.values()
    )
    return GroundTruth(
        "several images",
        labels,
        class_names,
        palette=palette,
        nodata=nodata,
        images=images,
        notes=notes,
        polygons=polygons if polygons.any() else None,
        is_named=all(truth.is_named for truth in truths),
    )


def join_scenes(scenes: Sequence[Scene], *, share_labels: bool) -> Scene:
    """Returns several images with the same bands as one scene, of which a few rows are read at one time.

    Else as `join_truths`; wavelengths and display bands are those of the first image.
    """
    truth, first = join_truths(scenes, share_labels=share_labels), scenes[0]
    dtype = np.result_type(*(scene.cube.dtype for scene in scenes))

    def read(start: int, stop: int) -> NDArray[Any]:
        rows = np.zeros((stop - start, truth.shape[1], first.num_bands), dtype)
        for scene, image in zip(scenes, truth.images, strict=True):
            low, high = max(start, image.top), min(stop, image.top + image.rows)
            if low < high:
                rows[low - start : high - start, image.window[1]] = scene.cube[low - image.top : high - image.top]
        return rows

    return Scene(
        **vars(replace(truth)),
        cube=StoredCube((*truth.shape, first.num_bands), dtype, read),
        wavelengths_nm=first.wavelengths_nm,
        natural_colour=first.natural_colour,
        dropped_bands=first.dropped_bands,
    )


def _unite_classes(truths: Sequence[GroundTruth]) -> tuple[dict[int, str], list[NDArray[np.int32]]]:
    """Returns the names of all classes, and the new ids `(C,)` of the classes of each image."""
    if all(truth.is_named for truth in truths):
        every = sorted({name for truth in truths for name in truth.class_names.values()})
        number = {name: label for label, name in enumerate(every, start=1)}
        of_image = [[number[truth.class_names[label]] for label in truth.class_ids.tolist()] for truth in truths]
        return {label: name for name, label in number.items()}, [np.array(ids, np.int32) for ids in of_image]
    names: dict[int, str] = {}
    for truth in truths:
        for label, name in truth.class_names.items():
            if names.setdefault(label, name) != name:
                problem = f"label {label} is {names[label]} in {truths[0].name} and {name} in {truth.name}"
                raise SceneError(f"scene: {problem}; give labels with the same numbers, or name them with class_names")
    return dict(sorted(names.items())), [truth.class_ids for truth in truths]
