"""Quotes, separators, headers and line ends of csv and tsv files."""

import csv
import gzip
import io

import pytest

from metatrain.errors import UserError
from metatrain.tasks.files import Columns, Table, lines_of_rows, read_file

COLUMNS = Columns("text", "label")


def read(tmp_path, content: str | bytes, name: str = "rows.csv", bad_rows: str = "refuse") -> Table:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_file(path, COLUMNS, bad_rows)


def pairs(table: Table) -> list[tuple[str, str]]:
    return list(zip(table.texts, table.labels))


def written(rows, quoting: int = csv.QUOTE_MINIMAL, separator: str = "\t") -> str:
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=separator, quoting=quoting, lineterminator="\n").writerows([("text", "label"), *rows])
    return file.getvalue()


def test_a_quote_that_begins_a_text_of_a_tsv_file_is_part_of_it(tmp_path):
    table = read(tmp_path, 'text\tlabel\n"great film\tpos\nit was bad"\tneg\nnice\tpos\nawful\tneg\n', "q.tsv")
    assert pairs(table) == [('"great film', "pos"), ('it was bad"', "neg"), ("nice", "pos"), ("awful", "neg")]
    assert table.notes == (f"{tmp_path / 'q.tsv'}: a double quote that begins a field is part of the text (fields: 1); if it is not, save the file as csv",)


@pytest.mark.parametrize(
    "rows",
    [
        [('"so"', "pos"), ("no", "neg")],  # quoted words, which no writer had a reason to quote
        [('"so" he said', "pos"), ('"no', "neg"), ('"', "neg")],
        [('"so', "pos"), ("between", "neg"), ('no"', "neg")],
        [('no "quote" begins it', "pos"), ("6\" pipe", "neg")],
        [("it's", "'pos'"), ("'tis", "neg")],
        [("back\\tslash \\", "pos")],
    ],
)  # fmt: skip
def test_an_unquoted_tsv_file_is_read_to_the_letter(tmp_path, rows):
    assert pairs(read(tmp_path, "\n".join("\t".join(row) for row in [("text", "label"), *rows]), "a.tsv")) == rows


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize(
    "rows",
    [
        [('He said "no"', "neg"), ("plain", "pos")],
        [("two\nlines", "neg"), ("plain", "pos")],
        [("a tab\there", "neg"), ("plain", "pos"), ("", "neg")],
        [('three\n"quoted"\nlines', "neg"), ("a\t\tb", "pos")],
    ],
)  # fmt: skip
def test_a_quoted_tsv_file_is_recognised_and_said_to_be_one(tmp_path, rows, quoting):
    full = [row for row in rows if row[0]]
    table = read(tmp_path, written(rows, quoting), "a.tsv", "skip")
    assert pairs(table) == full
    assert table.notes[0] == f"{tmp_path / 'a.tsv'}: read as quoted tsv: the double quotes around fields are not part of them"


def test_a_column_that_is_quoted_in_every_row(tmp_path):
    assert pairs(read(tmp_path, 'text\tlabel\n"one"\tpos\n"two"\tneg\n', "a.tsv")) == [("one", "pos"), ("two", "neg")]


def test_a_bad_row_of_a_quoted_tsv_file_is_named_by_its_line(tmp_path):
    content = written([("two\nlines", "neg"), ("a", "b", "c"), ("also\ntwo", "pos")])
    with pytest.raises(UserError, match=r"a\.tsv:4: 3 fields, but the header has 2"):
        read(tmp_path, content, "a.tsv")
    assert pairs(read(tmp_path, content, "a.tsv", "skip")) == [("two\nlines", "neg"), ("also\ntwo", "pos")]


def test_a_row_with_a_tab_too_many_among_stray_quotes(tmp_path):
    with pytest.raises(UserError, match=r"a\.tsv:3: 3 fields, but the header has 2; a text in a tsv file has no tabs"):
        read(tmp_path, 'text\tlabel\n"great film\tpos\ntoo\tmany\tfields\nit was bad"\tneg\n', "a.tsv")


def test_csv_rows_that_a_quote_may_have_run_together_are_reported(tmp_path):
    table = read(tmp_path, 'text,label\n"great film,pos\nit was bad",neg\nnice,pos\n')
    assert pairs(table) == [("great film,pos\nit was bad", "neg"), ("nice", "pos")]
    (note,) = table.notes
    assert note.startswith(f"warning: {tmp_path / 'rows.csv'}:2: lines 2 to 3 are one row")
    assert not read(tmp_path, 'text,label\n"two\nlines",pos\n"three, all\nof\nthem",neg\n').notes


