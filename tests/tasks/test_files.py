"""Every supported kind of file gives the same table; every bad row is named by file and line."""

import gzip
import json
import os
import re
from datetime import datetime

import pytest

from metatrain.errors import UserError
from metatrain.tasks.files import Columns, column_values, lines_of_rows, read_file
from metatrain.tasks.rows import stem

ROWS = [
    {"text": 'He said "no", twice.', "label": "01", "area": "NA"},
    {"text": "Two\nlines, and a comma", "label": "null", "area": "b"},
    {"text": "Ünïcödé 漢字", "label": "yes", "area": "c"},
]
COLUMNS = Columns("text", "label", "area")


def write(path, rows):
    if path.suffix == ".gz":
        plain = write(path.with_suffix(""), rows)
        path.write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()
    elif path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        import csv

        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


@pytest.mark.parametrize("name", ["d.csv", "d.tsv", "d.jsonl", "d.parquet", "d.csv.gz", "d.tsv.gz", "d.jsonl.gz"])
def test_all_formats_give_the_same_table(tmp_path, name):
    table = read_file(write(tmp_path / name, ROWS), COLUMNS)
    assert list(table.texts) == [row["text"] for row in ROWS]
    assert table.labels == ["01", "null", "yes"]  # as written: no numbers, no missing values made of words
    assert table.tasks == ["NA", "b", "c"]


def test_without_a_task_column_the_file_names_the_task(tmp_path):
    table = read_file(write(tmp_path / "returns.v2.csv.gz", ROWS), Columns("text", "label"))
    assert set(table.tasks) == {"returns.v2"} == {stem(tmp_path / "returns.v2.csv.gz")}


def test_numbers_as_labels(tmp_path):
    assert read_file(write(tmp_path / "n.jsonl", [{"text": "a", "label": 1}, {"text": "b", "label": 0}]), Columns("text", "label")).labels == ["1", "0"]


@pytest.mark.parametrize(
    ("name", "content", "line", "words"),
    [
        ("a.csv", b"text,label\nfine,x\n,y\n", 3, "'text' is empty"),
        ("a.csv", b'text,label\n"two\nlines",x\nfine,\n', 4, "'label' is empty"),
        ("a.csv", b"text,label\nfine,x,z\n", 2, "3 fields, but the header has 2"),
        ("a.tsv", b"text\tlabel\nfine\tx\ny\n", 3, "'label' is empty"),
        ("a.csv", b"text,label\nfine,x\nb\xffd,y\n", 3, "UTF-8"),
        ("a.jsonl", b'{"text": "a", "label": "x"}\n{"text": "b"}\n', 2, "'label'"),
        ("a.jsonl", b'{"text": "a", "label": "x"}\n[1]\n', 2, "not a JSON object"),
        ("a.jsonl", b'{"text": "a", "label": "x"}\n\n{"text": 1, \n', 3, "not valid JSON"),
        ("a.json", b' [{"text": "a", "label": "x"}]\n', 1, "a JSON array; write one object a line"),
        ("a.jsonl", b'{"text": "a", "label": "x"}\n{"text": ["b"], "label": "x"}\n', 2, "is a list"),
        ("a.jsonl", b'{"text": "a", "label": "x"}\n{"text": null, "label": "x"}\n', 2, "'text' is empty"),
    ],
)
def test_bad_rows_are_named(tmp_path, name, content, line, words):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_file(path, Columns("text", "label"))
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert words in str(caught.value)


def test_a_broken_gzip_file(tmp_path):
    path = write(tmp_path / "a.csv.gz", ROWS)
    whole = path.read_bytes()
    for broken in (whole[:-12], whole[:20] + bytes(4) + whole[24:], b"text,label\n"):
        path.write_bytes(broken)
        with pytest.raises(UserError, match=r"a\.csv\.gz: the gzip file is broken"):
            read_file(path, COLUMNS)


def test_a_missing_column_lists_those_there_are(tmp_path):
    with pytest.raises(UserError, match="no column 'domain'; the file has 'text', 'label', 'area'"):
        read_file(write(tmp_path / "a.csv", ROWS), Columns("text", "label", "domain"))


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_lines_of_rows(tmp_path, name):
    path = write(tmp_path / name, ROWS)
    assert list(lines_of_rows(path, range(3)).values()) == {"a.csv": [2, 3, 5], "a.jsonl": [1, 2, 3], "a.parquet": [1, 2, 3]}[name]


def test_values_are_what_is_written(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "x", "label": "2021-05-06"}\n{"text": "y", "label": 3}\n{"text": "z", "label": 3.50}\n')
    assert read_file(tmp_path / "a.jsonl", Columns("text", "label")).labels == ["2021-05-06", "3", "3.50"]


