"""Labels that look wrong: confident learning on held-out predictions, near-duplicates with other labels, texts of no class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from metatrain.evaluation.held_out_head import HeldOut
from metatrain.tasks.keys import near_key

_SURER = 5.0  # times as probable as its label is another one where the label looks wrong
_NEIGHBOURS = 10  # nearest other texts to which a text is compared
_FAR = 2.5  # standard deviations below the median similarity from which a text belongs to no class
_FEWEST = 30  # texts from which a similarity is judged unusual
_OF_NORMAL = 1.4826  # standard deviation of a normal distribution, in median absolute deviations


def wrong_labels(found: HeldOut) -> np.ndarray:
    """Return which labels are probably wrong, boolean, [texts]: confident learning (Northcutt et al. 2021) by cleanlab.

    Of the labels with the lowest held-out probability, as many count as wrong as the estimated joint distribution of given and true labels has
    off its diagonal, but only where another label is `_SURER` times as probable.
    """
    from cleanlab.filter import find_label_issues

    judged = found.is_judged
    present = np.unique(found.labels[judged])
    wrong = np.zeros(len(found.labels), dtype=bool)
    if len(present) < 2:
        return wrong
    probabilities = found.probabilities[judged][:, present]
    probabilities /= probabilities.sum(1, keepdims=True)
    labels = np.searchsorted(present, found.labels[judged])
    of_label = probabilities[np.arange(len(labels)), labels]
    issues = find_label_issues(labels, probabilities, filter_by="low_self_confidence", n_jobs=1)
    wrong[judged] = issues & (probabilities.max(1) > _SURER * of_label)
    return wrong


def conflicting_duplicates(texts: Sequence[str], labels: np.ndarray) -> dict[int, int]:
    """Return for each text with the words of a text with another label the first such text; both are positions.

    labels: [texts].
    """
    groups: dict[int, list[int]] = {}
    for row, text in enumerate(texts):
        groups.setdefault(near_key(text, None), []).append(row)
    return {row: next(other for other in rows if labels[other] != labels[row]) for rows in groups.values() if len({*labels[rows].tolist()}) > 1 for row in rows}


def far_texts(encodings: np.ndarray) -> np.ndarray:
    """Return which texts are unlike all others, boolean, [texts]: their mean cosine similarity to the nearest others is unusually low.

    encodings: [texts, H]. Of fewer than `_FEWEST` texts, none is.
    """
    number = len(encodings)
    if number < _FEWEST:
        return np.zeros(number, dtype=bool)
    similarity = nearest_similarity(encodings)
    middle = np.median(similarity)
    spread = _OF_NORMAL * np.median(np.abs(similarity - middle))
    return similarity < middle - _FAR * spread


def nearest_similarity(encodings: np.ndarray, part: int = 1000) -> np.ndarray:
    """Return the mean cosine similarity of each text to its nearest others, [texts]; part: texts that are compared at a time."""
    unit = encodings / np.maximum(np.linalg.norm(encodings, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    found = []
    for begin in range(0, len(unit), part):
        similar = unit[begin : begin + part] @ unit.T
        similar[np.arange(len(similar)), np.arange(begin, begin + len(similar))] = -np.inf
        found.append(np.partition(similar, -_NEIGHBOURS, axis=1)[:, -_NEIGHBOURS:].mean(1))
    return np.concatenate(found)
