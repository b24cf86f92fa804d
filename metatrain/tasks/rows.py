"""Rows of one data file, format by format, each with the number of the line where it begins.

Types are never inferred, so a label that looks like a date stays a text. File names are never interpreted as patterns. Nothing is cached.
"""

from __future__ import annotations

import codecs
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow
import pyarrow.parquet

from metatrain.errors import UserError

FORMATS = (".csv", ".tsv", ".jsonl", ".parquet", ".xlsx")
NOT_UTF8 = "not valid UTF-8; save the file as UTF-8"
_BATCH = 1000  # number of rows of a parquet file decoded at a time
_LINE_END = re.compile(rb"\r\n|\r|\n")
_BEHIND_CR = re.compile(rb"(?<=\r)(?!\n)")
_NO_TEXT = frozenset(b"\x81\x8d\x8f\x90\x9d\xff")  # bytes that Windows-1252 does not define, and one of a letter that hardly occurs
_MOST_ACCENTS = 0.5  # of the letters of lines with accents in Western European languages; other languages use other encodings
_UTF_16 = re.compile(rb"(\0[^\0]){2}|([^\0]\0){2}")  # without a byte order mark: every other byte of most letters is zero
# First bytes of files that are no UTF-8 text, and the remedy; longer ones first, since one is a prefix of another.
_SIGNATURES = {
    codecs.BOM_UTF32_LE: "UTF-32 text; save the file as UTF-8",
    codecs.BOM_UTF32_BE: "UTF-32 text; save the file as UTF-8",
    codecs.BOM_UTF16_LE: "UTF-16 text; save the file as UTF-8",
    codecs.BOM_UTF16_BE: "UTF-16 text; save the file as UTF-8",
    b"PK\x03\x04": "a zip archive or an Excel workbook; give a workbook a name that ends in .xlsx",
    b"\xd0\xcf\x11\xe0": "an Excel workbook; save its table as csv",
    b"\x1f\x8b": "compressed by gzip; give it a name that ends in .gz",
    b"PAR1": "a parquet file; give it a name that ends in .parquet",
}


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be read."""

    problem: str
    is_lost: bool = False  # its end is unknown, so no later row can be trusted


class CutRow(dict[str, Any]):
    """A row with only its first field: possibly part of a text that contains a line break."""


@dataclass(frozen=True)
class Other:
    """A value that is neither text nor number nor boolean."""

    kind: str


Row = tuple[int, dict[str, Any] | BadRow]  # a line number (from 1; of a parquet file: the row), and the row


class Line(NamedTuple):
    """A line of a text file with its end; bytes that are not UTF-8 are replaced."""

    number: int  # from 1
    text: str
    is_utf8: bool


class Number(str):
    """A number of a JSON text, as it is written."""

    __slots__ = ()


class RepeatedKey(ValueError):
    """A JSON object has a repeated key."""


def format_of(path: Path) -> str | None:
    """Return `.csv`, `.tsv`, `.jsonl` or `.parquet`, ignoring `.gz`; None: not a data file."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    last = suffixes[-1] if suffixes else ""
    return {".json": ".jsonl", ".ndjson": ".jsonl"}.get(last, last if last in FORMATS else None)


def stem(path: Path) -> str:
    """Return the name of a file without its format: the name of its task if no column names tasks."""
    name = path.name[: -len(".gz")] if path.name.lower().endswith(".gz") else path.name
    return name.rsplit(".", 1)[0]


