"""Reading the rows of one file, and naming the line that is wrong with it.

csv and JSON lines are read by the standard library, a row at a time: what guesses types would make a timestamp of a label that
looks like a date, and what forgives stray quotes would give a text the label of another line.
"""

from __future__ import annotations

import csv
import gzip
import itertools
import json
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import datasets

from metatrain.errors import UserError
from metatrain.tasks.texts import PAIR, TextStore, has_lone_surrogate, plain

BAD_ROWS = ("refuse", "skip")
FORMATS = (".csv", ".tsv", ".jsonl", ".parquet")
_CHUNK = 1 << 16  # bytes of a pipe that are taken at a time, at most
Row = tuple[int, dict[str, Any] | str]  # a line number (from 1), and the row or what is wrong with it
_LOST = "not valid CSV"  # from such a line on, nobody knows where a field ends
_NOT_UTF8 = "not valid UTF-8; save the file as UTF-8"


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
    note: str | None = None  # what reading had to say


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


def read_file(path: Path, columns: Columns, bad_rows: str = "refuse") -> Table:
    """Read a csv, tsv, jsonl or parquet file, gzipped or not.

    bad_rows: whether to `refuse` a file with a bad row, or to `skip` and count them.

    Raises:
        UserError: the file cannot be read, lacks a column, or has a bad row; the message says `file:line`.
    """
    kind = _checked_kind(path)
    return table_of(str(path), _rows(path, kind), columns, stem(path), bad_rows)


def table_of(source: str, rows: Iterable[Row], columns: Columns, task: str, bad_rows: str = "refuse") -> Table:
    """The wanted columns of rows as strings; `task` names the task where no column does.

    Raises:
        UserError: a column is missing, a row is bad, or there is none.
    """
    texts, targets = TextStore(), TextStore()
    labels: list[str] = []
    tasks: list[str] = []
    known: dict[str, str] = {}
    first_bad: Row | None = None
    bad = 0
    for number, (line, row) in enumerate(rows):
        if number == 0 and isinstance(row, dict):
            _check_columns(source, row, columns)
        problem = row if isinstance(row, str) else _problem(row, columns.names())
        if isinstance(row, str) or problem:
            problem = str(problem)
            if bad_rows == "refuse" or problem.startswith(_LOST):
                raise UserError(f"{source}:{line}: {problem}")
            bad, first_bad = bad + 1, first_bad or (line, problem)
            continue
        text = plain(_string(row[columns.text]))
        texts.add(f"{text}{PAIR}{plain(_string(row[columns.pair]))}" if columns.pair else text)
        if columns.target:
            targets.add(_string(row[columns.target]).strip())
        elif columns.label:
            label = _string(row[columns.label]).strip()
            labels.append(known.setdefault(label, label))  # a label is held once, however often it comes back
        name = _string(row[columns.task]).strip() if columns.task else task
        tasks.append(known.setdefault(name, name))
    note = None if first_bad is None else f"{source}: {bad} bad rows left out, the first in line {first_bad[0]}: {first_bad[1]}"
    if not tasks:
        raise UserError(f"{source}:{first_bad[0]}: {first_bad[1]}; no row of the file is well" if first_bad else f"{source}: the file has no rows")
    answers = targets.done() if columns.target else labels if columns.label else ["unlabelled"] * len(tasks)
    return Table(source, texts.done(), answers, tasks, note=note)


def column_values(path: Path) -> dict[str, list[str]]:
    """All columns of plain values, each as strings.

    Raises:
        UserError: the file cannot be read, or has no such column; the message says `file:line`.
    """
    rows = []
    for line, row in _rows(path, _checked_kind(path)):
        if isinstance(row, str):
            raise UserError(f"{path}:{line}: {row}")
        rows.append(row)
    if not rows:
        raise UserError(f"{path}: the file has no rows")
    names = [name for name in rows[0] if name and all(_is_plain(row.get(name)) for row in rows)]
    if not names:
        raise UserError(f"{path}: no column holds texts or numbers")
    return {name: ["" if row.get(name) is None else _string(row[name]).strip() for row in rows] for name in names}


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
    for text in _filled(str(path), _lines(path)):
        empty = False
        yield text
    if empty:
        raise UserError(f"{path}: the file is empty")


def piped_texts(pipe: BufferedReader) -> Iterator[list[str]]:
    """The lines of standard input, each time those that have come, without empty ones.

    Raises:
        UserError: one is not valid UTF-8; the message says which.
    """
    first, rest = 1, b""
    while come := pipe.read1(_CHUNK):
        *lines, rest = (rest + come).split(b"\n")
        yield list(_filled("standard input", _decoded(lines, first)))
        first += len(lines)
    yield list(_filled("standard input", _decoded([rest], first)))


def _filled(source: str, lines: Iterable[tuple[int, str | None]]) -> Iterator[str]:
    for number, line in lines:
        if line is None:
            raise UserError(f"{source}:{number}: {_NOT_UTF8}")
        if text := plain(line):
            yield text


