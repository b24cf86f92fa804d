"""Metrics of the predictions in an episode, beside accuracy and balanced accuracy (`evaluation.metrics`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from metatrain import plugins
from metatrain.errors import UserError
from metatrain.tasks.task import Task


@dataclass(frozen=True)
class Metric:
    """A number for each episode; means over episodes and tasks are reported."""

    description: str
    # (predicted labels [queries], labels [queries], probabilities [queries, way] or None) -> a finite number; labels are positions in the classes.
    of_episode: Callable[[np.ndarray, np.ndarray, np.ndarray | None], float]


def macro_f1(predicted: np.ndarray, labels: np.ndarray, probabilities: np.ndarray | None) -> float:
    """Return the mean over the classes that occur of F1 = 2 TP / (2 TP + FP + FN)."""
    classes = np.unique(labels)
    return float(np.mean([2 * np.sum((predicted == label) & (labels == label)) / (np.sum(predicted == label) + np.sum(labels == label)) for label in classes]))


def mcc(predicted: np.ndarray, labels: np.ndarray, probabilities: np.ndarray | None) -> float:
    """Return Matthews' correlation coefficient (Gorodkin 2004 for several classes), from -1 to 1; 0 if all predictions or all labels are the same."""
    from sklearn.metrics import matthews_corrcoef  # here, because commands that compute no metric start without it

    return float(matthews_corrcoef(labels, predicted))


METRICS = {"macro_f1": Metric("mean F1 of the classes", macro_f1), "mcc": Metric("Matthews' correlation coefficient, for unequal class shares", mcc)}


def metric_of(name: str) -> Metric:
    """Return a metric, from this package or a plug-in.

    Raises:
        UserError: there is no such metric.
    """
    found: Metric = plugins.find(plugins.METRICS, name, METRICS, f"evaluation.metrics: no metric {name!r}; choose from")
    return found


def check_metrics(names: Sequence[str], tasks: Sequence[Task]) -> None:
    """Raises: UserError: a metric is unknown, or named twice, or a task has no labels."""
    for name in names:
        metric_of(name)
    if len(set(names)) < len(names):
        raise UserError(f"evaluation.metrics={list(names)} names a metric twice")
    if names and (without := [task.name for task in tasks if task.targets is not None]):
        raise UserError(
            f"evaluation.metrics={list(names)} are metrics of predicted labels, and task '{without[0]}' has target texts; set evaluation.metrics=[]"
        )
    if names and (several := [task.name for task in tasks if task.label_sets is not None]):
        raise UserError(
            f"evaluation.metrics={list(names)} are metrics of one label per text, and task '{several[0]}' has several, whose micro and macro F1 and subset "
            "accuracy are always reported; set evaluation.metrics=[]"
        )