def checked_format(path: Path) -> str:
    """Return the format of a file that exists and is not empty.

    Raises:
        UserError: there is no such file, or its format is unknown.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    kind = format_of(path)
    if kind is None:
        raise UserError(f"{path}: unknown kind of file; use {', '.join(FORMATS)} (or .gz of one)")
    if path.stat().st_size == 0:
        raise UserError(f"{path}: the file is empty")
    return kind


def lines_of(path: Path, notes: list[str] | None = None) -> Iterator[Line]:
    """Yield the lines of a text file, gzipped or not. Lines end as the first one does: in a line feed or a carriage return.

    notes: for a table, which is also read as Windows-1252 if it is that, with a remark in `notes`; None: UTF-8 only.

    Raises:
        UserError: the gzip file is broken, or the file is no UTF-8 text from its first bytes on.
    """
    try:
        with _opened(path) as file:
            yield from decoded(_split(path, file), legacy=None if notes is None else lambda: _read_as_1252(path, notes))
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path}: the gzip file is broken: {error}") from error


def _opened(path: Path) -> BufferedIOBase:
    return gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb")


def _read_as_1252(path: Path, notes: list[str]) -> bool:
    """Return whether a file that is not UTF-8 is read as Windows-1252, and say so."""
    with _opened(path) as file:
        if not is_windows_1252(file):
            return False
    notes.append(f"{path}: not UTF-8; read as Windows-1252 (cp1252), the encoding of Excel's csv files in Western Europe")
    return True


def is_windows_1252(lines: Iterable[bytes]) -> bool:
    """Return whether lines may be Windows-1252 text of a Western European language: none but ASCII is UTF-8, and accents are not too frequent."""
    num_letters = num_accents = 0
    for line in lines:
        if line.isascii():
            continue
        if _is_utf8(line) or not _NO_TEXT.isdisjoint(line):
            return False
        letters = [char for char in line.decode("cp1252") if char.isalpha()]
        num_letters, num_accents = num_letters + len(letters), num_accents + sum(not char.isascii() for char in letters)
    return num_accents <= _MOST_ACCENTS * num_letters


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
        return True
    except UnicodeDecodeError:
        return False


def _split(path: Path, lines: Iterable[bytes]) -> Iterator[bytes]:
    ends_in_cr = None
    for line in lines:
        if ends_in_cr is None:
            for signature, problem in _SIGNATURES.items():
                if line.startswith(signature):
                    raise UserError(f"{path}: this is {problem}")
            if _UTF_16.match(line):
                raise UserError(f"{path}: this is {_SIGNATURES[codecs.BOM_UTF16_LE]}")
            end = _LINE_END.search(line)
            ends_in_cr = end is not None and end.group() == b"\r"
        yield from filter(None, _BEHIND_CR.split(line)) if ends_in_cr else (line,)


def decoded(lines: Iterable[bytes], first: int = 1, legacy: Callable[[], bool] | None = None) -> Iterator[Line]:
    """Yield lines numbered from `first`; byte order marks before line 1 are removed.

    legacy: asked at the first line that is not UTF-8, whether the lines are Windows-1252; None: they are not.
    """
    is_legacy: bool | None = None
    for number, line in enumerate(lines, start=first):
        try:
            text, is_utf8 = line.decode(), True
        except UnicodeDecodeError:
            if is_legacy is None:
                is_legacy = legacy is not None and legacy()
            text, is_utf8 = (line.decode("cp1252"), True) if is_legacy else (line.decode(errors="replace"), False)
        yield Line(number, text.lstrip("\ufeff") if number == 1 else text, is_utf8)


def parse_json(text: str) -> Any:
    """Return the value of a JSON text, with numbers as they are written.

    Raises:
        RepeatedKey: an object has a key twice.
        json.JSONDecodeError: the text is not valid JSON.
    """
    return json.loads(text, parse_int=Number, parse_float=Number, parse_constant=lambda name: None, object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise RepeatedKey(f"the key {next(name for name in names if names.count(name) > 1)!r} is there twice")
    return found


def json_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a file with one JSON object per line; a line that may be part of an object on several lines is a `BadRow`."""
    is_first = True
    begin: int | None = None  # line where an unfinished object begins
    for number, line, is_utf8 in lines_of(path):
        if not is_utf8:
            yield number, BadRow(NOT_UTF8)
        elif line.strip():
            if is_first and line.lstrip().startswith("["):
                yield number, BadRow("a JSON array; write one object a line (jq -c '.[]' FILE > FILE.jsonl)", is_lost=True)
                return
            row, continues = _json_row(line)
            if begin is not None and isinstance(row, dict):
                row = BadRow(f"this may be a part of the object that begins in line {begin}")
            yield number, row
            is_first, begin = False, (begin or number) if continues else None


