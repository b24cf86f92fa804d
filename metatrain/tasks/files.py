"""Reading one labelled file, and naming the line that is wrong with it.

Files are read through `datasets`. Its errors do not say which line is at fault, so when it fails, or a value is
missing, the file is read a second time, slowly, by `first_bad_row`.
"""

from __future__ import annotations

import csv
import gzip
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import datasets
import pyarrow

from metatrain.errors import UserError
from metatrain.tasks.texts import plain, stored

_INDEX = "__index_level_0__"  # a column that pandas makes of rows with more fields than the header, which shifts all values
_PLAIN = (datasets.Value, datasets.ClassLabel)
_NOT_UTF8 = "not valid UTF-8; save the file as UTF-8"
FORMATS = (".csv", ".tsv", ".jsonl", ".parquet")


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
    labels: Sequence[str]  # or targets
    tasks: Sequence[str]
    score: str | None = None  # of text-to-text tasks


def format_of(path: Path) -> str | None:
    """`.csv`, `.tsv`, `.jsonl` or `.parquet`, looking through `.gz`; None: not a data file."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    last = suffixes[-1] if suffixes else ""
    return {".json": ".jsonl", ".ndjson": ".jsonl"}.get(last, last if last in FORMATS else None)


def stem(path: Path) -> str:
    """The file's name without its format: the name of its task where no column names tasks."""
    name = path.name[: -len(".gz")] if path.name.lower().endswith(".gz") else path.name
    return name.rsplit(".", 1)[0]


def read_file(path: Path, columns: Columns) -> Table:
    """Read a csv, tsv, jsonl or parquet file, gzipped or not.

    Raises:
        UserError: the file cannot be read, lacks a column, or has a bad row; the message says `file:line`.
    """
    kind = _checked_kind(path)
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # what it would print of an error is said better below
    try:
        if kind == ".jsonl":
            data = datasets.Dataset.from_json(str(path))
        elif kind == ".parquet":
            data = datasets.Dataset.from_parquet(str(path))
        else:
            # "NA", "null" and "01" are words, not missing values and numbers.
            data = datasets.Dataset.from_csv(
                str(path), sep="\t" if kind == ".tsv" else ",", converters={name: str for name in columns.names()}, keep_default_na=False
            )
    except (datasets.exceptions.DatasetGenerationError, pyarrow.ArrowException, ValueError, OSError) as error:
        raise _explained(path, kind, columns, error) from error
    missing = [name for name in columns.names() if name not in data.column_names]
    if missing:
        raise UserError(f"{path}: no column {missing[0]!r}; the file has {', '.join(data.column_names)} (the settings text, label and task name columns)")
    if _INDEX in data.column_names or not all(isinstance(data.features[name], _PLAIN) for name in columns.names()):
        raise _explained(path, kind, columns, None)
    table = table_of(str(path), data, columns, stem(path))
    if not table.texts:
        raise UserError(f"{path}: the file has no rows")
    if not all(map(_is_value, itertools.chain(table.texts, table.labels, table.tasks))):
        raise _explained(path, kind, columns, None)
    return table


def column_values(path: Path) -> dict[str, list[str]]:
    """All columns of plain values, each as strings.

    Raises:
        UserError: the file cannot be read, or has no such column; the message says `file:line`.
    """
    kind, rows = _checked_kind(path), []
    if kind != ".parquet" and (bad := _bad_utf8(path)):
        raise UserError(f"{path}:{bad}: {_NOT_UTF8}")
    for line, row in _rows(path, kind):
        if isinstance(row, str):
            raise UserError(f"{path}:{line}: {row}")
        rows.append(row)
    if not rows:
        raise UserError(f"{path}: the file has no rows")
    plain_columns = [name for name in rows[0] if name and all(isinstance(row.get(name), (str, int, float, bool, type(None))) for row in rows)]
    if not plain_columns:
        raise UserError(f"{path}: no column holds texts or numbers")
    return {name: ["" if row.get(name) is None else str(row[name]).strip() for row in rows] for name in plain_columns}


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
    bad = _bad_utf8(path)
    if bad is not None:
        raise UserError(f"{path}:{bad}: {_NOT_UTF8}")
    empty = True
    with _open(path) as file:
        for line in file:
            if text := plain(line.decode("utf-8")).strip():
                empty = False
                yield text
    if empty:
        raise UserError(f"{path}: the file is empty")


