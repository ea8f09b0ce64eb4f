"""What is said of a run beside its accuracies: the verdict in words, and values fit for JSON."""

import numpy as np
import pytest

from hsi_se import make_split
from hsi_se.config.split import RandomSplit
from hsi_se.config.yaml_file import load_config
from hsi_se.evaluation.assessment import Assessment, assess
from hsi_se.evaluation.audit import audit_split
from hsi_se.evaluation.confidence import TemperatureScaling, fit_scaling
from hsi_se.sampling.splits import Split
from hsi_se.scene.scene import Scene
from tests.conftest import ROOT, TINY

CONFIG = load_config(ROOT / "configs" / "demo.yaml", TINY)


def make_logits(scene: Scene, *, accuracy: float) -> np.ndarray:
    """Logits that are right at this share of all pixels, and as sure everywhere: 4 against 0."""
    rng = np.random.default_rng(0)
    truth = np.searchsorted(scene.class_ids, np.maximum(scene.labels, scene.class_ids[0]))
    called = np.where(rng.random(scene.shape) < accuracy, truth, (truth + 1) % scene.num_classes)
    return np.where(np.arange(scene.num_classes) == called[..., None], 4.0, 0.0).astype(np.float32)


def assess_with(scene: Scene, split: Split, *, accuracy: float) -> Assessment:
    logits = make_logits(scene, accuracy=accuracy)
    components, at_test = scene.cube.astype(np.float32), logits[tuple(split.test.T)]
    return assess(
        scene,
        split,
        logits=at_test,
        unsmoothed=at_test,
        mapped_pixels=np.bincount(logits.argmax(axis=2)[scene.valid], minlength=scene.num_classes),
        components=components,
        config=CONFIG,
        scaling=fit_on_validation(scene, split, logits),
    )


def fit_on_validation(scene: Scene, split: Split, logits: np.ndarray) -> TemperatureScaling:
    rows, cols = split.val.T
    truth = np.searchsorted(scene.class_ids, scene.labels[rows, cols])
    return fit_scaling(logits[rows, cols], truth, source="validation", groups=np.arange(len(truth)))


def random_split(scene: Scene) -> Split:
    return make_split(scene, RandomSplit(kind="random", train=0.2), seed=0)


def test_a_network_below_the_floor_is_told_so_in_words(small_scene):
    assessment = assess_with(small_scene, random_split(small_scene), accuracy=0.5)
    floor, verdict = assessment.audit.location_floor.overall_accuracy, assessment.verdict
    assert verdict.against_floor.outcome == "worse"
    assert verdict.against_floor.difference == pytest.approx(assessment.evaluation.overall_accuracy - floor)
    assert verdict.findings.startswith("The network is worse than the location floor: ")
    assert "does not show that the network uses the spectra" in verdict.findings


def test_a_network_above_the_floor_is_told_by_how_much_and_what_leaks(small_scene):
    assessment = assess_with(small_scene, random_split(small_scene), accuracy=1.0)
    floor = assessment.audit.location_floor.overall_accuracy
    baseline = assessment.spectral_baseline.overall_accuracy
    spectral = f"spectral baseline, {assessment.machine.chosen.name}"
    for name, accuracy in (("location floor", floor), (spectral, baseline)):
        assert (
            f"The network is better than the {name}: 100.00 % against {100 * accuracy:.2f} %, "
            f"+{100 * (1 - accuracy):.2f} points (95 % interval +"
        ) in assessment.verdict.findings
    assert "% of the test patches contain training pixels" in assessment.verdict.findings


def test_a_disjoint_split_is_told_to_leak_nothing(small_scene):
    pixels = np.argwhere(small_scene.labels > 0)
    left, right = pixels[pixels[:, 1] < 8], pixels[pixels[:, 1] > 18]
    split = Split(train=left, val=left[:0], test=right)
    assessment = assess_with(small_scene, split, accuracy=1.0)
    assert assessment.audit.leakage.test_patches_with_train_pixels == 0
    assert assessment.verdict.findings.endswith("No test patch contains a training pixel.")


