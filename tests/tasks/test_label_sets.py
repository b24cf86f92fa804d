"""Several labels per text: the forms of a file, and the line that is named for bad input."""

import pyarrow
import pyarrow.parquet
import pytest
from conftest import write_jsonl

from metatrain.errors import UserError
from metatrain.tasks.files import Columns, read_file
from metatrain.tasks.label_sets import LabelForm, as_matrix, read_label_sets

SETS = [{"food", "service"}, set(), {"place"}]
TEXTS = ["cold soup, rude waiter", "nothing", "easy parking"]


def read(path, form, **options):
    return read_label_sets(path, "data.train", Columns("text"), form, {"text": "data.text"}, **options)


def test_every_form_gives_the_same_sets(tmp_path):
    separated, columns, lists = tmp_path / "separated.csv", tmp_path / "columns.csv", tmp_path / "lists.parquet"
    separated.write_text('text,tags\n"cold soup, rude waiter", service;food\nnothing,\neasy parking,place\n')
    columns.write_text('text,food,place,service\n"cold soup, rude waiter",1,0,1\nnothing,0,0,0\neasy parking,0,1,0\n')
    pyarrow.parquet.write_table(pyarrow.table({"text": TEXTS, "tags": [["food", "service"], [], ["place"]]}), lists)
    written = tmp_path / "written.csv"
    written.write_text('text,tags\n"cold soup, rude waiter","[""service"", ""food""]"\nnothing,[]\neasy parking,"[""place""]"\n')
    objects = write_jsonl(tmp_path / "objects.jsonl", [{"text": text, "tags": sorted(labels)} for text, labels in zip(TEXTS, SETS)])
    forms = {
        separated: LabelForm("tags", ";"),
        columns: LabelForm("label", columns=("food", "place", "service")),
        **dict.fromkeys((lists, written, objects), LabelForm("tags")),
    }
    for path, form in forms.items():
        table, sets, found = read(path, form, needs_separator=True)
        assert list(table.texts) == TEXTS and sets == SETS and found.text == "text", path
    assert as_matrix(SETS, ["food", "place", "service"]).tolist() == [[True, False, True], [False] * 3, [False, True, False]]
    assert as_matrix([], ["a"]).shape == (0, 1)


@pytest.mark.parametrize(
    ("content", "form", "why"),
    [
        ("text,tags\na,x\nb,y\n", LabelForm("tags", ";"), "rows.csv: the separator ';' occurs in no row of column 'tags', so no text has several labels"),
        ("text,tags\na,x;y\nb,x;;y\n", LabelForm("tags", ";"), "rows.csv:3: field 'tags' has an empty label: ['x', '', 'y']"),
        ("text,tags\na,x;y;\n", LabelForm("tags", ";"), "rows.csv:2: field 'tags' has an empty label"),
        ("text,tags\na,x;y;x\n", LabelForm("tags", ";"), "rows.csv:2: field 'tags' has a label twice: ['x', 'y', 'x']"),
        ("text,tags\na,x;y\n", LabelForm("tags"), "rows.csv:2: field 'tags' is 'x;y', not a list such as [\"a\", \"b\"]; labels between separators need"),
        ("text,tags\na,x;y\n", LabelForm("labels", ";"), "rows.csv: no column 'labels'"),
        ("text,x,y\na,1,0\nb,2,0\n", LabelForm("label", columns=("x", "y")), "rows.csv:3: field 'x' is '2', not 0 or 1"),
        ("text,x,y\na,1,\n", LabelForm("label", columns=("x", "y")), "rows.csv:2: field 'y' is '', not 0 or 1"),
        ("text,x,y\na,1,0\n", LabelForm("label", columns=("x", "z")), "rows.csv: no column 'z'"),
    ],
)
def test_bad_input_names_the_line(tmp_path, content, form, why):
    (tmp_path / "rows.csv").write_text(content)
    with pytest.raises(UserError) as error:
        read(tmp_path / "rows.csv", form, needs_separator=True)
    assert why in str(error.value) and "\n" not in str(error.value)


def test_a_form_is_checked_and_a_folder_has_none(tmp_path):
    names = {"separator": "data.label_separator", "columns": "data.label_columns"}
    with pytest.raises(UserError, match="data.label_separator is empty"):
        LabelForm("tags", "").check(names)
    with pytest.raises(UserError, match=r"data.label_columns=\[a,a\] names a column twice"):
        LabelForm("label", columns=("a", "a")).check(names)
    with pytest.raises(UserError, match="is a folder, which gives each text one label"):
        read(tmp_path, LabelForm("tags", ";"))


def test_lists_are_refused_where_a_text_has_one_label(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", [{"text": "a", "label": ["x", "y"]}])
    with pytest.raises(UserError, match=r"rows.jsonl:1: field 'label' is a list, not a text; only metatrain finetune reads several labels"):
        read_file(path, Columns("text", "label"))
