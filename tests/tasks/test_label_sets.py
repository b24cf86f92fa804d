"""Several labels per text: the forms of a file, and the line that is named for bad input."""

from dataclasses import replace

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from conftest import write_jsonl

from metatrain.errors import UserError
from metatrain.tasks.config import NamedSourceConfig, SplitConfig, TasksConfig
from metatrain.tasks.distribution import load_tasks
from metatrain.tasks.files import Columns, read_file
from metatrain.tasks.hub import _dataset_rows
from metatrain.tasks.label_sets import LabelForm, as_matrix, label_set, read_label_sets, read_task_file, task_table, written
from metatrain.tasks.task import TaskDistribution

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
    with pytest.raises(UserError, match="data.label_separator is empty"):
        LabelForm("tags", "").check()
    with pytest.raises(UserError, match=r"data.label_columns=\[a,a\] names a column twice"):
        LabelForm("label", columns=("a", "a")).check()
    with pytest.raises(UserError, match="is a folder, which gives each text one label"):
        read(tmp_path, LabelForm("tags", ";"))


def test_lists_are_refused_where_a_text_has_one_label(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", [{"text": "a", "label": ["x", "y"]}])
    with pytest.raises(UserError, match=r"rows.jsonl:1: field 'label' is a list, not a text; several labels per text need a list in every row"):
        read_file(path, Columns("text", "label"))


def read_task(path, separator=None, bad_rows="refuse"):
    return read_task_file(path, Columns("text", "tags"), LabelForm("tags", separator, setting="tasks.label_separator"), bad_rows)


def test_task_files_with_lists_or_a_separator_have_label_sets(tmp_path):
    separated = tmp_path / "separated.csv"
    separated.write_text('text,tags\n"cold soup, rude waiter", service;food\nnothing,\neasy parking,place\n')
    objects = write_jsonl(tmp_path / "objects.jsonl", [{"text": text, "tags": sorted(labels)} for text, labels in zip(TEXTS, SETS)])
    for path, separator in ((separated, ";"), (objects, None)):
        table = read_task(path, separator)
        assert table.has_label_sets and list(table.texts) == TEXTS and list(map(label_set, table.labels)) == SETS and not table.notes
    (tmp_path / "one.csv").write_text("text,tags\na,service;food\n")
    one = read_task(tmp_path / "one.csv")
    assert not one.has_label_sets and one.labels == ["service;food"]
    assert label_set(written({"Füße", 'a "b"'})) == {"Füße", 'a "b"'} and written({"Füße"}).isascii()


def test_bad_rows_of_a_task_with_label_sets(tmp_path):
    rows = [{"text": "a", "tags": ["x", "y"]}, {"text": "b", "tags": "x"}, {"text": "", "tags": ["y"]}, {"text": "c"}, {"text": "d", "tags": ["y"]}]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    with pytest.raises(UserError, match=r"rows.jsonl:2: field 'tags' is 'x', not a list such as .*; labels between separators need tasks.label_separator"):
        read_task(path)
    table = read_task(path, bad_rows="skip")
    assert list(table.texts) == ["a", "d"] and list(map(label_set, table.labels)) == [{"x", "y"}, {"y"}]
    assert "3 bad rows left out, the first in line 2" in table.notes[0]
    path = write_jsonl(tmp_path / "late.jsonl", [{"text": "b", "tags": "x"}, {"text": "a", "tags": ["x", "y"]}])
    with pytest.raises(UserError, match=r"late.jsonl:2: field 'tags' is a list, not a text"):
        read_task(path)
    (tmp_path / "rows.csv").write_text("text,tags\na,x\nb,y\n")
    (note,) = read_task(tmp_path / "rows.csv", ";").notes
    assert "rows.csv: the separator ';' occurs in no row of column 'tags', so no text has several labels" in note


def test_tasks_of_label_sets(tmp_path):
    rows = [{"text": text, "label": labels} for text, labels in (("one", ["a", "b"]), ("two", ["b"]), ("three", []), ("four", ["c"]), ("one", ["a"]))]
    write_jsonl(tmp_path / "m.jsonl", rows)
    settings = TasksConfig(path=str(tmp_path), meta_train=SplitConfig(tasks=["*"]))
    (task,) = load_tasks(settings, 0).meta_train
    assert task.label_names == ("a", "b", "c") and task.label_sets.tolist() == [[True, True, False], [False, True, False], [False] * 3, [False, False, True]]
    assert [rows.tolist() for rows in task.support_rows] == [[0], [0, 1], [3]] and task.has_no_label.tolist() == [False, False, True, False]
    assert task.labels_of(0) == "a, b" and task.labels_of(2) == "no label" and task.sizes.tolist() == [1, 2, 1, 1]
    assert "1 repeated texts removed, 1 with another label" in load_tasks(settings, 0).notes[0]
    described = load_tasks(replace(settings, label_descriptions={"a": "first", "b": "first"}), 0).meta_train[0]
    assert described.label_names == ("c", "first") and described.label_sets[0].tolist() == [False, True]
    same_numbers = replace(task, label_sets=task.label_sets[:, [1, 0, 2]])
    assert len({TaskDistribution("d", (each,)).fingerprint() for each in (task, same_numbers)}) == 2
    with pytest.raises(UserError, match=r"tasks.label_descriptions: no row has the label 'z'; there are a, b, c"):
        load_tasks(replace(settings, label_descriptions={"z": "first"}), 0)
    with pytest.raises(UserError, match=r"tasks.meta_train.labels: .*m.jsonl has several labels per text"):
        load_tasks(replace(settings, meta_train=SplitConfig(tasks=["*"], labels=["a"])), 0)
    with pytest.raises(UserError, match="tasks.label_separator is empty"):
        load_tasks(replace(settings, label_separator=""), 0)


def test_lists_of_class_numbers_of_the_hub_are_names():
    features = datasets.Features({"text": datasets.Value("string"), "tags": datasets.Sequence(datasets.ClassLabel(names=["x", "y"]))})
    data = datasets.Dataset.from_dict({"text": ["a", "b"], "tags": [[1, 0], []]}, features=features)
    table = task_table("hub", _dataset_rows(data), Columns("text", "tags"), LabelForm("tags"), "t")
    assert table.has_label_sets and list(map(label_set, table.labels)) == [{"x", "y"}, frozenset()]


def by_columns(*names: str) -> LabelForm:
    return LabelForm("label", None, names, "tasks.label_separator", "tasks.label_columns")


def test_a_column_for_each_label(tmp_path):
    path = tmp_path / "columns.csv"
    path.write_text('text,label,food,service,place, Other \n"cold soup, rude waiter",x,1,1,0,0\nnothing,y,0,false,0.0,0\neasy parking,x,0,0,true,0\n')
    table = read_task_file(path, Columns("text", "label"), by_columns("food", "place", "service", "Other"), "refuse")
    assert table.has_label_sets and list(table.texts) == TEXTS and list(map(label_set, table.labels)) == SETS  # `label` is not read
    assert [note for note in table.notes if "warning" in note] == [f"warning: {path}: no row has 1 in column 'Other' of tasks.label_columns, so it is no label"]
    path.write_text("text,x,y\na,1,0\nb,2,0\nc,0,1\n")
    with pytest.raises(UserError, match=r"columns.csv:3: field 'x' is '2', not 0 or 1"):
        read_task_file(path, Columns("text", "label"), by_columns("x", "y"), "refuse")
    table = read_task_file(path, Columns("text", "label"), by_columns("x", "y"), "skip")
    assert list(table.texts) == ["a", "c"] and list(map(label_set, table.labels)) == [{"x"}, {"y"}]
    with pytest.raises(UserError, match="columns.csv: no column 'z'"):
        read_task_file(path, Columns("text", "label"), by_columns("x", "z"), "refuse")


def test_label_columns_of_tasks_and_of_named_sources(tmp_path):
    (tmp_path / "one.csv").write_text("text,task,x,y\na,first,1,1\nb,first,0,1\nc,second,1,0\nd,second,0,1\n")
    (tmp_path / "other.csv").write_text("text,z,w\ne,1,1\nf,0,1\n")
    settings = TasksConfig(path=str(tmp_path / "one.csv"), task="task", label_columns=["x", "y"], meta_train=SplitConfig(tasks=["*"]))
    settings.sources = {"other": NamedSourceConfig(path=str(tmp_path / "other.csv"), label_columns=["z", "w"])}
    found = load_tasks(settings, 0)
    first, other, second = sorted((*found.meta_train, *found.meta_validation, *found.meta_test), key=lambda task: task.name)
    assert [task.label_names for task in (first, other, second)] == [("x", "y"), ("w", "z"), ("x", "y")]
    assert first.label_sets.tolist() == [[True, True], [False, True]] and other.label_sets.tolist() == [[True, True], [True, False]]
    with pytest.raises(UserError, match=r"tasks.label_columns=\[x,x\] names a column twice"):
        load_tasks(replace(settings, label_columns=["x", "x"]), 0)
    with pytest.raises(UserError, match=r"tasks.label_columns is for files and the Hub, and tasks.path=metatrain:reviews is neither"):
        load_tasks(TasksConfig(path="metatrain:reviews", label_columns=["x"]), 0)
