"""Loads a `Scene`: a known scene by name, own files by path, or the synthetic scene by its seed."""

import math
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from hsi_se.config.nearest import find_nearest
from hsi_se.config.scene import InMemoryScene, SceneFiles, SyntheticScene
from hsi_se.errors import SceneError
from hsi_se.scene.catalogue import KnownScene, digest_labels, find_known_scene, list_known_scenes
from hsi_se.scene.cube import read_cube
from hsi_se.scene.encodings import LabelMap, Wanted
from hsi_se.scene.folders import Data, Folders, find_file
from hsi_se.scene.formats import lacks_byte_order, open_file
from hsi_se.scene.formats.arrays import arrange
from hsi_se.scene.ground import LookupTable
from hsi_se.scene.guards import list_orders, refuse
from hsi_se.scene.images import join_scenes, join_truths, list_images
from hsi_se.scene.inspection import list_notes
from hsi_se.scene.labels import exclude_nodata, list_ids, one_each, pick_raster, read_label_map, read_masks_of_classes
from hsi_se.scene.raster import Floats, Image, Raster, make_image
from hsi_se.scene.scene import UNLABELLED, GroundTruth, Scene, check_same_size
from hsi_se.scene.synthetic import make_synthetic_scene
from hsi_se.scene.wavelengths import match_wavelengths, pick_natural_colour, to_nanometres

_MAX_WAVELENGTH_FILE = 2**20  # bytes
DROPPED_BY_CONFIG = "dropped by the config"  # the reason

SceneSettings = str | SceneFiles | SyntheticScene | InMemoryScene
Truth = TypeVar("Truth", bound=GroundTruth)


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
    if isinstance(scene, InMemoryScene) or Folders.of(data).scene is not None:
        return _find_in_memory(scene, data)
    if isinstance(scene, SyntheticScene):
        return make_synthetic_scene(seed=scene.synthetic, rows=scene.rows, cols=scene.cols, bands=scene.bands)
    sources = SceneSource.list_of(scene, Folders.of(data))
    if len(sources) == 1:
        return _load(sources[0], sources[0].open_image(keep=keep))
    images = _open_alike([source.open_image(keep=keep) for source in sources], sources)
    scenes = [_load(source, image, is_part=True) for source, image in zip(sources, images, strict=True)]
    return _name_classes(join_scenes(scenes, share_labels=_share_labels(sources)), scene)


def _find_in_memory(scene: SceneSettings, data: Data) -> Scene:
    """Returns the scene that Python gave; SceneError if it gave none, or other arrays than the config records."""
    given: Scene | None = Folders.of(data).scene
    if isinstance(scene, InMemoryScene):
        if given is None:
            raise refuse(f"scene.arrays = {scene.arrays}", "in_memory")
        if given.digest != scene.digest:
            raise refuse(
                f"scene = {given.name}", "other_arrays", name=scene.arrays, digests=(scene.digest, given.digest)
            )
    assert given is not None
    return given


def _open_alike(images: Sequence[Image], sources: Sequence["SceneSource"]) -> list[Image]:
    """Returns images with the bands of the first, by wavelength if they are known; one that any drops is left out."""
    first = images[0].raster
    bands, reasons = images[0].bands.tolist(), dict(images[0].dropped)
    of_image = []  # the band of each image for each of the first's
    for image in images:
        nm, num_bands = image.raster.wavelengths_nm, image.raster.shape[2]
        if first.wavelengths_nm is not None and nm is not None:
            widths = None if first.fwhm_nm is None else first.fwhm_nm[bands]
            centres, name = first.wavelengths_nm[bands], str(image.raster.path)
            found = match_wavelengths(centres, nm, widths=widths, name=name, choices=range(num_bands))
        elif num_bands == first.shape[2]:
            found = bands
        else:
            problem = f"has {num_bands} bands, and {first.path.name} has {first.shape[2]}"
            raise SceneError(f"{image.raster.path}: {problem}; give images with the same bands, or their wavelengths")
        own = dict(zip(bands, found, strict=True))
        reasons |= {band: image.dropped[at] for band, at in own.items() if at in image.dropped}
        of_image.append(own)
    keep = [band for band in bands if band not in reasons]
    if not keep:
        raise SceneError(f"{first.path}: every band is bad or dropped in one of the images; keep at least one")
    opened = [
        source.open_image(keep=[own[band] for band in keep]) for source, own in zip(sources, of_image, strict=True)
    ]
    return [replace(image, dropped=dict(sorted(reasons.items()))) for image in opened]


