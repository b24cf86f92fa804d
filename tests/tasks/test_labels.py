"""Spellings that cannot be told apart are one label; those that nearly cannot are reported."""

import json

import pyarrow
import pyarrow.parquet
import pytest

from metatrain.errors import UserError
from metatrain.tasks.config import SplitConfig, TasksConfig
from metatrain.tasks.distribution import load_tasks
from metatrain.tasks.files import Columns, read_file
from metatrain.tasks.labels import clean_label, is_blank, label_notes

COLUMNS = Columns("text", "label")


@pytest.mark.parametrize(
    ("spelling", "label"),
    [
        ("cafe\u0301", "caf\u00e9"), ("pos\u200b", "pos"), ("\ufeffpos", "pos"), ("po\u00ads", "pos"), ("pos\x00\x00", "pos"), ("\u200epos\u200f", "pos"),
        ("po\u200cs", "pos"), ("pos\u200d", "pos"), (" book\xa0 flight\t", "book flight"), ("two\nlines", "two lines"), ("e\u200b\u0301", "\u00e9"),
        # Joiners that shape what is seen stay.
        ("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",) * 2, ("\U0001f468\u200d\U0001f469\u200d\U0001f467",) * 2, ("\u0915\u094d\u200d\u0937",) * 2,
        # What can be seen stays, whatever it is.
        ("C++",) * 2, ("\u0915\u0940",) * 2, ("\U0001f44d",) * 2, ("Pos",) * 2, ("_",) * 2, ("\u2764\ufe0f",) * 2, ("\ufb01",) * 2,
    ],
)  # fmt: skip
def test_a_label_is_what_can_be_seen_of_it(spelling, label):
    assert clean_label(spelling) == label == clean_label(label)


def test_nothing_to_be_seen_is_an_empty_field(tmp_path):
    assert all(map(is_blank, ("", " \n", "\u200b\ufeff", "\x00", "\u200d", "\u2060 \xad"))) and not is_blank("\u200b.")
    for field in ("text", "label"):
        row = {"text": "a", "label": "x", field: "\u200b \x00"}
        (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
        with pytest.raises(UserError, match=f"a.jsonl:1: field '{field}' is empty"):
            read_file(tmp_path / "a.jsonl", COLUMNS)


def test_one_label_in_all_its_spellings_and_formats(tmp_path):
    rows = [("a", "caf\u00e9", True), ("b", "cafe\u0301", False), ("c", "caf\u00e9\u200b", True), ("d", "caf\u00e9\x00", False)]
    (tmp_path / "a.csv").write_text("text,label,flag\n" + "".join(f"{text},{label},{str(flag).lower()}\n" for text, label, flag in rows), encoding="utf-8")
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(dict(zip(("text", "label", "flag"), row))) + "\n" for row in rows))
    pyarrow.parquet.write_table(pyarrow.table(dict(zip(("text", "label", "flag"), map(list, zip(*rows))))), tmp_path / "a.parquet")
    for name in ("a.csv", "a.jsonl", "a.parquet"):
        assert read_file(tmp_path / name, COLUMNS).labels == ["caf\u00e9"] * 4
        assert read_file(tmp_path / name, Columns("text", "flag")).labels == ["true", "false", "true", "false"]


def test_nan_is_a_word_and_a_missing_number_is_none(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\nnan,bread\nNaN,nan\n")
    table = read_file(tmp_path / "a.csv", COLUMNS)
    assert (list(table.texts), table.labels) == (["nan", "NaN"], ["bread", "nan"])
    assert table.notes == (f"warning: {tmp_path / 'a.csv'}: label 'nan' is read as written; drop its rows if it stands for a missing value",)
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a", "b"], "label": [1.0, float("nan")]}), tmp_path / "a.parquet")
    (tmp_path / "a.jsonl").write_text('{"text": "a", "label": 1.0}\n{"text": "b", "label": NaN}\n')
    for name in ("a.parquet", "a.jsonl"):
        with pytest.raises(UserError, match=f"{name}:2: field 'label' is empty"):
            read_file(tmp_path / name, COLUMNS)
        assert read_file(tmp_path / name, COLUMNS, "skip").labels == ["1.0"]


def test_labels_that_differ_in_little_are_reported_and_stay_apart(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\na,Positive\nb,positive\nc,book_flight\nd,book flight\ne,other\n")
    table = read_file(tmp_path / "a.csv", COLUMNS)
    assert len(set(table.labels)) == 5
    assert table.notes == (
        f"warning: {tmp_path / 'a.csv'}: labels that look alike are different classes: 'Positive' and 'positive'; 'book_flight' and 'book flight'",
    )


def test_labels_in_other_words_and_lists_of_labels_are_spelled_as_the_labels_are(tmp_path):
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": f"t{n}", "label": [True, "cafe\u0301", "tea"][n % 3]}) + "\n" for n in range(12)))
    (tmp_path / "lists.json").write_text('{"some": ["te\u200ba", "caf\u00e9"]}', encoding="utf-8")
    some = SplitConfig(["a.jsonl"], ["*"], labels_from="lists.json:some")
    config = TasksConfig(path=str(tmp_path), holdout=0, meta_train=some, label_descriptions={True: "yes"})
    assert load_tasks(config, 0, ["meta_train"]).meta_train[0].label_names == ("caf\u00e9", "tea")
    everything = TasksConfig(path=str(tmp_path / "a.jsonl"), holdout=0, label_descriptions={True: "yes", "cafe\u0301": "coffee"})
    assert load_tasks(everything, 0, ["meta_train"]).meta_train[0].label_names == ("coffee", "tea", "yes")
    (tmp_path / "lists.json").write_text('{"some": ["tea"], "some": ["caf\u00e9"]}', encoding="utf-8")
    with pytest.raises(UserError, match="cannot be read as JSON: the key 'some' is there twice"):
        load_tasks(config, 0, ["meta_train"])


@pytest.mark.parametrize("near", ["x\U000e0100", "x\u034f", "x\u115f", "x\u2800", "X", "\uff58"])
def test_labels_that_nearly_look_the_same_are_reported(near):
    assert label_notes("a.csv", ["x", near]) == [f"warning: a.csv: labels that look alike are different classes: 'x' and {near!r}"]


def test_numbers_of_one_value_and_what_stands_for_missing_values_are_reported():
    assert "'1' and '1.0'" in label_notes("a.csv", ["1", "2", "1.0", "20", "0.2"])[0]
    assert len(label_notes("a.csv", ["None", "none", "N/A"])) == 3  # the two spellings too
    assert not label_notes("a.csv", ["10", "1", "none", "v1.2", "na"])