@pytest.mark.parametrize(
    "header",
    ["text, label", " text ,label ", '"text","label"', '"text", "label"', "\ufeff\ufefftext,label", "\ntext,label", "\r\n \n,\ntext,label",
     "te\u200bxt,label\xa0", "sep=,\ntext,label", '\ufeff"sep=,"\ntext,label', "text,label,,", "id,text,label"],
)  # fmt: skip
def test_headers_that_leave_no_doubt_are_read(tmp_path, header):
    first, width = ("7," if header.startswith("id") else ""), header.splitlines()[-1].count(",") + 1
    rows = [("good, really", "pos"), ("bad", "neg")]
    content = header + "\n" + "\n".join(f'{first}"{text}", {label}' if ", " in header else f'{first}"{text}",{label}' for text, label in rows)
    assert pairs(read(tmp_path, content)) == rows and width >= 2
    assert lines_of_rows(tmp_path / "rows.csv", [1])[1] == header.count("\n") + 3


def test_a_separator_that_the_first_line_names(tmp_path):
    assert pairs(read(tmp_path, "sep=;\r\ntext;label\r\na, b;pos\r\n")) == [("a, b", "pos")]


def test_columns_of_letters_in_their_other_unicode_form(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("text,cate\u0301gorie\nx,y\n", encoding="utf-8")
    assert read_file(path, Columns("text", "cat\u00e9gorie")).labels == ["y"]


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.jsonl"])
@pytest.mark.parametrize("end", ["\r", "\r\n", "\n", "\r\r\n"])
def test_line_ends(tmp_path, name, end):
    separator = "\t" if name == "rows.tsv" else ","
    lines = (
        ['{"text": "a", "label": "x"}', '{"text": "b", "label": "y"}']
        if name == "rows.jsonl"
        else [separator.join(row) for row in (["text", "label"], "ax", "by")]
    )
    assert pairs(read(tmp_path, end.join(lines) + end, name)) == [("a", "x"), ("b", "y")]
    if name == "rows.csv" and end == "\r":
        assert pairs(read(tmp_path, 'text,label\r"two\rlines",x\rb,y\r')) == [("two\rlines", "x"), ("b", "y")]
        with pytest.raises(UserError, match="rows.csv:3: field 'label' is empty"):
            read(tmp_path, "text,label\ra,x\rb\r")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("rows.tsv", "text,label\na,x\n", "the columns are separated by ','; give the file a name that ends in .csv"),
        ("rows.csv", "Text, Label\na,x\n", "no column 'text'; the file has 'Text', 'Label'"),
        ("rows.csv", "text,te\u200bxt,label\na,b,x\n", "rows.csv:1: the header has the column 'text' twice"),
        ("rows.csv", 'text,label\na,x\n"b,x\nc,y\n', "rows.csv:3: not valid CSV: the quote that opens in this row is never closed; write"),
        ("rows.csv", "text,label\na\rb,x\n", "rows.csv:2: not valid CSV: a carriage return in a field that is not quoted"),
        ("rows.csv", '"text;label"\na;x\n', "rows.csv: the columns are separated by ';'; save them with commas"),
        ("rows.csv", "My export\n\ntext,label\na,x\n", "rows.csv:3: 2 fields, but the header has 1; the line of the header must name every"),
        ("rows.csv", 'text,label\n "a, b",x\n', "rows.csv:2: 3 fields, but the header has 2; remove the blank before the quote"),
        ("rows.csv", "text,label\na,x\ntext, label\nb,y\n", "rows.csv:3: the header again, as in files that were joined"),
        ("rows.tsv", "text\tlabel\na\tx\n\ufefftext\tlabel\nb\ty\n", "rows.tsv:3: the header again"),
        ("rows.csv", 'text,label\n"He said \\"no\\"",x\n', "rows.csv:2: not valid CSV: ',' expected after '\"'; within a quoted field, a"),
        ("rows.csv", "text,label\na,x\n".encode("utf-16-le"), "this is UTF-16 text"),
        ("rows.csv", "text,label\na,x\n".encode("utf-16-be"), "this is UTF-16 text"),
        ("rows.csv", "text,label\na,x\n".encode("utf-16"), "this is UTF-16 text; save the file as UTF-8"),
        ("rows.csv", b"PK\x03\x04rest", "this is a zip archive or an Excel workbook"),
        ("rows.csv", b"\x1f\x8b\x08rest", "this is compressed by gzip; give it a name that ends in .gz"),
    ],
)  # fmt: skip
def test_what_is_in_the_file_is_said(tmp_path, name, content, words):
    with pytest.raises(UserError) as caught:
        read(tmp_path, content, name)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("content", "kept", "name"),
    [
        # One quoted row of two lines, the first of which is not UTF-8, or with a field too many.
        (b'text,label\n"first \xff\nsecond",pos\nc,neg\n', [("c", "neg")], "rows.csv"),
        (b'text,label\n"first\nsecond \xff",pos\nc,neg\n', [("c", "neg")], "rows.csv"),
        (b'text,label\n"first\nsecond",pos,more\nc,neg\n', [("c", "neg")], "rows.csv"),
        # Texts that a line break has cut in two or three.
        (b"text,label\na,pos\nfirst\nsecond,pos\nc,neg\n", [("a", "pos"), ("c", "neg")], "rows.csv"),
        (b"text,label\na,pos\nfirst\nsecond\nthird,pos\nc,neg\n", [("a", "pos"), ("c", "neg")], "rows.csv"),
        (b"text\tlabel\na\tpos\nfirst\nsecond\tpos\nc\tneg\n", [("a", "pos"), ("c", "neg")], "rows.tsv"),
        (b"label,text\npos,a\npos,first\nsecond\nneg,c\n", [("a", "pos"), ("c", "neg")], "rows.csv"),
        (b"id,text,label\n1,a,pos\n2,first\nsecond,pos\n3,c,neg\n", [("a", "pos"), ("c", "neg")], "rows.csv"),
        (b"text,label,id\na,pos,1\nfirst\n\nsecond,pos,2\nc,neg,3\n", [("a", "pos"), ("c", "neg")], "rows.csv"),
    ],
)  # fmt: skip
def test_no_half_of_a_row_is_kept_where_bad_rows_are_skipped(tmp_path, content, kept, name):
    table = read(tmp_path, content, name, "skip")
    assert pairs(table) == kept
    assert " bad rows left out, the first in line " in table.notes[-1]


