"""Scores of predicted numbers, as `metatrain finetune` and `metatrain score` print and record them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from metatrain.commands.error_rows import MOST_ERRORS, error_rows
from metatrain.errors import UserError
from metatrain.models.targets import Number
from metatrain.tasks.files import Table
from metatrain.tasks.labels import clean_label
from metatrain.tracking.console import Display

Say = Callable[[str], None]


_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]+,[0-9]+")
_THOUSANDS = re.compile(r"[+-]?[1-9][0-9]{0,2},[0-9]{3}")


def numbers_of(table: Table, order: Sequence[str], setting: str, say: Say) -> np.ndarray:
    """Return the labels of a table as numbers, [texts]; order: names of ordered labels, the lowest first; empty: the labels are numbers.

    setting: name of the setting for ordered labels, for error messages. say: takes the note that numbers are read with a decimal comma.

    Raises:
        UserError: a label is no finite number, or none of the ordered labels; or the commas may separate decimals or thousands; the message says
            `file:line`.
    """
    has_comma = not order and _has_decimal_commas(table, say)
    known = {clean_label(name): float(place) for place, name in enumerate(order, start=1)}
    found = np.full(len(table.labels), np.nan)
    for row, label in enumerate(table.labels):
        if order:
            found[row] = known.get(label, np.nan)
        elif "_" not in label:  # which Python allows between digits
            with suppress(ValueError):
                found[row] = float(label.replace(",", ".") if has_comma else label)
        if not np.isfinite(found[row]):
            problem = f"is not one of {', '.join(order)} ({setting})" if order else f"is not a number; for labels in an order, set {setting}"
            raise UserError(f"{table.places([row])[row]}: label {label!r} {problem}")
    return found


def _has_decimal_commas(table: Table, say: Say) -> bool:
    """Return True if the numbers of a table have decimal commas: no label has a point, and each comma is between the digits of one number."""
    rows = [row for row, label in enumerate(table.labels) if "," in label]
    if not rows or any("." in label for label in table.labels) or not all(_DECIMAL_COMMA.fullmatch(table.labels[row]) for row in rows):
        return False
    first = table.labels[rows[0]]
    if all(_THOUSANDS.fullmatch(table.labels[row]) for row in rows):
        whole, decimals = first.replace(",", ""), first.replace(",", ".")
        raise UserError(f"{table.places(rows[:1])[rows[0]]}: the comma of {first!r} may separate decimals or thousands; write {decimals} or {whole}")
    say(f"{table.source}: numbers such as {first!r} are read with a decimal comma")
    return True


def say_scores(kind: str, scores: dict[str, Any], display: Display) -> None:
    """Print the scores of `number_scores` as one line; kind: what they measure."""
    bounds, rank = scores["mean_absolute_error_ci95"], scores["spearman"]
    interval = "" if bounds is None else f", 95% interval [{bounds[0]:.3f}, {bounds[1]:.3f}]"
    accuracy = f"; accuracy of the nearest whole number {scores['accuracy']:.3f}" if "accuracy" in scores else ""
    ranked = "not defined" if rank is None else f"{rank:.3f}"
    name = f"{kind} mean absolute error".strip()
    display.say(f"{name}: {scores['mean_absolute_error']:.3f}{interval}, Spearman {ranked}{accuracy} on {scores['examples']} examples")


def key_numbers(kind: str, scores: dict[str, Any]) -> list[list[str]]:
    """Return (number, name, detail) for the top of the report."""
    rank = "" if scores["spearman"] is None else f"; Spearman {scores['spearman']:.2f}"
    return [[f"{scores['mean_absolute_error']:.3f}", f"{kind} mean absolute error".strip(), f"{scores['examples']} examples{rank}"]]


def analysis_of(
    kind: str, scores: dict[str, Any], table: Table, rows: np.ndarray, predicted: np.ndarray, numbers: np.ndarray, target: Number
) -> dict[str, Any]:
    """Return analysis.json, with the largest errors. rows: of the table; predicted, numbers: [texts]."""
    worst = [row for row in np.argsort(-np.abs(predicted - numbers), kind="stable")[:MOST_ERRORS].tolist() if predicted[row] != numbers[row]]
    chosen = rows[worst].tolist()
    answers = [f"{predicted[row]:.2f}" + (f" ({target.nearest_label(predicted[row])})" if target.order else "") for row in worst]
    errors = error_rows(table, chosen, [table.labels[row] for row in chosen], answers)
    mistakes = {"task": Path(table.source).name, "labels": list(target.order), "pairs": [], "examples": errors}
    return {"mistakes": [mistakes], "key_numbers": key_numbers(kind, scores)}
