"""Tables of a study for papers and spreadsheets: LaTeX (booktabs) and csv."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence

from metatrain.study.tables import MarkdownTable

_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$", "±": r"$\pm$",
}  # fmt: skip
_CODE = re.compile(r"`([^`]*)`")
_NUMBER = r"[+-]?\d+(?:\.\d+)?"
# A value with its interval, and what the columns of its parts are called.
_PARTS = ((re.compile(rf"({_NUMBER}) ± ({_NUMBER})"), ("", " ±")), (re.compile(rf"({_NUMBER}) \[({_NUMBER}), ({_NUMBER})\]"), ("", " low", " high")))


def latex(table: MarkdownTable, caption: str, label: str) -> str:
    """Return a table in LaTeX; it needs the package booktabs."""
    lines = [_row(table.columns), r"\midrule", *map(_row, table.rows)]
    columns = "l" + "r" * (len(table.columns) - 1)
    begin = [r"\begin{table}", r"\centering", rf"\caption{{{_escaped(caption)}}}", rf"\label{{tab:{label}}}", rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
    return "\n".join([*begin, *lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def _row(cells: Sequence[str]) -> str:
    return " & ".join(map(_escaped, cells)) + r" \\"


def _escaped(text: str) -> str:
    """Return a text of Markdown in LaTeX: code in typewriter type, special characters escaped, - before a digit as a minus sign."""
    parts = _CODE.split(text)  # every second one is code
    plain = ["".join(_SPECIAL.get(character, character) for character in part) for part in parts]
    return "".join(rf"\texttt{{{part}}}" if number % 2 else re.sub(r"(?<![\w.])-(?=\d)", "$-$", part) for number, part in enumerate(plain))


def csv_text(table: MarkdownTable) -> str:
    """Return a table as csv, each number in a column of its own: `score` and `score ±` for 80.1 ± 2.0."""
    split = [_split(name, [row[place] for row in table.rows]) for place, name in enumerate(table.columns)]
    columns = [column for each in split for column in each]
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows(zip(*columns))
    return written.getvalue()


def _split(name: str, cells: Sequence[str]) -> list[list[str]]:
    """Return the columns of a column of a table, each with its name first."""
    heading, cells = _CODE.sub(r"\1", name), [_CODE.sub(r"\1", cell) for cell in cells]
    for pattern, names in _PARTS:
        if any(pattern.fullmatch(cell) for cell in cells):
            found = [pattern.fullmatch(cell) for cell in cells]
            rows = [list(each.groups()) if each else [cell, *[""] * (len(names) - 1)] for each, cell in zip(found, cells)]
            return [[heading + name, *(row[place] for row in rows)] for place, name in enumerate(names)]
    return [[heading, *cells]]
