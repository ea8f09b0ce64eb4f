"""Evaluates a run, the folds of a spatial cross-validation, or a network on another scene without a split."""

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hsi_se.config.experiment import Config
from hsi_se.config.split import AllSplit
from hsi_se.config.yaml_file import dump_config
from hsi_se.errors import RunError, SceneError
from hsi_se.evaluation.assessment import Assessment, assess
from hsi_se.evaluation.baselines import SpectralBaseline
from hsi_se.evaluation.metrics import Evaluation, evaluate_labels
from hsi_se.models.inference import pick_device
from hsi_se.prediction.bundled import map_targets, predict_bundled
from hsi_se.prediction.class_map import ClassMap
from hsi_se.prediction.target import find_scene, open_targets
from hsi_se.progress import Observer
from hsi_se.reports.explorer import Explorer, Likeliest, Places, count_classes, make_explorer
from hsi_se.reports.figures import save_map
from hsi_se.reports.page import write_page
from hsi_se.reports.tables import describe_draws, list_methods, render_report
from hsi_se.runs.bundle import ModelBundle
from hsi_se.runs.folder import RunFolder
from hsi_se.runs.opened import OpenedRun, open_run
from hsi_se.runs.records import MappingCost, RunRecord, flatten
from hsi_se.runs.report import RunReport
from hsi_se.scene.encodings import renumber
from hsi_se.scene.georeference import Georeference
from hsi_se.scene.loading import load_ground_truth
from hsi_se.scene.raster import chunk_rows
from hsi_se.scene.scene import UNLABELLED, GroundTruth
from hsi_se.system.memory import Meter, keep_freed_memory, return_freed_memory
from hsi_se.system.session import Session
from hsi_se.workflows.pool import find_folds_of, pool_folds, read_pooled_config


def assess_run(
    run: str | Path | RunFolder,
    *,
    session: Session = Session(),
    machine: SpectralBaseline | None = None,
    draw: bool = True,
) -> Assessment:
    """Returns the accuracies of a run on its test pixels, and what they are weighed with; writes its reports and map.

    A folder with the runs of all folds of a draw is pooled. HsiError if the folder does not contain a run, or the scene
    is not the one it was trained on.

    `machine` is the spectral baseline of the run's split and reduction, if it has been fitted already. Without `draw`,
    neither the map nor the page is drawn, as for the many runs of an ablation; `hsi-se report` draws the page.
    """
    if (folder := RunFolder(run)).folds:
        return _assess_folds(folder, session=session)
    opened = open_run(run, data=session.data)
    folder, record, bundle = opened.folder, opened.record, opened.bundle
    split, scene = opened.split, opened.scene
    settings = opened.config.split
    of_folds = _borrow_from_folds(opened, settings, session=session) if isinstance(settings, AllSplit) else None
    torch_device = pick_device(session.device)
    if torch_device.type == "cpu":
        keep_freed_memory()
    likeliest = Likeliest.of(scene, temperature=(of_folds or bundle.facts).scaling.temperature)
    meter = Meter(torch_device)
    logits, unsmoothed = predict_bundled(
        bundle, opened.components, split.test,
        missing=~scene.valid, windows=scene.windows, device=torch_device, observer=session.observer, see=likeliest.add,
    )  # fmt: skip
    cost = meter.stop()
    return_freed_memory()
    assessment = of_folds or assess(
        scene,
        split,
        logits=logits,
        unsmoothed=unsmoothed,
        mapped_pixels=count_classes(likeliest.classes[..., 0], scene.num_classes),
        components=opened.components,
        config=opened.config,
        scaling=bundle.facts.scaling,
        pixel_area_m2=scene.pixel_area_m2,
        machine=machine,
    )
    for note in assessment.machine.notes:
        session.observer.note(note)
    mapping = MappingCost(
        num_pixels=sum(scene.valid[window].size for window in scene.windows),
        seconds=cost.seconds - likeliest.seconds,
        peak_bytes=cost.peak_bytes,
    )
    explorer = [make_explorer(scene, split, likeliest=likeliest, assessment=assessment)]
    del likeliest, logits, unsmoothed
    _write_results(folder, assessment, record, explorer, cost=mapping, draw=draw, place=scene.georeference)
    _tell(session.observer, opened.config, record, assessment, page=folder.page if draw else None)
    return assessment


def _assess_folds(draw: RunFolder, *, session: Session) -> Assessment:
    """Evaluates the folds that are not evaluated yet, pools them and writes what they show together."""
    config = read_pooled_config(draw)
    for number, fold in enumerate(draw.folds, start=1):
        if not fold.is_evaluated:
            session.observer.note(f"evaluating fold {number} of {len(draw.folds)}")
            assess_run(fold, session=session, draw=False)
    assessment, record, explorer, cost = pool_folds(draw)
    draw.write(draw.config, dump_config(config))
    draw.write(draw.record, record)
    _write_results(draw, assessment, record, [explorer], cost=cost, draw=True)
    _tell(session.observer, config, record, assessment, page=draw.page)
    return assessment


def _tell(observer: Observer, config: Config, record: RunRecord, assessment: Assessment, *, page: Path | None) -> None:
    """Passes the accuracies of a run, its location floor and its spectral baseline on to an observer."""
    results: dict[str, float] = {}
    for name, found in list_methods(assessment):
        measures = {"OA": found.overall_accuracy, "AA": found.average_accuracy, "kappa": found.kappa}
        plain = name.replace(",", "")  # which MLflow refuses
        results |= {f"test/{plain} {key}": value for key, value in measures.items() if math.isfinite(value)}
    observer.begin_run(config.label, flatten(config.model_dump(mode="json")), epoch=len(record.history))
    observer.end_run(results, page=page)


