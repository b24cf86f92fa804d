"""Files of a folder: hidden ones do not count, and no two files become one task without a word."""

import shutil
from pathlib import Path

import pytest

from metatrain.errors import UserError
from metatrain.tasks.config import NamedSourceConfig, SplitConfig, TasksConfig
from metatrain.tasks.distribution import load_tasks
from metatrain.tasks.folders import copy_notes, is_split
from metatrain.tasks.sources import Images, images_in

HIDDEN = (".ipynb_checkpoints/books-checkpoint.csv", ".old/books.csv", "._books.csv", ".~lock.books.csv", "~$books.csv", "__MACOSX/books.csv", "en/.git/a.csv")


def write(folder: Path, *files: str) -> Path:
    """Files of six rows each, no text of which is in another."""
    for file in files:
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("text,label\n" + "".join(f"{file} {n},{'ab'[n % 2]}\n" for n in range(6)))
    return folder


def loaded(folder: Path, **settings):
    """Rows by task, and notes, where all tasks are for meta-training."""
    tasks = load_tasks(TasksConfig(path=str(folder), **settings), 0, ["meta_train"])
    return {task.name: len(task.texts) for task in tasks.meta_train}, [note for note in tasks.notes if "held out" not in note]


def test_hidden_files_are_not_read(tmp_path):
    write(tmp_path, "books.csv", "films.csv", *HIDDEN)
    assert loaded(tmp_path) == ({"books": 6, "films": 6}, [])
    assert loaded(tmp_path / ".old")[0] == {"books": 6}  # but a folder that is asked for
    with pytest.raises(UserError, match="no csv, tsv, jsonl or parquet file in this folder; hidden files do not count"):
        loaded(write(tmp_path / "all_hidden", *HIDDEN))


def test_files_of_one_name_in_several_folders_are_tasks_named_by_their_paths(tmp_path):
    found, notes = loaded(write(tmp_path, "en/books.csv", "de/books.csv", "de/films.csv"))
    assert found == {"de/books": 6, "en/books": 6, "films": 6}
    assert notes == ["task 'de/books': de/books.csv", "task 'en/books': en/books.csv"]


def test_files_that_are_named_as_splits_are_one_task_of_their_folder(tmp_path):
    found, notes = loaded(write(tmp_path, *(f"{name}/{split}.csv" for name in ("books", "x/films") for split in ("train", "dev", "test-00000-of-00001"))))
    assert found == {"books": 18, "x/films": 18}
    assert notes[0] == "task 'books': books/dev.csv, books/test-00000-of-00001.csv, books/train.csv" and len(notes) == 2


def test_shards_are_one_task(tmp_path):
    found, notes = loaded(write(tmp_path, "books-00000-of-00002.csv", "books-00001-of-00002.csv", "films.csv"))
    assert found == {"books": 12, "films": 6}
    assert notes == ["task 'books': books-00000-of-00002.csv, books-00001-of-00002.csv"]


def test_splits_of_one_data_set_as_tasks_are_reported(tmp_path):
    found, notes = loaded(write(tmp_path, "train.csv", "test.csv", "dev.csv"))
    assert found == {"dev": 6, "test": 6, "train": 6}
    assert notes == ["warning: the tasks dev, test, train are named like splits of one data set; a task for each of them tests no new task"]
    assert all(map(is_split, ("Train", "validation", "dev-set", "train_10", "held_out", "test-00000-of-00001")))
    assert not any(map(is_split, ("trains", "testimony", "devices", "value", "")))


@pytest.mark.parametrize(
    "files", [("books.csv", "books.tsv"), ("a/books.csv", "a/books.csv.gz"), ("books.csv", "books/train.csv"), ("caf\u00e9.csv", "cafe\u0301.csv")]
)
def test_files_that_would_be_one_task_by_their_names_are_refused(tmp_path, files):
    with pytest.raises(UserError, match="would be one task, '.*'; rename one, or set tasks.task"):
        loaded(write(tmp_path, *files))


def test_copies_are_reported(tmp_path):
    write(tmp_path, "books.csv", "films.csv")
    shutil.copy(tmp_path / "books.csv", tmp_path / "also.csv")
    assert loaded(tmp_path)[1] == [f"warning: {tmp_path / 'books.csv'} is a copy of also.csv; delete one of them"]


def test_files_of_equal_size_are_compared_by_content(tmp_path):
    for name, texts in {"a": "one two", "b": "two one", "c": "one two", "d": "two one", "e": "one two", "f": "one"}.items():
        (tmp_path / f"{name}.csv").write_text(f"text,label\n{texts},x\n", encoding="utf-8")
    files = [f"{name}.csv" for name in "abcdef"]
    copies = {"c.csv": "a.csv", "d.csv": "b.csv", "e.csv": "a.csv"}
    assert copy_notes(tmp_path, files) == {copy: f"warning: {tmp_path / copy} is a copy of {file}; delete one of them" for copy, file in copies.items()}


