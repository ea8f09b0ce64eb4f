"""Another scene for a trained bundle: found by name, checked against the bands and values of the training.

Every command that takes `--scene` comes through here, so that all accept the same scenes.
"""

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hsi_se.config.scene import SceneFiles
from hsi_se.config.yaml_file import Override, load_config
from hsi_se.errors import ConfigError, SceneError
from hsi_se.runs.bundle import ModelBundle
from hsi_se.runs.folder import RunFolder
from hsi_se.scene.catalogue import find_known_scene
from hsi_se.scene.folders import Data, Folders, find_file
from hsi_se.scene.images import list_images
from hsi_se.scene.inspection import FillFinder
from hsi_se.scene.loading import DROPPED_BY_CONFIG, SceneSettings, SceneSource, get_known, open_scene_image
from hsi_se.scene.raster import Image, Mask, chunk_rows, describe_bands, digest_values
from hsi_se.scene.scene import Scene
from hsi_se.scene.wavelengths import match_wavelengths

_LEAST_OVERLAP = 0.01  # of the wider of two value ranges


def find_scene(
    folder: RunFolder,
    scene: str | Path | None,
    overrides: Sequence[str] = (),
    *,
    data: Data = None,
    unread: Collection[str] = (),
) -> SceneSettings:
    """Returns the scene that a user names with `--scene` and `--set scene.key=value`.

    Args:
        folder: the run whose own scene it is by default.
        scene: a known scene's name, a config file (its `scene` section), a file with the cube (and, to
            evaluate, its labels), or a section such as `{cube: FILE, labels: FILE}`; None for the run's own.
        overrides: settings of the `scene` section, `scene.key=value`.
        data: folder searched for files before `datasets/`.
        unread: settings of the scene that the command does not read.

    Raises:
        HsiError: there is no such scene, or a setting is not the scene's, or has no effect.
    """
    for override in overrides:
        if override.partition("=")[0].strip().split(".")[1:2] in ([key] for key in unread):
            raise ConfigError(f"--set {override}: has no effect on this command; leave it out")
        if not override.startswith("scene"):
            raise ConfigError(f"--set {override}: only settings of the scene apply here; use scene.key=value")
    changes: list[str | Override] = list(overrides)
    if scene is not None:
        changes.insert(0, _parse_scene(str(scene), data))
    found = load_config(folder.config, changes).scene
    has_order = any(override.startswith("scene.byte_order") for override in overrides)
    if has_order and isinstance(found, SceneFiles):
        source = SceneSource.of(found, Folders.of(data))
        source.refuse_idle_byte_order("cube", *(() if "labels_key" in unread else ("labels",)))
    return found


def _parse_scene(text: str, data: Data) -> Override:
    if text.lstrip().startswith("{"):
        return replace(Override.parse(f"scene={text}"), places={(): f"--scene {text}"})
    value: object
    if Path(text).suffix.lower() in (".yaml", ".yml"):
        value = load_config(text).model_dump(mode="json", exclude_none=True)["scene"]
    elif is_known_name(text) or not _is_file(text, data):
        value = get_known(text).name
    else:
        value = {"cube": text, "labels": text}
    return Override("scene", value, {(): f"--scene {text}"})


def is_known_name(text: str) -> bool:
    """Returns whether a text names a known scene and is not also a file."""
    return find_known_scene(text) is not None and not Path(text).is_file()


def _is_file(text: str, data: Data) -> bool:
    """Returns whether a text means a file: it exists, or looks like a path."""
    if Path(text).suffix or len(Path(text).parts) > 1 or Path(text).is_dir():
        return True
    try:
        find_file(text, Folders.of(data), setting="--scene")
    except SceneError:
        return False
    return True


@dataclass(frozen=True, eq=False)
class Target:
    """An image that a bundle can be applied to."""

    image: Image
    digest: str  # SHA-256 of its values
    num_missing: int  # pixels without data
    notes: tuple[str, ...]  # sentences for the user


def open_target(
    bundle: ModelBundle, scene: Scene | SceneSettings, *, data: Data = None, is_own: bool = False
) -> Target:
    """Returns the image of a scene after checking that a bundle can be applied to it.

    Its values are read once, for their range, digest and nodata. Those of the training scene, `is_own`,
    need no comparison. The other arguments are as for `open_scene_image`.

    Raises:
        SceneError: it lacks bands of the training, or its range of values differs.
    """
    image, notes = _pick_bands(bundle, scene, data)
    fill = FillFinder()
    digest, low, high, num_missing, num_odd = _scan(image, fill)
    path, (rows, cols, _) = image.raster.path, image.shape
    if num_missing == rows * cols:
        raise SceneError(f"{path}: all {num_missing:,} pixels have no data in at least one band; give another scene")
    if not is_own:
        notes += fill.check(image)
    trained = bundle.facts.value_range
    if trained is not None and not is_own:
        shared = min(high, trained[1]) - max(low, trained[0])
        widest = max(high - low, trained[1] - trained[0])
        if shared < 0 or shared < _LEAST_OVERLAP * widest:
            raise SceneError(
                f"{path}: its values range from {low:g} to {high:g}, those of the training pixels from "
                f"{trained[0]:g} to {trained[1]:g}; bring them to one scale with --set scene.scale=…, "
                "or set scene.nodata"
            )
    if num_odd:
        notes += (f"{num_odd:,} pixels contain non-finite values and are treated as nodata",)
    return Target(image, digest, num_missing, notes)


