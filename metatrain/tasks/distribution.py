"""The task distribution: which rows of which sources are the tasks of which split."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from metatrain.errors import UserError
from metatrain.tasks.audit import check_overlap, check_policy
from metatrain.tasks.config import SplitConfig, TasksConfig
from metatrain.tasks.files import Columns, Table, read_file, read_texts, stem
from metatrain.tasks.masked_words import check_masked_words, masked_words
from metatrain.tasks.self_supervised import clusters, same_text, sentence_order
from metatrain.tasks.sources import make_source
from metatrain.tasks.task import Task, TaskDistribution, row_key, text_key

SPLITS = ("meta_test", "meta_validation", "meta_train")  # in the order in which they claim tasks
_MOST_NOTES = 5  # tasks with repeated texts that are named one by one


def load_tasks(config: TasksConfig, seed: int, splits: Sequence[str] = SPLITS) -> TaskDistribution:
    """Load the tasks of the wanted splits; the others stay empty.

    Raises:
        UserError: nothing is there, a file or row is bad, a pattern matches nothing, or splits share texts.
    """
    check_policy(config.overlap)
    check_masked_words(config.masked_words)
    _check_shares(config)
    if not 0 <= config.holdout < 0.5:
        raise UserError(f"tasks.holdout={config.holdout} must be at least 0 and below 0.5")
    if not -10 <= config.size_power <= 10:
        raise UserError(f"tasks.size_power={config.size_power} must be between -10 and 10; 0 draws all tasks as often, 1 in proportion to their size")
    source = make_source(config, config.sources)
    tables = {file: source.read(file) for file in _wanted_files(config, source.files(), splits)}
    notes: list[str] = []
    repeats: dict[str, tuple[int, int]] = {}
    chosen = {name: getattr(config, name) for name in SPLITS}
    if not chosen["meta_validation"].tasks and not chosen["meta_test"].tasks and len(splits) > 1:
        chosen = _hold_out(config, tables, seed, notes)
    claimed: set[tuple[str, str]] = set()
    built: dict[str, tuple[Task, ...]] = {}
    for name in SPLITS:
        rows = _claim(name, chosen[name], tables, claimed)
        if config.overlap == "keep":
            claimed.clear()
        if name in splits:
            built[name] = tuple(_task(task, parts, repeats) for task, parts in sorted(rows.items()))
    notes += _repeat_notes(repeats)
    distribution = check_overlap(TaskDistribution(config.name, **built), config.overlap, notes)
    return _with_weights(distribution, config, seed) if "meta_train" in splits else distribution


# Self-supervised tasks by their node of the settings: how they are made, and what for short they are made of.
_GENERATORS: dict[str, tuple[Callable[[Sequence[str], Any, int], list[Task]], str]] = {
    "masked_words": (lambda texts, config, seed: [masked_words(texts, config, seed)], "words"),
    "clusters": (clusters, "clusters"),
    "sentence_order": (sentence_order, "orders"),
    "same_text": (same_text, "answers"),
}


def _check_shares(config: TasksConfig) -> None:
    shares = {name: getattr(config, name).share for name in _GENERATORS}
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise UserError(f"tasks.{name}.share={share} must be between 0 and 1")
    if sum(shares.values()) > 1:
        raise UserError(f"the shares of self-supervised episodes add up to {sum(shares.values()):g}: {', '.join(name for name in shares if shares[name])}")


def _with_weights(tasks: TaskDistribution, config: TasksConfig, seed: int) -> TaskDistribution:
    """The distribution with its self-supervised tasks, if it has any, and how often each meta-train task is drawn."""
    shares = {name: getattr(config, name).share for name in _GENERATORS if getattr(config, name).share}
    if not shares and not config.size_power:
        return tasks
    sizes = np.array([len(task.texts) for task in tasks.meta_train], dtype=np.float64) ** config.size_power
    weights = ((1 - sum(shares.values())) * sizes / sizes.sum()).tolist()
    # Labelled tasks that are never drawn stay: what was held out was held out from their texts.
    training, notes = list(tasks.meta_train), list(tasks.notes)
    for name, share in shares.items():
        make, classes = _GENERATORS[name]
        made = make(_raw_texts(tasks, getattr(config, name).path, config.text), getattr(config, name), seed)
        training += made
        weights += [share / len(made)] * len(made)
        number, rows = (sum(len(part) for part in parts) for parts in zip(*((task.label_names, task.texts) for task in made)))
        notes.append(f"{name.replace('_', ' ')}: {number} {classes} in {rows:,} texts, {share:.0%} of the training episodes")
    return replace(tasks, meta_train=tuple(training), weights=tuple(weights), notes=tuple(notes))


def _raw_texts(tasks: TaskDistribution, path: str | None, column: str) -> list[str]:
    """The texts of the meta-train tasks, or of a file without those that are held out."""
    if path is None:
        return [text for task in tasks.meta_train for text in task.texts]
    held_out = set().union(*(map(text_key, task.texts) for task in (*tasks.meta_validation, *tasks.meta_test)))
    return [text for text in read_texts(Path(path).expanduser(), column) if text_key(text) not in held_out]


def _wanted_files(config: TasksConfig, available: Sequence[str], splits: Sequence[str]) -> list[str]:
    wanted = set()
    for name in splits:
        split: SplitConfig = getattr(config, name)
        for pattern in (*split.files, *split.support_files, *split.only):
            matching = [file for file in available if fnmatchcase(file, pattern)]
            if not matching:
                raise UserError(f"tasks.{name}: no file {pattern!r} below {config.path}; there are {_few(available)}")
            wanted.update(matching)
        if not split.files and split.tasks:
            wanted.update(available)
    return sorted(wanted)


def _claim(split: str, config: SplitConfig, tables: dict[str, Table], claimed: set[tuple[str, str]]) -> dict[str, list]:
    """Rows of each task of a split; a task of a file belongs to the first split that claims it."""
    rows: dict[str, list[tuple[Table, int, bool, bool]]] = defaultdict(list)
    taken = set()
    for file, table in tables.items():
        is_support = _matches(file, config.support_files)
        is_query = not config.files or _matches(file, config.files)
        if config.support_files and not config.files:
            is_query = not is_support
        if not is_support and not is_query:
            continue
        patterns = next((tasks for pattern, tasks in config.only.items() if fnmatchcase(file, pattern)), config.tasks)
        for row, task in enumerate(table.tasks):
            if not _matches(task, patterns) or (file, task) in claimed:
                continue
            taken.add((file, task))
            rows[task].append((table, row, is_support or not config.support_files, is_query))
    for pattern in config.tasks:
        if tables and pattern != "*" and not any(fnmatchcase(task, pattern) for table in tables.values() for task in set(table.tasks)):
            names = sorted({task for table in tables.values() for task in table.tasks})
            raise UserError(f"tasks.{split}.tasks: no task {pattern!r}; there are {_few(names)}")
    claimed |= taken
    return rows


def _task(name: str, rows: list[tuple[Table, int, bool, bool]], repeats: dict[str, tuple[int, int]]) -> Task:
    """A task without repeated texts; how many there were, and how many with another label, goes to `repeats`.

    Raises:
        UserError: some rows have labels and others target texts.
    """
    scores = {table.score for table, *_ in rows}
    if len(scores) > 1:
        sources = ", ".join(sorted({table.source for table, *_ in rows}))
        raise UserError(f"task '{name}' is in {sources}, which have different kinds of answers; give one of them another name with tasks.sources")
    (score,) = scores
    first: dict[bytes, int] = {}
    repeated = contradictory = 0
    for number, (table, row, *_) in enumerate(rows):
        key = row_key(table.texts[row], table.labels[row] if score else None)
        same, there = rows[first.setdefault(key, number)][:2]
        repeated += first[key] != number
        contradictory += same.labels[there] != table.labels[row]
    if repeated:
        repeats[name] = (repeated, contradictory)
    rows = [rows[number] for number in first.values()]
    texts, answers = (tuple(getattr(table, column)[row] for table, row, *_ in rows) for column in ("texts", "labels"))
    names = (name,) if score else tuple(sorted(set(answers)))
    labels = np.array([0 if score else names.index(answer) for answer in answers])
    support, query = (np.array([row[part] for row in rows], dtype=bool) for part in (2, 3))
    return Task(name, texts, labels, names, support, query, targets=answers if score else None, score=score)


def task_of_file(path: Path, columns: Columns) -> Task:
    """All rows of one file as a task.

    Raises:
        UserError: the file cannot be read; the message says `file:line`.
    """
    table = read_file(path, columns)
    return _task(stem(path), [(table, row, True, True) for row in range(len(table.texts))], {})


def _repeat_notes(repeats: dict[str, tuple[int, int]]) -> list[str]:
    if len(repeats) > _MOST_NOTES:
        total, contradictory = (sum(counts) for counts in zip(*repeats.values()))
        repeats = {f"{len(repeats)} tasks": (total, contradictory)}
    else:
        repeats = {f"task '{name}'": counts for name, counts in repeats.items()}
    return [f"{what}: {count} repeated texts left out" + (f", {other} with another label" if other else "") for what, (count, other) in repeats.items()]


def _hold_out(config: TasksConfig, tables: dict[str, Table], seed: int, notes: list[str]) -> dict[str, SplitConfig]:
    names = sorted({task for table in tables.values() for task in table.tasks})
    each = max(1, round(config.holdout * len(names))) if config.holdout else 0
    if not each or len(names) < 2 * each + 1:
        return {name: getattr(config, name) for name in SPLITS}
    order = np.random.default_rng([seed, 7]).permutation(len(names))
    test, validation = ([names[i] for i in order[a : a + each]] for a in (0, each))
    notes.append(f"held out by chance (tasks.holdout={config.holdout}): meta-validation {_few(validation)}; meta-test {_few(test)}")
    return {
        "meta_test": SplitConfig(config.meta_test.files, test, config.meta_test.only, config.meta_test.support_files),
        "meta_validation": SplitConfig(config.meta_validation.files, validation, config.meta_validation.only),
        "meta_train": config.meta_train,
    }


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _few(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(list(names)[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
