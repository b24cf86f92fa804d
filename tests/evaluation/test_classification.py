"""Scores by class against scikit-learn, and the errors of a classifier."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, precision_recall_fscore_support

from metatrain.evaluation.classification import calibration, class_scores, confident_errors, confused, summary

NAMES = [f"class {number}" for number in range(6)]


@pytest.fixture
def some():
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 4, 200), rng.integers(0, 5, 200)  # class 4 has no examples, class 5 does not occur
    return np.where(rng.random(200) < 0.5, labels, predicted), labels


def test_scores_by_class_are_those_of_scikit_learn(some):
    predicted, labels = some
    found = {each["label"]: each for each in class_scores(predicted, labels, NAMES)}
    expected = precision_recall_fscore_support(labels, predicted, zero_division=np.nan)
    assert list(found) == sorted(found, key=lambda name: found[name]["f1"]) and set(found) == set(NAMES[:5])
    for number, (precision, recall, f1, examples) in enumerate(zip(*expected)):
        each = found[NAMES[number]]
        assert each["examples"] == examples and each["f1"] == pytest.approx(f1)
        assert each["precision"] == pytest.approx(precision)
        assert each["recall"] is None if np.isnan(recall) else each["recall"] == pytest.approx(recall)


def test_the_summary_is_that_of_scikit_learn(some):
    predicted, labels = some
    found = summary(predicted, labels, class_scores(predicted, labels, NAMES))
    for average in ("macro", "weighted"):
        *_, f1, _ = precision_recall_fscore_support(labels, predicted, average=average, zero_division=0)
        assert found[f"{average}_f1"] == pytest.approx(f1)
    assert found["accuracy"] == np.mean(predicted == labels) and found["ci95"][0] < found["accuracy"] < found["ci95"][1]
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels[predicted < 4], predicted[predicted < 4]), abs=0.2)


def test_confused_classes_are_the_cells_of_the_confusion_matrix(some):
    predicted, labels = some
    matrix = np.zeros((6, 6), dtype=int)
    for label, prediction, count in confused(predicted, labels, NAMES):
        matrix[NAMES.index(label), NAMES.index(prediction)] = count
    np.testing.assert_array_equal(matrix, confusion_matrix(labels, predicted, labels=range(6)))


def test_the_most_confident_errors_come_first():
    predicted, labels = np.array([0, 1, 1, 0, 1]), np.array([0, 0, 0, 1, 0])
    confidence = np.array([0.99, 0.6, 0.9, np.nan, 0.6])
    found = confident_errors(predicted, labels, NAMES, confidence, [f"text {number}" for number in range(4)] + ["long " * 200])
    assert [each["row"] for each in found] == [2, 1, 4, 3]
    assert found[0] == {"row": 2, "text": "text 2", "label": "class 0", "answer": "class 1", "probability": 0.9}
    assert found[3]["probability"] is None and len(found[2]["text"]) == 300


def test_calibration_is_the_gap_between_confidence_and_accuracy():
    found = calibration(np.array([0.75] * 4), np.array([True, True, False, False]))
    assert found["calibration_error"] == pytest.approx(0.25) and found["mean_confidence"] == 0.75
    assert [(each["confidence"], each["accuracy"], each["examples"]) for each in found["bins"]] == [(0.75, 0.5, 4)]