def open_targets(bundle: ModelBundle, scene: Scene | SceneSettings, *, data: Data = None) -> list[Target]:
    """Returns the image of another scene, or each of its several images in their order; see `open_target`."""
    several = list_images(scene, Folders.of(data)) if isinstance(scene, SceneFiles) else (scene,)
    return [open_target(bundle, image, data=data) for image in several]


def _pick_bands(bundle: ModelBundle, scene: Scene | SceneSettings, data: Data) -> tuple[Image, tuple[str, ...]]:
    """Returns the scene's image in the bundle's bands and order: by wavelength if both are known, else by number."""
    facts, num_bands = bundle.facts, bundle.reduction.num_bands
    image = open_scene_image(scene, data)
    path, in_file, nm = image.raster.path, image.raster.shape[2], image.raster.wavelengths_nm
    notes: list[str] = []
    if facts.wavelengths_nm is not None and nm is not None:
        widths = facts.fwhm_nm or (None if image.raster.fwhm_nm is None else np.nanmedian(image.raster.fwhm_nm))
        choices = [band for band in range(in_file) if image.dropped.get(band) != DROPPED_BY_CONFIG]
        keep = match_wavelengths(
            np.array(facts.wavelengths_nm),
            nm,
            widths=None if widths is None else np.broadcast_to(np.array(widths), num_bands),
            name=str(path),
            choices=choices,
        )
        if keep != sorted(keep):
            notes.append(f"the bands of {path.name} are in another order than in training, and used by wavelength")
    else:
        keep = _pick_by_number(bundle, image)
        who = "the training scene" if facts.wavelengths_nm is None else str(path)
        notes.append(f"the wavelengths of {who} are unknown, so the bands were matched by their numbers only")
    if wanted := {band: reason for band, reason in image.dropped.items() if band in keep}:
        reasons = ", ".join(dict.fromkeys(wanted.values()))
        notes.append(f"bands {describe_bands(wanted)} of {path.name} are used as in training, although {reasons}")
    if keep != image.bands.tolist():
        image = open_scene_image(scene, data, keep=keep)
    if others := set(range(in_file)).difference(keep):
        notes.append(f"bands {describe_bands(others)} of {path.name} are excluded, as in training")
    return image, tuple(notes)


def _pick_by_number(bundle: ModelBundle, image: Image) -> list[int]:
    """Returns the 0-based bands of an image whose number fits; bands dropped in training are dropped here too."""
    dropped, num_bands, in_file = bundle.facts.dropped_bands, bundle.reduction.num_bands, image.raster.shape[2]
    if in_file == num_bands + len(dropped):
        return [band for band in range(in_file) if band + 1 not in dropped]
    if in_file == num_bands:
        return list(range(in_file))
    if len(image.bands) == num_bands:
        return list(map(int, image.bands))
    without = describe_bands([band - 1 for band in dropped])
    also = f" of {num_bands + len(dropped)}, without {without}" if dropped else ""
    remedy = "give a scene of the same sensor"
    if in_file > num_bands:
        unknown = "" if bundle.facts.wavelengths_nm is None else "set scene.wavelengths, or "
        remedy = f"{unknown}leave out {in_file - num_bands} bands with --set scene.drop_bands=[…]"
    raise SceneError(
        f"{image.raster.path}: the scene has {in_file} bands, but the model was trained on {num_bands}{also}; {remedy}"
    )


def _scan(image: Image, fill: FillFinder) -> tuple[str, float, float, int, int]:
    """Returns digest, lowest and highest value, number of pixels without data, and of non-finite ones."""
    low, high, num_missing, num_odd = math.inf, -math.inf, 0, 0

    def read() -> Iterator[tuple[NDArray[np.generic], Mask]]:
        nonlocal low, high, num_missing, num_odd
        for part in chunk_rows(image.shape[0]):
            cube, missing, num_odd_here = read_finite_rows(image, part.start, part.stop)
            fill.add(cube, first_row=part.start, missing=missing)
            num_missing += int(missing.sum())
            num_odd += num_odd_here
            if not missing.all():
                values = cube[~missing] if missing.any() else cube
                low, high = min(low, float(values.min())), max(high, float(values.max()))
            yield cube, missing

    return digest_values(image.shape, read()), low, high, num_missing, num_odd


def read_finite_rows(image: Image, first: int, last: int) -> tuple[NDArray[np.generic], Mask, int]:
    """Returns rows like `Image.read_rows`, with pixels that are not finite as nodata, and their number."""
    cube, empty = image.read_rows(first, last)
    missing = np.zeros(cube.shape[:2], dtype=bool) if empty is None else empty
    num_odd = 0
    if cube.dtype.kind == "f":
        is_finite = np.isfinite(cube).all(axis=2)
        if not is_finite.all():
            num_odd = int((~missing & ~is_finite).sum())
            missing = missing | ~is_finite
            cube = np.where(missing[..., None], cube.dtype.type(0), cube)
    return cube, missing, num_odd
