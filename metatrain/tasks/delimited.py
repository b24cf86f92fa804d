"""Rows of csv and tsv files.

In a csv file a field may be quoted. In a tsv file a quote is part of the text, unless the whole file shows that its fields are quoted.
"""

from __future__ import annotations

import csv
import itertools
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from metatrain.tasks.labels import clean_label
from metatrain.tasks.rows import NOT_UTF8, BadRow, CutRow, Line, Row, lines_of

_SEPARATORS = (";", "\t", "|", ",")
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?', re.IGNORECASE)  # the first line that Excel reads as a setting
_QUOTED_FIELD = re.compile(r'"(?:[^"]|"")*"')


def csv_rows(path: Path, notes: list[str]) -> Iterator[Row]:
    """Yield the rows of a csv file; add remarks about the whole file to `notes`."""
    return _quoted_rows(path, ",", notes)


def tsv_rows(path: Path, notes: list[str]) -> Iterator[Row]:
    """Yield the rows of a tsv file; add remarks about the whole file to `notes`, first the treatment of quotes."""
    quotes = _Quotes()
    if is_quoted(lambda: lines_of(path), quotes):
        notes.append(f"{path}: read as quoted tsv: the double quotes around fields are not part of them")
        return _quoted_rows(path, "\t", notes)
    if quotes.opening:
        notes.append(f"{path}: a double quote that begins a field is part of the text (fields: {quotes.opening}); if it is not, save the file as csv")
    return _unquoted_rows(path, notes)


def wrong_separator(header: Sequence[str], separator: str) -> str | None:
    """The problem of a header that another separator divides; None: there is none."""
    if len(header) != 1:
        return None
    other = next((each for each in _SEPARATORS if each != separator and each in header[0]), None)
    if other is None:
        return None
    if separator == "\t":
        return f"the columns are separated by {other!r}; " + ("give the file a name that ends in .csv" if other == "," else "save them with tabs")
    return f"the columns are separated by {other!r}; save them with commas, or with tabs in a file that ends in .tsv"


def _assumed_separator(header: str, separator: str) -> str:
    """Return what separates the columns of a csv file: the most frequent other separator of its header, if that has no comma."""
    bare = _QUOTED_FIELD.sub("", header)
    if separator != "," or separator in bare:
        return separator
    most = max(_SEPARATORS, key=bare.count)
    return most if most in bare else separator


def _after_blank_lines(lines: Iterator[Line], separator: str) -> tuple[Iterator[Line], str, str]:
    """Lines from the header on, the header's line, and the separator, which a line `sep=;` before the header may set."""
    for line in lines:
        if found := _SEPARATOR_LINE.fullmatch(line.text.strip(" \r\n")):
            separator = found.group(1)
        elif line.text.strip().strip(separator).strip():
            return itertools.chain([line], lines), line.text, separator
    return iter(()), "", separator


@dataclass
class _Quotes:
    """Counts of the fields that begin with a quote, where a tab ends every field."""

    opening: int = 0
    whole: int = 0  # of these: quoted fields by the rules of csv
    doubled: int = 0  # of these: with a doubled quote
    wrong_lines: int = 0  # of another number of fields than the header
    always: set[int] = field(default_factory=set)  # columns that are quoted in each row


def is_quoted(read: Callable[[], Iterator[Line]], found: _Quotes) -> bool:
    """Return True if quotes enclose fields in a tsv file, rather than being part of the text.

    They do if the header is quoted; if every field that begins with a quote is a whole quoted field, and either one has a doubled
    quote or a column is quoted in every row; or if the lines have too many or too few fields, and fewer rows have with quoted fields.
    A quoted field whose first and last line could be rows by themselves is taken for rows with stray quotes.

    Args:
        read: returns the lines from the first one.
        found: filled with the counts.
    """
    lines, first, _ = _after_blank_lines(read(), "\t")
    header = first.rstrip("\r\n").split("\t")
    if all(_QUOTED_FIELD.fullmatch(name.strip()) for name in header):
        return True
    found.always = set(range(len(header)))
    for line in itertools.islice(lines, 1, None):
        if text := line.text.rstrip("\r\n"):
            fields = text.split("\t")
            found.wrong_lines += len(fields) != len(header)
            opening = [value for value in fields if value.startswith('"')]
            whole = [value for value in opening if _QUOTED_FIELD.fullmatch(value)]
            found.opening += len(opening)
            found.whole += len(whole)
            found.doubled += sum('""' in value[1:-1] for value in whole)
            found.always &= {place for place, value in enumerate(fields) if value in whole}
    if not found.opening:
        return False
    if not found.wrong_lines:
        return found.opening == found.whole and bool(found.doubled or found.always)
    wrong_rows = _wrong_rows(read, len(header))
    return wrong_rows is not None and wrong_rows < found.wrong_lines


def _wrong_rows(read: Callable[[], Iterator[Line]], width: int) -> int | None:
    """Rows of another number of fields than `width`, with quoted fields; None: the quotes cannot be meant so."""
    lines, _, _ = _after_blank_lines(read(), "\t")
    wrong = 0
    try:
        for values, taken in _quoted_fields(lines, "\t"):
            if len(taken) > 1 and all(line.text.count("\t") == width - 1 for line in (taken[0], taken[-1])):
                return None
            wrong += len(values) not in (0, width)
    except _NotCsv:
        return None
    return wrong


