"""Columns are found by their names and by what is in them."""

import pytest
from conftest import write_jsonl

from metatrain.errors import UserError
from metatrain.tasks.columns import guess_columns
from metatrain.tasks.files import Columns

ROWS = [(f"sentence number {n} about things", ("good", "bad")[n % 2], ("x", "y", "z")[n % 3]) for n in range(30)]


def table(tmp_path, *names: str, rows=ROWS):
    return write_jsonl(tmp_path / "some.jsonl", [dict(zip(names, row)) for row in rows])


@pytest.mark.parametrize(
    "names, expected",
    [
        (("text", "label", "domain"), Columns("text", "label", "domain")),
        (("Review", "Sentiment", "product"), Columns("Review", "Sentiment", "product")),
        (("a", "b", "c"), Columns("a", "b")),  # the column with fewer values is the label
        (("label", "text", "task"), Columns("label", "text", "task")),  # names that do not fit what is there
    ],
)
def test_columns_are_found(tmp_path, names, expected):
    assert guess_columns(table(tmp_path, *names), {}).columns == expected


@pytest.mark.parametrize("header", ["text, label", "\ufeff text\u200b,label "])
def test_what_cannot_be_seen_in_a_header_does_not_count(tmp_path, header):
    (tmp_path / "some.csv").write_text(header + "\n" + "".join(f"{text},{label}\n" for text, label, _ in ROWS), encoding="utf-8")
    for given in ({}, {"text": "text", "label": " label"}):
        assert guess_columns(tmp_path / "some.csv", given).columns == Columns("text", "label")


def test_given_columns_win_and_are_not_called_guessed(tmp_path):
    found = guess_columns(table(tmp_path, "a", "b", "c"), {"label": "c", "task": "b"})
    assert found.columns == Columns("a", "c", "b")
    assert "label: column 'c'" in found.notes and "text: column 'a' (guessed)" in found.notes
    assert found.tasks == {"bad": {"x": 5, "y": 5, "z": 5}, "good": {"x": 5, "y": 5, "z": 5}}


def test_pairs_and_targets(tmp_path):
    rows = [(f"one {n}", f"two {n}", "yes" if n % 2 else "no") for n in range(10)]
    assert guess_columns(table(tmp_path, "premise", "hypothesis", "label", rows=rows), {}).columns == Columns("premise", "label", pair="hypothesis")
    rows = [(f"a long text about number {n}", f"number {n}") for n in range(10)]
    found = guess_columns(table(tmp_path, "document", "summary", rows=rows), {})
    assert found.columns == Columns("document", target="summary", label="label") and found.tasks == {"some": {"text": 10}}


@pytest.mark.parametrize(
    "rows, given, expected",
    [
        ([("one", "a"), ("two", "b")], {}, "no column looks like labels"),
        ([("one", "a"), ("two", "a"), ("three", "a")], {"label": "label"}, "has only one class"),
        (ROWS, {"label": "lable"}, "no column 'lable'"),
        ([("one", "a"), ("", "b"), ("three", "a"), ("four", "b")], {"text": "text"}, "some.jsonl:2: field 'text' is empty"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, rows, given, expected):
    with pytest.raises(UserError, match=expected):
        guess_columns(table(tmp_path, "text", "label", rows=rows), given)
