"""Predictions as lines, and as files whose ending says their format."""

from __future__ import annotations

import csv
import gzip
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow
import pyarrow.parquet

from metatrain.errors import UserError
from metatrain.run.atomic import atomic_file, place_for
from metatrain.tasks.labels import as_text
from metatrain.tasks.rows import Number, Other, format_of
from metatrain.tasks.texts import PAIR, is_image, path_of
from metatrain.tasks.unlabelled import Unlabelled

_OTHERS = (".xlsx", ".xls", ".ods", ".feather", ".arrow", ".avro", ".orc", ".xml", ".html", ".pdf", ".docx", ".zip", ".bz2", ".xz", ".zst", ".npy", ".pkl")
REASON = "reason"  # why a row has no prediction


@dataclass(frozen=True)
class Predicted:
    """A row, with what was predicted for it."""

    row: Unlabelled
    answer: Mapping[str, Any]  # `label` and `probability`, or `answer`; None where the row cannot be read

    @property
    def line(self) -> str:
        """A JSON object on a line."""
        text = self.row.text
        given = {"picture": path_of(text)} if is_image(text) else dict(zip(("text", "pair"), text.split(PAIR)))
        reason = {REASON: self.row.problem} if self.row.problem else {}
        return json.dumps({**given, **self.answer, **reason}, ensure_ascii=False) + "\n"


def output_for(name: str, inputs: Iterable[Path | int]) -> Path:
    """Return the output of predictions; inputs: input files, or their descriptors.

    Raises:
        UserError: no file can be there, it is one of the inputs, by whatever name, or its ending is that of a format which is not written.
    """
    path = place_for("output", name)
    if path.suffix.lower() in _OTHERS:
        raise UserError(f"output={name}: predictions are written as .csv, .tsv, .parquet or .jsonl; use one of these extensions")
    if path.exists():
        present = path.stat()
        if path.is_file() and any(os.path.samestat(os.stat(each), present) for each in inputs if isinstance(each, int) or each.exists()):
            raise UserError(f"output={name} is an input file, which the predictions would overwrite; choose another file")
    if format_of(path) == ".parquet" and path.name.lower().endswith(".gz"):
        raise UserError(f"output={name}: parquet files are already compressed; use a name that ends in .parquet")
    return path


def write_predictions(path: Path, fields: Sequence[str], source: Path | None, predictions: Iterable[Predicted]) -> int:
    """Write predictions in the format that the file's ending names (.csv, .tsv, .parquet), JSON lines for any other; returns their number.

    Tables have the columns of the input, `fields`, of the file `source`, and then the prediction's; one that is there already is called predicted_NAME.
    """
    kind = format_of(path)
    if kind in (".csv", ".tsv"):
        return _write_delimited(path, fields, predictions, "\t" if kind == ".tsv" else ",")
    if kind == ".parquet":
        return _write_parquet(path, fields, source, predictions)
    number = 0
    with _opened(path) as file:
        for each in predictions:
            file.write(each.line)
            number += 1
    return number


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


def _write_parquet(path: Path, fields: Sequence[str], source: Path | None, predictions: Iterable[Predicted]) -> int:
    columns: dict[str, list[Any]] = {}
    for each in predictions:
        for name, value in _columns(each, fields, as_they_are=True).items():
            columns.setdefault(name, []).append(value)
    if source is not None and format_of(source) == ".parquet":
        table = pyarrow.parquet.read_table(pyarrow.BufferReader(source.read_bytes()))  # its columns keep their types
    else:
        table = pyarrow.table({name: [None if value is None else _text(value) for value in columns[name]] for name in columns if name in fields})
    for name, values in columns.items():
        if name not in fields:
            kind = pyarrow.float64() if name.endswith("probability") else pyarrow.string()
            added = pyarrow.array(values, kind)
            table = table.append_column(name, added) if table.num_columns else pyarrow.table({name: added})
    with atomic_file(path) as temporary:
        pyarrow.parquet.write_table(table, temporary)
    return table.num_rows


def _columns(each: Predicted, fields: Sequence[str], as_they_are: bool = False) -> dict[str, Any]:
    """A row's values by column; texts, unless `as_they_are`."""
    given = {name: each.row.fields.get(name) for name in fields}
    if not fields:  # lines of a pipe, or images
        given = {"picture": path_of(each.row.text)} if is_image(each.row.text) else {"text": each.row.text}
    added = {**each.answer, REASON: each.row.problem}
    found = {**given, **{f"predicted_{name}" if name in given else name: value for name, value in added.items()}}
    return found if as_they_are else {name: "" if value is None else _text(value) for name, value in found.items()}


def _text(value: Any) -> str:
    """A value of a table as UTF-8 text, half characters replaced."""
    if isinstance(value, Other):
        return ""
    text = _json(value) if isinstance(value, dict | list) else as_text(value)
    return text.encode("utf-8", "replace").decode()


def _json(value: Any) -> str:
    """JSON of what a JSON text has held, numbers as they were written."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key, ensure_ascii=False)}: {_json(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_json, value)) + "]"
    return str(value) if isinstance(value, Number) else json.dumps(value, ensure_ascii=False)


@contextmanager
def _opened(path: Path) -> Iterator[IO[str]]:
    """A text file that takes its place when it is complete, compressed if its name says so."""
    with atomic_file(path) as temporary:
        is_compressed = path.name.lower().endswith(".gz")
        with gzip.open(temporary, "wt", encoding="utf-8", newline="") if is_compressed else temporary.open("w", encoding="utf-8", newline="") as file:
            yield file
