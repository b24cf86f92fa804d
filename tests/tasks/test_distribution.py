"""Task distributions from files, folders and (local) hub data sets."""

import csv
import os
import shlex
import shutil
from pathlib import Path

import pytest
from conftest import ROOT, write_jsonl

from metatrain.errors import RestartableError, UserError
from metatrain.tasks.config import NamedSourceConfig, SplitConfig, TasksConfig
from metatrain.tasks.distribution import load_tasks
from metatrain.tasks.keys import near_key

AREAS = ("billing", "returns", "shipping", "sizes", "spares")


def rows(area: str, count: int = 8) -> list[dict]:
    return [{"text": f"{area} text number {n}", "label": ("angry", "happy")[n % 2], "area": area} for n in range(count)]


@pytest.fixture
def one_file(tmp_path) -> Path:
    return write_jsonl(tmp_path / "all.jsonl", [row for area in AREAS for row in rows(area)])


@pytest.fixture
def folder(tmp_path) -> Path:
    path = tmp_path / "areas"
    path.mkdir()
    for area in AREAS:
        with (path / f"{area}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, ["text", "label"], extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows(area))
    return path


def names(tasks) -> dict[str, list[str]]:
    return {split: [task.name for task in tasks.split(split)] for split in ("meta_train", "meta_validation", "meta_test")}


def files_config(path: Path, **settings) -> TasksConfig:
    return TasksConfig(name="files", path=str(path), **settings)


def test_one_file_and_a_folder_of_files_are_the_same_tasks(one_file, folder):
    wanted = {"meta_validation": SplitConfig(tasks=["sizes"]), "meta_test": SplitConfig(tasks=["sp*"])}
    by_column = load_tasks(files_config(one_file, task="area", **wanted), 0)
    by_file = load_tasks(files_config(folder, **wanted), 0)
    expected = {"meta_train": ["billing", "returns", "shipping"], "meta_validation": ["sizes"], "meta_test": ["spares"]}
    assert names(by_column) == names(by_file) == expected
    for task, same in zip(by_column.meta_train, by_file.meta_train):
        assert task.texts == same.texts
        assert task.labels.tolist() == same.labels.tolist() == [0, 1] * 4
        assert task.label_names == ("angry", "happy")


def test_without_named_splits_tasks_are_held_out_by_chance_and_said_so(one_file):
    config = files_config(one_file, task="area")
    tasks = load_tasks(config, 0)
    split = names(tasks)
    assert sorted(sum(split.values(), [])) == list(AREAS)
    assert (len(split["meta_train"]), len(split["meta_validation"]), len(split["meta_test"])) == (3, 1, 1)
    assert any("held out at random" in note for note in tasks.notes)
    assert names(load_tasks(config, 0)) == split
    assert any(names(load_tasks(config, seed)) != split for seed in range(1, 9))
    assert all(names(load_tasks(config, seed, hold_out_seed=0)) == split for seed in range(1, 9))  # so that seeds of training are tested alike


def test_a_fold_leaves_one_file_out_and_validates_on_the_next(folder):
    files = sorted(path.name for path in folder.iterdir() if path.suffix)
    for fold, test in enumerate(files):
        found = names(load_tasks(files_config(folder, fold=fold), 0))
        validation = files[(fold + 1) % len(files)]
        in_file = {file: names(load_tasks(files_config(folder, meta_test=SplitConfig(files=[file], tasks=["*"])), 0))["meta_test"] for file in files}
        assert found["meta_test"] == in_file[test] and found["meta_validation"] == in_file[validation]
        assert found["meta_train"] == sorted(task for file in files if file not in (test, validation) for task in in_file[file])
        only_test = load_tasks(files_config(folder, fold=fold), 0, splits=("meta_test",))
        assert names(only_test)["meta_test"] == in_file[test]


def test_folds_that_cannot_be(folder, one_file):
    files = len([path for path in folder.iterdir() if path.suffix])
    with pytest.raises(UserError, match=f"tasks.fold={files} must be from 0 to {files - 1}: one of 0 "):
        load_tasks(files_config(folder, fold=files), 0)
    with pytest.raises(UserError, match="tasks.fold=0 needs three files or more"):
        load_tasks(TasksConfig(path=str(one_file), task="area", fold=0), 0)
    with pytest.raises(UserError, match="tasks.meta_test names files or tasks of its own; set tasks.fold=null"):
        load_tasks(files_config(folder, fold=0, meta_test=SplitConfig(tasks=["books"])), 0)


def test_support_rows_from_one_file_and_queries_from_another(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    write_jsonl(data / "few.jsonl", rows("spares", 4))
    write_jsonl(data / "many.jsonl", [{**row, "text": row["text"] + " again"} for row in rows("spares", 10)])
    config = files_config(data, task="area", meta_train=SplitConfig(), meta_test=SplitConfig(["many.jsonl"], ["*"], support_files=["few.jsonl"]))
    (task,) = load_tasks(config, 0, splits=("meta_test",)).meta_test
    assert task.support_pool.sum() == 4 and task.query_pool.sum() == 10
    assert not (task.support_pool & task.query_pool).any()
    assert not any("again" in task.texts[i] for i in task.support_pool.nonzero()[0])


def test_support_rows_of_known_classes_may_be_trained_on_but_not_queries(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    few = rows("spares", 6)
    asked = [{**row, "text": row["text"] + " again"} for row in rows("spares", 10)]
    write_jsonl(data / "few.jsonl", [*few, {**asked[0], "label": "happy"}])
    write_jsonl(data / "all_of_them.jsonl", asked)  # read before the other
    split = SplitConfig(["all_of_them.jsonl"], ["*"], support_files=["few.jsonl"])
    settings = {"task": "area", "meta_train": SplitConfig(["few.jsonl"], ["*"]), "meta_test": split}
    tasks = load_tasks(files_config(data, overlap="drop_queries", **settings), 0)
    assert set(tasks.meta_train[0].texts) == {row["text"] for row in (*few, asked[0])}
    assert tasks.meta_test[0].query_pool.sum() == 9  # a text that both files have is a support row, and no query
    assert tasks.meta_test[0].support_pool.sum() == 7
    assert names(load_tasks(files_config(data, overlap="drop", **settings), 0))["meta_train"] == []


def test_only_limits_a_file_to_some_tasks(one_file):
    config = files_config(
        one_file, task="area", holdout=0.0, meta_train=SplitConfig(tasks=["*"], only={"all.jsonl": ["bill*"]}), meta_test=SplitConfig(tasks=["spares"])
    )
    assert names(load_tasks(config, 0))["meta_train"] == ["billing"]


def test_test_tasks_can_be_loaded_without_the_files_of_the_other_splits(tmp_path):
    write_jsonl(tmp_path / "train.jsonl", rows("sizes") + rows("spares"))
    write_jsonl(tmp_path / "test.jsonl", [{**row, "text": row["text"] + " again"} for row in rows("returns")])
    splits = {
        "meta_test": SplitConfig(["test.jsonl"], ["returns"]),
        "meta_validation": SplitConfig(["train.jsonl"], ["sizes"], labels=["ang*"]),
        "meta_train": SplitConfig(["train.jsonl"], ["spares"], only={"train.jsonl": ["spares"]}),
    }
    config = files_config(tmp_path, task="area", label_descriptions={"angry": "cross", "happy": "glad"}, **splits)
    assert names(load_tasks(config, 0, ["meta_test"])) == {"meta_train": [], "meta_validation": [], "meta_test": ["returns"]}
    write_jsonl(tmp_path / "test.jsonl", [{"text": f"t {n}", "label": ("happy", "new")[n % 2], "area": "returns"} for n in range(4)])
    assert names(load_tasks(config, 0, ["meta_test"]))["meta_test"] == ["returns"]  # the label "angry" is in the other file


def test_repeated_texts_are_left_out_and_counted(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [*rows("x"), {"text": "X  Text number 0", "label": "happy"}, {"text": "x text number 1", "label": "happy"}])
    tasks = load_tasks(files_config(path, holdout=0.0), 0)
    assert len(tasks.meta_train[0].texts) == 8
    assert tasks.notes == ("task 'a': 2 repeated texts removed, 1 with another label",)


PAIRS = [
    ("👍", "👎"), (":)", ":("), ("C", "C++"), ("C++", "C#"), ("a + b", "a - b"), ("की", "का"), ("มา", "ม้า"), ("5", "-5"), ("x²", "x2"), ("You go.", "You go?"),
    ("in Maßen", "in Massen"), ("λόγος", "λογος"), ("می‌خواهم", "میخواهم"), ("❤", "💔"), ("1 < 2", "1 > 2"), ("«да»", "да"), ("שלום", "שָׁלוֹם"),
]  # fmt: skip


@pytest.mark.parametrize("pair", PAIRS)
def test_letters_marks_symbols_and_punctuation_make_another_text(tmp_path, pair):
    rows = [{"text": text, "label": label, "area": area} for area in ("x", "y") for text, label in zip(pair, ("one", "two"))]
    write_jsonl(tmp_path / "a.jsonl", rows[:2])
    (task,) = load_tasks(files_config(tmp_path, holdout=0.0), 0).meta_train
    assert task.texts == pair and task.label_names == ("one", "two")
    rows = [{"text": text, "label": "one", "area": area} for text, area in zip(pair, "xy")]
    write_jsonl(tmp_path / "a.jsonl", rows)
    split = {"meta_train": SplitConfig(tasks=["x"]), "meta_test": SplitConfig(tasks=["y"])}
    assert names(load_tasks(files_config(tmp_path, task="area", **split), 0))["meta_train"] == ["x"]  # not refused as shared


def test_what_has_no_shape_divides_no_word():
    assert near_key("so\u00adlar panel\u200bs", None) == near_key("Solar panels", None) != near_key("solar panel s", None)


def test_case_blanks_and_unicode_form_do_not_make_another_text(tmp_path):
    texts = ["It's  FINE ", "it's\u00a0fine", "un café", "UN CAFE\u0301", "한국", "\u1112\u1161\u11ab\u1100\u116e\u11a8"]
    write_jsonl(tmp_path / "a.jsonl", [{"text": text, "label": "one"} for text in texts])
    (task,) = load_tasks(files_config(tmp_path, holdout=0.0), 0).meta_train
    assert task.texts == ("It's  FINE", "un café", "한국")


def test_the_two_texts_of_a_pair_and_a_text_and_its_target_are_not_run_together(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", [{"text": "a b", "pair": "c", "label": "x"}, {"text": "a", "pair": "b c", "label": "y"}])
    assert len(load_tasks(files_config(tmp_path, pair="pair"), 0).meta_train[0].texts) == 2
    assert len(load_tasks(files_config(tmp_path, target="pair"), 0).meta_train[0].texts) == 2


def test_near_duplicates_are_kept_with_a_warning_that_shows_them(tmp_path):
    few = [
        {"text": "I like C++", "label": "yes"},
        {"text": "i like C", "label": "yes"},
        {"text": "I like C#", "label": "no"},
        {"text": "Nor this", "label": "no"},
    ]
    write_jsonl(tmp_path / "a.jsonl", few)
    tasks = load_tasks(files_config(tmp_path, holdout=0.0), 0)
    assert len(tasks.meta_train[0].texts) == 4
    assert tasks.notes == (
        "warning: task 'a': 2 texts have the words of another text, with other punctuation or symbols, 1 of them with another label; all are kept: "
        "'I like C++' (yes) and 'I like C#' (no); 'I like C++' (yes) and 'i like C' (yes)",
    )
    write_jsonl(tmp_path / "b.jsonl", [{"text": "I like c!", "label": "no"}])
    split = {"meta_train": SplitConfig(tasks=["a"]), "meta_test": SplitConfig(tasks=["b"])}
    for policy in ("refuse", "drop"):
        tasks = load_tasks(files_config(tmp_path, overlap=policy, **split), 0)
        assert len(tasks.meta_train[0].texts) == 4
        said = (
            "warning: 3 texts of meta_train have the words of held-out texts, with other punctuation or symbols; they are kept: 'I like C++' (yes) in 'a' and "
        )
        assert said + "'I like c!' (no) in 'b'; " in tasks.notes[-1]


def test_checkpoints_of_the_first_rule_for_repeats_know_their_tasks():
    tasks = load_tasks(TasksConfig(path="metatrain:reviews", task="domain"), 0)
    assert tasks.has_fingerprint(tasks.fingerprint())
    earlier = "f05a9a8a2d355dda78a6817adcba969e3ecca577444f418248904f7bfbfab49f"  # of the same tasks, by the version before the change
    assert tasks.has_fingerprint(earlier)
    assert not load_tasks(TasksConfig(path="metatrain:reviews", task="domain"), 1).has_fingerprint(earlier)


def test_texts_shared_between_splits_are_refused_or_dropped(tmp_path):
    shared = {"text": "the very same words", "label": "happy"}
    path = write_jsonl(tmp_path / "a.jsonl", [*rows("x"), {**shared, "area": "x"}, *rows("y"), {**shared, "area": "y"}])
    splits = {"meta_test": SplitConfig(tasks=["y"]), "meta_train": SplitConfig(tasks=["x"])}
    with pytest.raises(UserError, match=r"1 texts of tasks\.meta_train \(task 'x' among them\).*overlap=drop"):
        load_tasks(files_config(path, task="area", **splits), 0)
    tasks = load_tasks(files_config(path, task="area", overlap="drop", **splits), 0)
    assert "the very same words" in tasks.meta_test[0].texts
    assert "the very same words" not in tasks.meta_train[0].texts
    assert any("removed from meta_train" in note for note in tasks.notes)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"meta_test": SplitConfig(tasks=["spairs"])}, "no task 'spairs'; there are billing"),
        ({"meta_test": SplitConfig(files=["test.csv"])}, r"no file 'test.csv'.*all\.jsonl"),
        ({"label": "mood"}, "no column 'mood'"),
    ],
)
def test_patterns_and_columns_that_match_nothing(one_file, settings, words):
    with pytest.raises(UserError, match=words):
        load_tasks(files_config(one_file, task="area", **settings), 0)


