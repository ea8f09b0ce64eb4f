"""Loads a `Scene`: a known scene by name, own files by path, or the synthetic scene by its seed."""

import math
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hsi_se.config.nearest import find_nearest
from hsi_se.config.scene import SceneFiles, SyntheticScene
from hsi_se.errors import SceneError
from hsi_se.scene.catalogue import KnownScene, digest_labels, find_known_scene, list_known_scenes
from hsi_se.scene.folders import Data, Folders, find_file
from hsi_se.scene.formats import lacks_byte_order, open_file
from hsi_se.scene.formats.arrays import arrange
from hsi_se.scene.guards import list_orders
from hsi_se.scene.inspection import FillFinder
from hsi_se.scene.labels import LabelMap, Labels, pick_raster, read_label_map
from hsi_se.scene.raster import Floats, Image, Raster, chunk_rows, make_image
from hsi_se.scene.scene import UNLABELLED, GroundTruth, Scene, check_same_size
from hsi_se.scene.synthetic import make_synthetic_scene
from hsi_se.scene.wavelengths import pick_natural_colour, to_nanometres

_MAX_WAVELENGTH_FILE = 2**20  # bytes
DROPPED_BY_CONFIG = "dropped by the config"  # the reason

SceneSettings = str | SceneFiles | SyntheticScene


def load_scene(scene: SceneSettings, data: Data = None, *, keep: Sequence[int] | None = None) -> Scene:
    """Returns the scene described by a config's `scene` section.

    Args:
        scene: name or alias of a known scene, a pair of files, or seed and size of the synthetic scene.
        data: folder searched before `datasets/`, including up to two levels of sub-folders; the case of
            file names is ignored.
        keep: exactly the bands to use, in order, 0-based in the file; overrides bad and dropped bands.

    Raises:
        SceneError: the name is unknown, a file is missing or unreadable, the array is ambiguous, or the
            cube and the labels do not match (see `Scene`).
    """
    if isinstance(scene, SyntheticScene):
        return make_synthetic_scene(seed=scene.synthetic, rows=scene.rows, cols=scene.cols, bands=scene.bands)
    source = SceneSource.of(scene, Folders.of(data))
    image = source.open_image(keep=keep)
    label_map = source.read_labels(image)
    cube, nodata = image.read()
    truth = source.make_truth(label_map, nodata)
    notes = truth.notes + image.raster.notes
    for reason, bands in image.list_dropped().items():
        notes += (f"bands {bands} of {image.raster.path.name} are excluded: {reason}",)
    fill = FillFinder()
    for part in chunk_rows(len(cube) if image.is_suspect else 0):
        fill.add(cube[part], first_row=part.start, missing=None if nodata is None else nodata[part])
    notes += fill.check(image, labels=truth.labels)
    return Scene(
        **vars(replace(truth, notes=notes)),
        cube=cube,
        wavelengths_nm=image.wavelengths_nm,
        fwhm_nm=image.fwhm_nm,
        natural_colour=source.find_natural_colour(image),
        dropped_bands={band + 1: reason for band, reason in image.dropped.items()},
    )


def load_ground_truth(scene: SceneSettings, data: Data = None) -> GroundTruth:
    """Returns the labels of the scene that `load_scene` would load, or its errors for these; the cube may be missing.

    If the cube is available, labels at its nodata pixels are removed as in `load_scene`.
    """
    if isinstance(scene, SyntheticScene):
        return load_scene(scene, data)
    source = SceneSource.of(scene, Folders.of(data))
    image = source.open_image() if source.has_cube() else None
    label_map = source.read_labels(image)
    return source.make_truth(label_map, None if image is None else image.read_nodata())


def open_scene_image(scene: SceneSettings | Scene, data: Data = None, *, keep: Sequence[int] | None = None) -> Image:
    """Returns the cube of a scene, loaded or described as for `load_scene`, without reading it; errors as there."""
    if isinstance(scene, SyntheticScene):
        scene = load_scene(scene)
    if isinstance(scene, Scene):
        return make_image(_make_raster(scene), drop={}, keep=keep, is_suspect=False)
    return SceneSource.of(scene, Folders.of(data)).open_image(keep=keep)


