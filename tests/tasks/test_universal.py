"""`tasks=universal`: folds of many data sets, label definitions, a cap on rows; on made-up files of the same layout, and on the data where it is."""

import json
import os
import random
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import ROOT, write_jsonl

from metatrain.config.compose import composed
from metatrain.config.schema import TrainConfig
from metatrain.errors import UserError
from metatrain.tasks.config import EpisodeConfig, NamedSourceConfig, SplitConfig, TasksConfig
from metatrain.tasks.distribution import capped, load_tasks, task_of_file
from metatrain.tasks.encoded_episode import raw_texts
from metatrain.tasks.episodes import task_episode, training_episode
from metatrain.tasks.files import Columns
from metatrain.tasks.folds import chosen_by_fold
from metatrain.tasks.sources import make_source
from metatrain.tasks.task import Task, TaskDistribution

SETS = {path.stem: yaml.safe_load(path.read_text()) for path in sorted((ROOT / "conf" / "tasks" / "universal").glob("*.yaml")) if path.stem != "folds"}
THIRD_PARTY = Path(os.environ.get("METATRAIN_DATA", ROOT.parent / "shared" / "data"))  # read before a fixture changes it
VALIDATION = sorted(name for name, source in SETS.items() if "in_fold" not in source)
WHOLE = ("subj", "financial_phrasebank")  # of one file, without a split
DOMAINS = {"clinc150": {"meta": ["yes", "no", "maybe"]}, "fdu_mtl": {"MR": ["negative", "positive"], "toys_games": ["negative", "positive"]}}
PERMISSIVE = ("Apache 2.0", "MIT", "CC0", "CC BY 3.0", "CC BY 4.0", "CC BY-SA")
ROWS = 3  # of a label in each file


def make_data(folder: Path) -> None:
    """Write files with the layout of the data sets, and a text that stands in one set of each fold and in two for validation."""
    for name, source in SETS.items():
        described = {text: label for label, text in source.get("label_descriptions", {}).items()}
        labels = [described.get(label, label) for label in source["label_definitions"]]
        tasks = DOMAINS.get(name) or {(source.get("only_tasks") or ["a task"])[0]: labels}
        rows = [(task, label) for task, of_task in tasks.items() for label in of_task]
        if name == "clinc150":
            rows += [("all", label) for label in labels]
        (folder / name).mkdir(parents=True)
        for split in ("all",) if name in WHOLE else ("test",) if name == "agnews_test" else ("train", "test"):
            column = source.get("task", "domain")
            made = [
                {"text": f"{name} {split} {number} of {label}", "text_pair": "and another", "label": label, column: task}
                for task, label in rows
                for number in range(ROWS)
            ]
            if source.get("pair") is None:
                made.append({"text": "everywhere the same", "label": rows[0][1], column: rows[0][0]})
            if "only_tasks" in source:
                made.append({"text": "ein Satz", "label": labels[0], column: "German"})
            write_jsonl(folder / name / f"{split}.jsonl", made)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    make_data(folder)
    before = os.environ.get("METATRAIN_DATA")
    os.environ["METATRAIN_DATA"] = str(folder)
    yield folder
    os.environ.pop("METATRAIN_DATA")
    if before is not None:
        os.environ["METATRAIN_DATA"] = before


@pytest.fixture(scope="module")
def universal(data) -> TasksConfig:
    config: TasksConfig = composed("train", ["tasks=universal"], TrainConfig).tasks
    return config


@pytest.fixture(scope="module")
def loaded(universal) -> TaskDistribution:
    return load_tasks(replace(universal, fold=2, label_text="name_and_definition"), 0)


def sources(tasks) -> set[str]:
    return {task.source for task in tasks}


def of_files(files: list[str]) -> set[str]:
    return {file.partition("/")[0] for file in files}


