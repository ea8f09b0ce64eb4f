"""Inspects a user's files before training: facts, pictures, and a config that trains on them."""

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

import numpy as np

from hsi_se.config.scene import OF_CUBE, OF_LABELS, SceneFiles
from hsi_se.config.yaml_file import dump_config, parse_config
from hsi_se.errors import ConfigError, SceneError, SplitError
from hsi_se.reports.figures import save_quick_look, save_spectra, to_hex
from hsi_se.sampling.splits import Split, make_split
from hsi_se.scene.catalogue import KnownScene, recognise_labels
from hsi_se.scene.folders import Folders
from hsi_se.scene.formats import open_file
from hsi_se.scene.guards import tell
from hsi_se.scene.inspection import CubeFacts, inspect_cube
from hsi_se.scene.labels import may_be_labels, name_kind, suggest_array
from hsi_se.scene.loading import SceneSource
from hsi_se.scene.raster import FileContents, Image
from hsi_se.scene.scene import GroundTruth, make_palette
from hsi_se.scene.wavelengths import pick_false_colour
from hsi_se.system.files import read_facts

_SMALLEST_3D_DEPTH = 13
_UNNAMED = Path("inspect")


@dataclass(frozen=True, eq=False)
class Survey:
    """The result of inspecting files; what they do not contain is None."""

    files: tuple[tuple[Path, FileContents | None], ...]  # None for a table of labels, which is not a raster
    scene: SceneFiles  # the settings that read the files
    image: Image | None
    cube: CubeFacts | None
    truth: GroundTruth | None
    picture_bands: tuple[tuple[int, int, int], str] | None  # red, green, blue, 0-based; how they were chosen
    likely: KnownScene | None  # a scene whose names the labels may have: their size and ids are its own

    @property
    def name(self) -> str:
        return self.scene.name or Path(str(self.scene.cube)).absolute().stem


def survey_files(paths: Sequence[Path], overrides: Sequence[str] = (), *, data: str | Path | None = None) -> Survey:
    """Returns the contents of a file, or of a cube and its labels; HsiError if one is unreadable, or a setting wrong.

    `overrides` are settings of the config's `scene` section, `scene.key=value`; `data` is a folder that is searched for
    further files before `datasets/`.
    """
    for override in overrides:
        if not override.startswith("scene."):
            raise ConfigError(f"--set {override}: inspect takes only settings of the scene; write scene.key=value")
        if override.partition("=")[0].strip() in ("scene.cube", "scene.synthetic"):
            raise ConfigError(f"--set {override}: inspect takes files as its arguments; leave it out")
    draft = parse_config(_read_draft(), overrides, path=_UNNAMED)
    assert isinstance(draft.scene, SceneFiles)
    byte_order = draft.scene.byte_order
    if len({*paths}) < len(paths):
        raise ConfigError(f"{' '.join(map(str, paths))}: names a file twice; leave one out")
    files = tuple((path, None if name_kind(path) else open_file(path, byte_order=byte_order)) for path in paths)
    size = math.prod(draft.scene.shape or ())  # of a cube that is stored as bands × pixels
    cubes = [
        path
        for path, held in files
        if held and any(not each.is_map or size in each.shape[:2] for each in held.rasters.values())
    ]
    if len(cubes) > 1:  # a picture, or planes of classes
        cubes = [path for path in cubes if not may_be_labels(path)] or cubes
    only_maps = [path for path, held in files if path not in cubes]
    given, is_named = draft.scene.label_file, bool(draft.scene.label_file.file)
    if is_named and (only_maps or not cubes):
        raise ConfigError("--set scene.labels: inspect then takes a cube and no other file; leave out the others")
    for path, held in files:
        if held is not None and not held.rasters and not cubes:
            remedy = suggest_array(held, is_map=False)
            raise SceneError(f"{path}: no cube and no label map; it contains {held.listing}; {remedy}")
    for what, found, keys in (("cubes", cubes, ("planes",)), ("label maps", only_maps, ("masks", "reshape"))):
        if len(found) > 1:
            both = "both " if len(found) == 2 else ""
            remedy = "; ".join(["inspect them one at a time", *map(tell, keys)])
            raise SceneError(f"{' and '.join(map(str, found))} are {both}{what}; {remedy}")
    unnamed = {path for path, held in files if held and held.main and draft.scene.labels_key is None}
    with_maps = [path for path, held in files if held and any(each.is_map for each in held.rasters.values())]
    maps = only_maps or [path for path in with_maps if path not in unnamed]  # layers of a product are no labels
    labels, file = draft.scene.labels, str((maps or cubes)[0])
    if not is_named:
        labels = file if labels == "" else given.model_copy(update={"file": file})
    scene = draft.scene.model_copy(update={"cube": str((cubes or maps)[0]), "labels": labels})
    source = SceneSource(scene, None, Folders.of(data))
    defaults = {key: field.default for key, field in SceneFiles.model_fields.items()} | {"labels": ""}
    for key in (*(() if cubes else OF_CUBE), *(() if maps or is_named else OF_LABELS)):
        if getattr(draft.scene, key) != defaults[key]:
            raise ConfigError(f"scene.{key}: has no effect on the files named; leave it out, or name its file")
    image = source.open_image() if cubes else None
    label_map = source.read_labels(image) if maps or is_named else None
    if label_map is None or image is None:
        source.refuse_idle_byte_order("cube")
    likely = truth = None
    if label_map is not None:
        if scene.class_names is None and not label_map.class_names:
            known, likely = recognise_labels(label_map.labels)
            if known is not None:
                scene = scene.model_copy(update={"class_names": known.name})
                source = SceneSource(scene, None, source.folders)
                note = f"these are the labels of {known.title}, a known scene: {known.name}"
                label_map = replace(label_map, notes=(*label_map.notes, note))
        truth = source.make_truth(label_map, None if image is None else image.read_nodata())
    bands, cube = None, None
    if image is not None:
        bands = _pick_bands(source, image)
        cube = inspect_cube(image, natural_colour=bands[0], labels=None if truth is None else truth.labels)
    return Survey(files, scene, image, cube, truth, bands, likely)


