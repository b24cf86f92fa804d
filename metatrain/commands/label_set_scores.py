"""Scores of several labels per text, as `metatrain finetune` and `metatrain score` print and record them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metatrain.commands.error_rows import MOST_ERRORS, error_rows
from metatrain.evaluation.label_sets import label_scores
from metatrain.tasks.files import Table
from metatrain.tracking.console import Display

_NONE = "(none)"


def say_scores(kind: str, scores: dict[str, Any], display: Display) -> None:
    """Print the scores of `set_scores` as one line; kind: what they measure."""
    numbers = f"micro F1 {scores['micro_f1']:.3f}, macro F1 {scores['macro_f1']:.3f}, subset accuracy {scores['subset_accuracy']:.3f}"
    display.say(f"{kind}: {numbers} on {scores['examples']} examples")


def key_numbers(kind: str, scores: dict[str, Any]) -> list[list[str]]:
    """Return (number, name, detail) for the top of the report."""
    detail = f"{scores['examples']} examples; macro F1 {100 * scores['macro_f1']:.1f}; all labels right {100 * scores['subset_accuracy']:.1f}"
    return [[f"{100 * scores['micro_f1']:.1f}", f"{kind} micro F1".strip(), detail]]


def analysis_of(
    kind: str, scores: dict[str, Any], table: Table, rows: np.ndarray, predicted: np.ndarray, labels: np.ndarray, names: Sequence[str]
) -> dict[str, Any]:
    """Return analysis.json. rows: of the table, [texts]; predicted, labels: boolean, [texts, labels]."""
    wrong = np.flatnonzero((predicted != labels).any(1))
    worst = wrong[np.argsort(-(predicted != labels)[wrong].sum(1), kind="stable")][:MOST_ERRORS].tolist()
    errors = error_rows(table, rows[worst].tolist(), [joined(labels[row], names) for row in worst], [joined(predicted[row], names) for row in worst])
    return {
        "class_scores": label_scores(predicted, labels, names),
        "mistakes": [{"task": Path(table.source).name, "labels": list(names), "pairs": [], "examples": errors}],
        "key_numbers": key_numbers(kind, scores),
    }


def joined(chosen: np.ndarray, names: Sequence[str]) -> str:
    """Return the labels of a text as text; chosen: boolean, [labels]."""
    return "; ".join(name for name, is_chosen in zip(names, chosen.tolist()) if is_chosen) or _NONE
