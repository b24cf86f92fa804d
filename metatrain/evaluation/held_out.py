"""How well one adapted model does on labelled rows: intervals, calibration, accuracy by class, and logistic regression beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from metatrain.evaluation.logistic_regression import choose_strength, fitted
from metatrain.meta.head_fit import folds_of

_ENOUGH = 500  # examples held out in cross-validation: no more folds than that takes
_BINS = 10  # of confidence
_QUANTILE = 1.959964  # of the normal distribution, for 95%


@dataclass(frozen=True)
class Baseline:
    """Logistic regression on the encodings of the examples."""

    cross_validated: float | None  # accuracy on examples held out; None: no class has two examples
    predictions: np.ndarray  # labels of the queries, [queries]


def baseline(features: np.ndarray, labels: np.ndarray, queries: np.ndarray, on_progress: Callable[[], None]) -> Baseline:
    """Fit to features [examples, H] and labels [examples], and predict for queries [queries, H].

    `on_progress` is called `baseline_fits(labels)` times.
    """
    strength, folds, everything = choose_strength(features, labels), _folds(labels), np.arange(len(labels))
    on_progress()
    correct = 0
    for fold in folds:
        rest = np.setdiff1d(everything, fold)
        correct += int((fitted(features[rest], labels[rest], strength).predict(features[fold]) == labels[fold]).sum())
        on_progress()
    model = fitted(features, labels, strength)
    on_progress()
    return Baseline(correct / sum(map(len, folds)) if folds else None, model.predict(queries) if len(queries) else np.zeros(0, np.int64))


def baseline_fits(labels: np.ndarray) -> int:
    """The number of steps of `baseline`."""
    return len(_folds(labels)) + 2


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