def test_without_validation_pixels_certainty_is_said_not_to_be_calibrated(small_scene):
    split = make_split(small_scene, RandomSplit(kind="random", train=0.2, validation=0), seed=0)
    assessment = assess_with(small_scene, split, accuracy=0.7)
    assert assessment.scaling.temperature == 1
    assert assessment.about_certainty.startswith(
        "The confidence is not calibrated: 0 validation pixels are too few to fit a temperature, which takes "
        "30; set prediction.calibration: cross-fit, or raise split.validation. "
    )
    assert f"{100 * assessment.calibration.ece:.2f} %" in assessment.about_certainty

    split = make_split(small_scene, RandomSplit(kind="random", train=0.4, validation=0.5), seed=0)
    assessment = assess_with(small_scene, split, accuracy=0.7)
    assert f"fitted on {len(split.val)} validation pixels" in assessment.about_certainty


def test_confidence_is_measured_on_test_pixels_at_the_temperature_of_the_run(small_scene):
    split = make_split(small_scene, RandomSplit(kind="random", train=0.4, validation=0.5), seed=0)
    assessment = assess_with(small_scene, split, accuracy=0.7)

    def confidence(temperature: float) -> float:
        return np.exp(4 / temperature) / (np.exp(4 / temperature) + small_scene.num_classes - 1)

    accuracy = assessment.evaluation.overall_accuracy
    assert assessment.calibration.ece == pytest.approx(abs(confidence(1.0) - accuracy), abs=1e-6)
    assert assessment.rejection.accuracy_at(1.0) == pytest.approx(accuracy)

    # Where every pixel is as sure, the best temperature makes that confidence the validation accuracy.
    rows, cols = split.val.T
    called = small_scene.class_ids[make_logits(small_scene, accuracy=0.7).argmax(axis=2)]
    on_validation = (called[rows, cols] == small_scene.labels[rows, cols]).mean()
    assert on_validation != pytest.approx(accuracy, abs=1e-3)
    assert confidence(assessment.scaling.temperature) == pytest.approx(on_validation, abs=1e-3)


@pytest.mark.parametrize(
    ("reduction", "saw_test"),
    [
        ("{kind: pca, components: 13, fit_on: train}", False),
        ("{kind: pca, components: 13, fit_on: scene}", True),
        ("{kind: mnf, components: 13, fit_on: train}", True),  # at random, test pixels lie beside training pixels
        ("{kind: mnf, components: 13, fit_on: scene}", True),
        ("{kind: none}", False),
    ],
)
def test_the_audit_says_whether_the_reduction_saw_the_test_pixels(small_scene, reduction, saw_test):
    config = load_config(ROOT / "configs" / "demo.yaml", [*TINY, f"reduction={reduction}"])
    audit = audit_split(small_scene, random_split(small_scene), config)
    assert audit.leakage.reduction_saw_test is saw_test


@pytest.mark.parametrize(
    ("step", "saw_test"), [((0, 1), True), ((-1, 0), True), ((1, 1), False), ((0, 2), False), ((-2, 1), False)]
)
@pytest.mark.parametrize(("kind", "sees_neighbours"), [("pca", False), ("mnf", True)])
def test_of_the_pixels_around_the_training_pixels_a_noise_fraction_saw_the_four_neighbours(
    small_scene, step, saw_test, kind, sees_neighbours
):
    config = load_config(
        ROOT / "configs" / "demo.yaml", [*TINY, f"reduction={{kind: {kind}, components: 13, fit_on: train}}"]
    )
    is_train = small_scene.labels > 0
    here = next(pixel for pixel in np.argwhere(is_train) if is_train[tuple(pixel + step)] and (pixel > 2).all())
    none = np.empty((0, 2), np.int64)
    beside = Split(train=here[None], val=none, test=(here + step)[None])
    assert audit_split(small_scene, beside, config).leakage.reduction_saw_test is (saw_test and sees_neighbours)
    # A validation pixel has no part in the fit.
    validated = Split(train=here[None] + (5, 5), val=here[None], test=(here + step)[None])
    assert not audit_split(small_scene, validated, config).leakage.reduction_saw_test


def test_the_audit_counts_every_class_on_every_side(small_scene):
    split = random_split(small_scene)
    counts = audit_split(small_scene, split, CONFIG).counts
    assert counts.sum(axis=0).tolist() == [len(split.train), len(split.val), len(split.test), 0]
    assert counts.sum(axis=1).tolist() == [(small_scene.labels == label).sum() for label in small_scene.class_ids]
