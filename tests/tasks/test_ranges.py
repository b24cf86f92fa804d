"""Ranges in `episode.way` and `episode.shots`: limits hold for every task, episodes stay pure functions of (seed, split, index), numbers keep their bits."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metatrain.errors import UserError
from metatrain.tasks.config import EpisodeConfig
from metatrain.tasks.episodes import check_tasks, fixed_way, most_way, task_episode, training_episode
from metatrain.tasks.ranges import Range, read_range
from metatrain.tasks.task import Task, TaskDistribution


def task(classes: int, each: int = 6) -> Task:
    rows = classes * each
    pool = np.ones(rows, dtype=bool)
    names = tuple(f"c{number}" for number in range(classes))
    return Task(f"of {classes}", tuple(f"{classes} {row}" for row in range(rows)), np.arange(rows) % classes, names, pool, pool)


def same(one, other) -> bool:
    rows = np.array_equal(one.support, other.support) and np.array_equal(one.query, other.query)
    return rows and (one.task.name, one.classes, one.seed) == (other.task.name, other.classes, other.seed)


@given(
    classes=st.lists(st.integers(2, 12), min_size=1, max_size=4, unique=True), most=st.integers(2, 12), seed=st.integers(0, 2**31), index=st.integers(0, 10**6)
)
def test_at_most_n_classes_are_as_many_as_the_task_has_up_to_n(classes, most, seed, index):
    tasks = TaskDistribution("all", tuple(map(task, classes)))
    settings = EpisodeConfig(way=f"..{most}", shots=1, queries=1)
    check_tasks(tasks.meta_train, settings, "meta_train")
    episode = training_episode(tasks, settings, seed, index)
    assert episode.way == min(most, len(episode.task.label_names))
    assert same(episode, training_episode(tasks, settings, seed, index))


@given(
    classes=st.integers(2, 12), ends=st.tuples(st.integers(2, 12), st.integers(2, 12)), shots=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    seed=st.integers(0, 2**31), index=st.integers(0, 10**6),
)  # fmt: skip
def test_ranges_hold_in_every_episode_that_passes_the_check(classes, ends, shots, seed, index):
    subject = task(classes)
    (low, high), (least, most) = sorted(ends), sorted(shots)
    settings = EpisodeConfig(way=f"{low}..{high}", shots=f"{least}..{most}", queries=3)
    if low > classes or least >= 6:
        with pytest.raises(UserError, match=r"write episode.way=\.\.|lower the shots"):
            check_tasks([subject], settings, "meta_train")
        return
    check_tasks([subject], settings, "meta_train")
    episode = task_episode(subject, settings, seed, "meta_validation", index)
    (number,) = set(Counter(episode.support_labels.tolist()).values())
    assert low <= episode.way <= min(high, classes) <= most_way(subject, settings)
    assert least <= number <= min(most, 5)
    assert set(Counter(episode.query_labels.tolist()).values()) == {min(3, 6 - number)}
    assert not set(episode.support) & set(episode.query)
    assert same(episode, task_episode(subject, settings, seed, "meta_validation", index))


def test_every_number_of_a_range_is_drawn_about_equally():
    tasks = TaskDistribution("one", (task(5, 20),))
    drawn = [training_episode(tasks, EpisodeConfig(way="2..5", shots="1..4", queries=1), 0, index) for index in range(600)]
    for counts in (Counter(episode.way for episode in drawn), Counter(len(episode.support) // episode.way for episode in drawn)):
        assert len(counts) == 4 and all(110 < count < 190 for count in counts.values())


def test_ranges_of_one_number_are_that_number():
    """They draw nothing from the generator, so the episodes are those of the number."""
    subject = task(5)
    plain = task_episode(subject, EpisodeConfig(way=3, shots=2, queries=2), 4, "meta_test", 7)
    for way, shots in (("3", "2"), ("3..3", "2..2"), ("..3", "..2")):
        assert same(plain, task_episode(subject, EpisodeConfig(way=way, shots=shots, queries=2), 4, "meta_test", 7))


def test_classes_of_several_tasks_are_mixed_within_the_range():
    tasks = TaskDistribution("all", (task(2), task(4)))
    settings = EpisodeConfig(way="..3", shots="1..2", queries=1, cross_task_fraction=1.0)
    drawn = [training_episode(tasks, settings, 0, index) for index in range(40)]
    assert {episode.way for episode in drawn} == {2, 3} and {len(episode.support) // episode.way for episode in drawn} == {1, 2}


def test_text_to_text_tasks_have_shots_and_no_classes():
    pool = np.ones(9, dtype=bool)
    targets = Task("t", tuple("abcdefghi"), np.zeros(9, dtype=int), ("text",), pool, pool, targets=tuple("ABCDEFGHI"), score="chrf")
    settings = EpisodeConfig(way="2..4", shots="..20", queries=None)
    check_tasks([targets], settings, "meta_train")
    assert len(task_episode(targets, settings, 0, "meta_test", 0).support) == 8


def test_support_rows_of_their_own_limit_the_shots():
    support = np.arange(20) < 8
    fixed = Task("f", tuple(map(str, range(20))), np.arange(20) % 2, ("a", "b"), support, ~support)
    assert len(task_episode(fixed, EpisodeConfig(shots="..16"), 0, "meta_test", 0).support) == 8


@pytest.mark.parametrize(("value", "found"), [(5, Range(5, 5)), ("5", Range(5, 5)), ("2..10", Range(2, 10)), ("..6", Range(None, 6)), ("2..2", Range(2, 2))])
def test_a_range_is_read(value, found):
    assert read_range("episode.way", value, least=2) == found


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("2-10", r"must be a number, a range such as 2\.\.10 \(drawn per episode\), or \.\.10 \(at most 10\)"),
        ("many", "must be a number"),
        ("3..", "must be a number"),
        (1, "episode.way=1 must be 2 or more"),
        (-4, "must be 2 or more"),
        ("..1", "must be 2 or more"),
        ("1..4", "must be 2 or more"),
        ("6..3", r"the first number is larger than the second; write episode.way=3\.\.6"),
    ],
)
def test_what_is_no_range_is_refused(value, said):
    with pytest.raises(UserError, match=said):
        check_tasks([task(3)], EpisodeConfig(way=value), "meta_train")


def test_only_one_number_fixes_the_way():
    assert [fixed_way(EpisodeConfig(way=way)) for way in (None, 3, "3..3", "2..3", "..3")] == [None, 3, 3, None, None]
