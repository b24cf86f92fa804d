"""Reading the rows of a file as texts and labels, with errors that name the line."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metatrain.errors import UserError
from metatrain.tasks.delimited import csv_rows, tsv_rows, wrong_separator
from metatrain.tasks.labels import as_text, clean_label, is_blank, label_notes
from metatrain.tasks.rows import NOT_UTF8, BadRow, CutRow, Line, Other, Row, checked_format, json_rows, lines_of, parquet_rows, stem
from metatrain.tasks.texts import PAIR, TextStore, has_lone_surrogate, is_image, path_of, plain
from metatrain.tasks.workbooks import WORKBOOK, workbook_rows

BAD_ROWS = ("refuse", "skip")


@dataclass(frozen=True)
class Columns:
    """Names of the columns to read; no `label` for texts to predict, no `task` where a file is one task.

    With `pair`, a row has two texts. With `target`, the label of a row is a text of its own.
    """

    text: str
    label: str | None = None
    task: str | None = None
    pair: str | None = None
    target: str | None = None

    def names(self) -> list[str]:
        return [name for name in (self.text, self.pair, self.label if self.target is None else self.target, self.task) if name is not None]


@dataclass(frozen=True)
class Table:
    """The rows of one file: three sequences of equal length, without empty values; texts, and long targets, may be on disk."""

    source: str
    texts: Sequence[str]
    labels: Sequence[str]  # or targets; or, with `has_label_sets`, the labels of each text as `label_sets.written` writes them
    tasks: Sequence[str]
    score: str | None = None  # of text-to-text tasks
    notes: tuple[str, ...] = ()  # remarks on reading
    source_name: str = ""  # name of its source (tasks.sources); empty: it has none
    files: tuple[str, ...] = ()  # of a folder of texts: the file of each
    definitions: Mapping[str, str] = field(default_factory=dict)  # definitions of labels, one sentence each
    has_label_sets: bool = False  # True: several labels per text

    def places(self, rows: Collection[int]) -> dict[int, str]:
        """Return where each of these rows is: a file, or FILE:LINE."""
        if self.files or any(is_image(self.texts[row]) for row in rows):
            return {row: self.files[row] if self.files else path_of(self.texts[row]) for row in rows}
        return {row: f"{self.source}:{line}" for row, line in lines_of_rows(Path(self.source), rows).items()}


def read_file(path: Path, columns: Columns, bad_rows: str = "refuse", task: str | None = None) -> Table:
    """Read a csv, tsv, jsonl or parquet file, gzipped or not.

    Args:
        bad_rows: whether to `refuse` a file with a bad row, or to `skip` and count them.
        task: name of the task where no column names it; None: the file's name.

    Raises:
        UserError: the file cannot be read, lacks a column, or has a bad row; the message says `file:line`.
    """
    notes: list[str] = []
    rows = rows_of(path, notes)
    return table_of(str(path), rows, columns, stem(path) if task is None else task, bad_rows, notes)


def table_of(source: str, rows: Iterable[Row], columns: Columns, task: str, bad_rows: str = "refuse", notes: Sequence[str] = ()) -> Table:
    """The chosen columns of rows as strings; `task` names the task where no column does.

    Args:
        notes: remarks on reading the rows; complete when all rows are read.

    Raises:
        UserError: a column is missing, a row is bad, or there is none.
    """
    texts, targets = TextStore(), TextStore()
    labels: list[str] = []
    tasks: list[str] = []
    known: dict[str, str] = {}  # intern names, which repeat
    task = clean_label(task)
    first_bad: tuple[int, str] | None = None
    num_bad = 0
    for line, row in _checked(source, rows, columns, bad_rows):
        if isinstance(row, BadRow):
            if bad_rows == "refuse" or row.is_lost:
                raise UserError(f"{source}:{line}: {row.problem}")
            num_bad, first_bad = num_bad + 1, first_bad or (line, row.problem)
            continue
        text = plain(as_text(row[columns.text]))
        texts.add(f"{text}{PAIR}{plain(as_text(row[columns.pair]))}" if columns.pair else text)
        if columns.target:
            targets.add(as_text(row[columns.target]).strip())
        elif columns.label:
            label = clean_label(as_text(row[columns.label]))
            labels.append(known.setdefault(label, label))
        name = clean_label(as_text(row[columns.task])) if columns.task else task
        tasks.append(known.setdefault(name, name))
    if not tasks:
        raise UserError(f"{source}:{first_bad[0]}: {first_bad[1]}; no row of the file can be read" if first_bad else f"{source}: the file has no rows")
    said = [*notes, *label_notes(source, labels)]
    if first_bad is not None:
        said.append(f"{source}: {num_bad} bad rows left out, the first in line {first_bad[0]}: {first_bad[1]}")
    answers = targets.done() if columns.target else labels if columns.label else ["unlabelled"] * len(tasks)
    return Table(source, texts.done(), answers, tasks, notes=tuple(said))


def _checked(source: str, rows: Iterable[Row], columns: Columns, bad_rows: str) -> Iterator[Row]:
    """Yield rows with the chosen columns, under the names that `columns` has for them; a row without a value in one of them is a `BadRow`.

    Where bad rows are skipped, so is the row that may have the other half of a text which a line break has cut in two.
    """
    names: dict[str, str] | None = None
    before: Row | None = None  # yielded when the row after it is known
    begins = ends = False  # True: a row begins, or ends, with a text
    cut_line: int | None = None
    for line, row in rows:
        if not isinstance(row, BadRow):
            if names is None:
                names = find_columns(source, row, columns)
                of_texts = [names[name] for name in (columns.text, columns.pair, columns.target) if name]
                begins, ends = next(iter(row)) in of_texts, next(reversed(row)) in of_texts
            problem = problem_of(row, names)
            is_cut = isinstance(row, CutRow) and problem is not None and bad_rows == "skip"
            if is_cut and ends and before is not None and not isinstance(before[1], BadRow):
                before = before[0], BadRow(f"the text may continue in line {line}")
            elif not is_cut and begins and cut_line is not None:
                problem = problem or f"the text may begin in line {cut_line}"
            cut_line = line if is_cut else None
            row = {name: row[key] for name, key in names.items()} if problem is None else BadRow(problem)
        if before is not None:
            yield before
        before = line, row
    if before is not None:
        yield before


def column_values(path: Path) -> dict[str, list[str]]:
    """All columns of plain values, each as strings; blanks around a name and invisible characters are no part of it.

    Raises:
        UserError: the file cannot be read, or has no such column; the message says `file:line`.
    """
    rows = []
    for line, row in rows_of(path, []):
        if isinstance(row, BadRow):
            raise UserError(f"{path}:{line}: {row.problem}")
        rows.append(row)
    if not rows:
        raise UserError(f"{path}: the file has no rows")
    names = [name for name in rows[0] if name and all(is_plain(row.get(name)) for row in rows)]
    if not names:
        raise UserError(f"{path}: no column holds texts or numbers")
    return {clean_label(name): ["" if _is_missing(row.get(name)) else as_text(row[name]).strip() for row in rows] for name in names}


def read_texts(path: Path, column: str) -> Iterator[str]:
    """The texts of a file, as they are read: of a text file (.txt, gzipped or not) its lines, of another its column.

    Raises:
        UserError: the file cannot be read; the message says `file:line`.
    """
    if not path.name.lower().removesuffix(".gz").endswith(".txt"):
        yield from read_file(path, Columns(column)).texts
        return
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    empty = True
    for text in _filled(str(path), lines_of(path)):
        empty = False
        yield text
    if empty:
        raise UserError(f"{path}: the file is empty")


def _filled(source: str, lines: Iterable[Line]) -> Iterator[str]:
    for number, line, is_utf8 in lines:
        if not is_utf8:
            raise UserError(f"{source}:{number}: {NOT_UTF8}")
        if text := plain(line):
            yield text


def lines_of_rows(path: Path, rows: Collection[int]) -> dict[int, int]:
    """Return the line (from 1; in a parquet file: the row) at which each of these rows (from 0) of a readable file begins."""
    last = max(rows, default=-1)
    return {row: line for row, (line, _) in enumerate(itertools.islice(rows_of(path, []), last + 1)) if row in rows}


def rows_of(path: Path, notes: list[str]) -> Iterator[Row]:
    """Yield the rows of a file of any format; add remarks to `notes`."""
    kind = checked_format(path)
    if kind == ".parquet":
        return parquet_rows(path)
    if kind == ".jsonl":
        return json_rows(path)
    if kind == WORKBOOK:
        return workbook_rows(path, notes)
    return csv_rows(path, notes) if kind == ".csv" else tsv_rows(path, notes)


def find_columns(source: str, row: dict[str, Any], columns: Columns) -> dict[str, str]:
    """Names of the chosen columns in the file, by their names in `columns`; blanks around a name and invisible characters do not count.

    Raises:
        UserError: a column is missing.
    """
    found = {}
    for name in columns.names():
        alike = [key for key in row if clean_label(str(key)) == clean_label(name)]
        if name not in row and len(alike) != 1:
            separator = "\t" if source.lower().removesuffix(".gz").endswith(".tsv") else ","
            if problem := wrong_separator(list(row), separator):
                raise UserError(f"{source}: {problem}")
            there = ", ".join(repr(str(each)[:40]) for each in itertools.islice(row, 12)) + (", ..." if len(row) > 12 else "")
            raise UserError(f"{source}: no column {name!r}; the file has {there} (the settings text, label and task name columns, of predict column and pair)")
        found[name] = name if name in row else alike[0]
    return found


def problem_of(row: dict[str, Any], names: dict[str, str]) -> str | None:
    """Return the reason why a row cannot be read as texts and labels, or None; names: as `find_columns` returns them."""
    for name, key in names.items():
        if key not in row:
            return f"no field {name!r}"
        value = row[key]
        if isinstance(value, list):
            return f"field {name!r} is a list, not a text; several labels per text need a list in every row of a task, or data.kind=labels of finetune"
        if not is_plain(value):
            return f"field {name!r} is a {value.kind if isinstance(value, Other) else type(value).__name__}, not a text"
        text = "" if _is_missing(value) else as_text(value)
        if is_blank(plain(text)):
            return f"field {name!r} is empty"
        if has_lone_surrogate(text):
            return f"field {name!r} has half a character (a lone surrogate)"
    return None


def is_plain(value: object) -> bool:
    """Return True for a text, a number, a truth value or a missing value."""
    return value is None or isinstance(value, (str, int, float))  # a bool is an int; a tuple, since this is called for every field


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
