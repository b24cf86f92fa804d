"""A metric: recall of the class that is recognised worst."""

import numpy as np

from metatrain.evaluation.metrics import Metric


def worst_recall(predicted: np.ndarray, labels: np.ndarray, probabilities: np.ndarray | None) -> float:
    """predicted, labels: [queries]; probabilities: [queries, way], None for an arm that gives none."""
    return float(min(np.mean(predicted[labels == label] == label) for label in np.unique(labels)))


worst_class = Metric("recall of the worst class", worst_recall)
