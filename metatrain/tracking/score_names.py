"""Names of scores as a person reads them. Files keep their keys: `accuracy` in metrics.jsonl is the main score of the tasks, whatever its name."""

from __future__ import annotations

from collections.abc import Iterable

ACCURACY, MICRO_F1, MIXED = "accuracy", "micro_f1", "score"
_READ = {MICRO_F1: "micro F1", "macro_f1": "macro F1", "subset_accuracy": "subset accuracy", "balanced_accuracy": "balanced accuracy"}


def read_name(key: str) -> str:
    """Return the name of a score as a person reads it: "micro F1" for `micro_f1`."""
    return _READ.get(key, key)


def common_score(keys: Iterable[str]) -> str:
    """Return the score that all tasks have; `score` if their scores differ; `accuracy` without tasks."""
    found = set(keys) or {ACCURACY}
    return found.pop() if len(found) == 1 else MIXED


def validation_name(key: str, chosen: str) -> str:
    """Return the name of the validation score that a person reads.

    key: the main score of the meta-validation tasks; chosen: `validation.score`. Balanced accuracy is macro F1 with several labels per text, and the
    same as the main score for generated texts.
    """
    balanced = {ACCURACY: "balanced_accuracy", MICRO_F1: "macro_f1"}
    return read_name(key if chosen == ACCURACY else balanced.get(key, key))