def _borrow_from_folds(opened: OpenedRun, settings: AllSplit, *, session: Session) -> Assessment:
    """Returns the assessment of the folds that `split.folds` names, for a run that has no test pixels."""
    folder, start = opened.folder, opened.record.start
    if settings.folds is None:
        training = 'train the same config with --set "split={kind: folds, by: blocks}" --out DIR'
        remedy = f"{training}, add `folds: DIR` to split in {folder.config}, and evaluate again"
        raise RunError(f"{folder}: is trained on every labelled pixel, so none is left for testing; {remedy}")
    draws = find_folds_of(opened.config, starts=("", start, folder.path / opened.record.start_from_run))
    for draw in draws:
        if not draw.is_evaluated:
            _assess_folds(draw, session=session)
    assessment, where = pool_folds(draws[0])[0], settings.folds
    findings = f"The accuracies are those of the folds in {where}: this classifier is trained on every label."
    if len(draws) > 1:
        accuracies = [draw.read_report().overall_accuracy for draw in draws]
        findings += f" {describe_draws(accuracies)}. The first draw:"
    findings += f" {assessment.verdict.findings}"
    next_step = f"map the whole scene: `hsi-se map {shlex.quote(str(folder))}`"
    return replace(assessment, verdict=replace(assessment.verdict, findings=findings, next_step=next_step))


def _write_results(
    folder: RunFolder,
    assessment: Assessment,
    record: RunRecord,
    explorers: list[Explorer],
    *,
    cost: MappingCost,
    draw: bool,
    place: Georeference | None = None,
) -> None:
    """Writes the results; the explorer is taken from its list, as the page needs the memory."""
    explorer = explorers.pop()
    if draw:
        whose = " of the folds" if assessment.folds else ""
        title = f"{record.scene}, {record.name}: OA{whose} {100 * assessment.evaluation.overall_accuracy:.2f} %"
        _draw_map(folder, explorer.prediction, title=title, place=place)
    folder.write_arrays(folder.predictions, vars(assessment.tested))
    folder.write(folder.mapping_cost, cost)
    folder.write(folder.report_text, render_report(assessment, record, folder))
    folder.write(folder.report, RunReport.of_run(assessment, record))
    folder.write_arrays(folder.explorer, vars(explorer))
    del explorer
    if draw:
        write_page(folder)


def _draw_map(folder: RunFolder, prediction: Places, *, title: str, place: Georeference | None) -> None:
    facts = next(iter(folder.folds), folder).read_facts()
    ids, labels = np.array([UNLABELLED, *facts.class_ids], np.int32), np.empty_like(prediction, np.int32)
    for part in chunk_rows(len(labels)):
        labels[part] = ids[prediction[part]]
    names = dict(zip(facts.class_ids, facts.class_names, strict=True))
    save_map(ClassMap(labels, names, facts.palette), folder.map_figure, title=title, place=place)


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

    The scene is reduced with the statistics of the training scene; it has the bands that the network was trained on,
    before or after its bad ones were dropped. `scene` and `overrides` are as for `find_scene`. HsiError if the run or
    the scene cannot be read, its bands or values are not those of the training, or no label is known to the network.
    """
    folder = RunFolder.open(run)
    bundle, record = folder.read_bundle(), folder.read_record()
    settings = find_scene(folder, scene, overrides, data=session.data, unread=("palette",))
    truth = load_ground_truth(settings, session.data)
    if truth.is_named:
        labels, names = renumber(truth.labels, truth.class_names, like=bundle.class_names)
        truth = replace(truth, labels=labels, class_names=names)
    notes = (*truth.notes, *_compare_classes(truth, bundle))
    targets = open_targets(bundle, settings, data=session.data)
    predicted = map_targets(bundle, targets, session=session).labels
    known = np.isin(truth.labels, bundle.class_ids) & (predicted != UNLABELLED)
    evaluation = evaluate_labels(
        truth.labels[known], predicted[known], class_ids=bundle.facts.class_ids, class_names=bundle.facts.class_names
    )
    return CrossScene(
        record.scene, truth.name, evaluation, (*notes, *(note for target in targets for note in target.notes))
    )


def _compare_classes(other: GroundTruth, bundle: ModelBundle) -> list[str]:
    names, notes = bundle.class_names, []
    unknown = [label for label in other.class_ids.tolist() if label not in names]
    if len(unknown) == other.num_classes:
        ours, theirs = (", ".join(map(str, labels)) for labels in (names, unknown))
        problem = f"its labels ({theirs}) are not among the network's ({ours})"
        raise SceneError(f"--scene {other.name}: {problem}; give labels with the ids of the training")
    if unknown:
        excluded = f"{int(np.isin(other.labels, unknown).sum()):,} pixels of labels {', '.join(map(str, unknown))}"
        notes.append(f"{excluded} are excluded: the network does not know them")
    renamed = [
        f"{label} is {names[label]} in training and {name} here"
        for label, name in other.class_names.items()
        if label in names and name != names[label] and name != f"class {label}"
    ]
    if renamed:
        notes.append(f"labels are matched by number, and {'; '.join(renamed)}")
    return notes