def _json_row(line: str) -> tuple[dict[str, Any] | BadRow, bool]:
    """Return the object of a line, and whether it continues in the next line."""
    try:
        row = parse_json(line)
    except json.JSONDecodeError as error:
        rest = line[error.pos :].strip()
        if rest and not (error.msg == "Extra data" and rest == ","):
            return BadRow(f"not valid JSON: {error.msg}"), False
        return BadRow(f"not valid JSON: {error.msg}; write one object a line (jq -c . FILE > FILE.jsonl)"), True
    except RepeatedKey as error:
        return BadRow(str(error)), False
    except RecursionError:
        return BadRow("not valid JSON: nested too deep"), False
    return row if isinstance(row, dict) else BadRow("not a JSON object"), False


def parquet_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a parquet file, with class names instead of class numbers.

    Raises:
        UserError: the file cannot be read, or has a column twice.
    """
    with path.open("rb") as opened:  # a file object, since pyarrow interprets some names as patterns or URLs
        try:
            file = pyarrow.parquet.ParquetFile(opened)
            names = file.schema_arrow.names
            classes = _class_names(file.schema_arrow)
            for name in names:
                if names.count(name) > 1:
                    raise UserError(f"{path}: the file has the column {name!r} twice")
            first = 1
            for batch in file.iter_batches(_BATCH):
                yield from enumerate(_batch_rows(batch, classes), start=first)
                first += len(batch)
        except (pyarrow.ArrowException, OSError) as error:
            reason = str(error).strip() or type(error).__name__
            raise UserError(f"{path}: cannot be read as parquet: {reason.splitlines()[0]}") from error


def _class_names(schema: pyarrow.Schema) -> dict[str, list[str]]:
    """Return the class names of the columns that `datasets` stores as class numbers."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
        return {name: list(map(str, feature["names"])) for name, feature in features.items() if feature.get("_type") == "ClassLabel"}
    except (ValueError, AttributeError, KeyError, TypeError):
        return {}  # metadata of another program: the numbers stay numbers


def _batch_rows(batch: pyarrow.RecordBatch, classes: dict[str, list[str]]) -> Iterator[dict[str, Any] | BadRow]:
    try:
        columns = {name: _values(column, classes.get(name)) for name, column in zip(batch.schema.names, batch.columns)}
    except UnicodeDecodeError:
        if len(batch) == 1:
            yield BadRow("a text is not valid UTF-8")
            return
        for row in range(len(batch)):
            yield from _batch_rows(batch.slice(row, 1), classes)
        return
    for values in zip(*columns.values()):
        yield dict(zip(columns, values))


def _values(column: pyarrow.Array, classes: list[str] | None) -> list[Any]:
    """Return the values of a column as Python values; lists of texts stay lists; other values that are neither text nor number nor boolean become `Other`."""
    if pyarrow.types.is_list(column.type) and pyarrow.types.is_string(column.type.value_type):
        return column.to_pylist()  # labels of a text with several
    kind = column.type.value_type if pyarrow.types.is_dictionary(column.type) else column.type
    checks = (pyarrow.types.is_string, pyarrow.types.is_large_string, pyarrow.types.is_string_view, pyarrow.types.is_boolean)
    if not any(check(kind) for check in (*checks, pyarrow.types.is_integer, pyarrow.types.is_floating, pyarrow.types.is_null)):
        return [Other(str(column.type))] * len(column)
    values = column.to_pylist()
    if classes is None or not pyarrow.types.is_integer(kind):
        return values
    return [classes[value] if value is not None and 0 <= value < len(classes) else None for value in values]
