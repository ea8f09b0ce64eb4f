"""A trained network on a scene that it was not trained on: same bands, same classes, no split."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hsi_se.config.scene import SceneFiles, SyntheticScene
from hsi_se.config.yaml_file import load_config, parse_config
from hsi_se.errors import SceneError
from hsi_se.evaluation.metrics import Evaluation, evaluate_labels
from hsi_se.models.device import pick_device
from hsi_se.prediction.bundled import predict_bundled
from hsi_se.runs.bundle import ModelBundle
from hsi_se.runs.folder import RunFolder
from hsi_se.scene.image import describe_bands
from hsi_se.scene.loading import load_scene, open_scene_image
from hsi_se.scene.scene import Scene
from hsi_se.scene.wavelengths import compare_wavelengths
from hsi_se.system.session import Session

_FAR = 10.0  # times the spread of the training pixels
_REST = """\
split: {kind: random, train: 0.1}
reduction: {kind: none}
patch: {size: 13}
model: {name: hybridsn}
train: {epochs: 1}
"""


@dataclass(frozen=True, eq=False)
class CrossScene:
    """The accuracies of a network on every labelled pixel of another scene.

    Attributes:
        trained_on, scene: the names of the two.
        evaluation: over the labels that the network knows.
        notes: what the user should know, one sentence each.
    """

    trained_on: str
    scene: str
    evaluation: Evaluation
    notes: tuple[str, ...]


def parse_scene(text: str) -> str | SceneFiles | SyntheticScene:
    """Returns the scene that `--scene` names.

    It is a known scene's name, a config whose `scene` section is meant, one file that holds cube and
    labels, or the section itself: `{cube: FILE, labels: FILE}`.

    Raises:
        ConfigError: it is none of them.
    """
    path = Path(text)
    if path.suffix.lower() in (".yaml", ".yml"):
        return load_config(path).scene
    if path.exists() or (path.suffix and not text.lstrip().startswith("{")):
        return SceneFiles(cube=text, labels=text)
    return parse_config(_REST, [f"scene={text}"], path=Path("--scene")).scene


def evaluate_on(
    run: str | Path | RunFolder,
    scene: str | SceneFiles | SyntheticScene,
    *,
    session: Session = Session(),
) -> CrossScene:
    """Returns the accuracies of a run's network on another scene; the reduction is that of the training.

    Args:
        run: a folder that `train` wrote.
        scene: with the bands that the network was trained on, before or after its bad ones were dropped.
        session: the folder of scenes, the device and the observer.

    Raises:
        HsiError: the run or the scene cannot be read, the bands differ, or no label is known.
    """
    folder = RunFolder.open(run)
    bundle, record = folder.read_bundle(), folder.read_record()
    other = _load_with_bands(scene, bundle, session.data)
    notes = [*other.notes]
    notes += compare_wavelengths(
        bundle.facts.wavelengths_nm,
        None if other.wavelengths_nm is None else other.wavelengths_nm.tolist(),
        name=other.name,
        bands=range(1, other.num_bands + 1),
    )
    notes += _compare_classes(other, bundle)
    known = np.isin(other.labels, bundle.class_ids)
    components = bundle.reduction.apply(other.cube, nodata=other.nodata)
    spread = float(components[known][:, 0].std())  # of the first component; 1 in the training
    if bundle.reduction.mean.any() and not 1 / _FAR < spread < _FAR:
        notes.append(
            f"the values spread {spread:.2g} times as far as those of the training; "
            "check that both scenes have one scale (scene.scale)"
        )
    logits, _ = predict_bundled(
        bundle,
        components,
        missing=~other.valid,
        device=pick_device(session.device),
        observer=session.observer,
    )
    evaluation = evaluate_labels(
        other.labels[known],
        bundle.class_ids[logits.argmax(axis=2)[known]],
        class_ids=bundle.facts.class_ids,
        class_names=bundle.facts.class_names,
    )
    return CrossScene(record.scene, other.name, evaluation, tuple(notes))


def _load_with_bands(
    scene: str | SceneFiles | SyntheticScene, bundle: ModelBundle, data: str | Path | None
) -> Scene:
    """The scene in the network's bands: those dropped in training are, whatever its file says."""
    dropped = {band - 1 for band in bundle.facts.dropped_bands}
    num_bands = bundle.reduction.num_bands
    keep = None
    if not isinstance(scene, SyntheticScene):
        in_file = open_scene_image(scene, data).raster.shape[2]
        if in_file == num_bands + len(dropped):
            keep = set(range(in_file)) - dropped
    other = load_scene(scene, data, keep=keep)
    if other.num_bands != num_bands:
        left_out = ""
        if dropped:
            left_out = f" ({num_bands + len(dropped)} with {describe_bands(dropped)}, which it leaves out)"
        raise SceneError(
            f"--scene {other.name}: has {other.num_bands} bands and the network was trained on {num_bands}"
            f"{left_out}; give a scene with the same bands"
        )
    return other


def _compare_classes(other: Scene, bundle: ModelBundle) -> list[str]:
    names, notes = bundle.class_names, []
    unknown = [label for label in other.class_ids.tolist() if label not in names]
    if len(unknown) == other.num_classes:
        raise SceneError(
            f"--scene {other.name}: its labels ({', '.join(map(str, unknown))}) are none of the network's "
            f"({', '.join(map(str, names))}); give labels in the ids of the training"
        )
    if unknown:
        count = int(np.isin(other.labels, unknown).sum())
        notes.append(
            f"{count:,} pixels of labels {', '.join(map(str, unknown))} are left out: the network does not "
            "know them"
        )
    renamed = [
        f"{label} is {names[label]} in training and {name} here"
        for label, name in other.class_names.items()
        if label in names and name != names[label] and name != f"class {label}"
    ]
    if renamed:
        notes.append(f"labels are matched by number, and {'; '.join(renamed)}")
    return notes
