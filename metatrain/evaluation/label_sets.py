"""Scores of predicted sets of labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


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


def episode_scores(predicted: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return micro F1, macro F1 and subset accuracy of one episode; macro F1 is the mean over the labels that a query has.

    predicted: boolean, [queries, way]; labels: 1 where a query has a label, [queries, way].
    """
    targets = labels == 1
    occurs = targets.any(0)
    scores = set_scores(predicted, targets)
    macro_f1 = set_scores(predicted[:, occurs], targets[:, occurs])["macro_f1"] if occurs.any() else scores["micro_f1"]
    return {"micro_f1": scores["micro_f1"], "macro_f1": macro_f1, "subset_accuracy": scores["subset_accuracy"]}


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