class _NotCsv(Exception):
    """The end of a field is unknown."""

    def __init__(self, line: int, problem: str):
        super().__init__(problem)
        self.line = line


def _quoted_fields(lines: Iterable[Line], separator: str, skip_blank: bool = False) -> Iterator[tuple[list[str], list[Line]]]:
    """The fields of each row, and the lines that it is made of.

    Raises:
        _NotCsv: the quotes of a row are not those of csv.
    """
    csv.field_size_limit(sys.maxsize)
    taken: list[Line] = []

    def texts() -> Iterator[str]:
        for line in lines:
            taken.append(line)
            yield line.text

    try:
        for values in csv.reader(texts(), delimiter=separator, skipinitialspace=skip_blank, strict=True):
            yield values, taken
            taken.clear()
    except csv.Error as error:
        reason = str(error)
        if "new-line" in reason:
            reason = "a carriage return in a field that is not quoted"
        elif reason == "unexpected end of data":
            reason = 'the quote that opens in this row is never closed; write a quote that is part of a text twice, in a field in quotes ("""so"" he said")'
        elif "expected after" in reason:
            reason += "; within a quoted field, a quote is written twice"
        raise _NotCsv(taken[0].number if taken else 1, f"not valid CSV: {reason}") from error


def _unquoted_rows(path: Path, notes: list[str]) -> Iterator[Row]:
    lines, _, _ = _after_blank_lines(lines_of(path, notes), "\t")
    header: list[str] | None = None
    for number, text, is_utf8 in lines:
        values = text.rstrip("\r\n").split("\t")
        if header is None:
            header = _names(values)
            if problem := _header_problem(header):
                yield number, problem
                return
        elif not is_utf8:
            yield number, BadRow(NOT_UTF8)
        elif values != [""]:
            yield number, _row(values, header, "\t", "a text in a tsv file has no tabs; save it as csv with quoted texts")


def _quoted_rows(path: Path, separator: str, notes: list[str]) -> Iterator[Row]:
    lines, first, separator = _after_blank_lines(lines_of(path, notes), separator)
    if (assumed := _assumed_separator(first, separator)) != separator:
        separator = assumed
        notes.append(f"{path}: read with {separator!r} between the columns, since the header has no comma")
    # In `text, label` the blank belongs to the separator, in the rows too.
    skip_blank = separator in first and first.count(separator) == first.count(f"{separator} ")
    header: list[str] | None = None
    suspects = _Suspects(path)
    try:
        for values, taken in _quoted_fields(lines, separator, skip_blank):
            begin, end = taken[0].number, taken[-1].number
            if header is None:
                header = _names(values)
                if problem := _header_problem(header):
                    yield begin, problem
                    return
            elif not all(line.is_utf8 for line in taken):
                yield next(line.number for line in taken if not line.is_utf8), BadRow(NOT_UTF8)
            elif values:
                if begin < end and all(line.text.count(separator) == len(header) - 1 > 0 for line in taken):
                    suspects.add(begin, end)
                yield begin, _row(values, header, separator, f"quote texts that contain {separator!r}")
    except _NotCsv as error:
        yield error.line, BadRow(wrong_separator(header or [], separator) or str(error), is_lost=True)
    notes += suspects.notes()


@dataclass
class _Suspects:
    """Quoted rows of several lines, each of which could be a row by itself."""

    path: Path
    first: tuple[int, int] | None = None
    number: int = 0

    def add(self, begin: int, end: int) -> None:
        self.first = self.first or (begin, end)
        self.number += 1

    def notes(self) -> list[str]:
        if self.first is None:
            return []
        more = f" (and {self.number - 1} more such rows)" if self.number > 1 else ""
        begin, end = self.first
        return [
            f"warning: {self.path}:{begin}: lines {begin} to {end} are one row, since a quote opens in the first and closes in the last, but each could be "
            f'a row by itself{more}; a quote that is part of a text is written twice in csv, within a quoted field ("""so"" he said")'
        ]


def _names(header: list[str]) -> list[str]:
    """Return the column names; a single name is left unchanged, since it may be several names with another separator."""
    return [clean_label(name) for name in header] if len(header) > 1 else header


def _header_problem(header: Sequence[str]) -> BadRow | None:
    for name in filter(None, header):
        if header.count(name) > 1:
            return BadRow(f"the header has the column {name!r} twice", is_lost=True)
    return None


def _row(values: list[str], header: list[str], separator: str, advice: str) -> dict[str, str | None] | BadRow:
    if len(values) > len(header):
        if problem := wrong_separator(header, separator):
            return BadRow(problem, is_lost=True)
        if len(header) == 1:
            advice = f"the line of the header must name every column, and has {header[0][:40]!r}"
        elif separator != "\t" and any(value.startswith(" ") and value.lstrip().startswith('"') for value in values):
            advice = "remove the blank before the quote"
        return BadRow(f"{len(values)} fields, but the header has {len(header)}; {advice}")
    if len(header) > 1 and all(value.strip("\ufeff \r\n") == name for value, name in zip(values, header)):
        return BadRow("the header again, as in files that were joined; remove this line")
    row: dict[str, str | None] = dict(itertools.zip_longest(header, values))
    return CutRow(row) if len(values) == 1 < len(header) else row
