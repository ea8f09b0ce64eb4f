"""From finished runs to an answer: every variant's numbers, and its difference from the baseline, tested."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from hsi_se.ablation.file import Ablation, PlannedRun
from hsi_se.ablation.record import (
    AblationFolder,
    AblationReport,
    AblationRun,
    Comparison,
    FailedRun,
    FriedmanRecord,
    McNemarRecord,
    SceneReport,
    SummaryRecord,
    VariantReport,
)
from hsi_se.errors import RunError
from hsi_se.evaluation.metrics import number_or_none
from hsi_se.evaluation.statistics import (
    AMOUNT,
    LEVEL,
    SHARE,
    SIGNED,
    PairedTest,
    Range,
    adjust_holm,
    compare_correct,
    compare_pairs,
    describe_splits,
    fewest_pairs,
    least_p,
    rank_over_scenes,
    summarize,
    why_no_ranks,
)
from hsi_se.report.tables import points
from hsi_se.runs.records import RunRecord

SUMMARIZED: Mapping[str, Range] = {
    "overall_accuracy": SHARE,
    "average_accuracy": SHARE,
    "kappa": SIGNED,
    "location_floor": SHARE,
    "spectral_baseline": SHARE,
    "training_us_per_pixel": AMOUNT,
    "training_peak_bytes": AMOUNT,
    "mapping_us_per_pixel": AMOUNT,
    "mapping_peak_bytes": AMOUNT,
}

Key = tuple[str, str, int]  # scene, variant, seed
Correct = NDArray[np.bool_]
PairTest = Callable[[AblationRun, AblationRun], McNemarRecord | None]


def summarize_ablation(
    ablation: Ablation, folder: AblationFolder, *, failed: Sequence[FailedRun] = ()
) -> AblationReport:
    """Returns the answer of the runs that are finished in a folder; all others are missing."""
    runs: dict[Key, AblationRun] = {}
    records: dict[tuple[str, str], RunRecord] = {}
    for planned in ablation.runs:
        if is_finished(planned, folder):
            run, record = _read_run(planned, folder)
            runs[planned.scene, planned.variant, planned.seed] = run
            records[planned.scene, planned.variant] = record

    def test_pair(baseline: AblationRun, variant: AblationRun) -> McNemarRecord:
        first, second = (folder.open_run(run.folder).read_correct() for run in (baseline, variant))
        return compare_runs(first, second)

    return assemble(ablation, runs, records=records, test_pair=test_pair, failed=failed)


def is_finished(planned: PlannedRun, folder: AblationFolder) -> bool:
    """Whether a run is trained and evaluated under these very settings."""
    run = folder.run_of(planned.variant, planned.seed, scene=planned.scene)
    return (
        run.record.is_file() and run.is_evaluated and run.read_record().config_digest == planned.config.digest
    )


def _read_run(planned: PlannedRun, folder: AblationFolder) -> tuple[AblationRun, RunRecord]:
    run = folder.run_of(planned.variant, planned.seed, scene=planned.scene)
    record, report, cost = run.read_record(), run.read_report(), run.read_mapping_cost()
    num_epochs = len(record.history)
    return (
        AblationRun(
            seed=planned.seed,
            folder=run.path.relative_to(folder.path).as_posix(),
            config_digest=record.config_digest,
            split_digest=record.split_digest,
            precision=record.precision,
            num_test=report.num_test,
            overall_accuracy=report.overall_accuracy,
            average_accuracy=report.average_accuracy,
            kappa=report.kappa,
            location_floor=report.location_floor.overall_accuracy,
            spectral_baseline=report.spectral_baseline.overall_accuracy,
            training_s=record.training_s,
            training_us_per_pixel=1e6 * record.training_s / (num_epochs * record.num_train)
            if num_epochs
            else None,
            training_peak_bytes=record.peak_memory_bytes,
            mapping_s=cost.seconds,
            mapping_us_per_pixel=1e6 * cost.seconds / cost.num_pixels,
            mapping_peak_bytes=cost.peak_bytes,
            difference=None,
            mcnemar=None,
        ),
        record,
    )


def compare_runs(baseline: Correct, variant: Correct) -> McNemarRecord:
    """McNemar's test of which test pixels two runs call right."""
    only_baseline, only_variant = int((baseline & ~variant).sum()), int((variant & ~baseline).sum())
    p = compare_correct(only_baseline, only_variant)
    return McNemarRecord(only_baseline=only_baseline, only_variant=only_variant, p=p)


