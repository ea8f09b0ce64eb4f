"""How fast variants converge: the mean validation curves, and the epochs until an accuracy is reached."""

from collections.abc import Mapping, Sequence

import numpy as np

from hsi_se.ablation.record import Convergence, EpochSummary, SceneReport, SummaryRecord, VariantReport
from hsi_se.evaluation.statistics import AMOUNT, SHARE, summarize
from hsi_se.progress import EpochRecord

History = Sequence[EpochRecord]


def add_convergence(
    scene: SceneReport, histories: Mapping[str, Sequence[History]], *, target: float | None, is_of_seeds: bool
) -> SceneReport:
    """Returns a scene's report with the curves of its variants, and the epochs until they reach an accuracy.

    Args:
        scene: the report.
        histories: those of the finished runs, by variant.
        target: the validation accuracy to reach; by default the lowest of the variants' best mean accuracies,
            so that every variant reaches it on average, and none if `is_of_seeds`.
        is_of_seeds: whether there is a single variant, with which no other is compared.
    """
    kept = {name: list(filter(_has_curve, runs)) for name, runs in histories.items()}
    curves = {name: _average(runs) for name, runs in kept.items() if runs}
    notes = list(scene.notes)
    without = [variant.name for variant in scene.begun if variant.name not in curves]
    if without:
        notes.append(
            f"{', '.join(without)}: no curve of the validation accuracy, for want of validation pixels "
            "(split.validation) or of epochs."
        )
    if target is None and curves and not is_of_seeds:
        target = min(_find_best(curve) for curve in curves.values())
        notes.append(
            f"The validation accuracy to reach, {100 * target:.2f} %, is the lowest of the variants' best "
            "means; reach: in the ablation file sets another. A run that does not reach it counts as later."
        )
    return scene.model_copy(
        update={
            "notes": tuple(notes),
            "target": target if curves else None,
            "variants": tuple(
                _add_to_variant(variant, curves.get(variant.name), histories[variant.name], target)
                for variant in scene.variants
            ),
        }
    )


def _has_curve(run: History) -> bool:
    return bool(run) and all(each.validation_accuracy is not None for each in run)


def _average(runs: Sequence[History]) -> tuple[EpochSummary, ...]:
    return tuple(
        EpochSummary(
            epoch=place + 1,
            validation_accuracy=SummaryRecord.of(
                summarize([run[place].validation_accuracy or 0.0 for run in runs], within=SHARE)
            ),
            validation_loss=SummaryRecord.of(
                summarize([_number(run[place].validation_loss) for run in runs], within=AMOUNT)
            ),
        )
        for place in range(min(map(len, runs)))
    )


def _number(value: float | None) -> float:
    return np.nan if value is None else value


def _find_best(curve: Sequence[EpochSummary]) -> float:
    return max(each.validation_accuracy.mean or 0.0 for each in curve)


def _add_to_variant(
    variant: VariantReport,
    curve: tuple[EpochSummary, ...] | None,
    runs: Sequence[History],
    target: float | None,
) -> VariantReport:
    if curve is None:
        return variant
    epochs = [] if target is None else [_count_epochs(run, target) for run in runs]
    counted = [count for run, count in zip(runs, epochs, strict=False) if _has_curve(run)]
    median = float(np.median(counted)) if counted else np.inf
    found = Convergence(
        curve=curve,
        best=_find_best(curve),
        num_reached=int(np.isfinite(counted).sum()),
        num_runs=sum(map(_has_curve, runs)),
        median_epochs=median if np.isfinite(median) else None,
        epochs=tuple(int(count) if np.isfinite(count) else None for count in epochs),
    )
    return variant.model_copy(update={"convergence": found})


def _count_epochs(run: History, target: float) -> float:
    """The first epoch that reaches the target; infinite if none does, which is censored, not left out."""
    return next((each.epoch for each in run if (each.validation_accuracy or 0.0) >= target - 1e-12), np.inf)
