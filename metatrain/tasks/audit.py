"""Leakage checks: texts shared by training and test tasks, and texts that contain the name of their label."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from metatrain.errors import UserError
from metatrain.tasks.episode_file import EpisodeFile
from metatrain.tasks.episodes import SPLITS
from metatrain.tasks.files import Table
from metatrain.tasks.keys import word_form
from metatrain.tasks.near_duplicates import near_shared
from metatrain.tasks.task import Task, TaskDistribution, plain_name
from metatrain.tasks.texts import beginning

POLICIES = ("refuse", "drop", "drop_queries", "keep")
_NEAR = 0.8  # cosine similarity of sets of word trigrams above which texts count as near-duplicates
_SHOWN = 3  # maximum number of texts in a warning
_ROWS = 1000  # number of texts compared with all others at a time


def check_policy(policy: str) -> None:
    """Raises: UserError: the policy is unknown."""
    if policy not in POLICIES:
        raise UserError(f"tasks.overlap={policy} is unknown; choose one of {', '.join(POLICIES)}")


def check_overlap(tasks: TaskDistribution, policy: str, notes: list[str]) -> TaskDistribution:
    """Refuse texts shared between splits, or drop them from the earlier split, and record what was found.

    With `drop_queries` the held-out tasks' support rows may stay, since scores are computed only on queries.

    Raises:
        UserError: texts are shared and `policy` is `refuse`.
    """
    if policy == "keep":
        return replace(tasks, notes=(*notes, "tasks.overlap=keep: splits may share texts, so the scores do not measure generalisation"))
    protected = np.zeros(0, dtype=np.uint64)
    held_out: list[Task] = []
    kept = {}
    for name in ("meta_test", "meta_validation", "meta_train"):
        split = tasks.split(name)
        sharing = _sharing(split, protected)
        shared = sum(sharing.values())
        if shared and policy == "refuse":
            task = next(task for task in split if sharing[task.name])
            raise UserError(
                f"{shared} texts of tasks.{name} (task '{task.name}' among them) are also in a held-out split; set tasks.overlap=drop to remove them from it"
            )
        if shared:
            notes.append(f"{shared} texts removed from {name}: they are also in a held-out split")
            split = tuple(task.without(protected) if sharing[task.name] else task for task in split)
        kept[name] = split
        notes += near_shared(f"texts of {name}", split, "held-out texts", held_out)
        if name != "meta_train":
            held_out += [task.subset(task.query_pool) if policy == "drop_queries" else task for task in split]
            protected = np.unique(np.concatenate([protected, *(task.keys for task in held_out)]))
    splits: dict[str, Any] = kept
    return replace(tasks, **splits, notes=tuple(notes))


def _sharing(tasks: Sequence[Task], keys: np.ndarray) -> dict[str, int]:
    """Return the number of rows of each task whose keys are among these; vectorised over tasks, since there may be thousands of a few rows each."""
    if not tasks or not len(keys):
        return {}
    shared = np.isin(np.concatenate([task.keys for task in tasks]), keys)
    of_task = np.repeat(np.arange(len(tasks)), [len(task.texts) for task in tasks])
    return {task.name: int(number) for task, number in zip(tasks, np.bincount(of_task[shared], minlength=len(tasks)))}


def without_seen(tasks: Sequence[Task], seen: Sequence[Task], policy: str = "refuse") -> tuple[tuple[Task, ...], list[str]]:
    """Return the test tasks without texts that the model was trained on, and a note if there were any.

    With the policy `drop_queries`, rows that are sampled into support sets only are not removed.

    Raises:
        UserError: no support text or no query of a class is left.
    """
    known = np.unique(np.concatenate([task.keys for task in seen])) if seen else np.zeros(0, dtype=np.uint64)
    unfit = [np.isin(task.keys, known) & (task.query_pool if policy == "drop_queries" else True) for task in tasks]
    shared = sum(int(rows.sum()) for rows in unfit)
    near = near_shared("test texts", tasks, "texts that the model was trained on", seen)
    if not shared:
        return tuple(tasks), near
    kept = tuple(task.subset(~rows) for task, rows in zip(tasks, unfit))
    for before, after in zip(tasks, kept):
        for use in ("support_rows", "query_rows"):
            gone = [name for name, had, has in zip(before.label_names, getattr(before, use), getattr(after, use)) if len(had) and not len(has)]
            if gone:
                raise UserError(
                    f"task '{before.name}': the run's own training or validation tasks have every {use.removesuffix('_rows')} text of '{gone[0]}', so a "
                    "score would not measure generalisation; choose other tasks with tasks.meta_test.tasks"
                )
    return kept, [f"{shared} texts removed from the test tasks: the model was trained on them", *near]


def check_unseen(file: EpisodeFile, seen: Sequence[Task], policy: str) -> tuple[str, ...]:
    """Check that a model was not trained on the texts of an episode file; return a note if that is allowed (`tasks.overlap=keep`).

    With the policy `drop_queries`, only queries must be new.

    Raises:
        UserError: it was trained on some.
    """
    known = np.unique(np.concatenate([task.keys for task in seen])) if seen else np.zeros(0, dtype=np.uint64)
    sharing = {task.name: int((np.isin(task.keys, known) & (task.query_pool if policy == "drop_queries" else True)).sum()) for task in file.tasks}
    shared = sum(sharing.values())
    found = f"episode.file={file.name}: {shared} texts (task '{max(sharing, key=lambda name: sharing[name])}' among them)"
    if shared and policy != "keep":
        raise UserError(f"{found} are in the meta-training or meta-validation tasks, so scores would not measure generalisation; remove these episodes")
    return (f"{found} are in the meta-training or meta-validation tasks (tasks.overlap=keep)",) if shared else ()


def seen_rows(training: Table, test: Table) -> tuple[np.ndarray, list[str]]:
    """Return which texts of a test file also occur in training, boolean, [rows], and warnings about these and about near-duplicates.

    A text counts as seen even if training has it with another label or target.
    """
    train_task, test_task = _as_task(training), _as_task(test)
    seen = np.isin(test_task.keys, train_task.keys)
    warnings = near_shared("test texts", [test_task], "training examples", [train_task])
    if seen.all():
        warnings.insert(
            0,
            f"warning: {test.source}: each of the {len(seen)} test texts is also a training example, so the scores do not measure "
            "generalisation; set data.test to other examples",
        )
    elif seen.any():
        shown = "; ".join(repr(beginning(test_task.texts[row])) for row in np.flatnonzero(seen)[:_SHOWN])
        warnings.insert(0, f"warning: {int(seen.sum())} of {len(seen)} test texts are also training examples, and are excluded from the test: {shown}")
    return seen, warnings


def _as_task(table: Table) -> Task:
    """Return a file as one task; texts are compared regardless of their targets."""
    names, labels = np.unique([beginning(label) for label in table.labels], return_inverse=True)
    everywhere = np.ones(len(table.texts), dtype=bool)
    return Task(table.source, table.texts, labels, tuple(names.tolist()), everywhere, everywhere)


@dataclass(frozen=True)
class NearDuplicate:
    """A held-out text and its near-duplicate in another split."""

    split: str
    task: str
    text: str
    other_split: str
    other_task: str
    other_text: str
    similarity: float  # cosine similarity of their sets of word trigrams


def near_duplicates(
    tasks: TaskDistribution, begin: Callable[[int], None] = lambda total: None, advance: Callable[[int], None] = lambda texts: None
) -> list[NearDuplicate]:
    """Return the held-out queries with a near-duplicate in an earlier split, each with its most similar text, the most similar pair first.

    Texts of fewer than three words have no near-duplicates; `check_overlap` finds equal texts. `begin` is called with the total number of
    comparisons of a text with a split, `advance` with the number just made.
    """
    from sklearn.feature_extraction.text import HashingVectorizer  # costs half a second

    # With 2^26 features, collisions among a few million trigrams are rare.
    trigrams = HashingVectorizer(
        ngram_range=(3, 3), preprocessor=word_form, tokenizer=str.split, token_pattern=None, binary=True, alternate_sign=False, n_features=1 << 26
    )
    parts: list[tuple[Any, list[tuple[str, str, str]], np.ndarray]] = []  # per split: trigrams, origins of its rows, and which rows are queries
    for split in SPLITS:
        rows = [(task, row) for task in tasks.split(split) if task.way is None and not task.of_images for row in range(len(task.texts))]
        if rows:
            here = [(split, task.name, task.texts[row]) for task, row in rows]
            parts.append((trigrams.transform([text for _, _, text in here]), here, np.flatnonzero([task.query_pool[row] for task, row in rows])))
    begin(sum(number * len(queries) for number, (_, _, queries) in enumerate(parts)))
    found: list[NearDuplicate] = []
    for number, (matrix, here, queries) in enumerate(parts):
        for other, places, _ in parts[:number]:
            for first in range(0, len(queries), _ROWS):
                part = queries[first : first + _ROWS]
                similarity = (matrix[part] @ other.T).tocsr()
                for row in np.flatnonzero(similarity.max(axis=1).toarray().ravel() > _NEAR):
                    column = int(similarity[row].argmax())
                    found.append(_pair(here[part[row]], places[column], float(similarity[row, column])))
                advance(len(part))
    return sorted(found, key=lambda pair: -pair.similarity)


def _pair(here: tuple[str, str, str], there: tuple[str, str, str], similarity: float) -> NearDuplicate:
    (split, task, text), (other_split, other_task, other_text) = here, there
    return NearDuplicate(split, task, text, other_split, other_task, other_text, similarity)


def named_labels(task: Task) -> tuple[float, float]:
    """Return the fraction of texts that contain their own label name, and the mean fraction that contain the name of another label.

    Whole words are compared, ignoring case. A large difference means that texts give their labels away.
    """
    patterns = list(_patterns(task.label_names))
    contains = np.array([[bool(pattern.search(text)) for pattern in patterns] for text in task.texts])  # [rows, labels]
    own = contains[np.arange(len(task.texts)), task.labels]
    others = (contains.sum(1) - own) / max(1, len(task.label_names) - 1)
    return float(own.mean()), float(others.mean())


def _patterns(names: Sequence[str]) -> Iterator[re.Pattern[str]]:
    for name in names:
        words = plain_name(name).split()
        yield re.compile(r"(?<!\w)" + r"\W+".join(map(re.escape, words)) + r"(?!\w)" if words else r"(?!)", re.IGNORECASE)
