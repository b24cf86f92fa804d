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
from metatrain.tasks.ranges import Range, read_range
from metatrain.tasks.task import Task, TaskDistribution

SPLITS = ("meta_train", "meta_validation", "meta_test")
DISTRIBUTIONS = ("balanced", "natural")
_UNLABELLED = 1  # of the seeds of one episode: that of its texts without labels


@dataclass(frozen=True, eq=False)
class Episode:
    """An N-way K-shot episode. Labels are positions 0..way-1 in `classes`, the task's own label indices.

    In an episode of a multi-label task, labels are int8 of shape [support, way] and [queries, way]: 1 if a text has the label, else 0.
    """

    task: Task
    classes: tuple[int, ...]
    support: np.ndarray  # rows of the task, shape [support]; [way * shots] with balanced classes of one label per text
    support_labels: np.ndarray  # shape [support]
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
    way = _draw_way(task, settings, rng)
    if way > len(task.label_names):
        raise UserError(f"episode.way={settings.way}, but task '{task.name}' has {len(task.label_names)} classes; lower episode.way or leave it null")
    classes = rng.permutation(len(task.label_names))[:way]
    if not settings.permute_labels:
        classes = np.sort(classes)
    shots = _draw_shots(task, classes, settings, rng)
    if task.label_sets is not None:
        return _draw_multi_label(task, task.label_sets, classes, shots, settings, rng)
    support, query = [], []
    for label, number in zip(classes, _support_sizes(task, classes, shots, settings, rng)):
        pool = task.support_rows[label]
        # Fewer rows in one class is an error; the same check for all classes runs before training (check_tasks).
        if len(pool) < number:
            raise UserError(_too_few(task, int(label), len(pool), number))
        chosen = rng.choice(pool, number, replace=False)
        support.append(chosen)
        query.append(_others(task.query_rows[label], chosen, settings.queries if settings.query_distribution == "balanced" else None, rng))
    if settings.query_distribution == "natural" and settings.queries is not None:
        query = _some(query, settings.queries * way, rng)
    return Episode(
        task,
        tuple(int(label) for label in classes),
        np.concatenate(support),
        np.repeat(np.arange(way), [len(rows) for rows in support]),
        np.concatenate(query),
        np.repeat(np.arange(way), [len(rows) for rows in query]),
        int(rng.integers(2**32)),
    )


def _draw_multi_label(task: Task, label_sets: np.ndarray, classes: np.ndarray, shots: int, settings: EpisodeConfig, rng: np.random.Generator) -> Episode:
    """Draw an episode of a multi-label task whose labels are `classes`.

    The support set is drawn by the minimum-including algorithm (Hou et al. 2021, section 4.1): every label has at least `shots` texts, and without any
    of the texts some label would have fewer. Texts without any label are one more class of the support set. Queries are distributed as in the data,
    among texts with one of the labels and texts without any label of the task.
    """
    of_classes = label_sets[:, classes]  # [rows, way]
    chosen, counts = np.zeros(0, dtype=np.int64), np.zeros(len(classes), dtype=np.int64)
    for place, label in enumerate(classes):
        missing, rest = max(0, shots - counts[place]), np.setdiff1d(task.support_rows[label], chosen)
        if len(rest) < missing:
            raise UserError(_too_few(task, int(label), len(task.support_rows[label]), shots))
        new = rng.choice(rest, missing, replace=False)
        chosen, counts = np.concatenate([chosen, new]), counts + of_classes[new].sum(0)
    kept = []
    for row in chosen:
        if (counts - of_classes[row] >= shots).all():
            counts = counts - of_classes[row]
        else:
            kept.append(row)
    none = np.flatnonzero(task.has_no_label & task.support_pool)
    support = np.concatenate([np.array(kept, dtype=np.int64), rng.choice(none, min(shots, len(none)), replace=False)])
    is_free = task.query_pool.copy()
    is_free[support] = False
    some, none = np.flatnonzero(is_free & of_classes.any(1)), np.flatnonzero(is_free & task.has_no_label)
    if settings.queries is not None:
        total = settings.queries * len(classes)
        without = min(total - 1, len(none), int(rng.binomial(total, task.has_no_label[task.query_pool].mean())))
        some, none = rng.choice(some, min(total - without, len(some)), replace=False), rng.choice(none, without, replace=False)
    query = np.concatenate([some, none])
    support_labels, query_labels = (of_classes[rows].astype(np.int8) for rows in (support, query))
    return Episode(task, tuple(int(label) for label in classes), support, support_labels, query, query_labels, int(rng.integers(2**32)))


