"""Rows of Excel workbooks (.xlsx), read and written by openpyxl, row by row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from metatrain.errors import UserError

WORKBOOK = ".xlsx"
MOST_ROWS = 1_048_575  # of a sheet, below its header
_LONGEST = 32_767  # characters of a cell


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