def assemble(
    ablation: Ablation,
    runs: Mapping[Key, AblationRun],
    *,
    records: Mapping[tuple[str, str], RunRecord],
    test_pair: PairTest,
    failed: Sequence[FailedRun] = (),
) -> AblationReport:
    """Returns the report of runs whose `difference` and `mcnemar` are still to be found.

    Args:
        ablation: what was asked for.
        runs: what is there.
        records: one of each scene's variants, for their size and notes.
        test_pair: compares the baseline's run of a seed with a variant's.
        failed: what did not finish.
    """
    grid = [(scene, variant) for scene in ablation.scenes for variant in ablation.variants]
    of_variant: dict[tuple[str, str], list[AblationRun]] = {}
    for scene, variant in grid:
        mine = []
        for seed in ablation.seeds:
            run = runs.get((scene, variant, seed))
            baseline = runs.get((scene, ablation.baseline, seed))
            if run is not None and baseline is not None and variant != ablation.baseline:
                if run.split_digest != baseline.split_digest:
                    raise RunError(
                        f"{run.folder}: has another split than {baseline.folder}, so that the scene's files "
                        "must have changed between them; name another folder with --out DIR"
                    )
                difference = run.overall_accuracy - baseline.overall_accuracy
                run = run.model_copy(update={"difference": difference, "mcnemar": test_pair(baseline, run)})
            mine += [] if run is None else [run]
        of_variant[scene, variant] = mine
    comparisons = _compare(of_variant)
    scenes = []
    for scene in ablation.scenes:
        variants = tuple(
            VariantReport(
                name=variant,
                settings=ablation.variants[variant],
                num_parameters=record.num_parameters if (record := records.get((scene, variant))) else None,
                macs_per_patch=record.macs_per_patch if record else None,
                runs=tuple(of_variant[scene, variant]),
                summaries={name: _summarize(of_variant[scene, variant], name) for name in SUMMARIZED},
                comparison=comparisons.get((scene, variant)),
            )
            for variant in ablation.variants
        )
        first = next(
            (records[scene, variant] for variant in ablation.variants if (scene, variant) in records), None
        )
        scenes.append(_describe_scene(scene, variants, first))
    friedman, reason = _rank(scenes)
    return AblationReport(
        name=ablation.name,
        digest=ablation.digest,
        baseline=ablation.baseline,
        seeds=ablation.seeds,
        threads=ablation.threads,
        scenes=tuple(scenes),
        friedman=friedman,
        no_friedman=reason,
        caveats=tuple(_list_caveats(ablation.baseline, of_variant.values())),
        failed=tuple(failed),
        num_missing=len(ablation.runs) - len(runs) - len(failed),
    )


def _summarize(runs: Iterable[AblationRun], name: str) -> SummaryRecord:
    values = [getattr(run, name) for run in runs]
    numbers = [np.nan if value is None else value for value in values]
    return SummaryRecord.of(summarize(numbers, within=SUMMARIZED[name]))


def _compare(
    of_variant: Mapping[tuple[str, str], Sequence[AblationRun]],
) -> dict[tuple[str, str], Comparison]:
    """Every variant with pairs against its scene's baseline; Holm over all of them."""
    tests = {}
    for key, runs in of_variant.items():
        differences = [run.difference for run in runs if run.difference is not None]
        if differences:
            tests[key] = compare_pairs(differences, within=SIGNED)
    adjusted = adjust_holm([test.p for test in tests.values()])
    return {key: _describe(test, float(p)) for (key, test), p in zip(tests.items(), adjusted, strict=True)}


def _describe(test: PairedTest, p_holm: float) -> Comparison:
    difference = test.difference
    is_shown = p_holm <= LEVEL
    values = f"{points(difference.mean)} points"
    if difference.n > 1:
        values += f", 95 % interval {points(difference.low)} to {points(difference.high)}"
    if is_shown:  # by ranks, of which the sign test's mean may know nothing
        verdict = "better" if test.rank_biserial > 0 else "worse"
        if test.rank_biserial * difference.mean < 0:
            verdict += f" for most seeds, though {'lower' if difference.mean < 0 else 'higher'} in the mean"
        sentence = f"{verdict}: {values}, n={difference.n}, p = {p_holm:.2g} after Holm"
    else:
        sentence = f"no difference shown: {values}, n={difference.n}"
        if difference.low > 0 or difference.high < 0:
            sentence += f" (p = {test.p:.2g}, {p_holm:.2g} after Holm)"
    return Comparison(
        difference=SummaryRecord.of(difference),
        rank_sum=test.rank_sum,
        p=test.p,
        p_holm=p_holm,
        effect_size=number_or_none(test.effect_size),
        rank_biserial=number_or_none(test.rank_biserial),
        is_shown=is_shown,
        sentence=sentence,
    )


