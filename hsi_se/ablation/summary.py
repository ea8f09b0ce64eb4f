"""Summarizes finished runs: the numbers and curves of each variant, and tests of its difference from the baseline."""

import itertools
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import NamedTuple, TypeVar

import numpy as np

from hsi_se.ablation.file import Ablation, PlannedRun
from hsi_se.ablation.record import (
    AblationFolder,
    AblationReport,
    AblationRun,
    Comparison,
    Convergence,
    FailedRun,
    Part,
    SceneReport,
    VariantReport,
)
from hsi_se.errors import RunError
from hsi_se.evaluation.statistics import (
    AMOUNT,
    LEVEL,
    SHARE,
    SIGNED,
    CorrelatedTest,
    McNemarTest,
    Range,
    RankTest,
    Summary,
    adjust_holm,
    compare_correct,
    compare_pairs,
    compare_runs,
    fewest_pairs,
    least_p,
    points,
    probability,
    rank_over_scenes,
    summarize,
    why_no_ranks,
)
from hsi_se.progress import EpochRecord
from hsi_se.reports.tables import percent
from hsi_se.runs.records import RunRecord
from hsi_se.system.files import fill_template

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
PairTest = Callable[[AblationRun, AblationRun], McNemarTest | None]
ClassNames = Mapping[int, str]  # by label
History = Sequence[EpochRecord]


class Pair(NamedTuple):
    """A run, and the overall accuracies of what it is compared with: of all its test pixels, and of each part."""

    run: AblationRun
    accuracy: float
    parts: Sequence[float]

    @property
    def difference(self) -> float:
        return self.run.overall_accuracy - self.accuracy


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

    def test_pair(*pair: AblationRun) -> McNemarTest:
        return compare_correct(*(folder.open_run(run.folder).read_correct() for run in pair))

    return assemble(ablation, runs, records=records, class_names=class_names, test_pair=test_pair, failed=failed)


def is_finished(planned: PlannedRun, folder: AblationFolder) -> bool:
    """Whether a run has been trained and evaluated with exactly these settings."""
    run = folder.find(planned)
    return run.record.is_file() and run.is_evaluated and run.read_record().config_digest == planned.config.digest