def test_each_kind_is_tested_once_by_training_on_the_other_folds(universal):
    files = make_source(universal, universal.sources).files()
    chosen = {fold: chosen_by_fold(replace(universal, fold=fold), files) for fold in (1, 2, 3, 4, 5, None)}
    tested = [of_files(chosen[fold].meta_test.files) for fold in range(1, 6)]
    assert [len(kinds) for kinds in tested] == [7, 8, 8, 8, 7]
    assert set.union(*tested) == set(SETS) - set(VALIDATION) and sum(map(len, tested)) == 38
    for fold, kinds in enumerate(tested, start=1):
        assert of_files(chosen[fold].meta_train.files) == set(SETS) - set(VALIDATION) - kinds
        assert kinds == of_files(chosen[fold].meta_test.support_files) == {name for name, source in SETS.items() if source.get("in_fold") == fold}
    assert chosen[None].meta_test == SplitConfig() and len(of_files(chosen[None].meta_train.files)) == 38
    assert chosen[None].trains_on_all_folds and not chosen[1].trains_on_all_folds
    assert len(VALIDATION) == 8 and all(sorted(of_files(config.meta_validation.files)) == VALIDATION for config in chosen.values())


def test_no_text_is_in_two_splits_and_test_files_are_only_queries(loaded):
    splits = [{text for task in loaded.split(name) for text in task.texts} for name in ("meta_train", "meta_validation", "meta_test")]
    assert not splits[0] & (splits[1] | splits[2]) and not splits[1] & splits[2]
    assert not any(" test " in text for text in splits[0])
    assert any("texts removed from meta_train" in note for note in loaded.notes)
    for task in (*loaded.meta_validation, *loaded.meta_test):
        whole = task.source in (*WHOLE, "agnews_test", "poem_sentiment")
        assert np.array_equal(task.query_pool, task.support_pool) == whole
        assert whole or all(pool == (" test " in text) for text, pool in zip(task.texts, task.query_pool) if "everywhere" not in text)


def test_tasks_of_a_source_bear_its_name_and_only_english_is_read(loaded):
    tasks = {task.name: task for split in (loaded.meta_test, loaded.meta_train) for task in split}
    assert {"clinc150/meta", "amazon_counterfactual/English", "cola"} <= set(tasks)
    assert not any("German" in name for name in tasks)
    assert set(tasks["clinc150/meta"].label_names) == {"yes", "no", "maybe"}
    assert {name for name, task in tasks.items() if task.source == "fdu_mtl"} == {"fdu_mtl/MR", "fdu_mtl/toys_games"}
    assert set(tasks["trec"].label_names) == {"abbreviation", "description", "entity", "person", "location", "number"}


def test_sources_are_sampled_equally_often(loaded):
    tasks = loaded
    shares = {name: sum(weight for task, weight in zip(tasks.meta_train, tasks.weights) if task.source == name) for name in sources(tasks.meta_train)}
    np.testing.assert_allclose(list(shares.values()), 1 / len(shares))
    domains = [weight for task, weight in zip(tasks.meta_train, tasks.weights) if task.source == "fdu_mtl"]
    np.testing.assert_allclose(domains, 1 / len(shares) / 2)


def test_definitions_are_sentences_and_are_read_on_request(loaded, tmp_path):
    for name, source in SETS.items():
        for label, definition in source["label_definitions"].items():
            assert definition.endswith(".") and definition[0].isupper() and 3 < len(definition.split()) < 20, (name, label)
    (meta,) = (task for task in loaded.meta_test if task.name == "clinc150/meta")
    assert meta.label_names == ("maybe", "no", "yes")
    assert meta.read_names == ("maybe: The user is undecided between yes and no.", "no: The user says no.", "yes: The user says yes.")
    episode = task_episode(meta, EpisodeConfig(shots=1), 0, "meta_test", 0)
    assert list(raw_texts(episode).names) == [meta.read_names[label] for label in episode.classes]
    mixed = training_episode(loaded, EpisodeConfig(cross_task_fraction=1.0, shots=1, queries=1, way=2), 0, 0)
    assert all(text.endswith(".") for text in raw_texts(mixed).names)
    path = write_jsonl(tmp_path / "few.jsonl", [{"text": f"text {n}", "label": ("very_bad", 2)[n % 2]} for n in range(8)])
    settings = {"path": str(path), "holdout": 0, "label_definitions": {2: "Good."}}
    found = {each: load_tasks(TasksConfig(**settings, label_text=each), 0).meta_train[0].read_names for each in ("name", "definition", "name_and_definition")}
    assert found == {"name": ("2", "very_bad"), "definition": ("Good.", "very_bad"), "name_and_definition": ("2: Good.", "very_bad")}


