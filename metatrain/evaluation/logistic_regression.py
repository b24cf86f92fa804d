"""Logistic regression on fixed vectors, as strongly regularised as the support set itself says.

scikit-learn's C is relative to the length of the vectors: with C=1 and vectors of length 1, as sentence encoders give them, a class with
few examples is hardly learned. Here C is in units of 1 / mean squared length, and is the value with the least log loss on examples held out.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
from sklearn.linear_model import LogisticRegression

from metatrain.evaluation.statistics import log_loss
from metatrain.meta.head_fit import folds_of

STRENGTHS = (1.0, 10.0, 100.0, 1000.0)  # of C
WITHOUT_FOLDS = 100.0  # where no class has two examples: best at one example a class on validation tasks (docs/results.md)
_HELD_OUT = 100  # examples held out are enough: no more folds than that takes


def logistic_regression(features: np.ndarray, labels: np.ndarray) -> LogisticRegression:
    """Fit to features [examples, H] and labels [examples], with C chosen by cross-validation."""
    return fitted(features, labels, choose_strength(features, labels))


def choose_strength(features: np.ndarray, labels: np.ndarray) -> float:
    """Return the strength among `STRENGTHS` with the least log loss on examples held out; `WITHOUT_FOLDS` where none can be."""
    folds = list(_folds(labels))
    if not folds:
        return WITHOUT_FOLDS
    return min(STRENGTHS, key=lambda strength: sum(_held_out_loss(features, labels, fold, strength) for fold in folds))


def _folds(labels: np.ndarray) -> Iterator[np.ndarray]:
    """Folds until enough examples are held out."""
    count = 0
    for fold in folds_of(labels, np.zeros(len(labels), dtype=bool), seed=0):
        if count < _HELD_OUT:
            count += len(fold)
            yield fold


def _held_out_loss(features: np.ndarray, labels: np.ndarray, fold: np.ndarray, strength: float) -> float:
    """Log loss of the examples of a fold, in all."""
    rest = np.setdiff1d(np.arange(len(labels)), fold)
    return len(fold) * log_loss(fitted(features[rest], labels[rest], strength).predict_proba(features[fold]), labels[fold])


def fitted(features: np.ndarray, labels: np.ndarray, strength: float) -> LogisticRegression:
    """Fit with this strength: C times the mean squared length of the vectors."""
    squared_length = max(float(np.square(features).sum(1).mean()), np.finfo(np.float64).tiny)
    with warnings.catch_warnings():  # one example a class is no regression, as scikit-learn suspects
        warnings.filterwarnings("ignore", message="The number of unique classes is greater than 50%")
        return LogisticRegression(C=strength / squared_length, max_iter=1000).fit(features, labels)
