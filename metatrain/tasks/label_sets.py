"""Texts with several labels each (multi-label): a column of lists, of labels between separators, or one column for each label."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from metatrain.errors import UserError
from metatrain.tasks.columns import found_columns
from metatrain.tasks.files import Columns, Table, find_columns, is_plain, rows_of, table_of
from metatrain.tasks.labels import as_text, clean_label, is_blank, label_notes
from metatrain.tasks.rows import BadRow, Other, Row, parse_json, stem

_YES, _NO = ("1", "1.0", "true"), ("0", "0.0", "false")
LabelSet = frozenset[str]
_SETS = "\0labels"  # column of label sets that are read from several columns; no file has one of this name


@dataclass(frozen=True)
class LabelForm:
    """The form of the labels in a file; only one of the three is read, and none is guessed.

    A column for each label holds 1 or 0 (true or false). Otherwise one column has all labels of a text: between separators, or (no separator) as a
    list of a JSON or parquet file, or as the text of a JSON list. An empty list or field is a text with none of the labels.
    """

    column: str  # of all labels
    separator: str | None = None  # between the labels of a text; None: they are a list
    columns: tuple[str, ...] = ()  # a column for each label, instead
    setting: str = "data.label_separator"  # name of the setting for `separator`, for error messages
    columns_setting: str = "data.label_columns"  # name of the setting for `columns`

    def check(self) -> None:
        """Raises: UserError: the separator is blank, or a label has two columns."""
        if self.separator is not None and not self.separator:
            raise UserError(f"{self.setting} is empty; set the characters between two labels, ';' for example, or leave it out for lists")
        if len(set(map(clean_label, self.columns))) < len(self.columns):
            raise UserError(f"{self.columns_setting}=[{','.join(self.columns)}] names a column twice")

    def of_row(self, row: Mapping[str, Any], names: Mapping[str, str]) -> LabelSet | str:
        """Return the labels of a row, or what is wrong with it; names: names of the columns in the file, by their names here."""
        if not self.columns:
            return _checked(self._listed(row.get(names[self.column])), self.column)
        found = []
        for name in self.columns:
            value = row.get(names[name])
            text = clean_label(as_text(value)).lower() if is_plain(value) and value is not None else ""
            if text not in (*_YES, *_NO):
                return f"field {name!r} is {_shown(value)}, not 0 or 1"
            if text in _YES:
                found.append(clean_label(name))
        return frozenset(found)

    def _listed(self, value: Any) -> list[Any] | str:
        """Return the labels in a field, or what is wrong with it."""
        if value is None or (isinstance(value, str) and is_blank(value)):
            return []
        if isinstance(value, list):
            return value
        if not is_plain(value):
            return f"field {self.column!r} is a {value.kind if isinstance(value, Other) else type(value).__name__}, not a list of labels"
        text = as_text(value)
        if self.separator is not None:
            return text.split(self.separator)
        try:
            found = parse_json(text)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, list):
            return f'field {self.column!r} is {_shown(value)}, not a list such as ["a", "b"]; labels between separators need {self.setting}'
        return found


def read_label_sets(
    path: Path, setting: str, columns: Columns, form: LabelForm, guessed: Mapping[str, str], needs_separator: bool = False
) -> tuple[Table, list[LabelSet], Columns]:
    """Read a file; return its texts, the labels of each text, and the columns of the texts.

    Args:
        setting: name of the setting of the file, for error messages.
        columns: of the texts.
        guessed: as of `found_columns`, for the column of the texts.
        needs_separator: whether to refuse a file in which the separator occurs nowhere.

    Raises:
        UserError: the file cannot be read, or a row is bad; the message says `file:line`.
    """
    if path.is_dir():
        raise UserError(f"{setting}={path} is a folder, which gives each text one label; several labels need a file")
    columns, notes = found_columns(path, Columns(columns.text, pair=columns.pair), guessed)
    found: list[LabelSet] = []
    has_separator = False

    def rows() -> Iterator[Row]:
        nonlocal has_separator
        names: dict[str, str] | None = None
        for line, row in rows_of(path, notes):
            if not isinstance(row, BadRow):
                names = names or _label_columns(str(path), row, form)
                labels = form.of_row(row, names)
                if isinstance(labels, str):
                    yield line, BadRow(labels)
                    continue
                has_separator = has_separator or len(labels) > 1
                found.append(labels)
            yield line, row

    table = table_of(str(path), rows(), columns, stem(path), notes=notes)
    if needs_separator and form.separator is not None and not form.columns and not has_separator:
        raise UserError(
            f"{path}: the separator {form.separator!r} occurs in no row of column {form.column!r}, so no text has several labels; "
            "set another data.label_separator, or leave out data.kind=labels"
        )
    said = label_notes(str(path), sorted({label for labels in found for label in labels}))
    return replace(table, notes=(*table.notes, *said)), found, columns


def read_task_file(path: Path, columns: Columns, form: LabelForm, bad_rows: str, task: str | None = None) -> Table:
    """Read a file of tasks as `files.read_file` does; it has several labels per text if `form` has a separator or columns, or its first row has a list.

    Raises:
        UserError: as of `read_file`.
    """
    notes: list[str] = []
    rows = rows_of(path, notes)
    return task_table(str(path), rows, columns, form, stem(path) if task is None else task, bad_rows, notes)


def task_table(source: str, rows: Iterator[Row], columns: Columns, form: LabelForm, task: str, bad_rows: str = "refuse", notes: Sequence[str] = ()) -> Table:
    """Return the chosen columns of rows as `files.table_of` does, with one label or several per text; `form` as in `read_task_file`."""
    if columns.label is None or columns.target is not None:
        return table_of(source, rows, columns, task, bad_rows, notes)
    if form.columns:
        table = table_of(source, _with_written_sets(source, rows, form, _SETS), replace(columns, label=_SETS), task, bad_rows, notes)
        there = {label for labels in map(label_set, table.labels) for label in labels}
        unused = [name for name in form.columns if clean_label(name) not in there]
        said = [f"warning: {source}: no row has 1 in column {name!r} of {form.columns_setting}, so it is no label" for name in unused]
        return replace(table, notes=(*table.notes, *said), has_label_sets=True)
    separator = form.separator
    before, first = [], None
    for first in rows:
        before.append(first)
        if not isinstance(first[1], BadRow):
            break
    rows = itertools.chain(before, rows)
    if separator is None and (first is None or isinstance(first[1], BadRow) or not _has_list(source, first[1], columns.label)):
        return table_of(source, rows, columns, task, bad_rows, notes)
    table = table_of(source, _with_written_sets(source, rows, form, form.column), columns, task, bad_rows, notes)
    sets = list(map(label_set, table.labels))
    said = label_notes(source, sorted({label for labels in sets for label in labels}))
    if separator is not None and all(len(labels) < 2 for labels in sets):
        said.append(f"warning: {source}: the separator {separator!r} occurs in no row of column {columns.label!r}, so no text has several labels")
    return replace(table, notes=(*table.notes, *said), has_label_sets=True)


def _has_list(source: str, row: dict[str, Any], label: str) -> bool:
    """Return whether the label of a row is a list; without such a column, the reader of the table says so."""
    alike = [key for key in row if clean_label(str(key)) == clean_label(label)]
    return (label in row or len(alike) == 1) and isinstance(row[label if label in row else alike[0]], list)


def _with_written_sets(source: str, rows: Iterable[Row], form: LabelForm, column: str) -> Iterator[Row]:
    """Yield rows with their labels as one text each (`written`) in a column."""
    names: dict[str, str] | None = None
    for line, row in rows:
        if not isinstance(row, BadRow):
            names = names or _label_columns(source, row, form)
            key = names.get(column, column)
            if key in row or form.columns:  # a row without the column is reported by the reader of the table
                labels = form.of_row(row, names)
                if isinstance(labels, str):
                    yield line, BadRow(labels)
                    continue
                row[key] = written(labels)
        yield line, row


def written(labels: Iterable[str]) -> str:
    """Return a label set as one text: a JSON list, sorted, in ASCII."""
    return json.dumps(sorted(labels))


@functools.lru_cache(maxsize=100_000)  # sets come back, row after row
def label_set(text: str) -> LabelSet:
    """Return the label set that `written` wrote."""
    return frozenset(json.loads(text))


def _label_columns(source: str, row: dict[str, Any], form: LabelForm) -> dict[str, str]:
    """Return the names of the label columns in the file, by their names in the settings. Raises: UserError: one is missing."""
    found: dict[str, str] = {}
    for name in form.columns or (form.column,):
        found |= find_columns(source, row, Columns(name))
    return found


def _checked(values: list[Any] | str, column: str) -> LabelSet | str:
    """Return cleaned labels, or what is wrong with them."""
    if isinstance(values, str):
        return values
    if any(not isinstance(value, str | int | float) or is_blank(as_text(value)) for value in values):
        return f"field {column!r} has an empty label: {_shown(values)}"
    labels = [clean_label(as_text(value)) for value in values]
    if len(set(labels)) < len(labels):
        return f"field {column!r} has a label twice: {_shown(values)}"
    return frozenset(labels)


def _shown(value: Any) -> str:
    text = repr(as_text(value)) if is_plain(value) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def as_matrix(sets: Sequence[LabelSet], names: Sequence[str]) -> np.ndarray:
    """Return which labels each text has, boolean, [texts, labels]."""
    return np.array([[name in labels for name in names] for labels in sets], dtype=bool).reshape(len(sets), len(names))
