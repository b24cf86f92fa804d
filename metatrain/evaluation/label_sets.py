"""Scores of predicted sets of labels, and thresholds of labels chosen on held-out examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

ENOUGH = 10  # examples that have a label, from which it gets a threshold of its own


@dataclass(frozen=True)
class Thresholds:
    """Thresholds of the probabilities of labels."""

    values: np.ndarray  # [labels]
    num_own: int  # number of labels with a threshold of their own; the others share one
    shared: float  # that of the others


def choose_thresholds(probabilities: np.ndarray, targets: np.ndarray, default: float) -> Thresholds:
    """Choose the threshold of each label with the highest F1 on held-out examples.

    A label that fewer than `ENOUGH` examples have gets the threshold with the highest micro F1 over all labels; with fewer than `ENOUGH` labels of
    examples in all, that is the default. probabilities: [examples, labels]; targets: boolean, [examples, labels].
    """
    shared = best_threshold(probabilities.ravel(), targets.ravel()) if targets.sum() >= ENOUGH else default
    own = targets.sum(0) >= ENOUGH
    values = [best_threshold(probabilities[:, label], targets[:, label]) if own[label] else shared for label in range(targets.shape[1])]
    return Thresholds(np.array(values), int(own.sum()), shared)


def best_threshold(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Return the threshold with the highest F1, in the middle between two probabilities; some target is true. Both: [examples]."""
    order = np.argsort(-probabilities, kind="stable")
    ordered, hits = probabilities[order], np.cumsum(targets[order])
    f1 = 2 * hits / (np.arange(1, len(order) + 1) + targets.sum())
    is_cut = np.append(ordered[:-1] > ordered[1:], True)  # equal probabilities are on the same side
    last = int(np.where(is_cut, f1, -1.0).argmax())
    return float(ordered[last] + (ordered[last + 1] if last + 1 < len(order) else 0.0)) / 2


def held_out_sets(probabilities: np.ndarray, targets: np.ndarray, folds: Sequence[np.ndarray], default: float) -> np.ndarray:
    """Return the labels predicted for held-out examples, boolean, [examples, labels], with thresholds chosen on the other folds."""
    found = np.zeros(targets.shape, dtype=bool)
    for fold in folds:
        rest = np.setdiff1d(np.arange(len(targets)), fold)
        found[fold] = probabilities[fold] >= choose_thresholds(probabilities[rest], targets[rest], default).values
    return found


def set_scores(predicted: np.ndarray, targets: np.ndarray) -> dict[str, Any]:
    """Return micro and macro F1 and subset accuracy (the share of texts with all labels right); both: boolean, [texts, labels].

    Macro F1 is the mean over all labels; the F1 of a label that no text has and none is predicted to have is 0, as with zero_division=0 of
    scikit-learn.
    """
    hits, sizes = (predicted & targets).sum(0), predicted.sum(0) + targets.sum(0)
    return {
        "examples": len(targets),
        "micro_f1": float(2 * hits.sum() / max(sizes.sum(), 1)),
        "macro_f1": float((2 * hits / np.maximum(sizes, 1)).mean()),
        "subset_accuracy": float((predicted == targets).all(1).mean()),
    }


def label_scores(predicted: np.ndarray, targets: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return precision, recall and F1 of each label, lowest F1 first; a quotient of nothing is null. Both: boolean, [texts, labels]."""
    found = []
    for label, name in enumerate(names):
        examples, predictions = int(targets[:, label].sum()), int(predicted[:, label].sum())
        hits = int((targets[:, label] & predicted[:, label]).sum())
        precision, recall = (hits / total if total else None for total in (predictions, examples))
        f1 = 2 * hits / max(examples + predictions, 1)
        found.append({"label": name, "precision": precision, "recall": recall, "f1": f1, "examples": examples, "predictions": predictions})
    return sorted(found, key=lambda each: each["f1"])


def most_frequent_sets(targets: np.ndarray, number: int) -> np.ndarray:
    """Return a baseline that always predicts the most frequent label, boolean, [number, labels]; targets: of the examples, [examples, labels]."""
    found = np.zeros((number, targets.shape[1]), dtype=bool)
    found[:, int(targets.sum(0).argmax())] = True
    return found
