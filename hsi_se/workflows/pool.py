"""Pools the folds of a spatial cross-validation into one report, as if one run had tested every labelled pixel.

A folder of folds has the run of each fold in `fold-1`, `fold-2`, …, and beside them the files that the evaluation of an
ordinary run leaves. One draw of the folds is one such folder.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import ndimage
from scipy.stats import gmean

from hsi_se.config.experiment import Config
from hsi_se.config.split import AllSplit
from hsi_se.errors import ConfigError, RunError
from hsi_se.evaluation.assessment import Assessment, TestPixels, assess_pixels
from hsi_se.evaluation.audit import SplitAudit, pool_audits
from hsi_se.evaluation.baselines import pool_baselines
from hsi_se.evaluation.metrics import evaluate_labels
from hsi_se.progress import EpochRecord
from hsi_se.reports.explorer import Explorer, count_classes, join_explorers, show_assessment
from hsi_se.runs.folder import RunFolder
from hsi_se.runs.records import MappingCost, RunRecord, flatten
from hsi_se.runs.report import COUNTS, RunReport
from hsi_se.sampling.splits import number_pixels

_OWN = ("name", "seed", "split", "train.checkpoint_every_s", "prediction.calibration")  # may differ from the folds'


def find_draws(path: Path) -> list[RunFolder]:
    """Returns the folders of folds at or below a path, one for each draw, in the order of their seeds."""
    parents = {file.parent.parent for file in path.rglob("fold-*/record.json") if not file.parent.name.startswith(".")}
    return sorted(map(RunFolder, parents), key=lambda draw: (draw.path.parent, draw.folds[0].read_config().seed))


def read_pooled_config(draw: RunFolder) -> Config:
    """Returns the config of all folds of a draw; RunError if a fold is not trained, or with other settings."""
    config = draw.folds[0].read_config().with_fold(None)
    for number, of_fold in enumerate(config.list_folds(), start=1):
        fold = draw.fold(number)
        if not fold.record.is_file():
            raise RunError(f"{fold}: this fold is not trained yet; rerun the `hsi-se train` command that wrote {draw}")
        if RunFolder.open(fold.path).read_record().config_digest != of_fold.digest:
            raise RunError(f"{fold}: was trained with other settings than {draw.folds[0]}; train into another folder")
    return config


def pool_folds(draw: RunFolder) -> tuple[Assessment, RunRecord, Explorer, MappingCost]:
    """Returns what the evaluated folds of one draw show together: each labelled pixel as the fold that tested it.

    Pixels without a label belong to the fold of the nearest pixel with one. The training time and the cost of mapping
    are those of all folds; other facts of the record are means, or those of the first fold. RunError as in
    `read_pooled_config`, or if a fold is not evaluated.
    """
    config = read_pooled_config(draw)
    folds = draw.folds
    reports, records = [fold.read_report() for fold in folds], [fold.read_record() for fold in folds]
    parts = [fold.read_arrays(TestPixels, fold.predictions) for fold in folds]
    shape = folds[0].read_arrays(Explorer, folds[0].explorer).truth.shape
    owner = number_pixels([fold.read_split() for fold in folds], shape).astype(np.uint16)
    nearest = ndimage.distance_transform_edt(owner == 0, return_distances=False, return_indices=True)
    owner = owner[tuple(nearest)] - np.uint16(1)
    del nearest
    explorer = join_explorers((fold.read_arrays(Explorer, fold.explorer) for fold in folds), owner=owner)
    tested = TestPixels.join(parts)
    audit = pool_audits([_restore_audit(*each) for each in zip(reports, parts, strict=True)])
    pairs = zip(reports, parts, strict=True)
    baselines = [report.spectral_baseline.restore(part.by_spectrum) for report, part in pairs]
    scalings = [fold.read_facts().scaling for fold in folds]
    scaling = max(scalings, key=lambda each: len(each.lack))  # where a fold has no temperature, neither has the whole
    if scaling.is_scaled:
        scaling = replace(scaling, temperature=float(gmean([each.temperature for each in scalings])))
    assessment = assess_pixels(
        tested,
        audit=audit,
        unit=reports[0].against_location_floor.unit,
        config=config,
        scaling=scaling,
        machine=pool_baselines(baselines),
        mapped_pixels=count_classes(explorer.prediction, len(audit.counts)),
        pixel_area_m2=reports[0].pixel_area_m2,
    )
    findings = f"Pooled over {len(folds)} folds, which test every pixel once. {assessment.verdict.findings}"
    verdict, of_folds = replace(assessment.verdict, findings=findings), tuple(report.evaluation for report in reports)
    assessment = replace(assessment, folds=of_folds, verdict=verdict)
    stopped = [f"fold {number}: {each.stopped}" for number, each in enumerate(records, start=1) if each.stopped]
    names_of_means, costs = ("num_train", "num_val", "best_epoch"), [fold.read_mapping_cost() for fold in folds]
    record = records[0].model_copy(
        update={
            **{name: round(np.mean([getattr(record, name) for record in records])) for name in names_of_means},
            "config_digest": config.digest,
            "split_digest": audit.digest,
            "bundle_digest": None,
            "start_from_run": os.path.normpath(Path("fold-1", records[0].start_from_run)),
            "notes": (*audit.notes, *stopped),
            "stopped": "; ".join(stopped),
            "history": tuple(map(_average, zip(*(record.history for record in records), strict=False))),
            "training_s": sum(record.training_s for record in records),
            "peak_memory_bytes": max(record.peak_memory_bytes or 0 for record in records) or None,
        }
    )
    cost = MappingCost(
        num_pixels=sum(cost.num_pixels for cost in costs),
        seconds=sum(cost.seconds for cost in costs),
        peak_bytes=max(cost.peak_bytes or 0 for cost in costs) or None,
    )
    return assessment, record, show_assessment(explorer, assessment), cost


def _average(epochs: Sequence[EpochRecord]) -> EpochRecord:
    """Returns the means over the folds of what an epoch's record has for all classes together."""
    names = ("loss", "validation_accuracy", "validation_loss", "learning_rate", "patches_per_second", "elapsed_s")
    found = {name: [getattr(epoch, name) for epoch in epochs] for name in names}
    means = {name: None if None in values else float(np.mean(values)) for name, values in found.items()}
    return epochs[0].model_copy(update={**means, "validation_per_class": None})