def save_survey_figures(survey: Survey, folder: Path) -> list[Path]:
    """Writes the quick look and, if there are labels, the class spectra; returns their paths."""
    if survey.cube is None or survey.image is None or survey.picture_bands is None:
        return []
    bands, origin = survey.picture_bands
    shown = ", ".join(str(band + 1) for band in survey.image.bands[list(bands)])
    pictures = [folder / f"{survey.name}-quicklook.png"]
    truth, title = survey.truth, f"{survey.name}: bands {shown} ({origin})"
    names, labels = ({}, None) if truth is None else (truth.class_names, truth.labels)
    palette = make_palette(names, given=None if truth is None else truth.palette)
    entries = {label: (f"{label}  {name}", to_hex(palette[label])) for label, name in names.items()}
    save_quick_look(survey.cube.picture, pictures[0], title=title, labels=labels, entries=entries)
    if truth is not None:
        pictures.append(folder / f"{survey.name}-spectra.png")
        save_spectra(
            survey.cube.class_means,
            survey.cube.class_deviations,
            pictures[1],
            names=names,
            palette=palette,
            wavelengths_nm=survey.image.wavelengths_nm,
            title=survey.name,
        )
    return pictures


def suggest_config(survey: Survey, overrides: Sequence[str] = ()) -> str:
    """Returns a config, as YAML, that trains on the files of a survey, with settings by their size; see suggested.toml.

    `overrides` are settings outside the `scene` section. HsiError without a cube or labels, or if a setting is wrong.
    """
    if survey.image is None or survey.truth is None:
        named = " and ".join(str(path) for path, _ in survey.files)
        what = "cube" if survey.image is None else "label map"
        raise SceneError(f"{named}: training also needs a {what}; name both files")
    facts, truth, bands = read_facts("hsi_se.workflows", "suggested.toml"), survey.truth, survey.image.shape[2]
    settings = next(row["settings"] for row in facts["patch"] if min(truth.shape) >= row["side"])

    def divide(*changes: str) -> list[Split]:
        config = parse_config(_read_draft(), [*settings, *changes, *overrides], path=_UNNAMED)
        return [make_split(truth, part.split, seed=config.seed) for part in config.list_folds()]

    chosen, about = list[str](), ""
    for row in facts["split"]:
        with suppress(ConfigError, SplitError):
            parts = divide(split := f"split={row['settings']}")
            lost = [~np.isin(*(truth.labels[tuple(pixels.T)] for pixels in (each.test, each.train))) for each in parts]
            chosen, about = [split], row["about"]
            if "is_drawn" in row or np.concatenate(lost).mean() <= facts["most_lost"]:
                pixels = np.concatenate([part.test[own] for part, own in zip(parts, lost, strict=True)])
                tested = np.unique(truth.labels[tuple(pixels.T)]).tolist()
                if names := ", ".join(truth.class_names[label] for label in tested):
                    about += f" A fold that tests {names} has no other polygon or field of it to train on."
                break
    for share in (*facts["validation"], 0):
        changes = [*chosen, f"split.validation={share}"]
        if min(len(part.val) for part in divide(*changes)) >= facts["least_validation"] or not share:
            break
    num_train = min(len(part.train) for part in divide(*changes))
    batch = next(row["size"] for row in facts["batch"] if num_train >= row["pixels"])
    epochs = int(np.clip(round(facts["steps"] * batch / num_train), *facts["epochs"]))
    components = max(1, min(30, bands, num_train - 1))
    sizes = [f"reduction.components={components}", f"train.epochs={epochs}", f"train.batch_size={batch}"]
    if components < _SMALLEST_3D_DEPTH and "svm" not in settings[-1]:
        sizes.append("model.order=2d-3d")
    config = parse_config(_read_draft(), [*settings, *changes, *sizes, *overrides], path=_UNNAMED)
    config = config.model_copy(update={"scene": survey.scene})
    heading = _read_draft().partition("\n")[0]
    text = f"{heading}\n# {about}\n{dump_config(config, is_named=False)}"
    if survey.likely is not None:
        hint = f"class_names: {survey.likely.name}  # {suggest_names(survey.likely)}, remove the first #"
        text = text.replace("\nsplit:", f"\n  # {hint}\nsplit:", 1)
    return text


def _read_draft() -> str:
    return resources.files("hsi_se.workflows").joinpath("inspected.yaml").read_text("utf-8")


def suggest_names(likely: KnownScene) -> str:
    """Returns why the labels may be those of a known scene, for the config and the user."""
    return f"the size is that of {likely.title}; if these are its labels"


def _pick_bands(source: SceneSource, image: Image) -> tuple[tuple[int, int, int], str]:
    found = source.find_natural_colour(image)
    if found is not None:
        if image.wavelengths_nm is None:
            return found, "as the file displays it" if image.raster.natural_colour else "natural colour"
        shown = ", ".join(f"{nm:.0f}" for nm in image.wavelengths_nm[list(found)])
        return found, f"natural colour, {shown} nm"
    return pick_false_colour(image.shape[2]), "false colour: no wavelengths are known"