@pytest.mark.parametrize(
    ("content", "kept", "separator"),
    [
        ('text;label\na, b;x\n"c; d";y\n', [("a, b", "x"), ("c; d", "y")], ";"),
        ("text|label\na|x\nb|y\n", [("a", "x"), ("b", "y")], "|"),
        ("text\tlabel\na, b\tx\n", [("a, b", "x")], "\t"),
        ('"a; text";text;label\r\n1,5;it broke;3,5\r\n', [("it broke", "3,5")], ";"),
    ],
)
def test_another_separator_of_a_csv_file_is_found_and_said(tmp_path, content, kept, separator):
    table = read(tmp_path, content)
    assert pairs(table) == kept
    assert table.notes[0].endswith(f"rows.csv: read with {separator!r} between the columns, since the header has no comma")


def test_a_comma_in_the_header_separates(tmp_path):
    assert pairs(read(tmp_path, "text,label,a;b\nx;y,z,1\n")) == [("x;y", "z")]


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.csv.gz"])
def test_windows_1252_is_read_and_said(tmp_path, name):
    separator = "\t" if "tsv" in name else ","
    rows = [("text", "label"), ("Café – “très bien”", "süß"), ("plain", "x"), ("5 €", "süß")]
    content = "".join(f"{separator.join(row)}\r\n" for row in rows).encode("cp1252")
    table = read(tmp_path, gzip.compress(content) if name.endswith(".gz") else content, name)
    assert pairs(table) == rows[1:]
    assert [note for note in table.notes if f"{name}: not UTF-8; read as Windows-1252 (cp1252)" in note] == list(table.notes)


@pytest.mark.parametrize(
    "text",
    [
        "naïve\n".encode() + "naïve".encode("cp1252"),  # UTF-8 in another line
        "это плохо".encode("cp1251"),  # as Windows-1252: letters with accents only
        b"bad \xff",
        "caf\x8d".encode("latin-1"),  # not defined
    ],
)
def test_what_is_neither_is_refused(tmp_path, text):
    with pytest.raises(UserError, match=r"rows.csv:\d: not valid UTF-8; save the file as UTF-8"):
        read(tmp_path, b"text,label\nfine,x\n" + text.replace(b"\n", b",x\n") + b",x\n")
