"""Predictions as lines, and as files whose ending says their format. Every format is written row by row, in constant memory."""

from __future__ import annotations

import csv
import gzip
import itertools
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import pyarrow
import pyarrow.parquet

from metatrain.errors import UserError
from metatrain.plugins import check_installed
from metatrain.run.atomic import atomic_file, place_for
from metatrain.tasks.labels import as_text
from metatrain.tasks.rows import Number, Other, format_of
from metatrain.tasks.texts import PAIR, is_image, path_of
from metatrain.tasks.unlabelled import Unlabelled
from metatrain.tasks.workbooks import MOST_ROWS, WORKBOOK, write_workbook

_OTHERS = (".xls", ".ods", ".feather", ".arrow", ".avro", ".orc", ".xml", ".html", ".pdf", ".docx", ".zip", ".bz2", ".xz", ".zst", ".npy", ".pkl")
_ROW_GROUP = 10_000  # rows of a parquet file that are written together
REASON = "reason"  # why a row has no label
# Beginnings of the names of columns of a prediction that are no texts.
_TYPES = {
    "probability": pyarrow.float64(),
    "number": pyarrow.float64(),
    "labels": pyarrow.list_(pyarrow.string()),
    "prediction_set": pyarrow.list_(pyarrow.string()),
}


@dataclass(frozen=True)
class Predicted:
    """A row, with what was predicted for it."""

    row: Unlabelled
    answer: Mapping[str, Any]  # `label` and `probability`, or `answer`; None where the row cannot be read
    doubt: str | None = None  # why a row that can be read has no label

    @property
    def reason(self) -> str | None:
        """Reason why the row has no label; None: it has one."""
        return self.row.problem or self.doubt

    def line(self, fields: Sequence[str]) -> str:
        """A JSON object on a line: the fields of the row, then the prediction; fields: names of all columns of the input."""
        given = dict(self.row.fields) or _given(self.row)
        added = self.answer if self.reason is None else {**self.answer, REASON: self.reason}
        return _json({**given, **_named(added, fields or list(given))}).encode("utf-8", "replace").decode() + "\n"


def output_for(name: str, inputs: Iterable[Path | int], rows: int = 0) -> Path:
    """Return the output of predictions; inputs: input files, or their descriptors; rows: number of predictions, 0: unknown.

    Raises:
        UserError: no file can be there, it is one of the inputs, by whatever name, or its ending is that of a format which is not written.
    """
    path = place_for("output", name)
    if path.suffix.lower() in _OTHERS:
        raise UserError(f"output={name}: predictions are written as .csv, .tsv, .xlsx, .parquet or .jsonl; use one of these extensions")
    if path.suffix.lower() == WORKBOOK:
        check_installed(f"output={name}", "openpyxl", "xlsx")
        if rows > MOST_ROWS:
            raise UserError(f"output={name}: an Excel sheet has at most {MOST_ROWS:,} rows, and there are {rows:,} predictions; use .csv or .parquet")
    if path.exists():
        present = path.stat()
        if path.is_file() and any(os.path.samestat(os.stat(each), present) for each in inputs if isinstance(each, int) or each.exists()):
            raise UserError(f"output={name} is an input file, which the predictions would overwrite; choose another file")
    for compressed in (".parquet", WORKBOOK):
        if path.name.lower().endswith(f"{compressed}.gz"):
            raise UserError(f"output={name}: {compressed} files are already compressed; use a name that ends in {compressed}")
    return path


def write_predictions(path: Path, fields: Sequence[str], source: Path | None, predictions: Iterable[Predicted], separator: str | None = None) -> int:
    """Write predictions in the format that the file's ending names (.csv, .tsv, .xlsx, .parquet), JSON lines for any other; returns their number.

    All have the columns of the input, `fields`, of the file `source`, and then the prediction's; one that is there already is called predicted_NAME.

    separator: between several labels of a text in formats without lists (.csv, .tsv, .xlsx); None: they are written as a JSON list.
    """
    joined = (replace(each, answer={name: _joined(value, separator) for name, value in each.answer.items()}) for each in predictions)
    kind = format_of(path)
    if path.suffix.lower() == WORKBOOK:
        return _write_rows(path, (_columns(each, fields, as_they_are=True) for each in joined))
    if kind in (".csv", ".tsv"):
        return _write_delimited(path, fields, joined, "\t" if kind == ".tsv" else ",")
    if kind == ".parquet":
        return _write_parquet(path, fields, source, predictions)
    number = 0
    with _opened(path) as file:
        for each in predictions:
            file.write(each.line(fields))
            number += 1
    return number


def _joined(value: Any, separator: str | None) -> Any:
    """Return a list of labels as a text."""
    return separator.join(value) if separator is not None and isinstance(value, list) else value


def _write_delimited(path: Path, fields: Sequence[str], predictions: Iterable[Predicted], separator: str) -> int:
    number = 0
    with _opened(path) as file:
        writer = csv.writer(file, delimiter=separator, lineterminator="\n")
        for number, each in enumerate(predictions, start=1):
            columns = _columns(each, fields)
            if number == 1:
                writer.writerow(columns)
            writer.writerow(columns.values())
    return number


