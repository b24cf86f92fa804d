"""How well one adapted model does on labelled rows: intervals, calibration, accuracy by class, and logistic regression beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression

from metatrain.meta.head_fit import folds_of

STRENGTHS = (10.0, 100.0)  # of logistic regression: C, in units of 1 / mean squared length of the encodings
_ENOUGH = 500  # examples held out in cross-validation: no more folds than that takes
_BINS = 10  # of confidence
_QUANTILE = 1.959964  # of the normal distribution, for 95%


@dataclass(frozen=True)
class Baseline:
    """Logistic regression on the encodings of the examples."""

    cross_validated: float | None  # accuracy on examples held out, with the better of `STRENGTHS`; None: no class has two examples
    predictions: np.ndarray  # labels of the queries, [queries]


def fits_of(labels: np.ndarray) -> int:
    """The number of fits that `logistic_regression` takes."""
    return len(STRENGTHS) * len(_folds(labels)) + 1


def logistic_regression(features: np.ndarray, labels: np.ndarray, queries: np.ndarray, on_progress: Callable[[], None]) -> Baseline:
    """Fit to features [examples, H] and labels [examples], and predict for queries [queries, H]; `on_progress` is called after each fit."""
    length = max(float(np.square(features).sum(1).mean()), np.finfo(np.float64).tiny)
    folds, everything = _folds(labels), np.arange(len(labels))

    def fitted(rows: np.ndarray, strength: float) -> LogisticRegression:
        model = LogisticRegression(C=strength / length, max_iter=1000).fit(features[rows], labels[rows])
        on_progress()
        return model

    correct = {
        strength: sum(int((fitted(np.setdiff1d(everything, fold), strength).predict(features[fold]) == labels[fold]).sum()) for fold in folds)
        for strength in STRENGTHS
        if folds
    }
    strength = max(correct, key=lambda each: correct[each], default=STRENGTHS[-1])
    model = fitted(everything, strength)
    accuracy = correct[strength] / sum(map(len, folds)) if folds else None
    return Baseline(accuracy, model.predict(queries) if len(queries) else np.zeros(0, np.int64))


def _folds(labels: np.ndarray) -> list[np.ndarray]:
    """Folds until enough examples are held out."""
    folds = folds_of(labels, np.zeros(len(labels), dtype=bool), seed=0)
    sizes = np.cumsum([0, *map(len, folds)])
    return [fold for fold, before in zip(folds, sizes) if before < _ENOUGH]


def interval(correct: int, examples: int) -> list[float]:
    """Wilson's 95% interval [low, high] of the share of correct predictions."""
    share, squared = correct / examples, _QUANTILE**2
    middle = (share + squared / (2 * examples)) / (1 + squared / examples)
    half = _QUANTILE / (1 + squared / examples) * (share * (1 - share) / examples + squared / (4 * examples**2)) ** 0.5
    return [max(0.0, middle - half), min(1.0, middle + half)]


def reliability(confidence: np.ndarray, correct: np.ndarray) -> list[dict[str, Any]]:
    """Mean confidence and accuracy of predictions in bins of confidence, without the empty ones; both [predictions]."""
    place = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    bins = [place == number for number in np.unique(place)]
    return [{"confidence": float(confidence[rows].mean()), "accuracy": float(correct[rows].mean()), "examples": int(rows.sum())} for rows in bins]


def by_class(predicted: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """Accuracy and number of examples of each class that has any, the lowest accuracy first."""
    found = [
        {"label": name, "accuracy": float((predicted[labels == label] == label).mean()), "examples": int((labels == label).sum())}
        for label, name in enumerate(names)
        if (labels == label).any()
    ]
    return sorted(found, key=lambda each: each["accuracy"])