def table_of(source: str, data: datasets.Dataset, columns: Columns, task: str) -> Table:
    """The wanted columns as strings; `task` names the task where no column does. Missing values become ''."""
    table = data.data.table

    def texts(*names: str) -> Sequence[str]:
        return stored([table[name] for name in names])

    def few(name: str) -> list[str]:
        feature, known = data.features[name], {}
        if isinstance(feature, datasets.ClassLabel):
            known = {number: label for number, label in enumerate(feature.names)}
            return [known.get(value, "") for value in table[name].to_pylist()]
        # A string that comes back is held once, however often.
        values = (value for chunk in table[name].chunks for value in chunk.to_pylist())
        return [known.setdefault(value, "" if value is None else str(value).strip()) for value in values]

    tasks = few(columns.task) if columns.task else [task] * len(data)
    labels = texts(columns.target) if columns.target else few(columns.label) if columns.label else ["unlabelled"] * len(data)
    return Table(source, texts(columns.text, *([columns.pair] if columns.pair else [])), labels, tasks)


def _checked_kind(path: Path) -> str:
    """The format of a file that is there and not empty.

    Raises:
        UserError: it is not.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    kind = format_of(path)
    if kind is None:
        raise UserError(f"{path}: unknown kind of file; use {', '.join(FORMATS)} (or .gz of one)")
    if path.stat().st_size == 0:
        raise UserError(f"{path}: the file is empty")
    return kind


def line_of(path: Path, row: int) -> int:
    """The line (from 1; of a parquet file: the row) where row `row` (from 0) of a file that can be read begins."""
    return next(itertools.islice(_rows(path, format_of(path)), row, None))[0]


def first_bad_row(path: Path, kind: str, columns: Columns) -> tuple[int, str] | None:
    """(line number from 1, what is wrong) of the first bad row, or None if every row is well."""
    if kind != ".parquet":
        bad = _bad_utf8(path)
        if bad is not None:
            return bad, _NOT_UTF8
    for line, row in _rows(path, kind):
        if isinstance(row, str):
            return line, row
        problem = _problem(row, columns.names())
        if problem:
            return line, problem
    return None


def _explained(path: Path, kind: str, columns: Columns, error: Exception | None) -> UserError:
    bad = first_bad_row(path, kind, columns)
    if bad is not None:
        return UserError(f"{path}:{bad[0]}: {bad[1]}")
    if next(_rows(path, kind), None) is None:
        return UserError(f"{path}: the file has no rows")
    cause = error.__cause__ or error if error else None
    return UserError(f"{path}: cannot be read as {kind[1:]}: {str(cause).strip().splitlines()[0] if cause else 'inconsistent rows'}")


def _open(path: Path):
    return gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb")


def _bad_utf8(path: Path) -> int | None:
    with _open(path) as file:
        try:
            for number, line in enumerate(file, start=1):
                try:
                    line.decode("utf-8")
                except UnicodeDecodeError:
                    return number
        except (EOFError, gzip.BadGzipFile) as error:
            raise UserError(f"{path}: the gzip file is broken: {error}") from error
    return None


def _rows(path: Path, kind: str) -> Iterator[tuple[int, dict | str]]:
    if kind == ".parquet":
        return ((number, row) for number, row in enumerate(datasets.Dataset.from_parquet(str(path)), start=1))
    return _json_rows(path) if kind == ".jsonl" else _csv_rows(path, "\t" if kind == ".tsv" else ",")


def _json_rows(path: Path) -> Iterator[tuple[int, dict | str]]:
    with _open(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                yield number, f"not valid JSON: {error.msg}"
                return
            yield number, row if isinstance(row, dict) else "not a JSON object"


def _csv_rows(path: Path, separator: str) -> Iterator[tuple[int, dict | str]]:
    with _open(path) as file:
        lines = (line.decode("utf-8") for line in file)
        reader = csv.reader(lines, delimiter=separator)
        try:
            header = next(reader, [])
            begin = reader.line_num + 1
            for values in reader:
                if len(values) > len(header):
                    yield begin, f"{len(values)} fields, but the header has {len(header)}; quote texts that contain {separator!r}"
                elif values:
                    yield begin, dict(zip(header, [*values, *[""] * (len(header) - len(values))]))
                begin = reader.line_num + 1
        except csv.Error as error:
            yield reader.line_num, f"not valid CSV: {error}"


def _problem(row: dict, names: Sequence[str]) -> str | None:
    for name in names:
        if name not in row:
            return f"no field {name!r}"
        if not isinstance(row[name], (str, int, float, bool, type(None))):
            return f"field {name!r} is a {type(row[name]).__name__}, not a text"
        if not _is_value("" if row[name] is None else str(row[name]).strip()):
            return f"field {name!r} is empty"
    return None


def _is_value(value: str) -> bool:
    return value not in ("", "nan")
