"""Rows of Excel workbooks (.xlsx), read and written by openpyxl, row by row."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from metatrain.errors import UserError
from metatrain.plugins import check_installed
from metatrain.tasks.labels import clean_label
from metatrain.tasks.rows import BadRow, Row

WORKBOOK = ".xlsx"
MOST_ROWS = 1_048_575  # of a sheet, below its header
_LONGEST = 32_767  # characters of a cell


def workbook_rows(path: Path, notes: list[str]) -> Iterator[Row]:
    """Yield the rows of the first sheet that has any, below its first row that is not blank, the header; a formula has its last computed value.

    Raises:
        UserError: the file is no workbook, or openpyxl is not installed.
    """
    check_installed(f"{path}: an Excel workbook", "openpyxl", "xlsx")
    from openpyxl import load_workbook
    from openpyxl.utils.exceptions import InvalidFileException

    try:
        book = load_workbook(path, read_only=True, data_only=True)
        try:
            for sheet in book.worksheets:
                sheet.reset_dimensions()  # as other programs write them, they may be wrong
                rows = ((number, list(values)) for number, values in enumerate(sheet.iter_rows(values_only=True), start=1) if any(map(_is_filled, values)))
                if (header := next(rows, None)) is not None:
                    if len(book.worksheets) > 1:
                        notes.append(f"{path}: read the sheet {sheet.title!r}, one of {len(book.worksheets)}")
                    yield from _below(header, rows)
                    return
        finally:
            book.close()
    except (BadZipFile, InvalidFileException, KeyError, ValueError, SyntaxError, OSError, EOFError) as error:  # of XML too, which is a SyntaxError
        raise UserError(f"{path}: cannot be read as an Excel workbook: {str(error).strip() or type(error).__name__}") from error


def _below(header: tuple[int, list[Any]], rows: Iterable[tuple[int, list[Any]]]) -> Iterator[Row]:
    line, values = header
    names = [clean_label(str(value)) if _is_filled(value) else "" for value in values]
    for name in filter(None, names):
        if names.count(name) > 1:
            yield line, BadRow(f"the header has the column {name!r} twice", is_lost=True)
            return
    for line, values in rows:
        if any(_is_filled(value) and not (place < len(names) and names[place]) for place, value in enumerate(values)):
            yield line, BadRow("a value in a column that has no name in the header")
        else:
            filled = [*values, *[None] * (len(names) - len(values))]
            yield line, {name: _plain(value) for name, value in zip(names, filled) if name}


def _is_filled(value: Any) -> bool:
    return value is not None and str(value).strip() != ""


def _plain(value: Any) -> Any:
    """Return a date or time as ISO text, anything else as it is."""
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():  # how a date is stored
        return value.date().isoformat()
    return value.isoformat() if isinstance(value, (datetime.date, datetime.time)) else str(value) if isinstance(value, datetime.timedelta) else value


def write_workbook(path: Path, name: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> int:
    """Write a workbook of one sheet; texts are texts, also those that look like a formula. Returns the number of rows.

    name: of the file in messages.

    Raises:
        UserError: a text is longer than a cell, or there are more rows than a sheet has; nothing is written.
    """
    from openpyxl import Workbook
    from openpyxl.cell import WriteOnlyCell
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

    book = Workbook(write_only=True)
    sheet = book.create_sheet()

    def cell(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if len(value) > _LONGEST:
            raise UserError(f"{name}: an Excel cell has at most {_LONGEST:,} characters, and a text has {len(value):,}; use .csv or .parquet")
        made = WriteOnlyCell(sheet, ILLEGAL_CHARACTERS_RE.sub("", value))
        made.data_type = "s"  # never a formula
        return made

    number = 0
    sheet.append(list(map(cell, header)))
    for number, row in enumerate(rows, start=1):
        if number > MOST_ROWS:
            raise UserError(f"{name}: an Excel sheet has at most {MOST_ROWS:,} rows; use .csv or .parquet")
        sheet.append(list(map(cell, row)))
    book.save(path)
    return number
