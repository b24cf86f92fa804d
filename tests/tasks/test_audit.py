from dataclasses import replace

import numpy as np
import pytest

from metatrain.errors import UserError
from metatrain.tasks.audit import check_overlap, named_labels, near_duplicates, without_seen
from metatrain.tasks.config import SplitConfig, TasksConfig
from metatrain.tasks.distribution import load_tasks
from metatrain.tasks.task import Task, TaskDistribution


def task(*texts: str) -> Task:
    pool = np.ones(len(texts), dtype=bool)
    return Task("t", texts, np.zeros(len(texts), dtype=int), ("a",), pool, pool)


def test_texts_seen_in_training_are_left_out_and_counted():
    kept, notes = without_seen([task("one", "two", "three")], [task(" TWO", "four")])
    assert kept[0].texts == ("one", "three")
    assert notes == ["1 texts removed from the test tasks: the model was trained on them"]
    with pytest.raises(UserError, match="task 't': the run's own training or validation tasks have every support text of 'a'"):
        without_seen([task("one", "two")], [task("two", "ONE")])
    kept, notes = without_seen([task("one")], [task("four")])
    assert kept[0].texts == ("one",) and notes == []


def test_texts_with_the_words_of_a_text_seen_in_training_stay_with_a_warning():
    kept, notes = without_seen([task("I know C++", "I know C#", "one")], [task("i know c", "one")])
    assert kept[0].texts == ("I know C++", "I know C#")
    warning = (
        "warning: 2 test texts have the words of texts that the model was trained on, with other punctuation or symbols; they are kept: "
        "'I know C++' (a) in 't' and 'i know c' (a) in 't'; 'I know C#' (a) in 't' and 'i know c' (a) in 't'"
    )
    assert notes == ["1 texts removed from the test tasks: the model was trained on them", warning]


def test_support_rows_that_training_may_have_stay_and_queries_do_not():
    support = np.array([True, True, False, False])
    fixed = Task("t", ("one", "two", "three", "four"), np.zeros(4, dtype=int), ("a",), support, ~support)
    (kept,), notes = without_seen([fixed], [task("one", "two", "three")], "drop_queries")
    assert kept.texts == ("one", "two", "four")
    assert notes == ["1 texts removed from the test tasks: the model was trained on them"]
    for seen, use in ((("one", "two"), "support"), (("three", "four"), "query")):
        with pytest.raises(UserError, match=f"have every {use} text of 'a'"):
            without_seen([fixed], [task(*seen)])
    with pytest.raises(UserError, match="every query text of 'a'"):
        without_seen([fixed], [task("three", "four")], "drop_queries")


def test_shared_texts_are_counted_for_each_of_many_tasks():
    texts = [(f"a {n}", f"b {n}", "held out"[: 8 * (n % 3 == 1)] or f"c {n}", "also held out"[: 13 * (n == 4)] or f"d {n}") for n in range(6)]
    train = tuple(replace(task(*four), name=f"t{n}") for n, four in enumerate(texts))
    tasks = TaskDistribution("t", meta_train=train, meta_test=(task("Held out", "also  held out"),))
    with pytest.raises(UserError, match="'t1'"):
        check_overlap(tasks, "refuse", [])
    kept = check_overlap(tasks, "drop", [])
    assert [len(each.texts) for each in kept.meta_train] == [4, 3, 4, 4, 2, 4]
    assert kept.meta_test == tasks.meta_test and kept.notes == ("3 texts removed from meta_train: they are also in a held-out split",)


LONG = "the hinge came loose after a week and the shop would not take the laptop back without its box"


@pytest.mark.parametrize("planted", [LONG.replace("hinge", "screen"), LONG.upper() + "!!", LONG + " again", LONG.replace(" ", "  ")])
def test_a_planted_near_duplicate_is_found(planted):
    others = [f"sentence number {n} is about nothing that matters to anyone here" for n in range(20)]
    tasks = TaskDistribution("t", meta_train=(task(*others, LONG),), meta_test=(task("quite another text about the weather", planted),))
    totals: list[int] = []
    compared: list[int] = []
    (found,) = near_duplicates(tasks, totals.append, compared.append)
    assert totals == [sum(compared)] and sum(compared) > 0
    assert (found.split, found.text, found.other_split, found.other_text) == ("meta_test", planted, "meta_train", LONG)
    assert 0.8 < found.similarity <= 1.0001


def test_validation_and_test_are_compared_too_and_a_task_with_itself_is_not():
    tasks = TaskDistribution("t", meta_train=(task("one two three four", LONG, LONG + " again"),), meta_validation=(task("a"),), meta_test=(task("b"),))
    assert near_duplicates(tasks) == []
    tasks = TaskDistribution("t", meta_validation=(task(LONG),), meta_test=(task(LONG + " again"),))
    assert [(pair.split, pair.other_split) for pair in near_duplicates(tasks)] == [("meta_test", "meta_validation")]


def test_the_embedded_corpus_is_not_accused():
    splits = {"meta_train": ["airlines", "books", "cars", "games"], "meta_validation": ["garden", "clothing"], "meta_test": ["films", "hotels"]}
    tasks = load_tasks(TasksConfig(path="metatrain:reviews", task="domain", **{name: SplitConfig(tasks=chosen) for name, chosen in splits.items()}), 0)
    assert near_duplicates(tasks) == []
    for each in tasks.meta_train:
        own, others = named_labels(each)
        assert own < others + 0.1


def test_texts_that_name_their_label():
    texts = ("Refund please", "a refund, now", "where is my lost_parcel", "Lost parcel!", "the refund is a lost parcel", "hello")
    labels = np.array([0, 0, 1, 1, 0, 1])
    pool = np.ones(len(texts), dtype=bool)
    named = Task("t", texts, labels, ("refund", "lost_parcel"), pool, pool)
    own, others = named_labels(named)
    assert own == pytest.approx(4 / 6) and others == pytest.approx(1 / 6)


def test_names_of_labels_in_texts_are_distinguished_by_their_symbols():
    texts = ("I write C++ at work", "C# it is", "no name here", "nor here")
    pool = np.ones(len(texts), dtype=bool)
    own, others = named_labels(Task("t", texts, np.array([0, 1, 0, 1]), ("C++", "C#"), pool, pool))
    assert (own, others) == (0.5, 0)