def test_an_empty_folder(tmp_path):
    with pytest.raises(UserError, match="no csv, tsv, jsonl or parquet file"):
        load_tasks(files_config(tmp_path), 0)


def test_a_hub_data_set_by_its_name(folder, monkeypatch):
    """The code for the hub, against a directory in the layout of one: `datasets` resolves both the same way."""
    data = folder.parent / "org" / "areas"
    data.mkdir(parents=True)
    for split in ("train", "test"):
        write_jsonl(data / f"{split}.jsonl", [{**row, "text": f"{split} {row['text']}"} for area in AREAS for row in rows(area)])
    monkeypatch.chdir(folder.parent)
    config = TasksConfig(
        name="hub", path="hub:org/areas", task="area",
        meta_train=SplitConfig(["train"], ["*"]), meta_test=SplitConfig(["test"], ["spares"], support_files=["train"]),
    )  # fmt: skip
    tasks = load_tasks(config, 0)
    assert names(tasks)["meta_test"] == ["spares"]
    assert tasks.meta_test[0].support_pool.sum() == 8
    assert "spares" not in names(tasks)["meta_train"]


def test_a_hub_data_set_on_this_machine_is_its_content_and_its_name(tmp_path):
    folder = tmp_path / "areas"
    folder.mkdir()
    for word in ("one", "two"):
        write_jsonl(folder / "train.jsonl", [{**row, "text": f"{row['text']} {word}"} for row in rows("spares")])
        os.utime(folder / "train.jsonl", (1e9, 1e9))
        (task,) = load_tasks(TasksConfig(path=f"hub:{folder}", holdout=0), 0, ["meta_train"]).meta_train
        assert all(text.endswith(word) for text in task.texts)
    for name in ("areas[1]", "a::b"):
        with pytest.raises(UserError, match="takes this for a pattern; give the folder itself, tasks.path="):
            load_tasks(TasksConfig(path=f"hub:{shutil.copytree(folder, tmp_path / name)}"), 0)


