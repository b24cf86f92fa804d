"""Learning curve of the user's own examples: accuracy by number of training examples.

Logistic regression on the encodings before adaptation is fitted to nested, stratified parts of the training folds of a cross-validation, so every
size is judged on the same held-out examples, and the gain of the last doubling has a paired interval.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from metatrain.evaluation.held_out import QUANTILE, interval
from metatrain.evaluation.logistic_regression import choose_strength, fitted
from metatrain.meta.head_fit import folds_of

PARTS = (0.25, 0.5, 1.0)  # of the training folds; each but the first doubles the one before
_DRAWS, _MUCH = 3, 20_000  # random parts of each fold; one where examples times classes are more than this
_FEWEST, _PER_CLASS, _MOST = 40, 5, 2000  # examples in all and per class (mean) from which the curve is computed, and examples beyond which it is not


@dataclass(frozen=True)
class LearningCurve:
    """Accuracy by number of training examples."""

    sizes: tuple[int, ...]  # mean numbers of training examples, increasing
    correct: np.ndarray  # fraction of draws in which a held-out example is predicted correctly, [sizes, held-out examples]

    @property
    def accuracy(self) -> list[float]:
        """Mean accuracy at each size."""
        return self.correct.mean(1).tolist()

    @property
    def intervals(self) -> list[list[float]]:
        """Wilson 95% interval of the accuracy at each size."""
        number = self.correct.shape[1]
        return [interval(round(float(each.sum())), number) for each in self.correct]

    @property
    def last_gain(self) -> tuple[float, list[float]]:
        """(gain of the last doubling, its 95% interval, paired by held-out example)."""
        gain = self.correct[-1] - self.correct[-2]
        mean, half = float(gain.mean()), QUANTILE * float(gain.std(ddof=1)) / len(gain) ** 0.5
        return mean, [mean - half, mean + half]

    def results(self) -> dict[str, Any]:
        """Return the contents of `learning_curve` in results.json."""
        points = [{"examples": size, "accuracy": mean, "ci95": bounds} for size, mean, bounds in zip(self.sizes, self.accuracy, self.intervals)]
        gain, bounds = self.last_gain
        return {"points": points, "last_doubling": {"gain": gain, "ci95": bounds}}


def why_not(labels: np.ndarray) -> str | None:
    """Return why there is no learning curve for examples with these labels; None: there is one."""
    classes = len(np.unique(labels))
    fewest = max(_FEWEST, _PER_CLASS * classes)
    if len(labels) < fewest:
        return f"{len(labels)} examples of {classes} classes are too few for a learning curve, which needs {fewest}"
    return f"{len(labels):,} examples are more than {_MOST:,}" if len(labels) > _MOST else None


def num_fits(labels: np.ndarray) -> int:
    """Return the number of progress steps of `learning_curve`."""
    return len(_folds(labels, 0)) * ((len(PARTS) - 1) * _draws(labels) + 1)


def learning_curve(features: np.ndarray, labels: np.ndarray, seed: int, on_progress: Callable[[], None] = lambda: None) -> LearningCurve:
    """Compute the learning curve; `why_not(labels)` is None.

    features: [examples, H]; labels: [examples]; `on_progress` is called `num_fits(labels)` times.
    """
    strength, rng = choose_strength(features, labels), np.random.default_rng(seed)
    everything, correct, sizes = np.arange(len(labels)), [], []
    for fold in _folds(labels, seed):
        rest = np.setdiff1d(everything, fold)
        orders = [_order(labels[rest], rng) for _ in range(_draws(labels))]
        found = []
        for part in PARTS:
            size = round(part * len(rest))
            hits = []
            for order in orders[: 1 if part == 1 else None]:
                rows = rest[order[:size]]
                hits.append(_predicted(features, labels, rows, fold, strength) == labels[fold])
                on_progress()
            found.append(np.mean(hits, axis=0))
            sizes.append(size)
        correct.append(np.stack(found))
    means = np.reshape(sizes, (-1, len(PARTS))).mean(0)
    return LearningCurve(tuple(int(round(size)) for size in means), np.concatenate(correct, axis=1))


def _folds(labels: np.ndarray, seed: int) -> list[np.ndarray]:
    return folds_of(labels, seed)


def _draws(labels: np.ndarray) -> int:
    return _DRAWS if len(labels) * len(np.unique(labels)) <= _MUCH else 1


def _order(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a random order in which every beginning has the classes in proportion, the largest class first where it matters."""
    place = np.zeros(len(labels))
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        place[rows] = (np.arange(len(rows)) + rng.random()) / len(rows)
    return np.argsort(place, kind="stable")


def _predicted(features: np.ndarray, labels: np.ndarray, rows: np.ndarray, fold: np.ndarray, strength: float) -> np.ndarray:
    if len(np.unique(labels[rows])) < 2:
        return np.full(len(fold), labels[rows][0])
    return fitted(features[rows], labels[rows], strength).predict(features[fold])
