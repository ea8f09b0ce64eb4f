"""The area that a map is limited to: polygons of a vector file, or the pixels of a raster that are not 0."""

from pathlib import Path

from hsi_se.config.scene import LabelFile
from hsi_se.errors import ConfigError, SceneError
from hsi_se.prediction.target import read_finite_rows
from hsi_se.scene.encodings import Wanted
from hsi_se.scene.labels import read_label_map
from hsi_se.scene.raster import Image, Mask, chunk_rows
from hsi_se.scene.vectors import OF_LAYER, find_vector


def read_area(name: str, image: Image, *, is_needed: bool = True) -> tuple[Mask, list[str]]:
    """Returns the mask `(rows, cols)` of the pixels of an image whose centres lie inside an area, and notes.

    `name` is a vector file or a raster with one band, on the same grid or anywhere else with a georeference (nearest
    neighbour); `FILE|layername=NAME` names one of several layers or arrays. HsiError if the file cannot be read or
    placed, has no polygons or several layers, or, with `is_needed`, contains no pixel with data.
    """
    file, _, layer = name.partition(OF_LAYER)
    path, ground, place = Path(file), image.raster.ground, image.raster.place
    shape = image.shape[:2] if ground is None else ground.shape
    if not path.is_file():
        raise ConfigError(f"--mask {path}: no such file; check the path")
    is_vector = find_vector(path) is not None
    if is_vector and place.transform is None:
        problem = f"{image.raster.path} has no georeference, so that polygons cannot be placed on it"
        raise ConfigError(f"--mask {name}: {problem}; give a raster mask of the same size")
    setting, key = f'--mask "{path}{OF_LAYER}NAME"', layer or None
    options = LabelFile(file=file, layer=key if is_vector else None)
    wanted = Wanted(options, shape=shape, place=place, is_part=True, is_mask=True, is_outline=True)
    try:
        found = read_label_map(path, wanted, key=None if is_vector else key, setting=setting)
    except SceneError as error:
        raise ConfigError(f"--mask {error}") from None
    inside = found.labels > 0
    if inside.shape != shape:
        size, other = (" × ".join(map(str, each)) for each in (inside.shape, shape))
        problem = f"has {size} pixels and the scene {other} (rows × cols), and not both have a georeference"
        raise ConfigError(f"--mask {path}: {problem}; give a mask of the same size, or polygons")
    if ground is not None:
        inside = ground.take_from_ground(inside, shape=image.shape[:2], fill=False)
    missing = (read_finite_rows(image, part.start, part.stop)[1] | ~inside[part] for part in chunk_rows(len(inside)))
    if is_needed and (not inside.any() or all(each.all() for each in missing)):
        problem = f"no pixel of {image.raster.path} {'that has data ' if inside.any() else ''}is inside"
        raise ConfigError(f"--mask {name}: {problem}; give an area that overlaps the scene")
    outside = f"{(~inside).sum():,} of {inside.size:,} pixels are outside {name}"
    return inside, [*found.notes, f"{outside} and are nodata in the map"]