def test_a_hub_data_set_that_cannot_be_reached():
    with pytest.raises(UserError, match="tasks.path=hub:nobody/nothing cannot be loaded"):
        load_tasks(TasksConfig(name="hub", path="hub:nobody/nothing"), 0)


def test_a_hub_that_cannot_be_reached_may_be_asked_again(monkeypatch):
    def broken_off(*_, **__):
        raise ConnectionError("Couldn't reach 'org/areas' on the Hub")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("datasets.get_dataset_split_names", broken_off)
    with pytest.raises(RestartableError, match="tasks.path=hub:org/areas: the hub cannot be reached .*; try again"):
        load_tasks(TasksConfig(name="hub", path="hub:org/areas"), 0)


def third_party(name: str) -> str:
    root = Path(os.environ.get("METATRAIN_DATA", ROOT.parent / "shared" / "data"))
    if not (root / name).is_dir():
        pytest.skip(f"the data set {name} is not on this machine (METATRAIN_DATA)")
    return str(root)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "train", "test"),
    [*(pytest.param(*given, marks=pytest.mark.nightly) for given in (("arsc", 57, 12), ("fdu_mtl", 6, 4))), ("clinc150", 6, 2)],
)
def test_the_data_sets_of_conf_tasks(cli, monkeypatch, name, train, test):
    monkeypatch.setenv("METATRAIN_DATA", third_party(name))
    found = cli("tasks", f"tasks={name}")
    assert found.code == 0, found.err
    assert found.out.count("│ meta_train ") == train
    assert found.out.count("│ meta_test ") == test


