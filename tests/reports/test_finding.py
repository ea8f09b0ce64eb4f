"""The first sentence of a page says what the data show, and no more."""

import pytest

from hsi_se.config.yaml_file import load_config
from hsi_se.evaluation.verdict import BaselineComparison
from hsi_se.reports.finding import describe_finding
from tests.conftest import ROOT, TINY

GROUNDS = {
    "{kind: fields, train: 0.1}": ("fields the network has not seen", "fields beside training pixels"),
    "{kind: blocks, train: 0.1}": ("blocks the network has not seen", "blocks beside training pixels"),
    "{kind: folds, by: fields}": ("fields the network has not seen", "fields beside training pixels"),
    "{kind: folds, by: groups}": (
        "groups of pixels the network has not seen", "groups of pixels beside training pixels",
    ),
    "{kind: folds, by: images}": ("images the network has not seen", "images beside training pixels"),
    "{kind: random, train: 0.1}": (
        "pixels drawn at random from the same fields as the training pixels",
        "pixels drawn at random between the training pixels",
    ),
    "{kind: masks, partition: a.mat}": (
        "the given test pixels", "the given test pixels, some beside training pixels",
    ),
    "{kind: all, folds: runs/a}": ("the test pixels of the folds",) * 2,
}  # fmt: skip
BETTER = BaselineComparison(0.0612, 0.041, 0.0814, "fields", 19, "better")
WORSE = BaselineComparison(-0.0612, -0.0814, -0.041, "fields", 19, "worse")
UNSHOWN = BaselineComparison(0.0061, -0.02, 0.0322, "fields", 19, "no difference shown")
UNKNOWN = BaselineComparison(0.0061, None, None, "fields", 3, "no difference shown")


@pytest.fixture(scope="module")
def describe(run):
    report = run.read_report()

    def call(split="{kind: fields, train: 0.1}", *, leaking=0.0, baseline=BETTER, floor=BETTER, changes=()):
        leakage = report.leakage.__class__(**{**vars(report.leakage), "test_patches_with_train_pixels": leaking})
        update = {
            "overall_accuracy": 0.8244, "leakage": leakage, "against_spectral_baseline": baseline,
            "against_location_floor": floor,
        }  # fmt: skip
        config = load_config(ROOT / "configs" / "demo.yaml", (*TINY, f"split={split}", *changes))
        return describe_finding(report.model_copy(update=update), config)

    return call


@pytest.mark.parametrize(("split", "grounds"), GROUNDS.items())
def test_the_ground_is_named_as_the_split_and_the_leakage_allow(describe, split, grounds):
    for leaking, ground in zip((0.0, 0.3), grounds, strict=True):
        assert describe(split, leaking=leaking) == (
            f"82.4 % correct on {ground}, 6.1 points above the best pixel classifier; "
            "95 % interval of the difference +4.1 to +8.1 points."
        )


@pytest.mark.parametrize(
    ("baseline", "said"),
    [
        (WORSE, ", 6.1 points below the best pixel classifier; 95 % interval of the difference −8.1 to −4.1 points."),
        (
            UNSHOWN,
            "; no difference from the best pixel classifier is shown; "
            "95 % interval of the difference −2.0 to +3.2 points.",
        ),
        (UNKNOWN, "; too few fields (3) to show a difference from the best pixel classifier."),
        (None, ", by the best pixel classifier itself."),
    ],
)
def test_a_difference_is_claimed_only_where_its_interval_excludes_0(describe, baseline, said):
    assert describe(baseline=baseline) == f"82.4 % correct on fields the network has not seen{said}"


def test_a_location_floor_that_is_not_cleared_is_part_of_the_finding(describe):
    assert describe(floor=WORSE).endswith(" points. Row and column alone reach more.")
    for floor in (UNSHOWN, UNKNOWN):
        assert describe(floor=floor).endswith(" points. No difference from row and column alone is shown.")


def test_a_classifier_is_not_called_a_network(describe):
    assert "fields the classifier has not seen" in describe(changes=("model={name: svm}",))
