"""Episodes: a support set and a query set drawn from one task, each a pure function of (seed, split, index).

There is no running random stream, so a resumed run, another worker and another machine see the same
episodes without any sampler state.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from metatrain.errors import UserError
from metatrain.tasks.config import EpisodeConfig
from metatrain.tasks.task import Task, TaskDistribution

SPLITS = ("meta_train", "meta_validation", "meta_test")


@dataclass(frozen=True, eq=False)
class Episode:
    """An N-way K-shot episode. Labels are positions 0..way-1 in `classes`, the task's own label indices."""

    task: Task
    classes: tuple[int, ...]
    support: np.ndarray  # rows of the task, shape [way * shots]
    support_labels: np.ndarray  # shape [way * shots]
    query: np.ndarray  # rows of the task, shape [queries]
    query_labels: np.ndarray  # shape [queries]
    seed: int  # seed of all other randomness in the episode

    @property
    def way(self) -> int:
        return len(self.classes)


def draw(task: Task, settings: EpisodeConfig, rng: np.random.Generator) -> Episode:
    """Draw one episode from `task`.

    Raises:
        UserError: the task has too few classes, or a class too few rows, for the settings.
    """
    way = way_of(task, settings)
    if way > len(task.label_names):
        raise UserError(f"episode.way={way}, but task '{task.name}' has {len(task.label_names)} classes; lower episode.way or leave it null")
    classes = rng.permutation(len(task.label_names))[:way]
    if not settings.permute_labels:
        classes = np.sort(classes)
    support, query = [], []
    for label in classes:
        pool = task.support_rows[label]
        # Fewer rows in one class is an error; the same check for all classes runs before training (check_tasks).
        if len(pool) < settings.shots:
            raise UserError(_too_few(task, int(label), len(pool), settings))
        chosen = rng.choice(pool, settings.shots, replace=False)
        support.append(chosen)
        query.append(_others(task.query_rows[label], chosen, settings.queries, rng))
    return Episode(
        task,
        tuple(int(label) for label in classes),
        np.concatenate(support),
        np.repeat(np.arange(way), [len(rows) for rows in support]),
        np.concatenate(query),
        np.repeat(np.arange(way), [len(rows) for rows in query]),
        int(rng.integers(2**32)),
    )


def given_episode(texts: Sequence[str], answers: Sequence[str], support: int, score: str | None = None) -> Episode:
    """Return an episode of given examples: the first `support` of them are the support set, the others the queries.

    answers: names of labels, each of which a support example has; with a `score`, target texts. Classes are in the order of their
    names.
    """
    names = ["text"] if score else sorted(set(answers[:support]))
    number = {name: place for place, name in enumerate(names)}
    labels = np.array([0 if score else number[answer] for answer in answers])
    rows = np.arange(len(answers))
    task = Task("task", tuple(texts), labels, tuple(names), rows < support, rows >= support, targets=tuple(answers) if score else None, score=score)
    return Episode(task, tuple(range(len(names))), rows[:support], labels[:support], rows[support:], labels[support:], 0)


def _others(rows: np.ndarray, chosen: np.ndarray, queries: int | None, rng: np.random.Generator) -> np.ndarray:
    """Draw a number of `rows` (sorted) that are not chosen, or return all; the time grows only with the number drawn."""
    places = np.searchsorted(rows, np.sort(chosen))
    places = places[(places < len(rows)) & (rows[np.minimum(places, len(rows) - 1)] == np.sort(chosen))] if len(rows) else places[:0]
    rest = len(rows) - len(places)
    drawn = np.arange(rest) if queries is None else rng.choice(rest, min(queries, rest), replace=False)
    # The n-th row that is not chosen comes after as many chosen ones as have n or fewer others before them.
    return rows[drawn + np.searchsorted(places - np.arange(len(places)), drawn, side="right")]