def by_labels(path: Path, **splits) -> TasksConfig:
    """One task, whose classes the splits share out."""
    return files_config(path, task=None, holdout=0, **splits)


@pytest.fixture
def classes(tmp_path) -> Path:
    path = tmp_path / "classes"
    path.mkdir()
    write_jsonl(path / "all.jsonl", [{"text": f"{label} number {n}", "label": label} for n in range(4) for label in ("a1", "a2", "b1", "b2", "c[1]")])
    (path / "splits.json").write_text('{"01": {"test": ["b1", "c[1]"], "way": 3}}')
    return path


def test_splits_may_be_of_the_classes_of_one_task(classes):
    splits = {"meta_test": SplitConfig(tasks=["all"], labels_from="splits.json:01.test"), "meta_validation": SplitConfig(tasks=["all"], labels=["b2"])}
    tasks = load_tasks(by_labels(classes, **splits), 0)
    found = {split: [(task.name, task.label_names) for task in tasks.split(split)] for split in ("meta_train", "meta_validation", "meta_test")}
    # Meta-training has no labels named, and gets those that nobody else has.
    assert found == {"meta_train": [("all", ("a1", "a2"))], "meta_validation": [("all", ("b2",))], "meta_test": [("all", ("b1", "c[1]"))]}
    assert all(text.startswith(("b1", "c[1]")) for text in tasks.meta_test[0].texts)
    assert len(tasks.meta_test[0].texts) == 8
    patterns = load_tasks(by_labels(classes, meta_train=SplitConfig(["all.jsonl"], ["*"], labels=["a*", "b2"])), 0)
    assert patterns.meta_train[0].label_names == ("a1", "a2", "b2")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"labels": ["d*"]}, r"tasks.meta_test: no label 'd\*' in its tasks; there are a1, a2, b1, b2, c\[1\]"),
        ({"labels_from": "nothing.json"}, "tasks.meta_test.labels_from=nothing.json: .*nothing.json cannot be read as JSON"),
        ({"labels_from": "splits.json:02.test"}, "has nothing under '02'; there are 01"),
        ({"labels_from": "splits.json:01.way"}, "this is not a list of labels"),
    ],
)
def test_wrong_labels_are_refused(classes, settings, said):
    with pytest.raises(UserError, match=said):
        load_tasks(by_labels(classes, meta_train=SplitConfig(["all.jsonl"]), meta_test=SplitConfig(["all.jsonl"], ["all"], **settings)), 0)


