"""`metatrain check`: labels that look wrong, near-duplicates with other labels, and texts of no class, as a table for a spreadsheet."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metatrain.commands.effects import effects_of_use
from metatrain.config.compose import run_under_hydra
from metatrain.config.schema import CheckConfig

if TYPE_CHECKING:
    import numpy as np

    from metatrain.evaluation.held_out_head import HeldOut
    from metatrain.tasks.files import Table

USAGE = """\
usage: metatrain check data=LABELLED_FILE [checkpoint=MODEL] [output=FILE] [SETTING=VALUE ...]

Find labels that look wrong (extra `check`). A head is fitted to the encodings of the texts and predicts each text from the others
(cross-validation); confident learning (cleanlab) compares these predictions with the labels. Texts with the words of a text with another label,
and texts unlike all others, are listed too. Writes all rows with all columns, those to look at first, then suggested_label, its probability,
probability_of_label (of the label that is there), line and reason. Nothing is corrected: a suggestion is for a person to judge.

examples:
  metatrain check data=examples.csv
  metatrain check data=examples.csv output=checked.xlsx
"""
SHOWN = ("data", "checkpoint", "column", "pair", "label", "output", "hardware.device")
_DEFAULT = "checked.csv"
_MOST_CONFUSED = 3  # pairs of labels that are printed


def main(arguments: list[str]) -> None:
    """Entry point; `arguments` are Hydra's."""
    run_under_hydra("check", arguments, CheckConfig, start, effects=effects_of_use)


def start(config: CheckConfig, path: Path, overrides: list[str]) -> None:
    """Check the labels, write the table and print a summary."""
    import numpy as np

    from metatrain.commands.labelling import new_output, open_head, read_labelled_texts, rows_of_table, write_rows
    from metatrain.evaluation.held_out_head import held_out
    from metatrain.plugins import check_installed
    from metatrain.tasks.files import Columns
    from metatrain.tracking.console import Display

    check_installed("metatrain check", "cleanlab", "check")
    with Display() as display:
        guessed = {key: setting for key, setting in (("text", "column"), ("label", "label")) if getattr(config, setting) == key}
        table, columns = read_labelled_texts(config.data, "data", Columns(config.column, config.label, pair=config.pair), guessed, display.say)
        output = new_output(config.output, _DEFAULT, [config.data], len(table.texts))
        learner = open_head(config.checkpoint, table, config.hardware, config.seed, display.say)
        found = held_out(learner, table.texts, table.labels, config.seed, display)
        checked = _Checked(table, found)
        order = sorted(range(len(table.texts)), key=lambda row: (checked.reasons[row] is None, np.nan_to_num(checked.of_label[row], nan=2.0)))
        rows = rows_of_table(table, columns)
        write_rows(output, [rows[row] for row in order], [checked.columns(row) for row in order], [checked.reasons[row] for row in order])
        for line in checked.summary():
            display.say(line)
        display.say(f"{output}: all {len(rows)} rows, the {sum(reason is not None for reason in checked.reasons)} with a reason first")


class _Checked:
    """Findings about the rows of a table."""

    def __init__(self, table: Table, found: HeldOut):
        import numpy as np

        from metatrain.evaluation.label_check import conflicting_duplicates, far_texts, wrong_labels

        self.found, self.rows = found, np.arange(len(table.texts))
        self.of_label: np.ndarray = found.probabilities[self.rows, found.labels]
        self.suggested = np.where(found.is_judged, np.nan_to_num(found.probabilities).argmax(1), found.labels)
        self.is_wrong, self.twins, self.is_far = wrong_labels(found), conflicting_duplicates(table.texts, found.labels), far_texts(found.encodings)
        places = table.places(self.rows.tolist())
        self.lines: list[int | str] = [places[row] if table.files else int(places[row].rpartition(":")[2]) for row in self.rows.tolist()]
        self.num_classes_of_one = int((~found.is_judged).sum())
        self.reasons = [self._reason(row) for row in self.rows.tolist()]

    def _reason(self, row: int) -> str | None:
        parts = []
        if self.is_wrong[row]:
            parts.append("wrong label?")
        if row in self.twins:
            other = self.twins[row]
            parts.append(f"same words as line {self.lines[other]}, which has the label {self._name(self.found.labels[other])}")
        if self.is_far[row]:
            parts.append("no class? unlike all other texts")
        return "; ".join(parts) or None

    def _name(self, label: int) -> str:
        return self.found.names[int(label)]

    def columns(self, row: int) -> dict[str, Any]:
        """Return the columns that are added to a row."""
        suggests = (self.is_wrong[row] or row in self.twins) and self.suggested[row] != self.found.labels[row]
        of_label = float(self.of_label[row])
        return {
            "suggested_label": self._name(self.suggested[row]) if suggests else None,
            "probability": round(float(self.found.probabilities[row, self.suggested[row]]), 4) if suggests else None,
            "probability_of_label": round(of_label, 4) if of_label == of_label else None,
            "line": self.lines[row],
        }

    def summary(self) -> list[str]:
        """Return the lines to print."""
        found, number = self.found, len(self.rows)
        judged = found.is_judged
        accuracy = (self.suggested == found.labels)[judged].mean() if judged.any() else float("nan")
        wrong = int(self.is_wrong.sum())
        lines = [f"{number} rows of {len(found.names)} classes; predicted from the other rows, {accuracy:.1%} get the label that they have"]
        if self.num_classes_of_one:
            lines.append(f"{self.num_classes_of_one} rows are the only example of their class, and their labels cannot be checked")
        lines.append(f"{wrong} labels look wrong ({wrong / number:.1%})")
        pairs = Counter((self._name(found.labels[row]), self._name(self.suggested[row])) for row in self.rows[self.is_wrong])
        if pairs:
            lines.append(
                "most often: " + "; ".join(f"{label}, where {other} is suggested ({count})" for (label, other), count in pairs.most_common(_MOST_CONFUSED))
            )
        lines.append(f"{len(self.twins)} rows have the words of a row with another label")
        lines.append(f"{int(self.is_far.sum())} texts are unlike all others, perhaps of no class")
        return lines