def way_of(task: Task, settings: EpisodeConfig) -> int:
    """Return the number of classes per episode of this task; 1 for a text-to-text task."""
    return 1 if task.targets is not None else settings.way or task.way or len(task.label_names)


def training_episode(tasks: TaskDistribution, settings: EpisodeConfig, seed: int, index: int) -> Episode:
    """Episode `index` of the meta-train tasks: a task drawn by their weights, then an episode of it.

    With `settings.cross_task_fraction`, a share of the episodes has as many classes, but drawn from those of all labelled tasks (an
    augmentation of the tasks, Rajendran et al. 2020).
    """
    rng = np.random.default_rng([seed, SPLITS.index("meta_train"), index])
    number = len(tasks.meta_train)
    task = tasks.meta_train[rng.integers(number) if tasks.weights is None else rng.choice(number, p=tasks.weights)]
    if settings.cross_task_fraction and rng.random() < settings.cross_task_fraction and task.targets is None:
        labelled = tuple(each for each in tasks.meta_train if each.is_labelled)
        return draw(_mixture(labelled), replace(settings, way=way_of(task, settings)), rng)
    return draw(task, settings, rng)


@functools.lru_cache(maxsize=2)
def _mixture(tasks: tuple[Task, ...]) -> Task:
    """Return all classes of all tasks as one task; a class is named TASK: LABEL."""
    offsets = np.cumsum([0] + [len(task.label_names) for task in tasks])
    return Task(
        "mixture",
        tuple(text for task in tasks for text in task.texts),
        np.concatenate([task.labels + offset for task, offset in zip(tasks, offsets)]),
        tuple(f"{task.name}: {label}" for task in tasks for label in task.label_names),
        np.concatenate([task.support_pool for task in tasks]),
        np.concatenate([task.query_pool for task in tasks]),
    )


def task_episode(task: Task, settings: EpisodeConfig, seed: int, split: str, index: int) -> Episode:
    """Return evaluation episode `index` of one task; it does not depend on which other tasks are evaluated."""
    return draw(task, settings, np.random.default_rng([seed, SPLITS.index(split), zlib.crc32(task.name.encode()), index]))


def check_tasks(tasks: Sequence[Task], settings: EpisodeConfig, split: str) -> None:
    """Check before training that these episodes can be sampled from the tasks.

    Raises:
        UserError: there is no task, or one has too few classes or rows.
    """
    if not tasks:
        raise UserError(f"tasks.{split} has no task; set tasks.{split}.tasks or tasks.{split}.files")
    if not 0 <= settings.cross_task_fraction <= 1:
        raise UserError(f"episode.cross_task_fraction={settings.cross_task_fraction} must be between 0 and 1")
    for key, least in (("way", 2), ("shots", 1), ("queries", 1)):
        value = getattr(settings, key)
        if value is not None and value < least:
            raise UserError(f"episode.{key}={value} must be {least} or more")
    for task in tasks:
        if len(task.label_names) < 2 and task.targets is None:
            raise UserError(f"task '{task.name}' of tasks.{split} has only one class ({task.label_names[0]!r}); a task needs two or more")
        if settings.way is not None and settings.way > len(task.label_names) and task.targets is None:
            raise UserError(f"episode.way={settings.way}, but task '{task.name}' of tasks.{split} has {len(task.label_names)} classes")
        for label in range(len(task.label_names)):
            support = task.support_rows[label]
            every = support if task.query_rows is task.support_rows else np.union1d(support, task.query_rows[label])
            if len(every) <= settings.shots:
                raise UserError(_too_few(task, label, len(every), settings))
            if len(support) < settings.shots:
                raise UserError(_too_few(task, label, len(support), settings, " for support sets"))


def _too_few(task: Task, label: int, rows: int, settings: EpisodeConfig, use: str = "") -> str:
    found = f"task '{task.name}' has {rows} rows of class {task.label_names[label]!r}{use}"
    return f"{found}; {settings.shots} shots and a query need more: lower the shots, or add rows"