def test_labels_in_other_words(classes, one_file):
    words = {"a1": "first of a", "c[1]": "the only c"}
    tasks = load_tasks(by_labels(classes / "all.jsonl", label_descriptions=words), 0)
    assert tasks.meta_train[0].label_names == ("a2", "b1", "b2", "first of a", "the only c")
    assert all(text.startswith("a1") for text, label in zip(tasks.meta_train[0].texts, tasks.meta_train[0].labels) if label == 3)
    config = files_config(one_file, task="area", sources={"more": NamedSourceConfig(str(classes / "all.jsonl"), label_descriptions=words)}, overlap="keep")
    by_name = {task.name: task.label_names for task in load_tasks(config, 0, ["meta_train"]).meta_train}
    assert by_name["more"] == tasks.meta_train[0].label_names and by_name["billing"] == ("angry", "happy")


def test_labels_of_one_word_are_one_and_may_be_numbers(cli, tmp_path):
    write_jsonl(tmp_path / "stars.jsonl", [{"text": f"text {n} of {area}", "label": str(n % 5 + 1), "area": area} for area in AREAS for n in range(20)])
    found = cli("tasks", "tasks=files", "tasks.path=stars.jsonl", "tasks.task=area", "+tasks.label_descriptions={1: bad, 2: bad, 4: good, 5: good}")
    assert found.code == 0, found.err
    assert found.out.count("3 4, bad 8, good 8") == len(AREAS)


def test_words_for_a_label_that_no_row_has_are_refused(classes, one_file):
    with pytest.raises(UserError, match="tasks.label_descriptions: no row has the label 'a3'; there are a1, a2"):
        load_tasks(by_labels(classes / "all.jsonl", label_descriptions={"a3": "a third"}), 0)
    # A label of another source does not count.
    config = files_config(one_file, task="area", sources={"more": NamedSourceConfig(str(classes / "all.jsonl"), label_descriptions={"happy": "pleased"})})
    with pytest.raises(UserError, match="tasks.sources.more.label_descriptions: no row has the label 'happy'; there are a1"):
        load_tasks(config, 0)
    with pytest.raises(UserError, match="tasks.label_descriptions is for labels"):
        load_tasks(by_labels(classes / "all.jsonl", target="label", label_descriptions={"a1": "first"}), 0)


