"""Files that are broken in five hundred ways: the line is named, or the bad rows are counted; no text ever gets another's label."""

import json
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metatrain.errors import UserError
from metatrain.tasks.files import Columns, read_file

# What each label's texts contain tells, of any text that is read, which label it may have.
LABELS = ("yes", "no", "3", "2021-05-06")
COLUMNS = Columns("text", "label")
WORDS = st.text(st.sampled_from("abc ,;\t\"'\n\\{}éß漢1"), max_size=12)


@st.composite
def tables(draw) -> list[tuple[str, str]]:
    """Rows whose texts say their label."""
    labels = draw(st.lists(st.sampled_from(LABELS), min_size=2, max_size=8))
    return [(f"<{label}> {draw(WORDS)} {number}", label) for number, label in enumerate(labels)]


def csv_field(value: str, separator: str) -> str:
    return '"' + value.replace('"', '""') + '"' if any(each in value for each in (separator, '"', "\n", "\r")) else value


def lines_of(rows: list[tuple[str, str]], kind: str) -> list[bytes]:
    if kind == ".jsonl":
        return [json.dumps({"text": text, "label": label}, ensure_ascii=False).encode() for text, label in rows]
    if kind == ".tsv":  # which has no quotes, and so no tab or line break within a text
        return [b"text\tlabel"] + ["\t".join(value.replace("\t", " ").replace("\n", " ") for value in row).encode() for row in rows]
    return [b"text,label"] + [",".join(csv_field(value, ",") for value in row).encode() for row in rows]


def empty_field(line: bytes, kind: str, draw) -> bytes:
    return b'{"text": "", "label": "yes"}' if kind == ".jsonl" else b"\t" if kind == ".tsv" else b","


def cut(line: bytes, kind: str, draw) -> bytes:
    return line[: draw(st.integers(0, max(0, len(line) - 1)))]


def one_byte(line: bytes, kind: str, draw) -> bytes:
    place = draw(st.integers(0, max(0, len(line) - 1)))
    return line[:place] + bytes([draw(st.integers(0, 255))]) + line[place + 1 :]


def inserted(line: bytes, kind: str, draw) -> bytes:
    place = draw(st.integers(0, len(line)))
    return (
        line[:place]
        + draw(st.sampled_from([b'"', b",", b"\t", b"\n", b"\r", b"\x00", b"\xff", b"{", b"}", b"]", b"null", b'"a": [1],', b"\xef\xbb\xbf"]))
        + line[place:]
    )


def other_type(line: bytes, kind: str, draw) -> bytes:
    value = draw(st.sampled_from(["[1]", "{}", "null", "3", "3.5", "true", "NaN", '"nan"', '"  "']))
    return f'{{"text": "<3> x", "label": {value}}}'.encode() if kind == ".jsonl" else value.encode()


def not_a_row(line: bytes, kind: str, draw) -> bytes:
    return draw(st.sampled_from([b"3", b"[]", b"null", b"just words", b'"', b"a,b,c,d,e", b"a\tb\tc\td", b"[" * 3000]))


BREAKS = (empty_field, cut, one_byte, inserted, other_type, not_a_row)


@st.composite
def broken(draw) -> tuple[str, bytes]:
    kind = draw(st.sampled_from([".csv", ".tsv", ".jsonl"]))
    lines = lines_of(draw(tables()), kind)
    for _ in range(draw(st.integers(1, 2))):
        place = draw(st.integers(0, len(lines) - 1))
        lines[place] = draw(st.sampled_from(BREAKS))(lines[place], kind, draw)
    return kind, draw(st.sampled_from([b"\n", b"\r\n"])).join(lines)


def check(kind: str, content: bytes, bad_rows: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"rows{kind}")
        path.write_bytes(content)
        try:
            table = read_file(path, COLUMNS, bad_rows)
        except UserError as error:
            line = str(error)
            assert line.startswith(str(path)) and "\n" not in line.strip() and len(line) < 500
            # Which line, or why there is none to name.
            assert re.match(re.escape(str(path)) + r":\d+: ", line) or any(each in line for each in ("no column", "no rows", "is empty")), line
            return
        assert len(table.texts) == len(table.labels) > 0
        for text, label in zip(table.texts, table.labels):
            said = re.findall(r"<(yes|no|3|2021-05-06)>", text)
            assert len(said) <= 1, f"rows have run together: {text!r}"
            # A changed label is a label of its own (nobody can know), but never that of another row.
            assert not said or label == said[0] or label not in LABELS or _changed(content, said[0], label), (text, label)


def _changed(content: bytes, said: str, label: str) -> bool:
    """Whether what was written says so: the break itself has put this label beside this text."""
    line = next((each for each in content.splitlines() if f"<{said}>".encode() in each and label.encode() in each.split(f"<{said}>".encode())[-1]), None)
    return line is not None


@settings(max_examples=250, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(broken())
def test_a_broken_file_is_refused_by_its_line_or_read_right(case):
    check(*case, "refuse")


@settings(max_examples=250, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(broken())
def test_bad_rows_are_left_out_if_that_is_asked_for(case):
    check(*case, "skip")


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(tables(), st.sampled_from([".csv", ".tsv", ".jsonl"]))
def test_a_file_that_is_well_is_read_to_the_letter(rows, kind):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"rows{kind}")
        path.write_bytes(b"\n".join(lines_of(rows, kind)))
        table = read_file(path, COLUMNS)
        expected = [re.sub("[\t\n]", " ", text) if kind == ".tsv" else text for text, _ in rows]
        assert list(zip(table.texts, table.labels)) == [(text.strip(), label) for text, (_, label) in zip(expected, rows)]


def test_skipped_rows_are_counted(tmp_path):
    (tmp_path / "rows.csv").write_text("text,label\na b,yes\n,no\nc d,no\ne,f,g\n")
    table = read_file(tmp_path / "rows.csv", COLUMNS, "skip")
    assert (list(table.texts), list(table.labels)) == (["a b", "c d"], ["yes", "no"])
    assert table.notes[-1].endswith("2 bad rows left out, the first in line 3: field 'text' is empty")
    with pytest.raises(UserError, match="rows.csv:3: field 'text' is empty"):
        read_file(tmp_path / "rows.csv", COLUMNS)


def test_skipping_ends_where_nobody_knows_where_a_field_ends(tmp_path):
    (tmp_path / "rows.csv").write_text('text,label\na b,yes\n"c d,no\ne f,yes\n')
    with pytest.raises(UserError, match="not valid CSV"):
        read_file(tmp_path / "rows.csv", COLUMNS, "skip")
