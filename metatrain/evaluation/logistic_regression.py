"""Logistic regression on frozen encodings, with an L2 strength chosen on the support set.

The effect of scikit-learn's C depends on the length of the vectors: with C=1 and the unit-length vectors of sentence encoders, a class with
few examples is hardly learned. Here C is in units of 1 / mean squared length, and has the lowest log loss on held-out examples.
"""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.linear_model import LogisticRegression

from metatrain.evaluation.statistics import log_loss
from metatrain.meta.head_fit import ENOUGH_HELD_OUT, folds_of

STRENGTHS = (1.0, 10.0, 100.0, 1000.0)  # candidate values of C
WITHOUT_FOLDS = 100.0  # C if no class has two examples: the best value at one example per class on validation tasks (docs/results.md)


def logistic_regression(features: np.ndarray, labels: np.ndarray) -> LogisticRegression:
    """Fit to features [examples, H] and labels [examples], with C chosen by cross-validation."""
    return fitted(features, labels, choose_strength(features, labels))


def choose_strength(features: np.ndarray, labels: np.ndarray) -> float:
    """Return the strength among `STRENGTHS` with the lowest log loss on held-out examples; `WITHOUT_FOLDS` if no examples can be held out."""
    folds = folds_of(labels, seed=0, enough=ENOUGH_HELD_OUT)
    if not folds:
        return WITHOUT_FOLDS
    return min(STRENGTHS, key=lambda strength: sum(_held_out_loss(features, labels, fold, strength) for fold in folds))


def _held_out_loss(features: np.ndarray, labels: np.ndarray, fold: np.ndarray, strength: float) -> float:
    """Return the sum of the log loss over the examples of a fold."""
    rest = np.setdiff1d(np.arange(len(labels)), fold)
    return len(fold) * log_loss(fitted(features[rest], labels[rest], strength).predict_proba(features[fold]), labels[fold])


def fitted(features: np.ndarray, labels: np.ndarray, strength: float) -> LogisticRegression:
    """Fit with this strength, which is C times the mean squared length of the vectors."""
    squared_length = max(float(np.square(features).sum(1).mean()), np.finfo(np.float64).tiny)
    with warnings.catch_warnings():  # with one example per class, scikit-learn suspects a regression task
        warnings.filterwarnings("ignore", message="The number of unique classes is greater than 50%")
        return LogisticRegression(C=strength / squared_length, max_iter=1000).fit(features, labels)
