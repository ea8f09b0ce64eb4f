"""Evaluates a run: accuracies, baselines and reports."""

from pathlib import Path

from hsi_se.evaluation.assessment import Assessment, assess
from hsi_se.evaluation.baselines import SpectralBaseline
from hsi_se.evaluation.metrics import Evaluation
from hsi_se.models.inference import pick_device
from hsi_se.prediction.bundled import predict_bundled
from hsi_se.prediction.class_map import ClassMap, pick_classes
from hsi_se.report.explorer import make_explorer
from hsi_se.report.map_picture import save_map
from hsi_se.report.page import write_page
from hsi_se.report.tables import render_report
from hsi_se.runs.folder import RunFolder
from hsi_se.runs.opened import open_run
from hsi_se.runs.records import MappingCost
from hsi_se.runs.report import RunReport
from hsi_se.system.memory import Meter, keep_freed_memory
from hsi_se.system.session import Session


def evaluate(run: str | Path | RunFolder, *, session: Session = Session()) -> Evaluation:
    """Returns the accuracies of a run on its test pixels, and writes its reports and its map.

    Args:
        run: a folder that `train` wrote.
        session: the folder of scenes, the device and the observer.

    Raises:
        HsiError: the folder does not contain a run, or the scene is not the one it was trained on.
    """
    return assess_run(run, session=session).evaluation


def assess_run(
    run: str | Path | RunFolder,
    *,
    session: Session = Session(),
    machine: SpectralBaseline | None = None,
    draw: bool = True,
) -> Assessment:
    """As `evaluate`, and also returns the location floor, the leakage, the calibration and more.

    `machine` is the spectral baseline of the run's split and reduction, if it has been fitted already.
    """
    opened = open_run(run, data=session.data)
    folder, record, bundle = opened.folder, opened.record, opened.bundle
    split, scene, components = opened.split, opened.scene, opened.components
    torch_device = pick_device(session.device)
    if torch_device.type == "cpu":
        keep_freed_memory()
    meter = Meter(torch_device)
    logits, unsmoothed = predict_bundled(
        bundle, components, missing=~scene.valid, device=torch_device, observer=session.observer
    )
    cost = meter.stop()
    place = scene.georeference
    assessment = assess(
        scene,
        split,
        logits=logits,
        unsmoothed=unsmoothed,
        components=components,
        config=opened.config,
        scaling=bundle.facts.scaling,
        pixel_area_m2=None if place is None else place.pixel_area_m2,
        machine=machine,
    )
    for note in assessment.machine.notes:
        session.observer.note(note)
    labels = pick_classes(logits, class_ids=bundle.class_ids, missing=~scene.valid)
    if draw:
        title = f"{record.scene}, {record.name}: OA {100 * assessment.evaluation.overall_accuracy:.2f} %"
        class_map = ClassMap(labels, bundle.class_names, bundle.facts.palette)
        save_map(class_map, folder.map_figure, title=title)
    mapping = MappingCost(num_pixels=labels.size, seconds=cost.seconds, peak_bytes=cost.peak_bytes)
    row, col = split.test.T
    folder.write_predictions(scene.labels[row, col], labels[row, col], cost=mapping)
    text = render_report(assessment, record, folder)
    folder.write_report(RunReport.of_run(assessment, record), text=text)
    folder.write_explorer(vars(make_explorer(scene, split, logits=logits, assessment=assessment)))
    write_page(folder)
    return assessment
