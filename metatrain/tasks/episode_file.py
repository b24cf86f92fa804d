"""Episode files: episodes as JSON lines, so that other programs run on the same ones, or evaluation runs on theirs.

A line is an episode:

    {"split": "meta_test", "task": "films", "index": 0, "shots": 1, "seed": 2357136044, "label_names": ["positive", "negative"],
     "support": {"texts": ["A joy.", "Dull."], "labels": [0, 1]}, "query": {"texts": ["I laughed."], "labels": [0]}}

`labels` are positions in `label_names`; with several labels per text (multi-label), each is a list of positions, [0, 2]. Text pairs also have
`pairs`, the second texts. Text-to-text episodes have `targets` instead of `labels`, no `label_names`, and the name of their `score`. `shots` is the
number of support examples per class that scores are reported under; the numbers in the support set may differ. `seed` is that of what adaptation
draws, such as the folds of a cross-validation. `split`, `index` and `seed` may be left out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metatrain.errors import UserError
from metatrain.paths import local_path
from metatrain.tasks.episodes import Episode
from metatrain.tasks.label_sets import as_matrix, label_set, written
from metatrain.tasks.task import Task, numbered
from metatrain.tasks.texts import MASK, PAIR, has_lone_surrogate, is_image, plain

_SETS = ("support", "query")


def line_of(episode: Episode, split: str, index: int) -> str:
    """Return an episode as a line of an episode file.

    Raises:
        UserError: it has images.
    """
    task = episode.task
    if task.of_images:
        raise UserError(f"task '{task.name}' has images; an episode file holds texts only")
    sets: dict[str, Any] = {}
    for name, rows, labels in zip(_SETS, (episode.support, episode.query), (episode.support_labels, episode.query_labels)):
        texts = [task.texts[row].replace(MASK, "[MASK]") for row in rows]
        sets[name] = {"texts": [text.partition(PAIR)[0] for text in texts]}
        if any(PAIR in text for text in texts):
            sets[name]["pairs"] = [text.partition(PAIR)[2] for text in texts]
        if task.targets is None:
            sets[name]["labels"] = labels.tolist() if labels.ndim == 1 else [np.flatnonzero(row).tolist() for row in labels]
        else:
            sets[name]["targets"] = [task.targets[row] for row in rows]
    labels = episode.support_labels
    shots = max(1, round(len(labels) / episode.way)) if labels.ndim == 1 else int(labels.sum(0).min())
    facts = {"split": split, "task": task.name, "index": index, "shots": shots, "seed": episode.seed}
    of_task = {"score": task.score} if task.targets is not None else {"label_names": [task.label_names[label] for label in episode.classes]}
    return json.dumps({**facts, **of_task, **sets}, ensure_ascii=False) + "\n"


@dataclass(frozen=True)
class EpisodeFile:
    """The episodes of a file, by number of shots and task; every task has as many at each number of shots."""

    name: str
    sha256: str
    tasks: tuple[Task, ...]
    episodes: Mapping[int, Mapping[str, Sequence[Episode]]]

    @property
    def shots(self) -> list[int]:
        """Return the numbers of shots, ascending."""
        return sorted(self.episodes)

    @property
    def per_task(self) -> int:
        """Return the number of episodes of each task at each number of shots."""
        return len(next(iter(self.episodes[self.shots[0]].values())))

    @property
    def ways(self) -> set[int]:
        """Return the numbers of classes of the episodes."""
        return {episode.way for of_tasks in self.episodes.values() for episodes in of_tasks.values() for episode in episodes}


def read_episodes(name: str | None) -> EpisodeFile | None:
    """Read the file of the setting episode.file; None: there is none.

    Raises:
        UserError: it cannot be read, a line is no episode (the message says `file:line`), or tasks differ in their numbers of episodes.
    """
    if name is None:
        return None
    path, setting = local_path(name), "episode.file"
    try:
        content = path.read_bytes()
        lines = content.decode("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{setting}={path}: {getattr(error, 'strerror', None) or 'is not UTF-8'}; give a file of episodes (JSON lines)") from error
    tasks: dict[str, _Rows] = {}
    found: dict[int, dict[str, list[_Line]]] = {}
    for number, line in enumerate(lines, start=1):
        if line.strip():
            read = _read_line(line, f"{path}:{number}")
            rows = tasks.setdefault(read.task, _Rows(read.score, read.is_multi_label))
            if rows.score != read.score:
                raise UserError(f"{path}:{number}: the episodes of task '{read.task}' differ in `score`: {rows.score} and {read.score}")
            if rows.is_multi_label != read.is_multi_label:
                others = "one label" if read.is_multi_label else "a list of labels"
                raise UserError(f"{path}:{number}: other episodes of task '{read.task}' have {others} per text")
            rows.add(read)
            found.setdefault(read.shots, {}).setdefault(read.task, []).append(read)
    if not found:
        raise UserError(f"{setting}={path}: there are no episodes in it")
    _check_numbers(found, list(tasks), path)
    built = {name: rows.task(name) for name, rows in tasks.items()}
    episodes = {
        shots: {name: [tasks[name].episode(built[name], line) for line in of_tasks[name]] for name in built} for shots, of_tasks in sorted(found.items())
    }
    return EpisodeFile(str(path), hashlib.sha256(content).hexdigest(), tuple(built.values()), episodes)


def _check_numbers(found: Mapping[int, Mapping[str, Sequence[_Line]]], tasks: Sequence[str], path: Path) -> None:
    numbers = {(shots, task): len(of_tasks.get(task, ())) for shots, of_tasks in found.items() for task in tasks}
    (first, number), *others = numbers.items()
    for (shots, task), other in others:
        if other != number:
            raise UserError(
                f"{path}: task '{first[1]}' has {number} episodes with shots={first[0]}, task '{task}' {other} with shots={shots}; "
                "give every task the same number of episodes at each number of shots"
            )


@dataclass(frozen=True)
class _Line:
    """The content of a line."""

    task: str
    shots: int
    seed: int
    label_names: tuple[str, ...]
    score: str | None
    texts: tuple[list[str], list[str]]  # of the support set and of the queries
    answers: tuple[list[Any], list[Any]]  # labels as positions in label_names, or lists of them, or target texts
    is_multi_label: bool


class _Rows:
    """The distinct rows of a task's episodes: a text with its label name, its label names as `label_sets.written` writes them, or its target."""

    def __init__(self, score: str | None, is_multi_label: bool):
        self.score, self.is_multi_label = score, is_multi_label
        self._places: dict[tuple[str, str], int] = {}
        self._in_set: tuple[set[int], set[int]] = (set(), set())

    def add(self, line: _Line) -> None:
        for each, in_set in zip(self._keys(line), self._in_set):
            in_set.update(self._places.setdefault(key, len(self._places)) for key in each)

    def _keys(self, line: _Line) -> Iterator[list[tuple[str, str]]]:
        for texts, answers in zip(line.texts, line.answers):
            if self.is_multi_label:
                yield list(zip(texts, [written(line.label_names[label] for label in labels) for labels in answers]))
            else:
                yield list(zip(texts, answers if self.score else [line.label_names[label] for label in answers]))

    def task(self, name: str) -> Task:
        """Return the task of these rows."""
        texts, answers = zip(*self._places)
        support, query = (np.isin(np.arange(len(texts)), sorted(rows)) for rows in self._in_set)
        if self.is_multi_label:
            sets = list(map(label_set, answers))
            names = tuple(sorted(set[str]().union(*sets)))
            label_sets = as_matrix(sets, names)
            return Task(name, texts, numbered(label_sets), names, support, query, label_sets=label_sets)
        names = (name,) if self.score else tuple(sorted(set(answers)))
        labels = np.zeros(len(texts), dtype=np.int64) if self.score else np.array([names.index(answer) for answer in answers])
        return Task(name, texts, labels, names, support, query, targets=answers if self.score else None, score=self.score)

    def episode(self, task: Task, line: _Line) -> Episode:
        """Return the episode of a line."""
        support, query = (np.array([self._places[key] for key in each]) for each in self._keys(line))
        if self.score:
            zeros = [np.zeros(len(rows), dtype=np.int64) for rows in (support, query)]
            return Episode(task, (0,), support, zeros[0], query, zeros[1], line.seed)
        classes = tuple(task.label_names.index(name) for name in line.label_names)
        if task.label_sets is not None:
            of_support, of_query = (task.label_sets[rows][:, classes].astype(np.int8) for rows in (support, query))
            return Episode(task, classes, support, of_support, query, of_query, line.seed)
        labels = [np.array(each, dtype=np.int64) for each in line.answers]
        return Episode(task, classes, support, labels[0], query, labels[1], line.seed)