def line_of(path: Path, row: int) -> int:
    """The line (from 1; of a parquet file: the row) where row `row` (from 0) of a file that can be read begins."""
    return next(itertools.islice(_rows(path, _checked_kind(path)), row, None))[0]


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


def _rows(path: Path, kind: str) -> Iterator[Row]:
    if kind == ".parquet":
        return _parquet_rows(path)
    return _json_rows(path) if kind == ".jsonl" else _csv_rows(path, "\t" if kind == ".tsv" else ",")


def _parquet_rows(path: Path) -> Iterator[Row]:
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # what it would print of an error is said better below
    try:
        data = datasets.Dataset.from_parquet(str(path))
    except (datasets.exceptions.DatasetGenerationError, ValueError, OSError) as error:
        cause = str(error.__cause__ or error).strip() or type(error).__name__
        raise UserError(f"{path}: cannot be read as parquet: {cause.splitlines()[0]}") from error
    return dataset_rows(data)


def dataset_rows(data: datasets.Dataset) -> Iterator[Row]:
    """The rows of a data set, numbered from 1; class numbers become their names."""
    classes = {name: feature.names for name, feature in data.features.items() if isinstance(feature, datasets.ClassLabel)}
    for number, row in enumerate(data, start=1):
        for name, names in classes.items():
            row[name] = names[row[name]] if row[name] is not None and row[name] >= 0 else None
        yield number, row


def _lines(path: Path) -> Iterator[tuple[int, str | None]]:
    """Line numbers and lines of a file, as `_decoded` gives them."""
    try:
        with gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb") as file:
            yield from _decoded(file)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path}: the gzip file is broken: {error}") from error


def _decoded(lines: Iterable[bytes], first: int = 1) -> Iterator[tuple[int, str | None]]:
    """Line numbers, from `first`, and lines, None in place of one that is not valid UTF-8."""
    for number, line in enumerate(lines, start=first):
        try:
            yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            yield number, None


def _json_rows(path: Path) -> Iterator[Row]:
    for number, line in _lines(path):
        if line is None:
            yield number, _NOT_UTF8
        elif line.strip():
            if number == 1 and line.lstrip().startswith("["):
                yield number, "a JSON array; write one object a line (jq -c '.[]' FILE > FILE.jsonl)"
                return
            try:
                row = json.loads(line, parse_int=str, parse_float=str, parse_constant=lambda name: None)  # numbers as they are written
            except json.JSONDecodeError as error:
                yield number, f"not valid JSON: {error.msg}"
            except RecursionError:
                yield number, "not valid JSON: nested too deep"
            else:
                yield number, row if isinstance(row, dict) else "not a JSON object"


def _csv_rows(path: Path, separator: str) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)
    not_utf8: list[int] = []

    def decoded() -> Iterator[str]:
        for number, line in _lines(path):
            if line is None:
                not_utf8.append(number)
            yield "\n" if line is None else line

    reader = csv.reader(decoded(), delimiter=separator, strict=True)
    begin = 1
    try:
        header = next(reader, [])
        for name in header:
            if header.count(name) > 1:
                yield 1, f"{_LOST}: the header has the column {name!r} twice"
                return
        begin = reader.line_num + 1
        for values in reader:
            if not_utf8:
                yield not_utf8.pop(), _NOT_UTF8
            elif len(values) > len(header):
                yield begin, f"{len(values)} fields, but the header has {len(header)}; quote texts that contain {separator!r}"
            elif values:
                yield begin, dict(zip(header, [*values, *[""] * (len(header) - len(values))]))
            begin = reader.line_num + 1
    except csv.Error as error:
        yield begin, f"{_LOST}: {error}"


def _check_columns(source: str, row: dict[str, Any], columns: Columns) -> None:
    for name in columns.names():
        if name not in row:
            there = ", ".join(" ".join(str(each)[:40].split()) for each in itertools.islice(row, 12))
            separator = next((each for each in (";", "\t") if len(row) == 1 and each in next(iter(row))), None)
            if separator:
                raise UserError(f"{source}: the columns are separated by {separator!r}; save them with commas, or with tabs in a file that ends in .tsv")
            raise UserError(f"{source}: no column {name!r}; the file has {there} (the settings text, label and task name columns, of predict column and pair)")


def _problem(row: dict[str, Any], names: Sequence[str]) -> str | None:
    for name in names:
        if name not in row:
            return f"no field {name!r}"
        if not _is_plain(row[name]):
            return f"field {name!r} is a {type(row[name]).__name__}, not a text"
        value = "" if row[name] is None else _string(row[name]).strip()
        if value in ("", "nan"):
            return f"field {name!r} is empty"
        if has_lone_surrogate(value):
            return f"field {name!r} has half a character (a lone surrogate)"
    return None


def _is_plain(value: object) -> bool:
    return isinstance(value, str | int | float | bool | None)


def _string(value: object) -> str:
    return value if isinstance(value, str) else str(value)
