"""Near-duplicates: texts with the same words but other punctuation or symbols. All are kept, and a warning shows examples."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import numpy as np

from metatrain.tasks.task import Task
from metatrain.tasks.texts import beginning, readable

_SAME_WORDS = "with other punctuation or symbols"
_EXAMPLES = 3  # number of pairs in a warning
_BEFORE = 20  # number of characters shown before the first difference of a pair
_MOST_TASKS = 5  # maximum number of tasks with their own warning


def near_duplicates(tasks: Sequence[Task]) -> list[str]:
    """Return a warning for each task with near-duplicates, or one warning for all if there are many such tasks."""
    found = {task.name: pairs for task in tasks if len(pairs := list(_pairs(task)))}
    groups = {f"task '{name}'": pairs for name, pairs in found.items()}
    if len(found) > _MOST_TASKS:
        groups = {f"{len(found)} tasks": [pair for pairs in found.values() for pair in pairs]}
    return [_warning(where, pairs) for where, pairs in groups.items()]


def _pairs(task: Task) -> Iterator[tuple[bool, str]]:
    """Yield (whether their labels differ, both in readable form) for each pair of rows with the same words."""
    if len(np.unique(task.near_keys)) == len(task.texts):  # the usual case; a plain sort is faster than one that also returns positions
        return
    _, first, same = np.unique(task.near_keys, return_index=True, return_inverse=True)
    for row in np.flatnonzero(first[same] != np.arange(len(task.texts))):
        one = first[same[row]]
        yield bool(task.labels[one] != task.labels[row]), _pair(task, int(one), task, int(row))


def _warning(where: str, pairs: list[tuple[bool, str]]) -> str:
    differing = sum(differ for differ, _ in pairs)
    examples = [pair for _, pair in sorted(pairs, key=lambda pair: not pair[0])[:_EXAMPLES]]
    labels = f", {differing} of them with another label" if differing else ""
    return f"warning: {where}: {len(pairs)} texts have the words of another text, {_SAME_WORDS}{labels}; all are kept: {'; '.join(examples)}"


def near_shared(what: str, tasks: Sequence[Task], other: str, others: Sequence[Task]) -> list[str]:
    """Return a warning if texts of `tasks` are near-duplicates, but not duplicates, of texts of `others`.

    what, other: names of the texts of `tasks` and of `others` in the warning.
    """
    if not tasks or not others:
        return []
    theirs, first = np.unique(np.concatenate([task.near_keys for task in others]), return_index=True)
    same = np.concatenate([task.keys for task in others])
    near, keys = (np.concatenate(hashes) for hashes in zip(*((task.near_keys, task.keys) for task in tasks)))  # vectorised over tasks, which may be many
    found = np.flatnonzero(np.isin(near, theirs) & ~np.isin(keys, same))
    examples = [_pair(*_row(tasks, place), *_row(others, first[np.searchsorted(theirs, near[place])])) for place in found[:_EXAMPLES]]
    return [f"warning: {len(found)} {what} have the words of {other}, {_SAME_WORDS}; they are kept: {'; '.join(examples)}"] if len(found) else []


def _row(tasks: Sequence[Task], place: int) -> tuple[Task, int]:
    """Return the task, and the row in it, of a row of the concatenated tasks."""
    ends = np.cumsum([len(task.texts) for task in tasks])
    number = int(np.searchsorted(ends, place, side="right"))
    return tasks[number], int(place - ends[number] + len(tasks[number].texts))


def _pair(task: Task, row: int, other: Task, other_row: int) -> str:
    """Return two rows in readable form, from shortly before their first difference."""
    texts = [readable(task.texts[row]), readable(other.texts[other_row])]
    begin = max(0, len(os.path.commonprefix(texts)) - _BEFORE)
    return " and ".join(
        repr(("..." if begin else "") + beginning(text[begin:]))
        + (f" ({of.labels_of(place)})" if of.targets is None else "")
        + (f" in '{of.name}'" if of is not task or other is not task else "")
        for text, of, place in zip(texts, (task, other), (row, other_row))
    )
