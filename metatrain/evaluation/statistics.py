"""Scores, and intervals that respect how they came about: episodes nested in tasks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

SCORES = ("accuracy", "balanced_accuracy")


def accuracy(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Share of right answers."""
    return float(np.mean(predicted == labels))


def balanced_accuracy(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the classes that occur of the share of right answers: always answering one class scores 1/classes."""
    return float(np.mean([np.mean(predicted[labels == label] == label) for label in np.unique(labels)]))


def log_loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean of -log p of the right label, in nats; a probability of 0, or none at all, counts as the least that a float64 adds to 1.

    probabilities: [answers, way]; labels: [answers].
    """
    of_right = np.nan_to_num(probabilities[np.arange(len(labels)), labels].astype(np.float64))
    return float(-np.log(np.clip(of_right, np.finfo(np.float64).eps, 1.0)).mean())


def calibration_error(confidence: np.ndarray, right: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error (Guo et al. 2017, eq. 3): how far confidence is from accuracy, in bins of equal width.

    confidence: probabilities of the answers given, shape [answers]; right: whether they were, boolean, shape [answers].
    """
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(place, weights=confidence - right, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


def mean_over_tasks(values: Iterable[Sequence[float] | np.ndarray]) -> float:
    """Mean of the tasks' means; values[t] are the scores of task t's episodes."""
    return float(np.mean([np.mean(scores) for scores in values]))


def nested_bootstrap(values: Sequence[np.ndarray], resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Resampled means of shape [resamples]: tasks drawn with replacement, then episodes within each drawn task.

    Tasks are the unit that generalises, so with few of them the spread is wide, as it should be (Bouthillier et al.
    2021). With one task only its episodes are resampled.
    """
    total = np.zeros(resamples)
    chosen = rng.integers(len(values), size=(resamples, len(values)))
    for slot in range(len(values)):
        for task, scores in enumerate(values):
            mine = np.flatnonzero(chosen[:, slot] == task)
            total[mine] += scores[rng.integers(len(scores), size=(len(mine), len(scores)))].mean(axis=1)
    return total / len(values)


def interval(resampled: np.ndarray) -> tuple[float, float]:
    """95% percentile interval."""
    low, high = np.percentile(resampled, [2.5, 97.5])
    return float(low), float(high)


def half_width(scores: np.ndarray) -> float:
    """Half of the 95% interval of one task's mean over its episodes (normal approximation); 0 for one episode."""
    return float(1.96 * np.std(scores, ddof=1) / np.sqrt(len(scores))) if len(scores) > 1 else 0.0


def verdict(low: float, high: float) -> str:
    """What an interval of a paired difference says."""
    return "better" if low > 0 else "worse" if high < 0 else "not distinguishable"
