"""Thresholds of the probabilities of labels, chosen on held-out examples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from metatrain.meta.label_fit import LabelFit
from metatrain.models.targets import DEFAULT_THRESHOLD, sigmoid

ENOUGH = 10  # examples that have a label, from which it gets a threshold of its own


@dataclass(frozen=True)
class Thresholds:
    """Thresholds of the probabilities of labels."""

    values: np.ndarray  # [labels]
    is_own: np.ndarray  # labels with a threshold of their own, boolean, [labels]
    is_default: np.ndarray  # labels with the default; the others share one


def choose_thresholds(probabilities: np.ndarray, targets: np.ndarray, fold_of: np.ndarray, default: float) -> Thresholds:
    """Choose the threshold of each label with the highest F1 on held-out examples.

    A label that fewer than `ENOUGH` examples have gets the threshold with the highest micro F1 over all labels. A threshold has to show, on folds
    that it was not chosen on, a higher F1 than that of predicting the label for every text; otherwise it is the default. So it is with fewer than
    `ENOUGH` labels of examples in all.

    probabilities: [examples, labels]; targets: boolean, [examples, labels]; fold_of: the fold in which an example was held out, [examples].
    """
    number = targets.shape[1]
    shared = _tested_threshold(probabilities.ravel(), targets.ravel(), np.repeat(fold_of, number))
    is_own = targets.sum(0) >= ENOUGH
    found = [_tested_threshold(probabilities[:, label], targets[:, label], fold_of) if is_own[label] else shared for label in range(number)]
    is_default = np.array([each is None for each in found], dtype=bool)
    return Thresholds(np.array([default if each is None else each for each in found]), is_own & ~is_default, is_default)


def _tested_threshold(probabilities: np.ndarray, targets: np.ndarray, fold_of: np.ndarray) -> float | None:
    """Return the best threshold; None: there are too few targets, or it is no better than predicting all of them. All: [examples]."""
    if targets.sum() < ENOUGH:
        return None
    predicted = np.zeros(len(targets), dtype=bool)
    for fold in np.unique(fold_of):
        here = fold_of == fold
        predicted[here] = probabilities[here] >= (best_threshold(probabilities[~here], targets[~here]) if targets[~here].any() else np.inf)
    f1, f1_of_all = (2 * (chosen & targets).sum() / (chosen.sum() + targets.sum()) for chosen in (predicted, np.ones_like(predicted)))
    return best_threshold(probabilities, targets) if f1 > f1_of_all else None


def best_threshold(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Return the threshold with the highest F1, in the middle between two probabilities; some target is true. Both: [examples]."""
    order = np.argsort(-probabilities, kind="stable")
    ordered, hits = probabilities[order], np.cumsum(targets[order])
    f1 = 2 * hits / (np.arange(1, len(order) + 1) + targets.sum())
    is_cut = np.append(ordered[:-1] > ordered[1:], True)  # equal probabilities are on the same side
    last = int(np.where(is_cut, f1, -1.0).argmax())
    return float(ordered[last] + (ordered[last + 1] if last + 1 < len(order) else 0.0)) / 2


def held_out_sets(probabilities: np.ndarray, targets: np.ndarray, fold_of: np.ndarray, default: float) -> np.ndarray:
    """Return the labels predicted for held-out examples, boolean, [examples, labels], with thresholds chosen on the other folds."""
    found = np.zeros(targets.shape, dtype=bool)
    for fold in np.unique(fold_of):
        here = fold_of == fold
        found[here] = probabilities[here] >= choose_thresholds(probabilities[~here], targets[~here], fold_of[~here], default).values
    return found


def fitted_thresholds(fit: LabelFit, targets: np.ndarray) -> np.ndarray:
    """Return the thresholds that the held-out examples of a fit give, [labels]; targets: boolean, [examples, labels]."""
    if fit.held_out is None:
        return np.full(targets.shape[1], DEFAULT_THRESHOLD)
    return choose_thresholds(sigmoid(fit.held_out), targets, fit.fold_of, DEFAULT_THRESHOLD).values