def test_a_byte_order_mark_is_no_part_of_the_header(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbftext,label\nx,y\n")
    assert list(read_file(tmp_path / "a.csv", Columns("text", "label")).texts) == ["x"]


def test_a_column_that_is_there_twice(tmp_path):
    (tmp_path / "a.csv").write_text("text,label,text\nx,y,z\n")
    with pytest.raises(UserError, match="a.csv:1: .*the column 'text' twice"):
        read_file(tmp_path / "a.csv", Columns("text", "label"), "skip")


@pytest.mark.parametrize("columns", [["text", "label"], ["text"]])
def test_a_parquet_file_is_the_one_of_its_name(tmp_path, columns):
    import pyarrow
    import pyarrow.parquet

    for name in ("p1", "p[1]", "p*", "a::p", "zip:x"):
        pyarrow.parquet.write_table(pyarrow.table({"text": [name], "label": ["x"]}), tmp_path / f"{name}.parquet")
    for name in ("p[1]", "p*", "p1", "a::p", "zip:x"):
        assert list(read_file(tmp_path / f"{name}.parquet", Columns(*columns)).texts) == [name]
    with pytest.raises(UserError, match="no such file"):
        read_file(tmp_path / "?1.parquet", Columns(*columns))


def test_the_content_of_a_parquet_file_decides_not_its_time(tmp_path):
    path = tmp_path / "a.parquet"
    for text in ("one", "two"):
        write(path, [{"text": text, "label": "x"}])
        os.utime(path, (1e9, 1e9))
        assert list(read_file(path, Columns("text", "label")).texts) == [text]


def test_parquet_columns(tmp_path):
    import datasets
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "a.parquet"
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, -1]}, features).to_parquet(str(path))
    assert read_file(path, Columns("text", "label"), "skip").labels == ["yes", "no"]
    values = {
        "text": ["a", "b"],
        "label": pyarrow.array(["x", "y"]).dictionary_encode(),
        "n": [1, None],
        "list": [[1], [2]],
        "when": [datetime(2021, 5, 6)] * 2,
    }
    pyarrow.parquet.write_table(pyarrow.table(values), path)
    assert read_file(path, Columns("text", "label")).labels == ["x", "y"]
    assert column_values(path) == {"text": ["a", "b"], "label": ["x", "y"], "n": ["1", ""]}
    for name, kind in (("list", "list<element: int64>"), ("when", "timestamp[us]")):
        with pytest.raises(UserError, match=re.escape(f"a.parquet:1: field '{name}' is a {kind}, not a text")):
            read_file(path, Columns("text", name))
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays([pyarrow.array(["a"])] * 3, names=["text", "label", "text"]), path)
    with pytest.raises(UserError, match="the file has the column 'text' twice"):
        read_file(path, Columns("text", "label"))
    raw = pyarrow.array([b"good", b"b\xffd", b"fine"]).cast(pyarrow.large_binary())
    strings = pyarrow.Array.from_buffers(pyarrow.large_string(), 3, raw.buffers())
    pyarrow.parquet.write_table(pyarrow.table({"text": strings, "label": ["x", "y", "z"]}), path)
    with pytest.raises(UserError, match="a.parquet:2: a text is not valid UTF-8"):
        read_file(path, Columns("text", "label"))
    assert read_file(path, Columns("text", "label"), "skip").labels == ["x", "z"]
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match="a.parquet: cannot be read as parquet"):
        read_file(path, Columns("text", "label"))


@pytest.mark.parametrize("row", ['{"text": "a", "label": "x", "label": "y"}', '{"text": "a", "label": "x", "more": {"b": 1, "b": 1}}'])
def test_a_key_twice_is_a_bad_row(tmp_path, row):
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"text": "b", "label": "x"}}\n{row}\n')
    with pytest.raises(UserError, match="a.jsonl:2: the key '(label|b)' is there twice"):
        read_file(path, Columns("text", "label"))
    assert list(read_file(path, Columns("text", "label"), "skip").texts) == ["b"]


def test_blanks_around_a_key_do_not_count(tmp_path):
    path = write(tmp_path / "a.jsonl", [{" text": "a", "label ": "x"}, {" text": "b", "label ": "y"}])
    assert read_file(path, Columns("text", "label")).labels == ["x", "y"]


def test_no_part_of_an_object_of_several_lines_is_a_row(tmp_path):
    path = tmp_path / "a.json"
    row = '{"text": "b", "label": "y"}'
    for content in (f'{{"rows": [\n{row},\n{row}\n]}}', f'{{"text": "a", "more":\n{row}\n}}', f'{{"text": "a", "label": "x",\n\n"more": {row}\n}}'):
        path.write_text(content + '\n{"text": "c", "label": "z"}\n')
        assert list(read_file(path, Columns("text", "label"), "skip").texts) == ["c"]
        with pytest.raises(UserError, match="a.json:1: not valid JSON: .*; write one object a line"):
            read_file(path, Columns("text", "label"))
