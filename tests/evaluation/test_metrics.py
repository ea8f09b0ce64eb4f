"""Accuracies against hand counts, a textbook example and scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from hsi_se.evaluation.metrics import Evaluation, evaluate_labels


def evaluation_of(confusion: list[list[int]]) -> Evaluation:
    counts = np.array(confusion)
    ids = tuple(range(1, len(counts) + 1))
    return Evaluation(counts, ids, tuple(f"class {label}" for label in ids))


def test_cohens_own_example_has_his_kappa():
    # Cohen 1960, A coefficient of agreement for nominal scales, Table 1: proportions, here of 200 cases.
    evaluation = evaluation_of([[88, 14, 18], [10, 40, 10], [2, 6, 12]])
    assert evaluation.overall_accuracy == pytest.approx(0.70)
    chance = (120 * 100 + 60 * 60 + 20 * 40) / 200**2
    assert chance == pytest.approx(0.41)
    assert evaluation.kappa == pytest.approx(0.492, abs=5e-4)


def test_rows_are_the_truth_so_aa_is_recall_and_not_precision():
    evaluation = evaluation_of([[8, 2], [0, 5]])
    assert evaluation.producers_accuracy.tolist() == [0.8, 1.0]
    assert evaluation.users_accuracy.tolist() == [1.0, 5 / 7]
    assert evaluation.average_accuracy == pytest.approx(0.9)
    assert evaluation.f1.tolist() == pytest.approx([16 / 18, 10 / 12])


def test_a_class_without_test_pixels_is_not_in_the_average():
    evaluation = evaluation_of([[4, 0, 0], [1, 3, 0], [0, 0, 0]])
    assert evaluation.average_accuracy == pytest.approx((1 + 0.75) / 2)
    assert np.isnan(evaluation.producers_accuracy[2])


def test_a_class_that_is_never_called_has_no_users_accuracy():
    evaluation = evaluation_of([[4, 0], [2, 0]])
    assert np.isnan(evaluation.users_accuracy[1])
    assert evaluation.f1[1] == 0


def test_kappa_is_undefined_where_chance_alone_agrees_everywhere():
    assert np.isnan(evaluation_of([[5, 0], [0, 0]]).kappa)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([1, 10, 12]), st.sampled_from([1, 10, 12])), min_size=2, max_size=60))
def test_everything_equals_scikit_learn(pairs):
    truth, predicted = np.array(pairs).T
    evaluation = evaluate_labels(truth, predicted, class_ids=[1, 10, 12], class_names=["a", "b", "c"])
    assert evaluation.num_test == len(pairs)
    assert evaluation.overall_accuracy == pytest.approx(metrics.accuracy_score(truth, predicted))
    present = np.unique(truth)
    recalls = metrics.recall_score(truth, predicted, labels=present, average=None, zero_division=0)
    assert evaluation.average_accuracy == pytest.approx(recalls.mean())
    f1 = metrics.f1_score(truth, predicted, labels=[1, 10, 12], average=None, zero_division=np.nan)
    np.testing.assert_allclose(evaluation.f1, f1)
    if len(np.union1d(truth, predicted)) > 1:
        assert evaluation.kappa == pytest.approx(metrics.cohen_kappa_score(truth, predicted))
