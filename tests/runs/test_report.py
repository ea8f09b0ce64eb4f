"""`report.json`: what it says is what was assessed, and no other file is taken for it."""

import json

import numpy as np
import pytest

from hsi_se import make_split
from hsi_se.config.split import RandomSplit
from hsi_se.errors import RunError
from hsi_se.runs.folder import RunFolder
from hsi_se.runs.records import RunRecord
from hsi_se.runs.report import RunReport, SplitReport
from hsi_se.scene.scene import Scene
from tests.evaluation.test_assessment import assess_with

SPLIT = RandomSplit(kind="random", train=0.4, validation=0.5)
VERSIONS = {"hsi_se": "1", "torch": "2", "numpy": "2", "sklearn": "1", "python": "3"}
RECORD = RunRecord(
    name="demo", seed=3, config_digest="c", scene="farm", scene_digest="s", image_digests=("i",),
    split_digest="p", data=None,
    start="", start_from_run="",
    device="cpu", precision="float32", notes=("a note",), num_train=1, num_val=0, versions=VERSIONS,
    num_parameters=10, macs_per_patch=20, best_epoch=1, history=(), training_s=1.5,
)  # fmt: skip


@pytest.fixture(scope="module")
def report(small_scene) -> RunReport:
    split = make_split(small_scene, SPLIT, seed=0)
    return RunReport.of_run(assess_with(small_scene, split, accuracy=0.7), RECORD)


@pytest.fixture(scope="module")
def values(report) -> dict:
    return json.loads(report.model_dump_json(by_alias=True))


@pytest.fixture
def folder(tmp_path, report) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.write(folder.record, RECORD)
    folder.write(folder.report, report)
    return folder


def test_a_report_read_back_is_the_one_that_was_written(folder, report):
    assert folder.read_report() == report


def test_the_values_are_json_without_nan_and_count_every_pixel(small_scene, values):
    split = make_split(small_scene, SPLIT, seed=0)
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert sum(row["mapped_pixels"] for row in values["area"]) == small_scene.labels.size
    assert values["num_test"] == len(split.test) == np.sum(values["confusion_matrix"])
    assert set(values["leakage"]) == {
        "patch_size", "test_patches_with_train_pixels", "mean_train_pixels_per_test_patch", "min_distance",
        "reduction_saw_test",
    }  # fmt: skip
    for method in ("location_floor", "spectral_baseline"):
        assert {"overall_accuracy", "average_accuracy", "kappa"} <= set(values[method])
    baseline = values["spectral_baseline"]
    assert {"classifier", "reduction", "num_features", "parameters", "accuracy", "chosen_by"} == set(baseline["chosen"])
    assert baseline["chosen"] in baseline["candidates"]
    assert (values["seed"], values["notes"], values["training_s"]) == (3, ["a note"], 1.5)


def test_the_matrix_and_the_classes_give_the_evaluation_back(small_scene, report):
    expected = assess_with(small_scene, make_split(small_scene, SPLIT, seed=0), accuracy=0.7).evaluation
    np.testing.assert_array_equal(report.evaluation.confusion, expected.confusion)
    assert report.evaluation.class_ids == expected.class_ids
    assert report.evaluation.class_names == expected.class_names
    assert report.overall_accuracy == expected.overall_accuracy == report.evaluation.overall_accuracy


def test_the_record_says_what_an_adjusted_area_cannot_know_right_before_the_areas(values):
    names = list(values)
    assert names.index("area_caveat") + 1 == names.index("area")
    assert "probability sample" in values["area_caveat"]


def test_a_network_below_the_floor_is_recorded_as_such(small_scene):
    split = make_split(small_scene, RandomSplit(kind="random", train=0.2), seed=0)
    assessment = assess_with(small_scene, split, accuracy=0.5)
    report = RunReport.of_run(assessment, RECORD)
    assert report.outcome == report.against_location_floor.outcome == "worse"
    assert report.against_location_floor.high < 0
    assert (report.verdict, report.next_step) == (assessment.verdict.findings, assessment.verdict.next_step)


def test_both_comparisons_are_recorded_as_data(report, values):
    for name in ("location_floor", "spectral_baseline"):
        found = values[f"against_{name}"]
        assert set(found) == {"difference", "low", "high", "unit", "num_units", "outcome"}
        expected = report.overall_accuracy - getattr(report, name).overall_accuracy
        assert found["difference"] == pytest.approx(expected)
        assert found["low"] <= found["difference"] <= found["high"]
        assert found["unit"] == "fields"


def test_without_validation_pixels_the_record_says_that_certainty_is_not_calibrated(small_scene, report):
    split = make_split(small_scene, RandomSplit(kind="random", train=0.2, validation=0), seed=0)
    assessment = assess_with(small_scene, split, accuracy=0.7)
    found = RunReport.of_run(assessment, RECORD).calibration
    assert (found.scaling.is_scaled, found.scaling.temperature) == (False, 1)
    assert found.about == assessment.about_certainty
    assert report.calibration.scaling.is_scaled


def test_the_audit_of_a_split_has_the_keys_of_the_report(small_scene: Scene, values):
    split = make_split(small_scene, SPLIT, seed=0)
    audit = SplitReport.of_split(assess_with(small_scene, split, accuracy=0.7).audit).model_dump(mode="json")
    assert audit == {name: [] if name == "notes" else values[name] for name in audit}


def cut_row(values: dict) -> None:
    values["confusion_matrix"][0].pop()


def count_another(values: dict) -> None:
    values["confusion_matrix"][0][0] += 1


def rename_class(values: dict) -> None:
    values["area"][0]["label"] = 99


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda values: values.clear(), "overall_accuracy: Field required"),
        (lambda values: values.update(overall_accuracy=1.5), "overall_accuracy: Input should be less than"),
        (lambda values: values.update(extra=1), "extra: Extra inputs are not permitted"),
        (cut_row, "confusion_matrix is not 9 × 9"),
        (count_another, "confusion_matrix does not count num_test pixels"),
        (rename_class, "area lists other classes than per_class"),
    ],
)
def test_a_damaged_report_is_one_line_with_its_remedy(folder, values, spoil, reason):
    spoiled = json.loads(json.dumps(values))
    spoil(spoiled)
    folder.report.write_text(json.dumps(spoiled))
    with pytest.raises(RunError) as caught:
        folder.read_report()
    message = str(caught.value)
    assert message.startswith(f"{folder.report}: not what this version writes (")
    assert reason in message
    assert message.endswith(f"; run `hsi-se eval {folder}`")
    assert "\n" not in message


@pytest.mark.parametrize("content", ["[1]", "{", "", "\x00"])
def test_a_foreign_file_is_one_line_with_its_remedy(folder, content):
    folder.report.write_text(content)
    with pytest.raises(RunError, match=r"^[^\n]*not what this version writes[^\n]*; run `hsi-se eval"):
        folder.read_report()
