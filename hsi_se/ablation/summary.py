"""Summarizes finished runs: the numbers and curves of each variant, and tests of its difference from the baseline."""

import itertools
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from operator import attrgetter
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from hsi_se.ablation.file import Ablation, PlannedRun
from hsi_se.ablation.record import (
    AblationFolder,
    AblationReport,
    AblationRun,
    Comparison,
    Convergence,
    FailedRun,
    FriedmanRecord,
    McNemarRecord,
    SceneReport,
    VariantReport,
)
from hsi_se.errors import RunError
from hsi_se.evaluation.statistics import (
    AMOUNT,
    LEVEL,
    SHARE,
    SIGNED,
    PairedTest,
    Range,
    Summary,
    adjust_holm,
    compare_correct,
    compare_pairs,
    describe_splits,
    fewest_pairs,
    least_p,
    points,
    rank_over_scenes,
    summarize,
    why_no_ranks,
)
from hsi_se.progress import EpochRecord
from hsi_se.report.tables import percent, render_template
from hsi_se.runs.records import RunRecord

_ACCURACIES: Mapping[str, Range] = {"overall_accuracy": SHARE, "average_accuracy": SHARE, "kappa": SIGNED}
_BASELINES = {"location floor": "location_floor", "spectral baseline": "spectral_baseline"}
# The prefixes of their numbers in `SUMMARIZED`.
METHODS = {"": "network", "unsmoothed.": "network, not smoothed"} | {
    f"{key}.": name for name, key in _BASELINES.items()
}
_COSTS = ("training_us_per_pixel", "training_peak_bytes", "mapping_us_per_pixel", "mapping_peak_bytes")
# The numbers of `AblationRun` that are summarized over seeds, and the range of each.
SUMMARIZED: Mapping[str, Range] = {
    **{f"{part}{name}": limits for part in METHODS for name, limits in _ACCURACIES.items()},
    "test_patches_with_train_pixels": SHARE,
    **dict.fromkeys(_COSTS, AMOUNT),
}

_OF_RECORD = ("config_digest", "split_digest", "precision", "training_s")
_OF_REPORT = ("num_test", *_ACCURACIES, "unsmoothed", *_BASELINES.values())

Name = TypeVar("Name")
Key = tuple[str, str, int]  # scene, variant, seed
Correct = NDArray[np.bool_]
PairTest = Callable[[AblationRun, AblationRun], McNemarRecord | None]
ClassNames = Mapping[int, str]  # by label
History = Sequence[EpochRecord]


def summarize_ablation(
    ablation: Ablation, folder: AblationFolder, *, failed: Sequence[FailedRun] = ()
) -> AblationReport:
    """Returns the report over the finished runs in a folder; the others count as missing."""
    runs: dict[Key, AblationRun] = {}
    records: dict[Key, RunRecord] = {}
    class_names: dict[str, dict[int, str]] = {}
    for planned in ablation.runs:
        if is_finished(planned, folder):
            key = planned.scene, planned.variant, planned.seed
            runs[key], records[key], names = _read_run(planned, folder)
            class_names.setdefault(planned.scene, {}).update(names)

    def test_pair(baseline: AblationRun, variant: AblationRun) -> McNemarRecord:
        first, second = (folder.open_run(run.folder).read_correct() for run in (baseline, variant))
        return compare_runs(first, second)

    return assemble(ablation, runs, records=records, class_names=class_names, test_pair=test_pair, failed=failed)


def is_finished(planned: PlannedRun, folder: AblationFolder) -> bool:
    """Whether a run has been trained and evaluated with exactly these settings."""
    run = folder.find(planned)
    return run.record.is_file() and run.is_evaluated and run.read_record().config_digest == planned.config.digest


