"""Choice of the texts to label next (pool-based active learning): uncertain ones that differ from each other."""

from __future__ import annotations

import numpy as np
from sklearn.cluster import KMeans

_CANDIDATES = 10  # uncertain texts per text to choose


def choose(encodings: np.ndarray, probabilities: np.ndarray, number: int, seed: int) -> list[int]:
    """Return all texts, those to label next first: `number` chosen together, then the others by their margin.

    The most uncertain texts, by the margin between the two most probable labels, are clustered into `number` clusters, weighted by uncertainty, and
    the text nearest to each centre is chosen (Zhdanov 2019).

    encodings: [texts, H]; probabilities: [texts, labels].
    """
    ordered = np.sort(probabilities, axis=1)
    margin = ordered[:, -1] - ordered[:, -2]
    by_margin = np.argsort(margin, kind="stable")
    candidates = by_margin[: _CANDIDATES * number]
    if number >= len(candidates):
        return by_margin.tolist()
    unit = encodings[candidates] / np.maximum(np.linalg.norm(encodings[candidates], axis=1, keepdims=True), np.finfo(np.float64).tiny)
    clusters = KMeans(number, n_init=3, random_state=seed).fit(unit, sample_weight=1 - margin[candidates] + 1e-3)
    distance = np.square(unit - clusters.cluster_centers_[clusters.labels_]).sum(1)
    chosen = [int(candidates[rows[distance[rows].argmin()]]) for label in range(number) if len(rows := np.flatnonzero(clusters.labels_ == label))]
    chosen.sort(key=lambda row: margin[row])
    return [*chosen, *(row for row in by_margin.tolist() if row not in set(chosen))]