def _read_line(line: str, where: str) -> _Line:
    """Raises: UserError: the line is no episode."""

    def check(holds: bool, problem: str) -> None:
        if not holds:
            raise UserError(f"{where}: {problem}; metatrain tasks export=FILE writes such a file")

    try:
        content = json.loads(line)
    except ValueError as error:
        raise UserError(f"{where}: is not JSON: {error}") from error
    check(isinstance(content, dict) and isinstance(content.get("task"), str), "an episode is an object with `task`, `shots`, `support` and `query`")
    shots, seed, score = content.get("shots"), content.get("seed", 0), content.get("score")
    check(type(shots) is int and shots >= 1, "`shots` must be a whole number, 1 or more")
    check(type(seed) is int and 0 <= seed < 2**32, f"`seed` must be a whole number from 0 to {2**32 - 1}")
    check(score is None or isinstance(score, str), "`score` must be the name of a score")
    names = content.get("label_names", [])
    check(_are_texts(names) and len(set(names)) == len(names), "`label_names` must be a list of different texts")
    check(bool(score) != (len(names) > 1), "`label_names` must have two or more names; text-to-text episodes have none, and `score` and `targets`")
    sets = [_read_set(content.get(name), f"`{name}`", score, len(names), check) for name in _SETS]
    (support, labels), (query, answers) = sets
    kinds = {isinstance(each, list) for each in (*labels, *answers)}
    check(len(kinds) == 1, "`labels` must all be positions in `label_names`, or all lists of them")
    is_multi_label = kinds == {True}
    there = {label for each in labels for label in each} if is_multi_label else set(labels)
    check(not set(support) & set(query), "the support set and the queries share a text")
    check(bool(score) or len(there) == len(names), "the support set must have an example of every label name")
    return _Line(content["task"], shots, seed, tuple(names), score, (support, query), (labels, answers), is_multi_label)


