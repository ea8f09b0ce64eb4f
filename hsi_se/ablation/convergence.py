"""How fast variants converge: the mean validation curves, and the epochs until an accuracy is reached."""

from collections.abc import Mapping, Sequence

from hsi_se.ablation.record import Convergence, SceneReport
from hsi_se.evaluation.statistics import AMOUNT, SHARE, summarize
from hsi_se.progress import EpochRecord

History = Sequence[EpochRecord]


def add_convergence(
    scene: SceneReport, histories: Mapping[str, Sequence[History]], *, target: float | None
) -> SceneReport:
    """Returns a scene's report with the curves of its variants, and the epochs until they reach an accuracy.

    Args:
        scene: the report.
        histories: those of the finished runs, by variant.
        target: the validation accuracy to reach; by default the lowest of the variants' best mean accuracies,
            so that every variant reaches it on average, and none with a single variant.
    """
    found = {name: average for name, runs in histories.items() if (average := _average(runs))}
    notes = list(scene.notes)
    without = [variant.name for variant in scene.begun if variant.name not in found]
    if without:
        notes.append(
            f"{', '.join(without)}: no curve of the validation accuracy, for want of validation pixels "
            "(split.validation) or of epochs."
        )
    if target is None and found and len(scene.variants) > 1:
        target = min(each.best for each in found.values())
        notes.append(
            f"The validation accuracy to reach, {100 * target:.2f} %, is the lowest of the variants' best "
            "means; reach: in the ablation file sets another. A run that does not reach it counts as later."
        )
    if target is not None:
        for name, each in found.items():
            epochs = tuple(_count_epochs(run, target) for run in histories[name])
            found[name] = each.model_copy(update={"epochs": epochs})
    variants = (variant.model_copy(update={"convergence": found.get(variant.name)}) for variant in scene.variants)
    changes = {"notes": tuple(notes), "target": target if found else None, "variants": tuple(variants)}
    return scene.model_copy(update=changes)


def _average(runs: Sequence[History]) -> Convergence | None:
    kept = [run for run in runs if run and all(each.validation_accuracy is not None for each in run)]
    epochs = list(zip(*kept, strict=False))
    if not epochs:
        return None
    accuracies = ([each.validation_accuracy for each in records] for records in epochs)
    losses = ([each.validation_loss for each in records] for records in epochs)
    return Convergence(
        validation_accuracy=tuple(summarize(values, within=SHARE) for values in accuracies),
        validation_loss=tuple(summarize(values, within=AMOUNT) for values in losses),
        epochs=(),
    )


def _count_epochs(run: History, target: float) -> int | None:
    reached = (
        each.epoch
        for each in run
        if each.validation_accuracy is not None and each.validation_accuracy >= target - 1e-12
    )
    return next(reached, None)
