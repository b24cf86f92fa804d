"""Texts that stay on disk are the same texts, and tasks of them the same tasks."""

import gc

import numpy as np
import pyarrow
import pytest
from conftest import write_jsonl

from metatrain.errors import UserError
from metatrain.tasks.config import EpisodeConfig, SplitConfig, TasksConfig
from metatrain.tasks.distribution import load_tasks
from metatrain.tasks.episodes import task_episode, training_episode
from metatrain.tasks.files import Columns, read_file
from metatrain.tasks.texts import MASK, PAIR, Chained, StoredTexts, TextStore, sample, subset

VALUES = [f"text {n}" for n in range(7)]


@pytest.fixture
def column() -> pyarrow.ChunkedArray:
    return pyarrow.chunked_array([VALUES[:3], VALUES[3:]])


def test_stored_texts_are_a_sequence(column, monkeypatch):
    monkeypatch.setattr("metatrain.tasks.texts._READ", 2)
    texts, expected = StoredTexts(column), VALUES
    assert list(texts) == expected and len(texts) == 7
    assert [texts[n] for n in range(7)] == expected and texts[-1] == "text 6"
    assert list(texts[2:5]) == expected[2:5]
    assert list(subset(texts, np.array([5, 1]))) == [expected[5], expected[1]]
    assert list(subset(subset(texts, np.array([5, 1, 6])), np.array([2, 0]))) == [expected[6], expected[5]]
    with pytest.raises(IndexError):
        texts[7]


def test_a_store_gives_back_what_it_took_from_memory_or_from_a_file_that_is_gone(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for most in (100, 3, 7):
        monkeypatch.setattr("metatrain.tasks.texts._IN_MEMORY", most)
        store = TextStore()
        for value in [*VALUES, "ünï 漢"]:
            store.add(value)
        found = store.done()
        assert list(found) == [*VALUES, "ünï 漢"] and isinstance(found, tuple) == (most == 100)
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_bad_near_its_end_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("metatrain.tasks.texts._IN_MEMORY", 2)
    (tmp_path / "store").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "store"))
    write_jsonl(tmp_path / "a.jsonl", [{"text": f"t{n}", "label": "x" if n < 9 else ""} for n in range(10)])
    with pytest.raises(UserError, match="a.jsonl:10") as caught:
        read_file(tmp_path / "a.jsonl", Columns("text", "label"))
    caught.value.__traceback__ = None  # which holds the store
    del caught
    gc.collect()
    assert not list((tmp_path / "store").iterdir())


def test_marks_are_ours_only(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", [{"text": f"a{MASK}b", "label": "x", "more": f"e{PAIR}f"}])
    assert list(read_file(tmp_path / "a.jsonl", Columns("text", "label", pair="more")).texts) == [f"a b{PAIR}e f"]


def test_chained_texts_are_a_sequence(column):
    texts = Chained([StoredTexts(column), ("x", "y"), StoredTexts(column)])
    expected = VALUES + ["x", "y"] + VALUES
    assert list(texts) == expected and len(texts) == 16
    assert [texts[n] for n in range(16)] == expected and texts[-1] == expected[-1]
    assert list(subset(texts, np.array([0, 7, 8, 15]))) == [expected[n] for n in (0, 7, 8, 15)]
    assert list(texts[6:10]) == expected[6:10]
    with pytest.raises(IndexError):
        texts[16]


def test_a_sample_is_all_or_so_many_each_as_likely():
    assert sample(iter("abc"), 5, np.random.default_rng(0)) == ["a", "b", "c"]
    counts = np.zeros(6)
    for seed in range(3000):
        drawn = sample(map(str, range(6)), 2, np.random.default_rng(seed))
        assert len(set(drawn)) == 2
        counts[[int(each) for each in drawn]] += 1
    assert np.abs(counts / 1000 - 1).max() < 0.12


def test_tasks_from_disk_are_the_tasks_from_memory(tmp_path, monkeypatch):
    rows = [{"text": f"{n % 37} things happened to {n % 5}", "label": "ab"[n % 2], "area": f"t{n % 3}", "more": f"also {n}"} for n in range(400)]
    write_jsonl(tmp_path / "one.jsonl", rows[:250])
    write_jsonl(tmp_path / "two.jsonl", rows[250:])
    for pair in (None, "more"):
        config = TasksConfig(
            path=str(tmp_path), task="area", pair=pair, overlap="drop", meta_train=SplitConfig(tasks=["t0", "t1"]), meta_test=SplitConfig(tasks=["t2"])
        )
        found = []
        for most in (50_000, 1):
            monkeypatch.setattr("metatrain.tasks.texts._IN_MEMORY", most)
            tasks = load_tasks(config, 0)
            assert isinstance(tasks.meta_test[0].texts, tuple) == (most > 1)
            episodes = [training_episode(tasks, EpisodeConfig(shots=2), 0, index) for index in range(20)]
            episodes += [task_episode(tasks.meta_test[0], EpisodeConfig(shots=2), 0, "meta_test", index) for index in range(5)]
            drawn = [(e.task.name, e.classes, [e.task.texts[row] for row in (*e.support, *e.query)], e.query_labels.tolist()) for e in episodes]
            found.append((tasks.notes, [list(task.texts) for task in tasks.meta_train], drawn))
        assert found[0] == found[1]


def test_queries_are_drawn_as_from_a_list_without_the_support_set():
    from metatrain.tasks.episodes import _others

    rng = np.random.default_rng(0)
    for _ in range(200):
        rows = np.sort(rng.choice(60, rng.integers(1, 30), replace=False))
        chosen = rng.choice(60, rng.integers(0, 8), replace=False)
        rest = np.setdiff1d(rows, chosen)
        assert np.array_equal(_others(rows, chosen, None, rng), rest)
        seed, number = int(rng.integers(2**32)), int(rng.integers(0, 9))
        expected = np.random.default_rng(seed).choice(rest, min(number, len(rest)), replace=False)
        assert np.array_equal(_others(rows, chosen, number, np.random.default_rng(seed)), expected)