def test_permissive_sets_state_a_licence_that_allows_commercial_use(data):
    config = composed("train", ["tasks=universal_permissive", "tasks.fold=3"], TrainConfig).tasks
    chosen = set(config.sources)
    assert chosen == {name for name, source in SETS.items() if source["licence"].startswith(PERMISSIVE)}
    tasks = load_tasks(config, 0)
    assert sources(tasks.meta_test) == {"argument_stance", "key_point_match"}
    assert sources(tasks.meta_validation) == {"poem_sentiment", "scierc_relation"}
    assert len(sources(tasks.meta_train)) == 12


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fold": 6}, "tasks.fold=6 must be one of 1, 2, 3, 4, 5, or null"),
        ({"label_text": "words"}, "tasks.label_text=words is unknown; choose one of name, definition, name_and_definition"),
        ({"sample_by": "kinds"}, "tasks.sample_by=kinds is unknown; choose one of tasks, sources"),
        ({"max_rows": 0}, "tasks.max_rows=0 must be 1 or more, or null"),
        ({"sources": {}}, "tasks.path is empty, and there are no tasks.sources"),
    ],
)
def test_settings_that_contradict_are_refused(universal, change, message):
    with pytest.raises(UserError, match=message):
        load_tasks(replace(universal, **change), 0)


def test_a_test_alone_needs_a_fold(universal):
    with pytest.raises(UserError, match="tasks.fold=null: no fold is held out.*set tasks.fold=K"):
        load_tasks(universal, 0, splits=("meta_test",))


def test_labels_and_tasks_that_no_row_has_are_named(tmp_path):
    path = write_jsonl(tmp_path / "few.jsonl", [{"text": f"text {n}", "label": "ab"[n % 2], "task": "one"} for n in range(8)])
    settings = {"path": str(path), "task": "task", "holdout": 0}
    with pytest.raises(UserError, match=r"tasks.label_definitions: no row has the label 'c'; there are a, b"):
        load_tasks(TasksConfig(**settings, label_definitions={"a": "The first.", "c": "None."}), 0)
    with pytest.raises(UserError, match=r"tasks.sources.more.only_tasks=\[two\]: .*few.jsonl has none of these tasks; there are one"):
        load_tasks(TasksConfig(path="", holdout=0, sources={"more": NamedSourceConfig(str(path), task="task", only_tasks=["two"])}), 0)
    assert load_tasks(TasksConfig(**settings, only_tasks=["o*"]), 0).meta_train[0].name == "one"


def test_a_cap_takes_the_same_random_rows_of_the_largest_classes(tmp_path):
    rows = [{"text": f"text {n}", "label": "rare" if n % 10 == 0 else "usual"} for n in range(100)]
    task = task_of_file(write_jsonl(tmp_path / "few.jsonl", rows), Columns("text", "label"))
    random.Random(0).shuffle(rows)
    other = task_of_file(write_jsonl(tmp_path / "few.jsonl", rows), Columns("text", "label"))
    found = [capped(each, 30) for each in (task, other)]
    assert [np.bincount(each.labels).tolist() for each in found] == [[10, 20]] * 2
    assert set(found[0].texts) == set(found[1].texts) and list(found[0].texts) != list(task.texts[:30])
    assert capped(task, 100) is task
    assert np.bincount(capped(task, 1).labels).tolist() == [1, 1]  # each class keeps a row


