"""Scores of an adapted model on labelled examples: intervals, calibration, accuracy per class, and a logistic-regression baseline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from metatrain.evaluation.logistic_regression import choose_strength, fitted
from metatrain.meta.head_fit import folds_of

_ENOUGH = 500  # cross-validation stops after the fold that reaches this number of held-out examples
_BINS = 10  # number of confidence bins
QUANTILE = 1.959964  # 97.5% quantile of the normal distribution, for a 95% interval


@dataclass(frozen=True)
class Baseline:
    """Logistic regression on the encodings of the examples."""

    cross_validated: float | None  # accuracy on held-out examples; None: no class has two examples
    predictions: np.ndarray  # labels of the queries, [queries]


def baseline(features: np.ndarray, labels: np.ndarray, queries: np.ndarray, on_progress: Callable[[], None]) -> Baseline:
    """Fit to features [examples, H] and labels [examples], and predict the labels of queries [queries, H].

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
    """Return the number of progress steps of `baseline`."""
    return len(_folds(labels)) + 2


def _folds(labels: np.ndarray) -> list[np.ndarray]:
    return folds_of(labels, seed=0, enough=_ENOUGH)


def interval(correct: int, examples: int) -> list[float]:
    """Return the Wilson 95% interval [low, high] of the accuracy."""
    share, squared = correct / examples, QUANTILE**2
    middle = (share + squared / (2 * examples)) / (1 + squared / examples)
    half = QUANTILE / (1 + squared / examples) * (share * (1 - share) / examples + squared / (4 * examples**2)) ** 0.5
    return [max(0.0, middle - half), min(1.0, middle + half)]


def reliability(confidence: np.ndarray, correct: np.ndarray) -> list[dict[str, Any]]:
    """Return mean confidence and accuracy for each non-empty confidence bin; confidence and correct: [predictions]."""
    place = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    bins = [place == number for number in np.unique(place)]
    return [{"confidence": float(confidence[rows].mean()), "accuracy": float(correct[rows].mean()), "examples": int(rows.sum())} for rows in bins]


def by_class(predicted: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return accuracy and number of examples for each class with examples, lowest accuracy first."""
    found = [
        {"label": name, "accuracy": float((predicted[labels == label] == label).mean()), "examples": int((labels == label).sum())}
        for label, name in enumerate(names)
        if (labels == label).any()
    ]
    return sorted(found, key=lambda each: each["accuracy"])