def _read_run(planned: PlannedRun, folder: AblationFolder) -> tuple[AblationRun, RunRecord, ClassNames]:
    run = folder.find(planned)
    record, report, cost = run.read_record(), run.read_report(), run.read_mapping_cost()
    num_steps = len(record.history) * record.num_train * max(len(run.folds), 1)
    outcomes = {
        name: found.outcome for name, field in _BASELINES.items() if (found := getattr(report, f"against_{field}"))
    }
    found = AblationRun(
        seed=planned.seed,
        folder=run.path.relative_to(folder.path).as_posix(),
        outcomes=outcomes,
        spectral_classifier=report.spectral_baseline.chosen.name,
        test_patches_with_train_pixels=report.leakage.test_patches_with_train_pixels,
        producers_accuracy={row.label: row.producers_accuracy for row in report.per_class},
        training_us_per_pixel=1e6 * record.training_s / num_steps if num_steps else None,
        training_peak_bytes=record.peak_memory_bytes,
        mapping_s=cost.seconds,
        mapping_us_per_pixel=1e6 * cost.seconds / cost.num_pixels,
        mapping_peak_bytes=cost.peak_bytes,
        **{name: getattr(record, name) for name in _OF_RECORD},
        **{name: getattr(report, name) for name in _OF_REPORT},
    )
    return found, record, {row.label: row.name for row in report.per_class}


def compare_runs(baseline: Correct, variant: Correct) -> McNemarRecord:
    """McNemar's test of which test pixels two runs classify correctly."""
    only_baseline, only_variant = int((baseline & ~variant).sum()), int((variant & ~baseline).sum())
    p = compare_correct(only_baseline, only_variant)
    return McNemarRecord(only_baseline=only_baseline, only_variant=only_variant, p=p)


def assemble(
    ablation: Ablation,
    runs: Mapping[Key, AblationRun],
    *,
    records: Mapping[Key, RunRecord],
    class_names: Mapping[str, ClassNames],
    test_pair: PairTest,
    failed: Sequence[FailedRun] = (),
) -> AblationReport:
    """Returns the report over the finished runs, whose `difference` and `mcnemar` are not yet set.

    `records` are of the same runs; `class_names` are by scene; `test_pair` compares the runs of one seed, the
    baseline's and a variant's.
    """
    of_variant: dict[tuple[str, str], list[AblationRun]] = {}
    for scene, variant in itertools.product(ablation.scenes, ablation.variants):
        mine = []
        for seed in ablation.seeds:
            run = runs.get((scene, variant, seed))
            baseline = runs.get((scene, ablation.baseline, seed))
            if run is not None and baseline is not None and variant != ablation.baseline:
                if run.split_digest != baseline.split_digest:
                    raise RunError(
                        f"{run.folder}: has another split than {baseline.folder}: the scene's files changed "
                        "between the two runs; choose another folder with --out DIR"
                    )
                difference = run.overall_accuracy - baseline.overall_accuracy
                run = run.model_copy(update={"difference": difference, "mcnemar": test_pair(baseline, run)})
            mine += [] if run is None else [run]
        of_variant[scene, variant] = mine
    comparisons = _compare(
        {key: [run.difference for run in runs if run.difference is not None] for key, runs in of_variant.items()}
    )
    against = _compare(
        {
            (*key, name): [
                run.overall_accuracy - getattr(run, field).overall_accuracy
                for run in (runs if any(name in each.outcomes for each in runs) else ())
            ]
            for key, runs in of_variant.items()
            for name, field in _BASELINES.items()
        }
    )
    scenes = []
    for scene in ablation.scenes:
        names = class_names.get(scene, {})
        of_runs = {
            variant: [records[scene, variant, run.seed] for run in of_variant[scene, variant]]
            for variant in ablation.variants
        }
        variants = tuple(
            VariantReport(
                name=variant,
                settings=settings,
                num_parameters=of_runs[variant][0].num_parameters if of_runs[variant] else None,
                macs_per_patch=of_runs[variant][0].macs_per_patch if of_runs[variant] else None,
                runs=tuple(mine := of_variant[scene, variant]),
                summaries=_summarize_all(mine),
                producers_accuracy={
                    label: summarize([run.producers_accuracy.get(label) for run in mine], within=SHARE)
                    for label in names
                },
                comparison=comparisons.get((scene, variant)),
                against={name: found for (*key, name), found in against.items() if key == [scene, variant]},
            )
            for variant, settings in ablation.variants.items()
        )
        described = _describe_scene(scene, variants, next(filter(None, of_runs.values()), []), names)
        histories = {variant: [record.history for record in mine] for variant, mine in of_runs.items()}
        scenes.append(_add_convergence(described, histories, target=ablation.reach))
    friedman, reason = (None, "") if ablation.is_of_seeds else _rank(scenes)
    return AblationReport(
        name=ablation.name,
        digest=ablation.digest,
        baseline=ablation.baseline,
        seeds=ablation.seeds,
        threads=ablation.threads,
        scenes=tuple(scenes),
        friedman=friedman,
        no_friedman=reason,
        caveats=_list_caveats(ablation.baseline, of_variant.values(), is_of_seeds=ablation.is_of_seeds),
        failed=tuple(failed),
        num_missing=len(ablation.runs) - len(runs) - len({(each.scene, each.variant, each.seed) for each in failed}),
    )


