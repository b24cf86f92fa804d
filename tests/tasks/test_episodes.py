"""Episodes: pure functions of (seed, split, index), balanced, without overlap."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from metatrain.errors import UserError
from metatrain.tasks.config import EpisodeConfig
from metatrain.tasks.episodes import check_tasks, draw, task_episode, training_episode, unlabelled_rows
from metatrain.tasks.task import Task, TaskDistribution, numbered


def task(name: str = "t", classes: int = 5, each: int = 12) -> Task:
    rows = classes * each
    pool = np.ones(rows, dtype=bool)
    return Task(name, tuple(f"{name} {i}" for i in range(rows)), np.arange(rows) % classes, tuple("abcdefgh"[:classes]), pool, pool)


TASKS = [task("x"), task("y"), task("z")]
ALL = TaskDistribution("all", tuple(TASKS))
SETTINGS = EpisodeConfig(way=3, shots=4, queries=5)


def same(one, other) -> bool:
    return (
        one.task.name == other.task.name
        and one.classes == other.classes
        and np.array_equal(one.support, other.support)
        and np.array_equal(one.query, other.query)
    )


def test_an_episode_depends_only_on_seed_split_and_index():
    far = training_episode(ALL, SETTINGS, seed=3, index=1000)
    for index in range(5):
        training_episode(ALL, SETTINGS, seed=3, index=index)
    assert same(far, training_episode(ALL, SETTINGS, seed=3, index=1000))
    assert not same(far, training_episode(ALL, SETTINGS, seed=4, index=1000))
    assert not same(far, training_episode(ALL, SETTINGS, seed=3, index=1001))
    assert not same(task_episode(TASKS[0], SETTINGS, 0, "meta_test", 0), task_episode(TASKS[0], SETTINGS, 0, "meta_validation", 0))


def test_evaluation_episodes_do_not_depend_on_the_other_tasks():
    assert same(task_episode(task("x"), SETTINGS, 0, "meta_test", 7), task_episode(TASKS[0], SETTINGS, 0, "meta_test", 7))


def test_support_and_query_are_balanced_disjoint_and_rightly_labelled():
    for index in range(50):
        episode = training_episode(ALL, SETTINGS, 0, index)
        assert episode.way == 3
        assert Counter(episode.support_labels.tolist()) == {0: 4, 1: 4, 2: 4}
        assert Counter(episode.query_labels.tolist()) == {0: 5, 1: 5, 2: 5}
        assert len({*episode.support.tolist(), *episode.query.tolist()}) == 3 * 9
        for rows, labels in ((episode.support, episode.support_labels), (episode.query, episode.query_labels)):
            assert [episode.classes[label] for label in labels] == episode.task.labels[rows].tolist()


def test_every_row_not_in_the_support_set_may_be_a_query():
    episode = draw(TASKS[0], EpisodeConfig(shots=4, queries=None), np.random.default_rng(0))
    assert len(episode.query) == 60 - 20


def test_a_class_with_fewer_rows_gives_the_queries_it_has():
    episode = draw(TASKS[0], EpisodeConfig(shots=10, queries=5), np.random.default_rng(0))
    assert Counter(episode.query_labels.tolist()) == dict.fromkeys(range(5), 2)


def test_class_order_is_permuted_unless_it_is_fixed():
    orders = {training_episode(TaskDistribution("one", tuple(TASKS[:1])), EpisodeConfig(shots=1, queries=1), 0, index).classes for index in range(30)}
    assert len(orders) > 10
    fixed = EpisodeConfig(shots=1, queries=1, permute_labels=False)
    assert {training_episode(TaskDistribution("one", tuple(TASKS[:1])), fixed, 0, index).classes for index in range(30)} == {(0, 1, 2, 3, 4)}
    some = EpisodeConfig(way=2, shots=1, queries=1, permute_labels=False)
    drawn = {training_episode(TaskDistribution("one", tuple(TASKS[:1])), some, 0, index).classes for index in range(60)}
    assert len(drawn) > 5 and all(one < other for one, other in drawn)


def test_all_tasks_are_drawn_about_equally():
    counts = Counter(training_episode(ALL, SETTINGS, 0, index).task.name for index in range(600))
    assert all(150 < count < 250 for count in counts.values())


def test_fixed_support_rows_are_kept_apart_from_the_queries():
    rows = 20
    support = np.arange(rows) < 8
    fixed = Task("f", tuple(f"text {i}" for i in range(rows)), np.arange(rows) % 2, ("a", "b"), support, ~support)
    episode = draw(fixed, EpisodeConfig(shots=4, queries=None), np.random.default_rng(0))
    assert sorted(episode.support.tolist()) == list(range(8))
    assert sorted(episode.query.tolist()) == list(range(8, 20))
    with pytest.raises(UserError, match="has 4 rows of class 'a' for support sets; 5 shots"):  # of 10 in all
        check_tasks([fixed], EpisodeConfig(shots=5, queries=None), "meta_test")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (EpisodeConfig(way=9), "episode.way=9"),
        (EpisodeConfig(shots=20), "20 shots"),
        (EpisodeConfig(shots=12), "12 rows of class"),
    ],
)
def test_impossible_episodes_are_refused_beforehand(settings, words):
    with pytest.raises(UserError, match=words):
        check_tasks(TASKS, settings, "meta_train")


def test_no_task_at_all():
    with pytest.raises(UserError, match="tasks.meta_validation has no task"):
        check_tasks([], SETTINGS, "meta_validation")


def test_a_share_of_training_episodes_mixes_the_classes_of_all_tasks():
    settings = EpisodeConfig(way=3, shots=4, queries=5, cross_task_fraction=0.5)
    episodes = [training_episode(ALL, settings, 0, index) for index in range(60)]
    mixed = [episode for episode in episodes if episode.task.name == "mixture"]
    assert 20 < len(mixed) < 40
    assert any(len({episode.task.label_names[label].split(":")[0] for label in episode.classes}) > 1 for episode in mixed)
    for episode in mixed:
        for rows, labels in ((episode.support, episode.support_labels), (episode.query, episode.query_labels)):
            for row, label in zip(rows, labels):
                number = int(episode.task.texts[row].split()[1])  # "x 17" is row 17 of task x, of class 17 mod 5
                assert episode.task.label_names[episode.classes[label]] == f"{episode.task.texts[row][0]}: {'abcde'[number % 5]}"
    (whole,) = {training_episode(ALL, EpisodeConfig(shots=4, cross_task_fraction=1.0), 0, index).way for index in range(9)}
    assert whole == 5


def test_without_cross_task_episodes_nothing_changes():
    assert same(training_episode(ALL, SETTINGS, 0, 3), training_episode(ALL, EpisodeConfig(way=3, shots=4, queries=5, cross_task_fraction=0.0), 0, 3))


def test_a_share_that_is_none():
    with pytest.raises(UserError, match="episode.cross_task_fraction=2.0"):
        check_tasks(TASKS, EpisodeConfig(way=3, shots=4, cross_task_fraction=2.0), "meta_train")


def test_texts_without_labels_are_of_the_classes_of_an_episode_and_in_neither_of_its_sets():
    one = task("x", classes=5, each=12)
    episode = task_episode(one, SETTINGS, 0, "meta_test", 0)
    found = unlabelled_rows(episode, 100)
    free = {row for row in range(60) if one.labels[row] in episode.classes} - {*episode.support.tolist(), *episode.query.tolist()}
    assert set(found.tolist()) == free and len(found) == 3 * (12 - 4 - 5)
    assert unlabelled_rows(episode, 4).tolist() == found[:4].tolist()
    full = task_episode(one, EpisodeConfig(way=3, shots=4, queries=None), 0, "meta_test", 0)
    with pytest.raises(UserError, match="task 'x' has an episode that leaves no rows for texts without labels"):
        unlabelled_rows(full, 4)


def multi_label_task(rows: int = 200, share: float = 0.25, seed: int = 0) -> Task:
    sets = np.random.default_rng(seed).random((rows, 6)) < share
    pool = np.ones(rows, dtype=bool)
    return Task("m", tuple(f"text {row}" for row in range(rows)), numbered(sets), tuple("abcdef"), pool, pool, label_sets=sets)


@pytest.mark.parametrize("way", [None, 3])
def test_a_multi_label_support_set_is_minimal(way):
    """Every label has K texts, and without any of the texts some label would have fewer (Hou et al. 2021)."""
    task = multi_label_task()
    for index in range(20):
        episode = task_episode(task, EpisodeConfig(way=way, shots=4, queries=5), 0, "meta_test", index)
        assert episode.way == (way or 6) and same(episode, task_episode(task, EpisodeConfig(way=way, shots=4, queries=5), 0, "meta_test", index))
        for rows, labels in ((episode.support, episode.support_labels), (episode.query, episode.query_labels)):
            assert np.array_equal(labels == 1, task.label_sets[np.ix_(rows, episode.classes)])
        counts, has_label = episode.support_labels.sum(0), ~task.has_no_label[episode.support]
        assert (counts >= 4).all() and all((counts - labels < 4).any() for labels in episode.support_labels[has_label])
        assert (~has_label).sum() == 4  # texts without any label are one more class
        assert len({*episode.support.tolist(), *episode.query.tolist()}) == len(episode.support) + 5 * episode.way
        drawn = episode.query_labels.any(1)
        assert task.has_no_label[episode.query[~drawn]].all()  # a text of other labels only is no query


def test_multi_label_queries_are_distributed_as_the_data():
    task = multi_label_task(2000)
    episodes = [task_episode(task, EpisodeConfig(shots=1, queries=50), 0, "meta_test", index) for index in range(20)]
    found, expected = (task.label_sets[np.concatenate([episode.query for episode in episodes])], task.label_sets)
    assert found.mean(0) == pytest.approx(expected.mean(0), abs=0.02)
    assert (~found.any(1)).mean() == pytest.approx(task.has_no_label.mean(), abs=0.02)
    every = draw(task, EpisodeConfig(shots=1, queries=None), np.random.default_rng(0))
    assert len(every.support) + len(every.query) == 2000


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"cross_task_fraction": 0.5}, "episode.cross_task_fraction draws classes of tasks with one label per text, and task 'm' has several"),
        ({"support_distribution": "natural"}, "episode.support_distribution=natural is for tasks with one label per text"),
        ({"shots": 100}, "task 'm' has .. rows of class 'a'; 100 shots and a query need more"),
    ],
)
def test_settings_for_one_label_per_text_are_refused(settings, why):
    task = multi_label_task()
    check_tasks([task], EpisodeConfig(), "meta_train")
    with pytest.raises(UserError, match=why):
        check_tasks([task], EpisodeConfig(**settings), "meta_train")
    query = np.arange(200) < 100
    with pytest.raises(UserError, match="task 'm' has no text with the label 'a' that is for queries only"):
        check_tasks([replace(task, support_pool=~task.label_sets[:, 0] | ~query, query_pool=query & ~task.label_sets[:, 0])], EpisodeConfig(), "meta_train")