def _describe_scene(scene: str, variants: tuple[VariantReport, ...], record: RunRecord | None) -> SceneReport:
    runs = [run for variant in variants for run in variant.runs]
    num_seeds, num_splits = len({run.seed for run in runs}), len({run.split_digest for run in runs})
    notes = [] if record is None else [*record.notes, describe_splits(num_splits, num_seeds)]
    for variant in variants:
        accuracy, floor = variant.summaries["overall_accuracy"].mean, variant.summaries["location_floor"].mean
        if accuracy is not None and floor is not None and accuracy <= floor:
            notes.append(
                f"{variant.name} does not clear the location floor ({100 * accuracy:.2f} % against "
                f"{100 * floor:.2f} %): nothing has been shown about the spectra."
            )
    name = scene or ("" if record is None else record.scene)
    return SceneReport(name=name, num_splits=num_splits, variants=variants, notes=tuple(notes))


def _average_shared_seeds(variants: Sequence[VariantReport]) -> list[float | None]:
    """Each variant's mean OA over the seeds that all of them have, None without any."""
    shared = set.intersection(*({run.seed for run in variant.runs} for variant in variants))
    of_variants = [
        [run.overall_accuracy for run in variant.runs if run.seed in shared] for variant in variants
    ]
    return [float(np.mean(values)) if values else None for values in of_variants]


def _rank(scenes: Sequence[SceneReport]) -> tuple[FriedmanRecord | None, str]:
    names = [variant.name for variant in scenes[0].variants]
    reason = why_no_ranks(len(scenes), len(names))
    means = [_average_shared_seeds(scene.variants) for scene in scenes]
    if not reason and any(mean is None for row in means for mean in row):
        reason = "on some scene no seed has a finished run of every variant"
    if reason:
        return None, reason
    test = rank_over_scenes(np.array(means, dtype=np.float64))
    is_finite = bool(np.isfinite(test.iman_davenport))
    return FriedmanRecord(
        average_ranks=dict(zip(names, test.average_ranks.tolist(), strict=True)),
        chi_square=test.chi_square,
        p=test.p,
        iman_davenport=test.iman_davenport if is_finite else None,
        iman_davenport_p=test.iman_davenport_p,
        critical_difference=test.critical_difference,
        groups=tuple(tuple(names[place] for place in group) for group in test.find_groups()),
    ), ""


def _list_caveats(baseline: str, groups: Iterable[Sequence[AblationRun]]) -> list[str]:
    groups = list(groups)
    pairs = [sum(run.difference is not None for run in runs) for runs in groups]
    pairs = [count for count in pairs if count]
    caveats = []
    if not pairs:
        caveats.append(
            f"No seed has a run of {baseline} and of another variant: there is nothing to compare."
        )
    elif min(pairs) < fewest_pairs(len(pairs)):
        fewest, one, all_ = min(pairs), fewest_pairs(), fewest_pairs(len(pairs))
        if fewest < one:
            caveats.append(
                f"With fewer than {one} seeds no two-sided signed-rank test can reach 5 %: the smallest p of "
                f"{fewest} pairs is 2/2^{fewest} = {least_p(fewest):.4g}, however large the differences."
            )
        if len(pairs) > 1:
            caveats.append(
                f"After Holm over {len(pairs)} comparisons none can reach 5 % below {all_} seeds; "
                f"there are {fewest}."
            )
    if pairs:
        caveats += [
            "Intervals are Student's of a mean, one at a time, cut to where it can lie; p is of the exact "
            f"two-sided Wilcoxon signed-rank test over the seeds, adjusted by Holm over {len(pairs)} "
            f"comparison{'s' if len(pairs) > 1 else ''}.",
            "McNemar's test is between two trained networks on the same test pixels. It takes these for "
            "independent, which neighbours are not, and says nothing about another seed.",
        ]
    if len({run.precision for runs in groups for run in runs}) > 1:
        caveats.append(
            "Some runs were trained with bfloat16 products and some with float32, as train.precision: auto "
            "chose on their devices: their differences, and their times, are also those of rounding."
        )
    return caveats