def _summarize_all(runs: Sequence[AblationRun]) -> dict[str, Summary]:
    is_smoothed = any(run.unsmoothed is not None for run in runs)
    return {
        name: summarize([attrgetter(name)(run) for run in runs], within=limits)
        for name, limits in SUMMARIZED.items()
        if is_smoothed or not name.startswith("unsmoothed.")
    }


def _compare(differences: Mapping[Name, Sequence[float]]) -> dict[Name, Comparison]:
    """Tests the differences of all seeds for each name that has any, adjusted by Holm for all tests."""
    tests = {name: compare_pairs(each, within=SIGNED) for name, each in differences.items() if each}
    p = np.array([test.p for test in tests.values()])
    found = {}
    for place, (name, test) in enumerate(tests.items()):
        best = p.copy()
        best[place] = least_p(test.difference.n)  # all signs equal
        needed = 0 if adjust_holm(best)[place] <= LEVEL else fewest_pairs(len(p))
        found[name] = _describe(test, float(adjust_holm(p)[place]), needed=needed)
    return found


def _describe(test: PairedTest, p_holm: float, *, needed: int) -> Comparison:
    """`needed` seeds are the fewest with which the test could show a difference; 0 if these could."""
    difference = test.difference
    is_shown = p_holm <= LEVEL
    limits = "no interval"
    if difference.n > 1:
        limits = f"95 % interval {points(difference.low)} to {points(difference.high)}"
    values = f"{points(difference.mean)} points, {limits}, n={difference.n}"
    excludes_zero = difference.low > 0 or difference.high < 0
    if needed:
        seeds = f"{difference.n} seed{'' if difference.n == 1 else 's'}"
        sentence = f"the test cannot show a difference with {seeds}, only with {needed} or more: {values}"
    elif is_shown:  # by ranks, whose sign may differ from that of the mean
        verdict = "better" if test.rank_biserial > 0 else "worse"
        if test.rank_biserial * difference.mean < 0:
            verdict += f" for most seeds, though {'lower' if difference.mean < 0 else 'higher'} on average"
        sentence = f"{verdict}: {values}, p = {p_holm:.2g} after Holm"
        if not excludes_zero:
            sentence += ", by ranks; the interval of the mean includes 0"
    elif excludes_zero:
        sentence = (
            f"not shown by the signed-rank test (p = {test.p:.2g}, {p_holm:.2g} after Holm), although the "
            f"interval of the mean excludes 0: {values}"
        )
    else:
        sentence = f"no difference shown: {values}"
    return Comparison(**vars(test), p_holm=p_holm, is_shown=is_shown, sentence=sentence)