def test_a_cap_counts_rows_for_support_sets_and_queries_apart():
    pools = np.arange(40) < 30
    task = Task("one", tuple(map(str, range(40))), np.arange(40) % 2, ("a", "b"), pools, ~pools)
    found = capped(task, 8)
    assert (found.support_pool.sum(), found.query_pool.sum()) == (8, 8)


def test_a_source_without_a_fold_is_neither_trained_nor_tested(tmp_path):
    made = {name: write_jsonl(tmp_path / f"{name}.jsonl", [{"text": f"{name} {n}", "label": "ab"[n % 2]} for n in range(8)]) for name in ("one", "two", "more")}
    folds = {"one": 1, "two": 2, "more": None}
    named = {name: NamedSourceConfig(str(path), in_fold=folds[name]) for name, path in made.items()}
    tasks = load_tasks(TasksConfig(path="", sources=named, fold=2, meta_validation=SplitConfig(files=["more/*"], tasks=["*"])), 0)
    assert [[task.name for task in tasks.split(name)] for name in ("meta_train", "meta_validation", "meta_test")] == [["one"], ["more"], ["two"]]


@pytest.mark.slow
def test_training_without_a_fold_skips_the_meta_test(cli, tmp_path):
    rows = [{"text": f"text {n}", "label": "ab"[n % 2]} for n in range(12)]
    sources = ", ".join(
        f"{name}: {{path: {write_jsonl(tmp_path / f'{name}.jsonl', rows)}, in_fold: 1, licence: MIT, origin: here}}" for name in ("one", "two", "three")
    )
    settings = ["debug=fast", "algorithm=protonet_cosine", "outer.steps=1", "validation.every=0", "hydra.run.dir=out", "hardware.threads=1"]
    found = cli("train", "tasks=files", "tasks.path=''", f"+tasks.sources={{{sources}}}", *settings)
    assert found.code == 0, found.err
    assert "there is no meta-test; tasks.fold=K holds out fold K" in found.out + found.err
    assert not (tmp_path / "out" / "results.json").exists()
    card = (tmp_path / "out" / "model" / "README.md").read_text()
    assert "| two | meta-train | here | MIT |" in card and "Not evaluated: no task was held out for a meta-test." in card


@pytest.mark.slow
def test_the_data_sets_have_the_labels_that_are_defined(monkeypatch):
    for name in (*SETS, "universal.json"):
        if not (THIRD_PARTY / name).exists():
            pytest.skip(f"{name} is not on this machine (METATRAIN_DATA)")
    monkeypatch.setenv("METATRAIN_DATA", str(THIRD_PARTY))
    folds = json.loads((THIRD_PARTY / "universal.json").read_text())["folds"]
    assert {int(fold): sorted(kinds) for fold, kinds in folds.items()} == {
        fold: sorted(name for name, source in SETS.items() if source.get("in_fold") == fold) for fold in range(1, 6)
    }
    config = composed("train", ["tasks=universal", "tasks.fold=2", "tasks.label_text=definition"], TrainConfig).tasks
    tasks = load_tasks(config, 0)
    for task in (*tasks.meta_train, *tasks.meta_validation, *tasks.meta_test):
        assert all(text.endswith(".") for text in task.read_names), task.name
        assert task.support_pool.sum() <= 2000 and (task.query_pool & ~task.support_pool).sum() <= 2000
    assert (len(tasks.meta_train), len(tasks.meta_validation), len(tasks.meta_test)) == (42, 8, 19)


def test_the_page_lists_the_sets_as_they_are(tmp_path):
    page = runpy.run_path(str(ROOT / "scripts" / "docs" / "universal_page.py"))
    page["main"].__globals__["PAGE"] = tmp_path / "page.md"
    page["main"]()
    assert (tmp_path / "page.md").read_text() == (ROOT / "docs" / "universal.md").read_text()
    assert len(page["rows"]()) == len(SETS)