ODD = ["*", "a*", "ab", "a[1]", "a1", "c++", "what?", "whats", "[red]x"]


def odd_rows(count: int = 8) -> list[dict]:
    return [{"text": f"task {number} text {n}", "label": f"l{n % 2}", "area": area} for number, area in enumerate(ODD) for n in range(count)]


@pytest.mark.parametrize("seed", range(4))
def test_tasks_held_out_by_chance_are_not_patterns(tmp_path, seed):
    path = write_jsonl(tmp_path / "all.jsonl", odd_rows())
    split = names(load_tasks(files_config(path, task="area"), seed))
    assert {name: len(tasks) for name, tasks in split.items()} == {"meta_train": 5, "meta_validation": 2, "meta_test": 2}
    assert sorted(sum(split.values(), [])) == sorted(ODD)


def test_files_and_tasks_with_the_characters_of_patterns(tmp_path):
    for area in ("a[1]", "a1", "x?", "xy"):
        write_jsonl(tmp_path / f"{area}.jsonl", rows(area))
    splits = {"meta_test": SplitConfig(tasks=["a[1]"]), "meta_validation": SplitConfig(files=["x?.jsonl"], tasks=["*"]), "meta_train": SplitConfig(tasks=["*"])}
    assert names(load_tasks(files_config(tmp_path, **splits), 0)) == {"meta_train": ["a1", "xy"], "meta_validation": ["x?"], "meta_test": ["a[1]"]}
    only = SplitConfig(tasks=["*"], only={"x?.jsonl": ["a1"], "a[1].jsonl": ["a[1]"]})
    assert names(load_tasks(files_config(tmp_path, holdout=0, meta_train=only), 0))["meta_train"] == ["a1", "a[1]", "xy"]
    few = SplitConfig(["x?.jsonl"], ["x?"], support_files=["x?.jsonl"])
    assert names(load_tasks(files_config(tmp_path, meta_test=few), 0, ["meta_test"]))["meta_test"] == ["x?"]
    with pytest.raises(UserError, match=r"tasks.meta_train.only.xy.jsonl: no task 'yx'; there are a1, a\[1\], x\?, xy"):
        load_tasks(files_config(tmp_path, meta_train=SplitConfig(tasks=["*"], only={"xy.jsonl": ["yx"]})), 0)


def test_labels_with_the_characters_of_patterns(tmp_path):
    path = write_jsonl(tmp_path / "all.jsonl", [{"text": f"{label} number {n}", "label": label} for label in ODD for n in range(3)])
    labels = ["a*", "a[1]", "what?"]
    tasks = load_tasks(by_labels(path, meta_test=SplitConfig(tasks=["all"], labels=labels), meta_validation=SplitConfig(tasks=["all"], labels=["w*"])), 0)
    assert tasks.meta_test[0].label_names == tuple(sorted(labels))
    assert tasks.meta_validation[0].label_names == ("whats",)
    assert tasks.meta_train[0].label_names == ("*", "[red]x", "a1", "ab", "c++")
    (tmp_path / "list.json").write_text('["a[2]"]')
    split = SplitConfig(["all.jsonl"], ["all"], labels_from="list.json")
    with pytest.raises(UserError, match=r"tasks.meta_test: no label 'a\[2\]' in its tasks"):
        load_tasks(by_labels(tmp_path, meta_test=split), 0)


def test_names_are_printed_as_they_are_and_can_be_pasted(cli, tmp_path):
    write_jsonl(tmp_path / "all.jsonl", odd_rows())
    given = ["tasks", "tasks=files", "tasks.path=all.jsonl", "tasks.task=area"]
    found = cli(*given, "select=2", "model=tiny", "model.max_length=16", 'tasks.meta_train.tasks=["[red]x","a*"]', 'tasks.meta_test.tasks=["what?"]')
    assert found.code == 0, found.err
    assert "[red]x" in found.out and found.out.count("│ meta_train ") == 2
    (setting,) = shlex.split(found.out.split("\nsuggested tasks: ")[1].splitlines()[0])
    again = cli(*given, setting, 'tasks.meta_test.tasks=["what?"]')
    assert again.code == 0, again.err
    assert "[red]x" in again.out and again.out.count("│ meta_train ") == 2
