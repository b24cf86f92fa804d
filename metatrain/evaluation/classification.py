"""Scores of a classifier on labelled texts: precision, recall and F1 by class, confused classes, calibration, the most confident errors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from metatrain.evaluation import statistics
from metatrain.evaluation.held_out import interval, reliability
from metatrain.tasks.texts import beginning

_ERRORS = 50  # maximum number of errors recorded, the most confident first
_LONGEST = 300  # maximum number of characters of a recorded text


def class_scores(predicted: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return precision, recall and F1 for each class that occurs among the labels or the predictions, lowest F1 first.

    A quotient of nothing is null: the precision of a class that is never predicted, the recall of a class without examples. Their F1 is 0.
    predicted, labels: positions in `names`, [texts].
    """
    found = []
    for number, name in enumerate(names):
        examples, predictions, hits = (int(each.sum()) for each in (labels == number, predicted == number, (labels == number) & (predicted == number)))
        if examples or predictions:
            precision, recall = (hits / total if total else None for total in (predictions, examples))
            f1 = 2 * hits / (examples + predictions)
            found.append({"label": name, "precision": precision, "recall": recall, "f1": f1, "examples": examples, "predictions": predictions})
    return sorted(found, key=lambda each: each["f1"])


def summary(predicted: np.ndarray, labels: np.ndarray, by_class: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return accuracy with its 95% interval, balanced accuracy, and means over classes; by_class: of `class_scores`.

    The macro scores are plain means over these classes, in which a quotient of nothing counts as 0; weighted F1 weights by examples.
    """
    correct = predicted == labels
    macro = {key: float(np.mean([each[key] or 0.0 for each in by_class])) for key in ("precision", "recall", "f1")}
    return {
        "examples": len(labels),
        "accuracy": float(correct.mean()),
        "ci95": interval(int(correct.sum()), len(labels)),
        "balanced_accuracy": statistics.balanced_accuracy(predicted, labels),
        **{f"macro_{key}": value for key, value in macro.items()},
        "weighted_f1": sum(each["f1"] * each["examples"] for each in by_class) / len(labels),
    }


def calibration(confidence: np.ndarray, correct: np.ndarray) -> dict[str, Any]:
    """Return the mean confidence, the expected calibration error, and accuracy by confidence; confidence, correct: [predictions]."""
    error = statistics.calibration_error(confidence, correct)
    return {"mean_confidence": float(confidence.mean()), "calibration_error": error, "bins": reliability(confidence, correct)}


def confused(predicted: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> list[list[Any]]:
    """Return the cells of the confusion matrix that are not zero, as [label, prediction, count], the largest first."""
    counts = Counter(zip(labels.tolist(), predicted.tolist()))
    return [[names[label], names[prediction], count] for (label, prediction), count in counts.most_common()]


def confident_errors(predicted: np.ndarray, labels: np.ndarray, names: Sequence[str], confidence: np.ndarray, texts: Sequence[str]) -> list[dict[str, Any]]:
    """Return the errors with the highest confidence; `row` is the position of the text, from 0. confidence: NaN where there is none, [texts]."""
    wrong = np.flatnonzero(predicted != labels)
    order = wrong[np.argsort(-np.nan_to_num(confidence[wrong], nan=-1.0), kind="stable")][:_ERRORS]
    return [
        {
            "row": int(row),
            "text": beginning(texts[int(row)], _LONGEST),
            "label": names[labels[row]],
            "answer": names[predicted[row]],
            "probability": None if np.isnan(confidence[row]) else float(confidence[row]),
        }
        for row in order
    ]
