"""Rows to predict, from a file, a pipe or images. An unreadable row keeps its place and carries its error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import Any

from metatrain.errors import UserError
from metatrain.tasks.files import Columns, find_columns, problem_of, rows_of
from metatrain.tasks.labels import as_text, is_blank
from metatrain.tasks.rows import NOT_UTF8, BadRow, decoded
from metatrain.tasks.text_files import read_text_file, text_files
from metatrain.tasks.texts import PAIR, plain

_CHUNK = 1 << 16  # maximum number of bytes read from a pipe at a time
_PIPE = "standard input"


@dataclass(frozen=True)
class Unlabelled:
    """A row to predict."""

    text: str  # model input; empty if the row cannot be read
    problem: str | None = None  # reason why it cannot be read, with file and line
    fields: Mapping[str, Any] = field(default_factory=dict)  # the row as it is in the file


@dataclass(frozen=True)
class Survey:
    """The rows of a file to predict."""

    fields: list[str]  # names of all its columns
    notes: list[str]  # remarks on reading
    rows: int  # number of rows, readable or not


def survey(path: Path, columns: Columns) -> Survey:
    """Read a file once before any of its rows is predicted.

    Raises:
        UserError: the file cannot be read, lacks a column, has no readable row, or has a row after which no row can be read; the message says `file:line`.
    """
    names: dict[str, None] = {}
    notes: list[str] = []
    first_bad: str | None = None
    num_rows = num_readable = 0
    for row in file_rows(path, columns, notes):
        names.update(dict.fromkeys(row.fields))
        first_bad = first_bad or row.problem
        num_rows, num_readable = num_rows + 1, num_readable + (row.problem is None)
    if not num_readable:
        raise UserError(f"{first_bad}; no row of the file can be read" if first_bad else f"{path}: the file has no rows")
    return Survey(list(names), notes, num_rows)


def file_rows(path: Path, columns: Columns, notes: list[str]) -> Iterator[Unlabelled]:
    """Yield the rows of a file as they are read; add remarks to `notes`.

    Raises:
        UserError: the file cannot be read, lacks a column, or has a row after which no row can be read.
    """
    names: dict[str, str] | None = None
    for line, row in rows_of(path, notes):
        if isinstance(row, BadRow):
            if row.is_lost:
                raise UserError(f"{path}:{line}: {row.problem}")
            yield Unlabelled("", f"{path}:{line}: {row.problem}")
            continue
        names = names or find_columns(str(path), row, columns)
        problem = problem_of(row, names)
        if problem is not None:
            yield Unlabelled("", f"{path}:{line}: {problem}", row)
        else:
            yield Unlabelled(PAIR.join(plain(as_text(row[key])) for key in names.values()), None, row)


def folder_rows(folder: Path) -> Iterator[Unlabelled]:
    """Yield the text files below a folder, each with its relative path."""
    for file in text_files(folder):
        text, problem, _ = read_text_file(folder / file)
        yield Unlabelled(text, problem, {"file": file, "text": text})


def piped_rows(pipe: BufferedReader) -> Iterator[list[Unlabelled]]:
    """Yield the lines of standard input in chunks, as they arrive."""
    first, rest = 1, b""
    while received := pipe.read1(_CHUNK):
        *lines, rest = (rest + received).split(b"\n")
        yield _of_lines(lines, first)
        first += len(lines)
    if rest:
        yield _of_lines([rest], first)


def _of_lines(lines: Sequence[bytes], first: int) -> list[Unlabelled]:
    found = []
    for number, line, is_utf8 in decoded(lines, first):
        text = plain(line)
        problem = "the line is empty" if is_blank(text) else None if is_utf8 else NOT_UTF8.split(";")[0]
        found.append(Unlabelled(text) if problem is None else Unlabelled("", f"{_PIPE}:{number}: {problem}"))
    return found
