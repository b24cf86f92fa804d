import numpy as np
import pytest

from metatrain.evaluation.statistics import (
    accuracy,
    balanced_accuracy,
    calibration_error,
    half_width,
    interval,
    log_loss,
    mean_over_tasks,
    nested_bootstrap,
    verdict,
)


def test_always_answering_one_class_scores_half_balanced():
    labels = np.array([1] * 9 + [0])
    assert accuracy(np.ones(10), labels) == 0.9
    assert balanced_accuracy(np.ones(10), labels) == 0.5


def test_balanced_accuracy_agrees_with_scikit_learn():
    from sklearn.metrics import balanced_accuracy_score

    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(4, size=200), rng.integers(4, size=200)
    assert balanced_accuracy(predicted, labels) == pytest.approx(balanced_accuracy_score(labels, predicted))


def test_tasks_count_alike_however_many_episodes_they_have():
    assert mean_over_tasks([np.array([1.0]), np.zeros(99)]) == 0.5


def test_nested_bootstrap_has_the_variance_of_two_levels():
    """With T tasks of E episodes: Var = between / T + within / (T E), with the plug-in variances of the sample."""
    rng = np.random.default_rng(1)
    values = [rng.normal(task, 0.5, size=20) for task in rng.normal(0, 1, size=6)]
    found = nested_bootstrap(values, 40_000, np.random.default_rng(2))
    means = np.array([scores.mean() for scores in values])
    expected = means.var() / 6 + np.mean([scores.var() for scores in values]) / (6 * 20)
    assert found.mean() == pytest.approx(means.mean(), abs=0.01)
    assert found.var() == pytest.approx(expected, rel=0.05)


def test_an_interval_covers_a_known_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(200):
        values = [rng.normal(0.7 + shift, 0.1, size=10) for shift in rng.normal(0, 0.05, size=12)]
        low, high = interval(nested_bootstrap(values, 300, rng))
        covered += low <= 0.7 <= high
    assert covered >= 0.88 * 200  # a percentile bootstrap over few tasks falls a little short of 95%


def test_one_episode_has_no_interval_of_its_own():
    assert half_width(np.array([0.8])) == 0.0
    assert half_width(np.array([0.0, 1.0])) == pytest.approx(1.96 * np.sqrt(0.5) / np.sqrt(2))


@pytest.mark.parametrize(
    ("low", "high", "words"), [(0.01, 0.2, "better"), (-0.2, -0.01, "worse"), (-0.1, 0.1, "not distinguishable"), (0.0, 0.0, "not distinguishable")]
)
def test_verdicts(low, high, words):
    assert verdict(low, high) == words


def test_calibration_error_by_hand():
    confidence, right = np.array([0.95, 0.95, 0.55, 0.55]), np.array([True, False, True, True])
    assert calibration_error(confidence, right) == pytest.approx(0.5 * 0.45 + 0.5 * 0.45)
    assert calibration_error(np.array([1.0, 1.0]), np.array([True, True])) == 0


def test_log_loss_by_hand_and_of_what_no_probability_is():
    probabilities = np.array([[0.5, 0.5], [0.9, 0.1]])
    assert log_loss(probabilities, np.array([0, 1])) == pytest.approx(-(np.log(0.5) + np.log(0.1)) / 2)
    assert log_loss(np.array([[1.0, 0.0]]), np.array([0])) == 0
    never = -np.log(np.finfo(np.float64).eps)
    assert log_loss(np.array([[1.0, 0.0]]), np.array([1])) == log_loss(np.array([[np.nan, np.nan]]), np.array([1])) == pytest.approx(never)