@pytest.mark.parametrize("name", ["books (1)", "Copy of books", "books - Copy", "books copy 2", "books-checkpoint", "books.bak"])
def test_files_named_like_copies_are_reported(tmp_path, name):
    assert loaded(write(tmp_path, "books.csv", f"{name}.csv", "a (1).csv"))[1] == [
        f"warning: {tmp_path / name}.csv is named like a copy of books.csv; delete one of them, or rename it"
    ]


def test_linked_folders_are_read_and_circles_end(tmp_path):
    write(tmp_path / "elsewhere", "books.csv")
    write(tmp_path / "tasks", "films.csv")
    (tmp_path / "tasks" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "tasks")
    (tmp_path / "tasks" / "self").symlink_to(tmp_path / "tasks")
    assert set(loaded(tmp_path / "tasks")[0]) == {"books", "films"}


def test_a_task_of_several_sources_is_reported(tmp_path):
    write(tmp_path / "one", "books.csv", "films.csv")
    write(tmp_path / "two", "x.csv")
    found, notes = loaded(tmp_path / "one", sources={"books": NamedSourceConfig(str(tmp_path / "two"))})
    assert found == {"books": 12, "films": 6}
    assert notes == ["task 'books' has rows from tasks.path and tasks.sources.books, because both contain a task of this name"]


def test_where_a_column_or_a_source_names_the_tasks_file_names_do_not_count(tmp_path):
    write(tmp_path / "data", "a/train.csv", "b/train.csv", "test.csv", "test.tsv", *HIDDEN)
    (tmp_path / "data" / "test.tsv").write_text("text\tlabel\nx\ta\ny\tb\n")
    assert loaded(tmp_path / "data", task="label")[0] == {"a": 10, "b": 10}
    more = {"more": NamedSourceConfig(str(tmp_path / "data"))}
    assert loaded(write(tmp_path / "own", "one.csv"), sources=more) == ({"more": 20, "one": 6}, [])
    with pytest.raises(UserError, match="two sources have a file 'more/test.csv'"):
        loaded(write(tmp_path / "own", "more/test.csv"), sources=more)


def test_names_of_files_and_folders_are_no_patterns(tmp_path):
    folder = write(tmp_path / "a[1]" / "b::c*", "p[1].csv", "p1.csv", "q*.csv", "qq.csv", "~who.csv")
    assert loaded(folder)[0] == {"p1": 6, "p[1]": 6, "q*": 6, "qq": 6, "~who": 6}
    assert loaded(folder / "p[1].csv")[0] == {"p[1]": 6}


def test_names_that_only_look_like_a_home_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "~nobody.csv")
    assert loaded(Path("~nobody.csv"))[0] == {"~nobody": 6}


def images(folder: Path, *files: str) -> Path:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(file.encode())
    return folder


def test_hidden_images_do_not_count(tmp_path):
    images(tmp_path, "cat/1.png", "cat/2.PNG", "dog/1.png", "cat/._1.png", ".ipynb_checkpoints/1-checkpoint.png", "__MACOSX/cat/1.png", ".old/x/dog/1.png")
    (tmp_path / "dog" / "folder.png").mkdir()
    assert Images(tmp_path).read(tmp_path.name).labels == ["cat", "cat", "dog"]
    assert len(images_in(tmp_path)) == 3
    images(tmp_path, "1.png")
    with pytest.raises(UserError, match="must be in TASK/LABEL/FILE, or all in LABEL/FILE; there are 1.png, cat/1.png"):
        Images(tmp_path)


def test_tasks_that_differ_in_the_name_of_a_split_only_are_reported(tmp_path):
    _, notes = loaded(write(tmp_path, "books_train.csv", "books_test.csv", "dvd-dev.csv", "taste_test.csv", "train/toys.csv", "test/toys.csv"))
    named = [note.partition(" are named like splits")[0] for note in notes if note.startswith("warning: ")]
    assert sorted(named) == ["warning: the tasks books_test, books_train", "warning: the tasks test/toys, train/toys"]


def test_tasks_of_images_that_are_splits_are_reported(tmp_path):
    images(tmp_path, *(f"{split}/{label}/{n}.png" for split in ("train", "test") for label in ("cat", "dog") for n in range(2)))
    tasks = load_tasks(TasksConfig(path=str(tmp_path), images=True, meta_train=SplitConfig(tasks=["*"])), 0, ["meta_train"])
    assert [note for note in tasks.notes if "warning" in note] == [
        "warning: the tasks test, train are named like splits of one data set; a task for each of them tests no new task"
    ]