def _restore_audit(report: RunReport, tested: TestPixels) -> SplitAudit:
    ids, names = report.evaluation.class_ids, report.evaluation.class_names
    floor = evaluate_labels(tested.truth, tested.by_location, class_ids=ids, class_names=names)
    counts = np.array([[getattr(row, name) for name in COUNTS] for row in report.split_per_class])
    return SplitAudit(report.split_digest, report.notes, report.leakage, floor, counts)


def find_folds_of(config: Config, *, starts: Sequence[str | Path] = ("",)) -> list[RunFolder]:
    """Returns the draws of the folds that `split.folds` names, for a classifier trained on every label.

    A relative path may begin in one of `starts`. ConfigError if there are no folds, or they have other settings.
    """
    assert isinstance(config.split, AllSplit)
    name = f"split.folds = {config.split.folds}"
    paths = (Path(start) / str(config.split.folds) for start in starts)
    draws: list[RunFolder] = next(filter(None, map(find_draws, paths)), [])
    if not draws:
        remedy = "give the --out folder of a config with split.kind: folds"
        raise ConfigError(f"{name}: no folds were trained there; {remedy}")
    for draw in draws:
        ours, theirs = (flatten(each.model_dump(mode="json")) for each in (config, read_pooled_config(draw)))
        keys = [key for key in ours | theirs if ours.get(key) != theirs.get(key)]
        if different := [key for key in keys if not any(f"{key}.".startswith(f"{own}.") for own in _OWN)]:
            values = ", ".join(f"{key} is {ours.get(key)} here and {theirs.get(key)} there" for key in different)
            raise ConfigError(f"{name}: those folds have other settings ({values}); train the folds again with these")
    return draws