def _describe_scene(
    scene: str, variants: tuple[VariantReport, ...], records: Sequence[RunRecord], names: ClassNames
) -> SceneReport:
    """`records` are of the runs of one variant, for their notes on the scene."""
    runs = [run for variant in variants for run in variant.runs]
    num_seeds, num_splits = len({run.seed for run in runs}), len({run.split_digest for run in runs})
    notes: list[str] = []
    if records:
        notes = [*records[-1].notes, describe_splits(num_splits, num_seeds), *_describe_leakage(variants)]
    notes += [
        f"{variant.name} against the {name}: {found.sentence}; by each run's own verdict, {outcomes}"
        for variant in variants
        for name, found in variant.against.items()
        if (counts := Counter(run.outcomes[name] for run in variant.runs if name in run.outcomes))
        if (outcomes := ", ".join(f"{count} × {outcome}" for outcome, count in counts.items()))
    ]
    if chosen := Counter(run.spectral_classifier for run in runs if run.spectral_classifier):
        listed = ", ".join(f"{name} ({count} run{'s' * (count > 1)})" for name, count in chosen.items())
        notes.append(f"the spectral baseline is {listed}")
    return SceneReport(
        name=scene or (records[-1].scene if records else ""),
        num_splits=num_splits,
        class_names=dict(names),
        variants=variants,
        notes=tuple(notes),
    )


def _describe_leakage(variants: Sequence[VariantReport]) -> list[str]:
    """One sentence, or one per variant where they differ, as with other patch sizes."""
    sentences = {
        variant.name: f"{percent(share)} % of the test patches contain training pixels."
        for variant in variants
        if not np.isnan(share := variant.summaries["test_patches_with_train_pixels"].mean)
    }
    different = {*sentences.values()}
    return [*different] if len(different) == 1 else [f"{name}: {text}" for name, text in sentences.items()]


def _rank(scenes: Sequence[SceneReport]) -> tuple[FriedmanRecord | None, str]:
    """Ranks variants by their mean OA over the seeds that all of them have, or says why it cannot."""
    names = [variant.name for variant in scenes[0].variants]
    if reason := why_no_ranks(len(scenes), len(names)):
        return None, reason
    means = []
    for scene in scenes:
        found = [{run.seed: run.overall_accuracy for run in variant.runs} for variant in scene.variants]
        shared = set.intersection(*map(set, found))
        if not shared:
            return None, "on at least one scene, no seed has a finished run of every variant"
        means.append([np.mean([of[seed] for seed in of if seed in shared]) for of in found])
    test = rank_over_scenes(np.array(means))
    changes = {
        "average_ranks": dict(zip(names, test.average_ranks.tolist(), strict=True)),
        "iman_davenport": test.iman_davenport if np.isfinite(test.iman_davenport) else None,
        "groups": tuple(tuple(names[place] for place in group) for group in test.find_groups()),
    }
    return FriedmanRecord(**vars(test) | changes), ""


def _list_caveats(
    baseline: str, groups: Collection[Sequence[AblationRun]], *, is_of_seeds: bool = False
) -> tuple[str, ...]:
    counts = (sum(run.difference is not None for run in runs) for runs in groups)
    text = render_template(
        "caveats.txt",
        baseline=baseline,
        is_of_seeds=is_of_seeds,
        counts=list(filter(None, counts)),  # of pairs, by variant and scene
        num_against=sum(len({name for run in runs for name in run.outcomes}) for runs in groups),
        num_precisions=len({run.precision for runs in groups for run in runs}),
        fewest_pairs=fewest_pairs,
        least_p=least_p,
    )
    return tuple(text.splitlines())


# ------------------------------------------------------------------------------------- convergence


def _add_convergence(
    scene: SceneReport, histories: Mapping[str, Sequence[History]], *, target: float | None
) -> SceneReport:
    """Returns a scene's report with the curves of its variants, and the epochs until they reach an accuracy.

    Args:
        scene: the report.
        histories: those of the finished runs, by variant.
        target: the validation accuracy to reach; by default the lowest of the variants' best mean accuracies,
            so that every variant reaches it on average, and none with a single variant.
    """
    found = {name: average for name, runs in histories.items() if (average := _average_curves(runs))}
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


def _average_curves(runs: Sequence[History]) -> Convergence | None:
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
    known = ((each.epoch, each.validation_accuracy) for each in run if each.validation_accuracy is not None)
    return next((epoch for epoch, accuracy in known if accuracy >= target - 1e-12), None)
