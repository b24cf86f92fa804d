"""Scores of label sets and numbers, beside scikit-learn and scipy, and thresholds from held-out examples."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from metatrain.evaluation.label_sets import label_scores, most_frequent_sets, set_scores
from metatrain.evaluation.number_scores import number_scores
from metatrain.meta.thresholds import best_threshold, choose_thresholds, held_out_sets


def test_scores_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    targets, predicted = rng.random((50, 4)) < 0.3, rng.random((50, 4)) < 0.4
    targets[:, 3] = predicted[:, 3] = False  # a label that never occurs
    found = set_scores(predicted, targets)
    assert found["micro_f1"] == pytest.approx(f1_score(targets, predicted, average="micro"))
    assert found["macro_f1"] == pytest.approx(f1_score(targets, predicted, average="macro", zero_division=0))
    assert found["subset_accuracy"] == pytest.approx(accuracy_score(targets, predicted)) and found["examples"] == 50
    by_label = label_scores(predicted, targets, ["a", "b", "c", "d"])
    assert by_label[0] == {"label": "d", "precision": None, "recall": None, "f1": 0.0, "examples": 0, "predictions": 0}
    assert most_frequent_sets(targets, 2).tolist() == [(np.arange(4) == targets.sum(0).argmax()).tolist()] * 2


def test_the_threshold_has_the_highest_f1():
    rng = np.random.default_rng(1)
    for _ in range(20):
        targets = rng.random(30) < 0.4
        targets[0] = True
        probabilities = np.round(rng.random(30), 1)  # with ties
        found = best_threshold(probabilities, targets)
        scores = {cut: f1_score(targets, probabilities >= cut, zero_division=0) for cut in np.linspace(0, 1, 101)}
        assert f1_score(targets, probabilities >= found) == pytest.approx(max(scores.values()))


def test_rare_labels_share_a_threshold():
    targets = np.zeros((40, 2), dtype=bool)
    targets[:20, 0], targets[:3, 1] = True, True
    probabilities, fold_of = np.where(targets, 0.4, 0.2), np.arange(40) % 4
    found = choose_thresholds(probabilities, targets, fold_of, 0.5)
    assert found.is_own.tolist() == [True, False] and not found.is_default.any() and found.values.tolist() == pytest.approx([0.3, 0.3])
    few = choose_thresholds(probabilities[:3], targets[:3] & [False, True], fold_of[:3], 0.5)
    assert few.values.tolist() == [0.5, 0.5] and few.is_default.all()
    assert (held_out_sets(probabilities, targets, fold_of, 0.5) == targets).all()


def test_a_label_that_is_not_learned_keeps_the_default():
    rng = np.random.default_rng(2)
    targets = rng.random((200, 1)) < 0.2
    found = choose_thresholds(np.full((200, 1), 0.2), targets, np.arange(200) % 5, 0.5)
    assert found.is_default.all() and found.values.tolist() == [0.5]


def test_scores_of_numbers():
    found = number_scores(np.array([1.2, 2.6, 2.4]), np.array([1.0, 2.0, 3.0]), is_whole=True)
    assert found["mean_absolute_error"] == pytest.approx(1.4 / 3) and found["spearman"] == pytest.approx(0.5) and found["accuracy"] == pytest.approx(1 / 3)
    low, high = found["mean_absolute_error_ci95"]
    assert low < found["mean_absolute_error"] < high
    alone = number_scores(np.array([1.5]), np.array([1.0]), is_whole=False)
    assert alone["spearman"] is None and alone["mean_absolute_error_ci95"] is None and "accuracy" not in alone
