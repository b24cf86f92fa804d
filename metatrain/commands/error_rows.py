"""Wrong predictions, as analysis.json and results.json list them for kinds of examples other than one label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from metatrain.tasks.files import Table
from metatrain.tasks.texts import beginning

MOST_ERRORS = 50  # that are recorded
_LONGEST = 300  # characters of a text


def error_rows(table: Table, rows: Sequence[int], labels: Sequence[str], answers: Sequence[str]) -> list[dict[str, Any]]:
    """Return the entries of wrong predictions; rows: of the table; labels, answers: what is correct and what is predicted, as text."""
    places = table.places(set(rows))
    return [
        {"place": places[row], "text": beginning(table.texts[row], _LONGEST), "label": label, "answer": answer, "probability": None}
        for row, label, answer in zip(rows, labels, answers)
    ]