def _support_sizes(task: Task, classes: np.ndarray, shots: int, settings: EpisodeConfig, rng: np.random.Generator) -> Sequence[int]:
    """Return the number of support examples of each class; where they are distributed as in the data, every class keeps a row for a query."""
    if settings.support_distribution == "balanced" or task.targets is not None:
        return [shots] * len(classes)
    kept = 1 if task.query_rows is task.support_rows else 0
    left = [max(0, len(task.support_rows[label]) - kept - 1) for label in classes]
    return [1 + int(more) for more in rng.multivariate_hypergeometric(left, min(len(classes) * (shots - 1), sum(left)))]


def _some(rows: Sequence[np.ndarray], number: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Return a random sample of the rows of all classes together, or all, by class."""
    sizes = [len(each) for each in rows]
    drawn = rng.multivariate_hypergeometric(sizes, min(number, sum(sizes)))
    return [rng.choice(each, size, replace=False) for each, size in zip(rows, drawn)]


def given_episode(texts: Sequence[str], answers: Sequence[str], support: int, score: str | None = None, seed: int = 0) -> Episode:
    """Return an episode of given examples: the first `support` of them are the support set, the others the queries.

    answers: names of labels, each of which a support example has; with a `score`, target texts. Classes are in the order of their
    names. seed: of what adaptation draws, the folds of cross-validation for example.
    """
    names = ["text"] if score else sorted(set(answers[:support]))
    number = {name: place for place, name in enumerate(names)}
    labels = np.array([0 if score else number[answer] for answer in answers])
    rows = np.arange(len(answers))
    task = Task("task", tuple(texts), labels, tuple(names), rows < support, rows >= support, targets=tuple(answers) if score else None, score=score)
    return Episode(task, tuple(range(len(names))), rows[:support], labels[:support], rows[support:], labels[support:], seed)


def _others(rows: np.ndarray, chosen: np.ndarray, queries: int | None, rng: np.random.Generator) -> np.ndarray:
    """Draw a number of `rows` (sorted) that are not chosen, or return all; the time grows only with the number drawn."""
    places = np.searchsorted(rows, np.sort(chosen))
    places = places[(places < len(rows)) & (rows[np.minimum(places, len(rows) - 1)] == np.sort(chosen))] if len(rows) else places[:0]
    rest = len(rows) - len(places)
    drawn = np.arange(rest) if queries is None else rng.choice(rest, min(queries, rest), replace=False)
    # The n-th row that is not chosen comes after as many chosen ones as have n or fewer others before them.
    return rows[drawn + np.searchsorted(places - np.arange(len(places)), drawn, side="right")]


def unlabelled_rows(episode: Episode, number: int) -> np.ndarray:
    """Draw rows of an episode's classes that are in neither its support set nor its queries, as texts without labels: at most `number`, as they occur.

    They depend on the episode's seed only, and drawing them changes nothing else in the episode.

    Raises:
        UserError: there are none.
    """
    task = episode.task
    is_free = np.isin(task.labels, episode.classes) & (task.support_pool | task.query_pool)
    is_free[episode.support] = is_free[episode.query] = False
    rows = np.flatnonzero(is_free)
    if not len(rows):
        left = f"task '{task.name}' has an episode that leaves no rows for texts without labels (evaluation.unlabelled)"
        raise UserError(f"{left}; use fewer queries (evaluation.queries) or shots, or remove the arm meta_trained_with_unlabelled from evaluation.arms")
    return np.random.default_rng([episode.seed, _UNLABELLED]).permutation(rows)[:number]


def most_way(task: Task, settings: EpisodeConfig) -> int:
    """Return the largest number of classes in an episode of this task; 1 for a text-to-text task."""
    if task.targets is not None:
        return 1
    if settings.way is None:
        return task.way or len(task.label_names)
    way = way_range(settings)
    return way.most if way.is_exact else min(way.most, len(task.label_names))


def fixed_way(settings: EpisodeConfig) -> int | None:
    """Return the number of classes that all episodes have, or None if it varies."""
    way = None if settings.way is None else way_range(settings)
    return way.most if way is not None and way.is_exact else None


def way_range(settings: EpisodeConfig) -> Range:
    """Return the numbers of classes that `episode.way` allows, which is not null here."""
    assert settings.way is not None  # the callers have looked
    return read_range("episode.way", settings.way, least=2)


def shots_range(settings: EpisodeConfig) -> Range:
    """Return the numbers of support examples per class that `episode.shots` allows."""
    return read_range("episode.shots", settings.shots, least=1)


def _draw_way(task: Task, settings: EpisodeConfig, rng: np.random.Generator) -> int:
    """Draw the number of classes of one episode; a single number in the settings draws nothing from `rng`."""
    if task.targets is not None or settings.way is None:
        return most_way(task, settings)
    return way_range(settings).pick(len(task.label_names), rng)


def _draw_shots(task: Task, classes: np.ndarray, settings: EpisodeConfig, rng: np.random.Generator) -> int:
    """Draw the number of support examples per class of one episode; with a range, each class keeps a row for a query."""
    shots = shots_range(settings)
    if shots.is_exact:
        return shots.most
    return shots.pick(min(min(len(task.support_rows[label]), _number_of_rows(task, label) - 1) for label in classes), rng)


def _number_of_rows(task: Task, label: int) -> int:
    """Return the number of rows of a class that may be drawn for either set."""
    support = task.support_rows[label]
    return len(support if task.query_rows is task.support_rows else np.union1d(support, task.query_rows[label]))


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
        return draw(_mixture(labelled), replace(settings, way=_draw_way(task, settings, rng)), rng)
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
        label_texts=tuple(f"{task.name}: {text}" for task in tasks for text in task.read_names),
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
    if settings.queries is not None and settings.queries < 1:
        raise UserError(f"episode.queries={settings.queries} must be 1 or more")
    for key in ("support_distribution", "query_distribution"):
        if getattr(settings, key) not in DISTRIBUTIONS:
            raise UserError(f"episode.{key}={getattr(settings, key)} is unknown; choose one of {', '.join(DISTRIBUTIONS)}")
    way = None if settings.way is None else way_range(settings)
    fewest = shots_range(settings).least or 1
    for task in tasks:
        classes = len(task.label_names)
        if classes < 2 and task.targets is None:
            raise UserError(f"task '{task.name}' of tasks.{split} has only one class ({task.label_names[0]!r}); a task needs two or more")
        if way is not None and (way.least or 2) > classes and task.targets is None:
            raise UserError(
                f"episode.way={settings.way}, but task '{task.name}' of tasks.{split} has {classes} classes; "
                f"write episode.way=..{way.most} for at most {way.most} classes"
            )
        for label in range(classes):
            rows, support = _number_of_rows(task, label), len(task.support_rows[label])
            if rows <= fewest:
                raise UserError(_too_few(task, label, rows, fewest))
            if support < fewest:
                raise UserError(_too_few(task, label, support, fewest, " for support sets"))
        if task.label_sets is not None:
            _check_multi_label(task, settings)


def _check_multi_label(task: Task, settings: EpisodeConfig) -> None:
    """Raises: UserError: settings do not apply to a multi-label task, or a label has no text for queries."""
    if settings.cross_task_fraction:
        raise UserError(f"episode.cross_task_fraction draws classes of tasks with one label per text, and task '{task.name}' has several; set it to 0")
    if settings.support_distribution != "balanced":
        raise UserError(
            f"episode.support_distribution={settings.support_distribution} is for tasks with one label per text, and task '{task.name}' has several; "
            "set it to balanced"
        )
    only_queries = task.query_pool & ~task.support_pool
    for label, name in enumerate(task.label_names):
        if not np.array_equal(task.support_pool, task.query_pool) and not (task.has_label(label) & only_queries).any():
            raise UserError(f"task '{task.name}' has no text with the label {name!r} that is for queries only; add one to its query files")


def _too_few(task: Task, label: int, rows: int, shots: int, use: str = "") -> str:
    found = f"task '{task.name}' has {rows} rows of class {task.label_names[label]!r}{use}"
    return f"{found}; {shots} shots and a query need more: lower the shots, or add rows"
