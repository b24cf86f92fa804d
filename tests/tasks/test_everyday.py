"""The embedded collection `everyday`: many tasks, balanced, natural texts without repeats or give-aways."""

import re
import runpy
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from metatrain.config.compose import composed
from metatrain.config.schema import TrainConfig
from metatrain.errors import UserError
from metatrain.tasks.config import SplitConfig, TasksConfig
from metatrain.tasks.distribution import load_tasks
from metatrain.tasks.embedded import embedded_path
from metatrain.tasks.keys import text_key

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "docs" / "everyday_page.py"))
FAMILIES = SCRIPT["rows_of_families"]()
TASKS: dict[str, list[dict[str, str]]] = defaultdict(list)
for rows in FAMILIES.values():
    for row in rows:
        TASKS[row["task"]].append(row)
# How label names look that give nothing away: a place and a letter, a number, a colour or a word without meaning for the task.
RULES = re.compile(r"(box|desk|pile|code|team|tag|card|cup|drawer|form|lane|shelf|group|crate|rack|slip|flag|slot|stack|bin|sack|cart|badge|tray)\b")


def is_rule(task: str) -> bool:
    return all(RULES.search(row["label"]) and row["label"] not in ("lost card", "repair") for row in TASKS[task])


def test_at_least_72_tasks_of_which_32_are_of_sentiment_and_a_third_need_their_examples():
    assert len(TASKS) >= 72
    assert len({row["task"] for row in FAMILIES["sentiment"]}) >= 32
    assert sum(map(is_rule, TASKS)) >= len(TASKS) / 3


def test_a_task_is_in_one_family():
    assert sum(len({row["task"] for row in rows}) for rows in FAMILIES.values()) == len(TASKS)


@pytest.mark.parametrize("task", TASKS)
def test_two_to_six_classes_of_the_same_size(task):
    counts = Counter(row["label"] for row in TASKS[task])
    assert 2 <= len(counts) <= 6
    assert len(set(counts.values())) == 1
    assert min(counts.values()) >= 24


def test_texts_have_4_to_40_words_and_no_class_is_much_longer():
    for task, of_task in TASKS.items():
        lengths = defaultdict(list)
        for row in of_task:
            words = len(row["text"].split())
            assert 4 <= words <= 40, (task, row["text"])
            lengths[row["label"]].append(words)
        means = [np.mean(each) for each in lengths.values()]
        assert max(means) <= 1.7 * min(means), (task, means)


def test_no_text_is_repeated_within_or_across_tasks():
    texts = [row["text"] for of_task in TASKS.values() for row in of_task]
    assert len({text_key(text) for text in texts}) == len(texts)
    triples = TfidfVectorizer(analyzer="char_wb", ngram_range=(4, 4)).fit_transform(texts)
    alike = (triples @ triples.T).tocoo()
    near = [(texts[a], texts[b]) for a, b, cosine in zip(alike.row, alike.col, alike.data) if a < b and cosine > 0.8]
    assert near == []


def test_the_words_of_a_label_are_in_few_texts_of_its_class():
    for task, of_task in TASKS.items():
        for label in {row["label"] for row in of_task}:
            words = [word for word in label.split() if len(word) > 3]
            having = sum(any(re.search(rf"\b{word}\b", row["text"].lower()) for word in words) for row in of_task if row["label"] == label)
            assert having <= 4, (task, label)


def test_word_counts_do_not_solve_a_task():
    for task, of_task in TASKS.items():
        assert SCRIPT["word_count_accuracy"]([row["text"] for row in of_task], np.array([row["label"] for row in of_task])) <= 0.8, task


def test_the_page_lists_each_task_and_none_is_solved_or_at_chance_for_the_frozen_encoder():
    lines = [line.split(" | ") for line in SCRIPT["PAGE"].read_text(encoding="utf-8").splitlines() if line.startswith("| ")][1:]
    assert [line[1] for line in lines] == list(TASKS)
    for _, task, labels, texts, *_, encoder, chance in lines:
        assert int(texts) == len(TASKS[task]), task
        assert len(labels.split(", ")) == len({row["label"] for row in TASKS[task]}), task
        assert float(chance.strip(" |")) < int(encoder) < 100, task


def test_the_packaged_splits_share_no_task_and_no_label_set():
    splits = {
        "meta_train": SplitConfig(files=["sentiment.jsonl", "intents.jsonl"], tasks=["*"]),
        "meta_validation": SplitConfig(files=["topics.jsonl"], tasks=["*"]),
        "meta_test": SplitConfig(files=["tone.jsonl"], tasks=["*"]),
    }
    tasks = load_tasks(TasksConfig(path="metatrain:everyday", task="task", **splits), 0)
    assert [len(tasks.meta_train), len(tasks.meta_validation), len(tasks.meta_test)] == [
        sum(len({row["task"] for row in FAMILIES[name]}) for name in names) for names in (("sentiment", "intents"), ("topics",), ("tone",))
    ]


@pytest.mark.parametrize("fold", range(6))
def test_the_distribution_everyday_tests_on_one_family_and_validates_on_the_next(fold):
    families = sorted(FAMILIES)
    tasks = load_tasks(composed("train", ["tasks=everyday", f"tasks.fold={fold}"], TrainConfig).tasks, 0)
    of_family = {name: {row["task"] for row in rows} for name, rows in FAMILIES.items()}
    assert {task.name for task in tasks.meta_test} == of_family[families[fold]]
    assert {task.name for task in tasks.meta_validation} == of_family[families[(fold + 1) % 6]]
    assert len(tasks.meta_train) == len(TASKS) - len(tasks.meta_test) - len(tasks.meta_validation)


def test_without_a_fold_all_families_train():
    tasks = load_tasks(composed("train", ["tasks=everyday", "tasks.fold=null"], TrainConfig).tasks, 0)
    assert len(tasks.meta_train) == len(TASKS) and not tasks.meta_validation and not tasks.meta_test


def test_the_distribution_sentiment_tests_on_label_sets_that_training_has_not_seen():
    tasks = load_tasks(composed("train", ["tasks=sentiment"], TrainConfig).tasks, 0)
    assert len(tasks.meta_test) >= 12 and len(tasks.meta_validation) == 5
    seen = {frozenset(task.label_names) for task in tasks.meta_train}
    assert not seen & {frozenset(task.label_names) for task in tasks.meta_test}


def test_a_collection_that_does_not_exist_is_named():
    with pytest.raises(UserError, match="metatrain:nowhere: no such packaged corpus; there are metatrain:everyday, metatrain:reviews"):
        embedded_path("metatrain:nowhere")