@dataclass(frozen=True)
class SceneSource:
    """The files of a scene, known or the user's own, and the folders to search for them."""

    files: SceneFiles
    known: KnownScene | None
    folders: Folders

    @classmethod
    def of(cls, scene: str | SceneFiles, folders: Folders) -> "SceneSource":
        if isinstance(scene, SceneFiles):
            return cls(scene, None, folders)
        known = get_known(scene)
        files = SceneFiles(
            cube=known.cube.names[0], labels=known.labels.names[0], class_names=known.name, name=known.name
        )
        return cls(files, known, folders)

    def _find(self, part: Literal["cube", "labels"]) -> Path:
        if self.known is None:
            is_cube = part == "cube"
            return find_file(getattr(self.files, part), self.folders, setting=f"scene.{part}", or_folder=is_cube)
        name, *also = (name for form in getattr(self.known, part).forms for name in form.names)
        hint = "" if self.known.registration else f"run `hsi-se scene fetch {self.known.name}`"
        return find_file(name, self.folders, setting=f"scene {self.known.name}", also=also, hint=hint)

    def has_cube(self) -> bool:
        with suppress(SceneError):
            return self._find("cube").exists()
        return False

    def open_image(self, *, keep: Sequence[int] | None = None) -> Image:
        files, path = self.files, self._find("cube")
        contents = open_file(path, byte_order=files.byte_order)
        is_flat, key = files.shape is not None, files.cube_key and files.cube_key.lstrip("/")
        if files.shape is not None and files.cube_key is None:  # arrays of as many pixels
            size, listed = math.prod(files.shape), contents.rasters.items()
            fitting = {name: each for name, each in listed if each.is_map and size in each.shape[:2]}
            if not fitting:
                raise SceneError(
                    f"{path}: scene.shape = {[*files.shape]}: no array of bands × pixels has {size:,} pixels; the file "
                    f"contains {contents.listing}; give the rows and columns of the image"
                )
            contents = replace(contents, rasters=fitting)
        raster = pick_raster(contents, path, is_map=is_flat, key=key, setting="scene.cube_key")
        if files.axes is not None or files.shape is not None:
            raster = arrange(raster, axes=files.axes, grid=files.shape)
        bands = raster.shape[2]
        if files.nodata is not None:
            raster = replace(raster, nodata=None if files.nodata == "none" else float(files.nodata))
        if files.scale is not None:
            raster = replace(raster, gain=None if files.scale == 1 else np.full(bands, 1 / files.scale), offset=None)
        if files.wavelengths is not None:
            given = self._read_wavelengths(files.wavelengths, bands=bands)
            raster = replace(raster, wavelengths_nm=given, fwhm_nm=None)
        elif self.known is not None and len(self.known.band_centres_nm) == bands:
            raster = replace(raster, wavelengths_nm=np.array(self.known.band_centres_nm))
        dropped = [*files.list_dropped_bands(), *_find_bands(raster, files.list_dropped_ranges())]
        return make_image(
            raster,
            drop=dict.fromkeys(dropped, DROPPED_BY_CONFIG),
            keep=keep,
            is_suspect=self.known is None and files.nodata != "none",
        )

    def _read_wavelengths(self, given: Sequence[float] | str, *, bands: int) -> Floats:
        """Returns the config's wavelengths in nanometres, from a list or a text file."""
        values: Sequence[Any] = given
        if isinstance(given, str):
            path = find_file(given, self.folders, setting="scene.wavelengths")
            if path.stat().st_size > _MAX_WAVELENGTH_FILE:
                raise SceneError(
                    f"{path}: too long for a list of wavelengths; give a text file with one number per band"
                )
            values = re.split(r"[\s,;]+", path.read_text(encoding="utf-8", errors="replace").strip())
        found, _ = to_nanometres(values, unit=None, bands=bands)
        if found is None:
            raise SceneError(
                f"scene.wavelengths: {len(values)} values for the {bands} bands of the file; "
                "give one positive number for each band"
            )
        return found

    def read_labels(self, image: Image | None) -> LabelMap:
        """Returns the label map, on the grid of the image if one is given, and with its georeference."""
        path = self._find("labels")
        keys = self.known.labels.keys if self.known is not None else ()
        if len(keys) > 1:  # separate maps of training and test pixels, which do not overlap
            maps = [read_label_map(path, key=key, setting="scene.labels_key").labels for key in keys]
            label_map = LabelMap(np.maximum.reduce(maps))
        else:
            label_map = read_label_map(
                path,
                key=self.files.labels_key,
                setting="scene.labels_key",
                unlabelled=self.files.unlabelled,
                shape=None if image is None else image.shape[:2],
                byte_order=self.files.byte_order,
            )
        if image is None:
            return label_map
        place, other, like = image.raster.georeference, label_map.georeference, str(image.raster.path)
        if place is not None:
            place.check_grid(other, shape=label_map.labels.shape, path=path, like=like)
        raster = image.raster
        stored = () if raster.stored is None else raster.stored.shape
        check_same_size(self.name, raster.shape, label_map.labels.shape, stored=stored)
        if self.files.axes is None and len(list_orders(stored, label_map.labels.shape, bands=(0, 1))) > 0:
            note = f"{raster.path.name}: another order of the axes fits the labels too; if it is right, set scene.axes"
            label_map = replace(label_map, notes=(*label_map.notes, note))
        self.refuse_idle_byte_order("cube", "labels")
        return replace(label_map, georeference=place or other)

    @property
    def name(self) -> str:
        return self.files.name or Path(self.files.cube).stem or Path(self.files.cube).resolve().name

    def refuse_idle_byte_order(self, *parts: Literal["cube", "labels"]) -> None:
        """Refuses a byte order that no file needs, as it says its own."""
        if self.files.byte_order is not None and not any(lacks_byte_order(self._find(part)) for part in parts):
            raise SceneError(
                f"scene.byte_order = {self.files.byte_order!r}: has no effect, as the files state their own; "
                "leave it out, or correct the ENVI header"
            )

    def make_truth(self, label_map: LabelMap, nodata: NDArray[np.bool_] | None) -> GroundTruth:
        """Returns the labels with class names and colours; nodata pixels become unlabelled."""
        files, labels, notes = self.files, label_map.labels, label_map.notes
        names, palette = label_map.class_names, label_map.palette
        if isinstance(files.class_names, str):
            known = get_known(files.class_names)
            names = known.class_names
            if unnamed := [label for label in _list_ids(labels) if label not in names]:
                raise SceneError(
                    f"scene.class_names = {files.class_names}: has no names for the labels "
                    f"{', '.join(map(str, unnamed))} of {files.labels}; list the names instead"
                )
            if self.known and known.labels_digest not in (None, digest_labels(labels)):
                notes += (f"{files.labels} differs from the published labels of {known.title}",)
        elif files.class_names is not None:
            names = _one_each(files.class_names, labels, "class_names", "names")
        if files.palette is not None:
            palette = _one_each(files.palette, labels, "palette", "colours")
        if nodata is not None and nodata.any():
            lost = int((nodata & (labels != UNLABELLED)).sum())
            labels = np.where(nodata, UNLABELLED, labels).astype(np.int32)
            excluded = f"; {lost:,} of them are labelled and were excluded" if lost else ""
            notes += (f"{int(nodata.sum()):,} pixels are nodata{excluded}",)
        else:
            nodata = None
        class_names = {label: names.get(label, f"class {label}") for label in _list_ids(labels)}
        place = label_map.georeference
        return GroundTruth(
            self.name, labels, class_names, palette=palette, nodata=nodata, georeference=place, notes=notes
        )

    def find_natural_colour(self, image: Image) -> tuple[int, int, int] | None:
        """Returns the bands by wavelength, else those of the known scene, else those the file displays."""
        named = self.files.class_names
        known = find_known_scene(named) if isinstance(named, str) else None
        found, displayed = pick_natural_colour(image.wavelengths_nm), image.raster.natural_colour
        if found is None and known is not None and known.shape == image.shape:
            found = known.natural_colour
        if found is None and displayed is not None and np.isin(displayed, image.bands).all():
            red, green, blue = map(image.bands.tolist().index, displayed)
            found = red, green, blue
        return found


