"""Data as it lies about: workbooks, folders of text files, columns under other names."""

import datetime

import pytest
from conftest import write_jsonl

from metatrain.errors import UserError
from metatrain.tasks.columns import found_columns
from metatrain.tasks.files import Columns, read_file
from metatrain.tasks.labelled import read_labelled
from metatrain.tasks.unlabelled import folder_rows

COLUMNS = Columns("text", "label")
GUESSED = {"text": "data.text", "label": "data.label"}
ROWS = [(f"{word} number {number}, a text", label) for number in range(3) for word, label in (("awful", "bad"), ("lovely", "good"))]


def workbook(path, *sheets):
    book = pytest.importorskip("openpyxl").Workbook()
    book.remove(book.active)
    for number, rows in enumerate(sheets):
        sheet = book.create_sheet(f"sheet {number}")
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path


def test_a_workbook_is_read_like_a_csv_file(tmp_path):
    rows = [[], ["text", None, "label", "when"], ["one", None, 1, datetime.date(2026, 1, 2)], [], ["two, three", None, 2.5, None], ["three", None, True]]
    table = read_file(workbook(tmp_path / "a.xlsx", [], rows, [["other"]]), COLUMNS)
    assert list(zip(table.texts, table.labels)) == [("one", "1"), ("two, three", "2.5"), ("three", "true")]
    assert table.notes[0].endswith("a.xlsx: read the sheet 'sheet 1', one of 3")
    assert read_file(tmp_path / "a.xlsx", Columns("when", "label"), "skip").texts == ("2026-01-02",)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "a.xlsx: the file has no rows"),
        ([["text", "label"]], "a.xlsx: the file has no rows"),
        ([["text", "label"], ["a", "x"], ["b"]], "a.xlsx:3: field 'label' is empty"),
        ([["text", "label"], ["a", "x", "more"]], "a.xlsx:2: a value in a column that has no name in the header"),
        ([["text", "label", " text"], ["a", "x", "b"]], "a.xlsx:1: the header has the column 'text' twice"),
    ],
)
def test_what_is_wrong_in_a_workbook_is_said_with_its_row(tmp_path, rows, words):
    with pytest.raises(UserError) as caught:
        read_file(workbook(tmp_path / "a.xlsx", rows), COLUMNS)
    assert words in str(caught.value)


@pytest.mark.parametrize("content", [b"PK", b"PK\x03\x04" + bytes(100), b"text,label"])
def test_a_broken_workbook(tmp_path, content):
    pytest.importorskip("openpyxl")
    (tmp_path / "a.xlsx").write_bytes(content)
    with pytest.raises(UserError, match="a.xlsx: cannot be read as an Excel workbook: "):
        read_file(tmp_path / "a.xlsx", COLUMNS)


def test_a_workbook_needs_openpyxl(tmp_path, monkeypatch):
    (tmp_path / "a.xlsx").write_bytes(b"PK")
    monkeypatch.setattr("metatrain.plugins.find_spec", lambda module: None)
    with pytest.raises(UserError, match=r"a.xlsx: an Excel workbook needs openpyxl, which is not installed; run: pip install 'metatrain-nlp\[xlsx\]'"):
        read_file(tmp_path / "a.xlsx", COLUMNS)


@pytest.fixture
def folder(tmp_path):
    for number, (text, label) in enumerate(ROWS):
        (tmp_path / "texts" / label).mkdir(parents=True, exist_ok=True)
        (tmp_path / "texts" / label / f"{number}.txt").write_text(f"{text}\nand more\n")
    (tmp_path / "texts" / ".hidden.txt").write_text("no")
    return tmp_path / "texts"


def test_a_folder_of_text_files_is_a_class_a_folder(folder):
    (folder / "good" / "1.txt").write_bytes("très bien".encode("cp1252"))
    table, columns = read_labelled(folder, "data.train", COLUMNS, {})
    assert columns == COLUMNS and table.labels == ["bad"] * 3 + ["good"] * 3
    assert table.texts[0] == "awful number 0, a text\nand more" and table.texts[3] == "très bien"
    assert table.places([3]) == {3: str(folder / "good" / "1.txt")}
    assert table.notes == (f"{folder}: 1 of 6 files are not UTF-8; read as Windows-1252 (cp1252)",)
    rows = list(folder_rows(folder))
    assert [row.fields["file"] for row in rows] == [f"bad/{number}.txt" for number in (0, 2, 4)] + [f"good/{number}.txt" for number in (1, 3, 5)]
    assert [row.text for row in rows] == list(table.texts)


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("bad/empty.txt", b"\n", "bad/empty.txt: the file is empty"),
        ("bad/odd.txt", b"caf\xff", "bad/odd.txt: not valid UTF-8; save the file as UTF-8"),
        ("alone.txt", b"a text", "text files must be in LABEL/FILE.txt; there is alone.txt"),
    ],
)
def test_what_is_wrong_in_a_folder_is_said(folder, file, content, words):
    (folder / file).write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_labelled(folder, "data.train", COLUMNS, {})
    assert words in str(caught.value)
    assert [row for row in folder_rows(folder) if row.problem] or file == "alone.txt"


def test_columns_of_other_names_are_found_and_said(tmp_path):
    rows = [{"id": number, "review": text, "mood": label} for number, (text, label) in enumerate(ROWS)]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    table, columns = read_labelled(path, "data.train", COLUMNS, GUESSED)
    assert columns == Columns("review", "mood") and list(zip(table.texts, table.labels)) == ROWS
    assert table.notes == (
        f"{path}: label: column 'mood' (guessed; data.label=COLUMN names another)",
        f"{path}: text: column 'review' (guessed; data.text=COLUMN names another)",
    )
    with pytest.raises(UserError, match="no column 'text'"):  # a column that was asked for is not replaced
        read_labelled(path, "data.train", COLUMNS, {"label": "data.label"})


def test_columns_that_are_there_are_not_guessed(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": text, "label": label, "sentence2": "x"} for text, label in ROWS])
    assert found_columns(path, COLUMNS, GUESSED) == (COLUMNS, [])
    assert found_columns(path, Columns("body"), {"text": "column"})[0] == Columns("text")  # to predict: no label, and no second text


def test_a_pair_is_found_with_its_first_text(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [{"premise": text, "hypothesis": "x", "label": label} for text, label in ROWS])
    columns, notes = found_columns(path, COLUMNS, GUESSED)
    assert columns == Columns("premise", "label", pair="hypothesis")
    assert notes[0] == f"{path}: pair: column 'hypothesis' (guessed; data.pair=COLUMN names another)"