def _write_rows(path: Path, rows: Iterator[Mapping[str, Any]]) -> int:
    """Write a workbook; numbers stay numbers, so that a spreadsheet sorts by them."""
    first = next(rows, None)
    everything = rows if first is None else itertools.chain([first], rows)
    values = (tuple(value if _is_number(value) else _text_or_none(value) for value in row.values()) for row in everything)
    with atomic_file(path) as temporary:
        return write_workbook(temporary, path, list(first or ()), values)


def _is_number(value: Any) -> bool:
    """Return whether a value is a number that a spreadsheet holds exactly."""
    return isinstance(value, float) or (type(value) is int and abs(value) < 2**53)


def _write_parquet(path: Path, fields: Sequence[str], source: Path | None, predictions: Iterable[Predicted]) -> int:
    number, rest = 0, iter(predictions)
    with atomic_file(path) as temporary:
        writer: pyarrow.parquet.ParquetWriter | None = None
        try:
            for batch in _batches(fields, source, rest):
                writer = writer or pyarrow.parquet.ParquetWriter(temporary, batch.schema)
                writer.write_batch(batch)
                number += len(batch)
            if writer is None:
                pyarrow.parquet.write_table(pyarrow.table({}), temporary)
        finally:
            if writer is not None:
                writer.close()
    return number


def _batches(fields: Sequence[str], source: Path | None, predictions: Iterator[Predicted]) -> Iterator[pyarrow.RecordBatch]:
    """Yield the rows of the input with their predictions; columns of a parquet file keep their types, those of other files are texts."""
    if source is not None and format_of(source) == ".parquet":
        with source.open("rb") as opened:
            for batch in pyarrow.parquet.ParquetFile(opened).iter_batches(_ROW_GROUP):
                yield _with_predictions(batch, fields, list(itertools.islice(predictions, len(batch))))
        return
    while part := list(itertools.islice(predictions, _ROW_GROUP)):
        rows = [_columns(each, fields, as_they_are=True) for each in part]
        given = fields or list(_given(part[0].row))
        texts = {name: pyarrow.array([_text_or_none(row[name]) for row in rows], pyarrow.string()) for name in given}
        yield _with_predictions(pyarrow.RecordBatch.from_pydict(texts), given, part)


def _with_predictions(batch: pyarrow.RecordBatch, given: Sequence[str], part: Sequence[Predicted]) -> pyarrow.RecordBatch:
    added = [_named({**each.answer, REASON: each.reason}, given) for each in part]
    for name in added[0]:
        is_whole = any(isinstance(row[name], int) for row in added)
        kind = next((kind for begin, kind in _TYPES.items() if name.removeprefix("predicted_").startswith(begin)), None)
        kind = kind or (pyarrow.int64() if is_whole else pyarrow.string())
        batch = batch.append_column(name, pyarrow.array([row[name] for row in added], kind))
    return batch


def _columns(each: Predicted, fields: Sequence[str], as_they_are: bool = False) -> dict[str, Any]:
    """A row's values by column; texts, unless `as_they_are`."""
    given = {name: each.row.fields.get(name) for name in fields} or _given(each.row)
    found = {**given, **_named({**each.answer, REASON: each.reason}, list(given))}
    return found if as_they_are else {name: "" if value is None else _text(value) for name, value in found.items()}


def _given(row: Unlabelled) -> dict[str, str]:
    """The content of a row that is of no table: a line of a pipe, an image, or a row that cannot be read."""
    return {"picture": path_of(row.text)} if is_image(row.text) else dict(zip(("text", "pair"), row.text.split(PAIR)))


def _named(added: Mapping[str, Any], given: Sequence[str]) -> dict[str, Any]:
    """The columns of a prediction under names that the input does not have."""
    return {f"predicted_{name}" if name in given else name: value for name, value in added.items()}


def _text_or_none(value: Any) -> str | None:
    return None if value is None else _text(value)


def _text(value: Any) -> str:
    """A value of a table as UTF-8 text, half characters replaced."""
    if isinstance(value, Other):
        return ""
    text = _json(value) if isinstance(value, dict | list) else as_text(value)
    return text.encode("utf-8", "replace").decode()


def _json(value: Any) -> str:
    """JSON of what a JSON text or a table has held, numbers as they were written."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key, ensure_ascii=False)}: {_json(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_json, value)) + "]"
    if isinstance(value, Other) or (isinstance(value, float) and not math.isfinite(value)):
        return "null"
    return str(value) if isinstance(value, Number) else json.dumps(value, ensure_ascii=False)


@contextmanager
def _opened(path: Path) -> Iterator[IO[str]]:
    """A text file that takes its place when it is complete, compressed if its name says so."""
    with atomic_file(path) as temporary:
        is_compressed = path.name.lower().endswith(".gz")
        with gzip.open(temporary, "wt", encoding="utf-8", newline="") if is_compressed else temporary.open("w", encoding="utf-8", newline="") as file:
            yield file