def _make_raster(scene: Scene) -> Raster:
    """Returns the cube of a loaded scene as a raster, with NaN at nodata pixels."""
    cube, empty = scene.cube, scene.nodata

    def read(first: int, last: int) -> NDArray[Any]:
        part = cube[first:last]
        return part if empty is None else np.where(empty[first:last, :, None], np.nan, part)

    return Raster(
        path=Path(scene.name),
        shape=(*scene.shape, scene.num_bands),
        dtype=cube.dtype,
        rows_of=read,
        wavelengths_nm=scene.wavelengths_nm,
        fwhm_nm=scene.fwhm_nm,
        nodata=None if empty is None else np.nan,
        georeference=scene.georeference,
    )


def _find_bands(raster: Raster, ranges: Sequence[tuple[float, float]]) -> list[int]:
    """Returns the 0-based bands whose wavelengths lie in ranges, in nanometres; SceneError if there are none in one."""
    found: list[int] = []
    for low, high in ranges:
        setting, nm = f"scene.drop_bands = {low:g}-{high:g} nm", raster.wavelengths_nm
        if nm is None:
            raise SceneError(
                f"{setting}: the wavelengths of {raster.path} are unknown; set scene.wavelengths, or write band numbers"
            )
        inside = np.flatnonzero((nm >= low) & (nm <= high)).tolist()
        if not inside:
            ends = f"{np.nanmin(nm):.1f} to {np.nanmax(nm):.1f}"
            raise SceneError(f"{setting}: no band of {raster.path} lies there; its bands are at {ends} nm; correct it")
        found += inside
    return found


def _list_ids(labels: Labels) -> list[int]:
    return [int(label) for label in np.unique(labels) if label != UNLABELLED]


def _one_each(values: tuple[Any, ...], labels: Labels, setting: str, what: str) -> dict[int, Any]:
    ids = _list_ids(labels)
    if len(values) != len(ids):
        raise SceneError(
            f"scene.{setting}: {len(values)} {what} for {len(ids)} labels "
            f"({', '.join(map(str, ids))}); give one {what[:-1]} for each"
        )
    return dict(zip(ids, values, strict=True))


def get_known(name: str) -> KnownScene:
    """Returns the known scene with this name or alias; SceneError with similar and known names if there is none."""
    known = find_known_scene(name)
    if known is None:
        names = [name for scene in list_known_scenes() for name in (scene.name, *scene.aliases)]
        near = find_nearest(name, names)
        hint = "" if near is None else f"did you mean {near}? "
        raise SceneError(
            f"scene = {name!r}: unknown scene; {hint}known scenes: "
            f"{', '.join(scene.name for scene in list_known_scenes())}; "
            "for your own data give {cube: FILE, labels: FILE}"
        )
    return known