def _read_set(content: Any, name: str, score: str | None, way: int, check: Any) -> tuple[list[str], list[Any]]:
    """Return the texts of a support or query set, pairs in one, and their labels or targets."""
    check(isinstance(content, dict), f"{name} must be an object with `texts` and `{'targets' if score else 'labels'}`")
    texts, answers = content.get("texts"), content.get("targets" if score else "labels")
    check(_are_texts(texts) and len(texts) > 0 and all(map(str.strip, texts)), f"{name}.texts must be a list of one or more texts")
    check(not any(map(is_image, texts)), f"{name}.texts has an image; an episode file holds texts only")
    if score:
        check(_are_texts(answers), f"{name}.targets must be a list of texts")
    else:
        flat = [label for each in answers for label in (each if isinstance(each, list) else [each])] if isinstance(answers, list) else [None]
        check(all(type(each) is int and 0 <= each < way for each in flat), f"{name}.labels must be positions in `label_names`")
        check(all(len(set(each)) == len(each) for each in answers if isinstance(each, list)), f"{name}.labels has a label twice")
    pairs = content.get("pairs")
    check(pairs is None or _are_texts(pairs), f"{name}.pairs must be a list of texts")
    check(all(len(each) == len(texts) for each in (answers, pairs or texts)), f"the lists of {name} must have the same length")
    read = [plain(text) for text in texts]
    return read if pairs is None else [f"{one}{PAIR}{plain(other)}" for one, other in zip(read, pairs)], answers


def _are_texts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) and not has_lone_surrogate(value) for value in values)