def _name_classes(truth: Truth, scene: SceneSettings) -> Truth:
    """Gives several images the name and the class names and colours of their config, if there are any."""
    assert isinstance(scene, SceneFiles)
    changes: dict[str, Any] = {"name": scene.name or f"{len(truth.images)} images"}
    if isinstance(scene.class_names, tuple):
        changes["class_names"] = one_each(scene.class_names, truth.labels, "scene.class_names", "names")
    if scene.palette is not None:
        changes["palette"] = one_each(scene.palette, truth.labels, "scene.palette", "colours")
    return replace(truth, **changes)


def _load(source: "SceneSource", image: Image, *, is_part: bool = False) -> Scene:
    label_map = source.read_labels(image, is_part=is_part)
    cube, nodata = read_cube(image, name=source.name)
    truth = source.make_truth(label_map, nodata, is_part=is_part)
    notes = list_notes(image, cube, nodata, labels=truth.labels, name=image.raster.path.name)
    return Scene(
        **vars(replace(truth, notes=truth.notes + notes)),
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
    if isinstance(scene, SyntheticScene | InMemoryScene) or Folders.of(data).scene is not None:
        return load_scene(scene, data)
    sources, truths = SceneSource.list_of(scene, Folders.of(data)), []
    is_part = len(sources) > 1
    for source in sources:
        image = source.open_image() if source.has_cube() else None
        label_map = source.read_labels(image, is_part=is_part)
        truths.append(source.make_truth(label_map, None if image is None else image.read_nodata(), is_part=is_part))
    if not is_part:
        return truths[0]
    return _name_classes(join_truths(truths, share_labels=_share_labels(sources)), scene)


def _share_labels(sources: Sequence["SceneSource"]) -> bool:
    return len({str(source.files.labels) for source in sources}) == 1


def open_scene_image(scene: SceneSettings | Scene, data: Data = None, *, keep: Sequence[int] | None = None) -> Image:
    """Returns the cube of a scene, loaded or described as for `load_scene`, without reading it; errors as there."""
    if isinstance(scene, SyntheticScene | InMemoryScene):
        scene = load_scene(scene, data)
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
    def list_of(cls, scene: str | SceneFiles, folders: Folders) -> list["SceneSource"]:
        """Returns the source of each image of a scene."""
        if isinstance(scene, SceneFiles):
            return [cls(files, None, folders) for files in list_images(scene, folders)]
        return [cls.of(scene, folders)]

    @classmethod
    def of(cls, scene: str | SceneFiles, folders: Folders) -> "SceneSource":
        """Returns the source of a scene of one image."""
        if isinstance(scene, SceneFiles):
            return cls(scene, None, folders)
        known = get_known(scene)
        files = SceneFiles(
            cube=known.cube.names[0], labels=known.labels.names[0], class_names=known.name, name=known.name
        )
        return cls(files, known, folders)

    def _find(self, part: Literal["cube", "labels"]) -> Path:
        if self.known is None:
            name = self.files.cube if part == "cube" else self.files.label_file.file
            return find_file(str(name), self.folders, setting=f"scene.{part}", or_folder=part == "cube")
        name, *also = (name for form in getattr(self.known, part).forms for name in form.names)
        hint = "" if self.known.registration else f"run `hsi-se scene fetch {self.known.name}`"
        return find_file(name, self.folders, setting=f"scene {self.known.name}", also=also, hint=hint)

    def _find_labels(self) -> dict[str, Path]:
        """Returns the label file, or the mask of each class by its name."""
        if not isinstance(self.files.labels, dict):
            return {"": self._find("labels")}
        masks, folders = self.files.labels.items(), self.folders
        return {name: find_file(file, folders, setting=f"scene.labels.{name}") for name, file in masks}

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
            raster = replace(raster, nodata=None if files.nodata == "none" else float(files.nodata), is_fill=False)
        if files.scale is not None:
            raster = replace(raster, gain=None if files.scale == 1 else np.full(bands, 1 / files.scale), offset=None)
        if files.wavelengths is not None:
            given = self._read_wavelengths(files.wavelengths, bands=bands)
            raster = replace(raster, wavelengths_nm=given, fwhm_nm=None)
        elif self.known is not None and len(self.known.band_centres_nm) == bands:
            raster = replace(raster, wavelengths_nm=np.array(self.known.band_centres_nm))
        dropped = [*files.list_dropped_bands(bands), *_find_bands(raster, files.list_dropped_ranges())]
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

    def read_labels(self, image: Image | None, *, is_part: bool = False) -> LabelMap:
        """Returns the label map, on the grid of the image if one is given, and with its georeference.

        Of several images, each of which `is_part`, one may have no labels.
        """
        shape, place = (None, None) if image is None else (image.shape[:2], image.raster.georeference)
        files = self.files
        wanted = Wanted(files.label_file, files.unlabelled, shape, place, is_part=is_part)
        if image is None or image.raster.ground is None:
            label_map = self._read_label_map(wanted)
        else:
            label_map = self._read_labels_of_swath(wanted, image.raster.ground)
        if image is None:
            return label_map
        other, labels, raster = label_map.georeference, label_map.labels, image.raster
        if other is not None and other.transform is not None and (place is None or place.transform is None):
            if labels.shape != shape:
                raise refuse(", ".join(map(str, self._find_labels().values())), "no_place")
            note = "the cube has no georeference, so that the labels are taken to have its rows and columns"
            label_map = replace(label_map, notes=(*label_map.notes, note))
        stored = () if raster.stored is None else raster.stored.shape
        check_same_size(self.name, raster.shape, labels.shape, stored=stored)
        if self.files.axes is None and len(list_orders(stored, labels.shape, bands=(0, 1))) > 0:
            note = f"{raster.path.name}: another order of the axes fits the labels too; if it is right, set scene.axes"
            label_map = replace(label_map, notes=(*label_map.notes, note))
        self.refuse_idle_byte_order("cube", "labels")
        return replace(label_map, georeference=place or other)

    def _read_label_map(self, wanted: Wanted) -> LabelMap:
        keys, files, order = self.known.labels.keys if self.known else (), self.files, self.files.byte_order
        setting, paths = "scene.labels_key", self._find_labels()
        if len(keys) > 1:  # separate maps of training and test pixels, which do not overlap
            maps = [read_label_map(paths[""], key=key, setting=setting).labels for key in keys]
            return LabelMap(labels=np.maximum.reduce(maps))
        if "" in paths:
            return read_label_map(paths[""], wanted, key=files.labels_key, setting=setting, byte_order=order)
        if files.labels_key is not None:
            raise refuse("scene.labels", "idle_key")
        return read_masks_of_classes(paths, wanted, byte_order=order)

    def _read_labels_of_swath(self, wanted: Wanted, ground: LookupTable) -> LabelMap:
        """Returns labels in the rows and columns of a swath; those with a place are taken from the ground."""
        with suppress(SceneError):
            found = self._read_label_map(wanted)
            if found.labels.shape == wanted.shape and (found.georeference is None or not found.georeference.transform):
                return found
        found = self._read_label_map(replace(wanted, shape=ground.shape, place=ground.georeference))
        if found.labels.shape != ground.shape or wanted.shape is None:
            return found
        take = partial(ground.take_from_ground, shape=wanted.shape, fill=0)
        polygons = None if found.polygons is None else take(found.polygons)
        return replace(found, labels=take(found.labels), polygons=polygons, georeference=None)

    @property
    def name(self) -> str:
        path = Path(str(self.files.cube))
        return self.files.name or path.stem or path.resolve().name

    def refuse_idle_byte_order(self, *parts: Literal["cube", "labels"]) -> None:
        """Refuses a byte order that no file needs, as it says its own."""
        if self.files.byte_order is None:
            return
        paths = [*(self._find_labels().values() if "labels" in parts else ()), self._find("cube")]
        if not any(map(lacks_byte_order, paths)):
            raise SceneError(
                f"scene.byte_order = {self.files.byte_order!r}: has no effect, as the files state their own; "
                "leave it out, or correct the ENVI header"
            )

    def make_truth(
        self, label_map: LabelMap, nodata: NDArray[np.bool_] | None, *, is_part: bool = False
    ) -> GroundTruth:
        """Returns the labels with class names and colours; nodata pixels become unlabelled."""
        files, labels, notes = self.files, label_map.labels, label_map.notes
        names, palette, polygons = label_map.class_names, label_map.palette, label_map.polygons
        if isinstance(files.class_names, str):
            known = get_known(files.class_names)
            names = known.class_names
            if unnamed := [label for label in list_ids(labels) if label not in names]:
                raise SceneError(
                    f"scene.class_names = {files.class_names}: has no names for the labels "
                    f"{', '.join(map(str, unnamed))} of {files.label_file.file}; list the names instead"
                )
            if self.known and known.labels_digest not in (None, digest_labels(labels)):
                notes += (f"{files.label_file.file} differs from the published labels of {known.title}",)
        elif files.class_names is not None:
            names = one_each(files.class_names, labels, "scene.class_names", "names")
        if files.palette is not None:
            palette = one_each(files.palette, labels, "scene.palette", "colours")
        labels, nodata, about_nodata = exclude_nodata(labels, nodata)
        notes += about_nodata
        if polygons is not None:
            polygons = np.where(labels == UNLABELLED, 0, polygons).astype(np.int32)
        class_names = {label: names.get(label, f"class {label}") for label in list_ids(labels)}
        place = label_map.georeference
        return GroundTruth(
            self.name, labels, class_names, palette=palette, nodata=nodata, georeference=place, notes=notes,
            polygons=polygons, is_named=label_map.is_named, is_part=is_part,
        )  # fmt: skip

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