def _read_run(planned: PlannedRun, folder: AblationFolder) -> tuple[AblationRun, RunRecord, ClassNames]:
    run = folder.find(planned)
    record, report, cost = run.read_record(), run.read_report(), run.read_mapping_cost()
    parts = [fold.read_record() for fold in run.folds] or [record]
    num_steps = sum(len(part.history) * part.num_train for part in parts)
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
        parts=tuple(
            Part(
                num_train=each.num_train + each.num_val,
                num_test=each.num_test,
                overall_accuracy=each.overall_accuracy,
                **{field: getattr(each, field).overall_accuracy for field in _BASELINES.values()},
            )
            for each in ([fold.read_report() for fold in run.folds] or [report])
        ),
        training_us_per_pixel=1e6 * record.training_s / num_steps if num_steps else None,
        training_peak_bytes=record.peak_memory_bytes,
        mapping_s=cost.seconds,
        mapping_us_per_pixel=1e6 * cost.seconds / cost.num_pixels,
        mapping_peak_bytes=cost.peak_bytes,
        **{name: getattr(record, name) for name in _OF_RECORD},
        **{name: getattr(report, name) for name in _OF_REPORT},
    )
    return found, record, {row.label: row.name for row in report.per_class}


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
    pairs: dict[tuple[str, str], list[Pair]] = {}
    for scene, variant in itertools.product(ablation.scenes, ablation.variants):
        mine = []
        pairs[scene, variant] = []
        for seed in ablation.seeds:
            run = runs.get((scene, variant, seed))
            baseline = runs.get((scene, ablation.baseline, seed))
            if run is not None and baseline is not None and variant != ablation.baseline:
                if run.split_digest != baseline.split_digest:
                    raise RunError(
                        f"{run.folder}: has another split than {baseline.folder}: the scene's files changed "
                        "between the two runs; choose another folder with --out DIR"
                    )
                pair = Pair(run, baseline.overall_accuracy, [part.overall_accuracy for part in baseline.parts])
                pairs[scene, variant].append(pair)
                run = run.model_copy(update={"difference": pair.difference, "mcnemar": test_pair(baseline, run)})
            mine += [] if run is None else [run]
        of_variant[scene, variant] = mine
    comparisons = _compare(pairs)
    against = _compare(
        {
            (*key, name): [
                Pair(run, getattr(run, field).overall_accuracy, [getattr(part, field) for part in run.parts])
                for run in (runs if any(name in each.outcomes for each in runs) else ())
            ]
            for key, runs in of_variant.items()
            for name, field in _BASELINES.items()
        }
    )
    scenes = [
        _summarize_scene(scene, ablation, of_variant, records, class_names.get(scene, {}), comparisons, against)
        for scene in ablation.scenes
    ]
    friedman, reason = (None, "") if ablation.is_of_seeds else _rank(scenes)
    return AblationReport(
        **{name: getattr(ablation, name) for name in ("name", "digest", "baseline", "seeds", "threads")},
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


def _compare(pairs: Mapping[Name, Sequence[Pair]]) -> dict[Name, Comparison]:
    """Tests the differences of all seeds for each name that has any, adjusted by Holm for all tests."""
    known = {name: each for name, each in pairs.items() if each}
    tests = [compare_pairs([pair.difference for pair in each], within=SIGNED) for each in known.values()]
    corrected = [_correct(each) for each in known.values()]
    p = np.array([test.p for test in tests])
    p_corrected = adjust_holm([test.p for test in corrected])
    found = {}
    for place, (name, test) in enumerate(zip(known, tests, strict=True)):
        best = p.copy()
        best[place] = least_p(test.difference.n)  # all signs equal
        # The fewest seeds with which the test could show a difference; 0 if these could.
        needed = 0 if adjust_holm(best)[place] <= LEVEL else fewest_pairs(len(p))
        p_holm = float(adjust_holm(p)[place])
        of_parts = replace(corrected[place], p=float(p_corrected[place]))
        values = {**vars(test), "p_holm": p_holm, "is_shown": p_holm <= LEVEL, "corrected": of_parts}
        sentence = fill_template(
            "hsi_se.ablation", "comparison.txt", **values, needed=needed, points=points, probability=probability
        )
        found[name] = Comparison(**values, sentence=sentence.strip())
    return found


def _correct(pairs: Sequence[Pair]) -> CorrelatedTest:
    """Tests the differences of the runs, or of all their folds, allowing for the pixels that these share."""
    differences = [
        [part.overall_accuracy - other for part, other in zip(pair.run.parts, pair.parts, strict=True)]
        for pair in pairs
    ]
    sizes = [(part.num_train, part.num_test) for pair in pairs for part in pair.run.parts]
    return compare_runs(differences, sizes=sizes, is_one_split=len({pair.run.split_digest for pair in pairs}) == 1)


def _summarize_scene(
    scene: str,
    ablation: Ablation,
    of_variant: Mapping[tuple[str, str], Sequence[AblationRun]],
    of_run: Mapping[Key, RunRecord],
    class_names: ClassNames,
    comparisons: Mapping[tuple[str, str], Comparison],
    against: Mapping[tuple[str, str, str], Comparison],
) -> SceneReport:
    """Returns the report on one scene, from what `assemble` knows of all.

    The validation accuracy to reach is by default the lowest of the variants' best mean accuracies, so that every
    variant reaches it on average, and none with a single variant.
    """
    runs = {name: of_variant[scene, name] for name in ablation.variants}
    records = {name: [of_run[scene, name, run.seed] for run in mine] for name, mine in runs.items()}
    curves = {name: found for name, mine in records.items() if (found := _average_curves(mine))}
    target, lowest_best = ablation.reach, None
    if target is None and curves and not ablation.is_of_seeds:
        target = lowest_best = min(found.best for found in curves.values())
    if target is not None:
        for name, found in curves.items():
            epochs = tuple(_count_epochs(record.history, target) for record in records[name])
            curves[name] = found.model_copy(update={"epochs": epochs})
    variants = tuple(
        VariantReport(
            name=name,
            settings=settings,
            num_parameters=records[name][0].num_parameters if records[name] else None,
            macs_per_patch=records[name][0].macs_per_patch if records[name] else None,
            runs=tuple(runs[name]),
            summaries=_summarize_all(runs[name]),
            producers_accuracy={
                label: summarize([run.producers_accuracy.get(label) for run in runs[name]], within=SHARE)
                for label in class_names
            },
            comparison=comparisons.get((scene, name)),
            against={other: found for (*key, other), found in against.items() if key == [scene, name]},
            convergence=curves.get(name),
        )
        for name, settings in ablation.variants.items()
    )
    everything = [run for variant in variants for run in variant.runs]
    num_splits = len({run.split_digest for run in everything})
    leaks = {variant.name: variant.summaries["test_patches_with_train_pixels"].mean for variant in variants}
    notes = fill_template(
        "hsi_se.ablation",
        "scene_notes.txt",
        variants=variants,
        num_splits=num_splits,
        num_seeds=len({run.seed for run in everything}),
        leaks={name: percent(share) for name, share in leaks.items() if not np.isnan(share)},
        counts={
            (variant.name, name): Counter(run.outcomes[name] for run in variant.runs if name in run.outcomes)
            for variant in variants
            for name in variant.against
        },
        chosen=Counter(run.spectral_classifier for run in everything if run.spectral_classifier),
        without_curve=[name for name, mine in runs.items() if mine and name not in curves],
        lowest_best=lowest_best,
    )
    last = next((mine[-1] for mine in records.values() if mine), None)
    return SceneReport(
        name=scene or (last.scene if last else ""),
        num_splits=num_splits,
        class_names=dict(class_names),
        variants=variants,
        notes=(*(last.notes if last else ()), *notes.splitlines()),
        target=target if curves else None,
    )


def _rank(scenes: Sequence[SceneReport]) -> tuple[RankTest | None, str]:
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
    return rank_over_scenes(np.array(means), names=names), ""


def _list_caveats(
    baseline: str, groups: Collection[Sequence[AblationRun]], *, is_of_seeds: bool = False
) -> tuple[str, ...]:
    counts = (sum(run.difference is not None for run in runs) for runs in groups)
    text = fill_template(
        "hsi_se.ablation",
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


def _average_curves(records: Sequence[RunRecord]) -> Convergence | None:
    runs = [record.history for record in records]
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
