"""Evaluates a trained network on another scene with the same bands and classes; no split is involved."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hsi_se.errors import SceneError
from hsi_se.evaluation.metrics import Evaluation, evaluate_labels
from hsi_se.prediction.bundled import map_target
from hsi_se.prediction.target import find_scene, open_target
from hsi_se.runs.bundle import ModelBundle
from hsi_se.runs.folder import RunFolder
from hsi_se.scene.loading import load_ground_truth
from hsi_se.scene.scene import UNLABELLED, GroundTruth
from hsi_se.system.session import Session


@dataclass(frozen=True, eq=False)
class CrossScene:
    """Accuracies of a network on every labelled pixel of another scene."""

    trained_on: str
    scene: str
    evaluation: Evaluation  # over the labels that the network knows
    notes: tuple[str, ...]  # what the user should know, one sentence each


def evaluate_on(
    run: str | Path | RunFolder,
    scene: str | Path | None,
    *,
    overrides: Sequence[str] = (),
    session: Session = Session(),
) -> CrossScene:
    """Returns the accuracies of a run's network on another scene, in bounded memory.

    The scene is reduced with the statistics of the training scene.

    Args:
        scene, overrides: as for `find_scene`; the scene has the bands that the network was trained on,
            before or after its bad ones were dropped.

    Raises:
        HsiError: the run or the scene cannot be read, its bands or values are not those of the training,
            or the network knows none of its labels.
    """
    folder = RunFolder.open(run)
    bundle, record = folder.read_bundle(), folder.read_record()
    settings = find_scene(folder, scene, overrides, data=session.data, unread=("palette",))
    truth = load_ground_truth(settings, session.data)
    notes = (*truth.notes, *_compare_classes(truth, bundle))
    target = open_target(bundle, settings, data=session.data)
    predicted = map_target(bundle, target, session=session).labels
    known = np.isin(truth.labels, bundle.class_ids) & (predicted != UNLABELLED)
    evaluation = evaluate_labels(
        truth.labels[known], predicted[known], class_ids=bundle.facts.class_ids, class_names=bundle.facts.class_names
    )
    return CrossScene(record.scene, truth.name, evaluation, (*notes, *target.notes))


def _compare_classes(other: GroundTruth, bundle: ModelBundle) -> list[str]:
    names, notes = bundle.class_names, []
    unknown = [label for label in other.class_ids.tolist() if label not in names]
    if len(unknown) == other.num_classes:
        raise SceneError(
            f"--scene {other.name}: its labels ({', '.join(map(str, unknown))}) are not among the network's "
            f"({', '.join(map(str, names))}); give labels with the ids of the training"
        )
    if unknown:
        count = int(np.isin(other.labels, unknown).sum())
        notes.append(
            f"{count:,} pixels of labels {', '.join(map(str, unknown))} are excluded: the network does not know them"
        )
    renamed = [
        f"{label} is {names[label]} in training and {name} here"
        for label, name in other.class_names.items()
        if label in names and name != names[label] and name != f"class {label}"
    ]
    if renamed:
        notes.append(f"labels are matched by number, and {'; '.join(renamed)}")
    return notes
