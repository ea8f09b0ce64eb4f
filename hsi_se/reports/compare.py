"""The page of two runs side by side: accuracies with a paired test, both maps, and which classes gained."""

import json
from pathlib import Path

import numpy as np

from hsi_se.errors import RunError
from hsi_se.evaluation.assessment import TestPixels
from hsi_se.evaluation.metrics import evaluate_labels
from hsi_se.evaluation.statistics import compare_correct
from hsi_se.evaluation.verdict import compare_on_groups
from hsi_se.reports.explorer import RunFiles
from hsi_se.reports.page import MOST_BYTES, fit_maps
from hsi_se.reports.tables import render_template
from hsi_se.runs.folder import RunFolder


def write_comparison(one: RunFolder, other: RunFolder, page: Path) -> None:
    """Writes the page that compares `other` with `one` on the test pixels that both have.

    RunError if a run is not evaluated, or they are of different scenes or classes, or have no test pixel in common.
    """
    runs, remedy = [RunFiles.read(one), RunFiles.read(other)], "compare two runs of one scene and split"
    if len({(run.record.scene_digest, run.facts.class_ids) for run in runs}) > 1:
        raise RunError(f"{other}: has another scene or other classes than {one}; {remedy}")
    tested = [run.folder.read_arrays(TestPixels, run.folder.predictions) for run in runs]
    shape = runs[0].explorer.truth.shape
    at = [np.ravel_multi_index(tuple(each.pixels.T), shape) for each in tested]
    common, *places = np.intersect1d(*at, return_indices=True)
    if not common.size:
        raise RunError(f"{other}: has no test pixel in common with {one}; {remedy}")
    truth, facts = tested[0].truth[places[0]], runs[0].facts
    predicted = [each.predicted[place] for each, place in zip(tested, places, strict=True)]
    found = [
        evaluate_labels(truth, labels, class_ids=facts.class_ids, class_names=facts.class_names) for labels in predicted
    ]
    correct, unit = [labels == truth for labels in predicted], runs[0].report.against_location_floor.unit
    maps = {"truth": runs[0].explorer.truth, **{f"map_{n}": run.explorer.prediction for n, run in enumerate(runs)}}
    classes = runs[0].list_classes()
    thinned, described, packed = fit_maps(maps, room=MOST_BYTES - 5_000_000)
    data = {"shape": described[0]["shape"], "thinned": thinned, "maps": described, "classes": [*map(vars, classes)]}
    text = render_template(
        "compare.html",
        runs=runs,
        evaluations=found,
        against=compare_on_groups(correct[1], correct[0], (tested[0].groups[places[0]], unit)),
        mcnemar=compare_correct(*correct),
        classes=classes,
        num_differing=int((maps["map_0"] != maps["map_1"]).sum()),
        data=json.dumps(data, ensure_ascii=False).replace("<", "\\u003c"),
        maps=packed,
        thinned=thinned,
    )
    one.write(page, text)
