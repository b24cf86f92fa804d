"""Assignment of rows of files to splits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from metatrain.errors import UserError
from metatrain.paths import local_path
from metatrain.tasks.config import SplitConfig, TasksConfig
from metatrain.tasks.episodes import SPLITS
from metatrain.tasks.files import Table
from metatrain.tasks.labels import clean_label
from metatrain.tasks.names import ExactName, named, named_by_any
from metatrain.tasks.rows import parse_json

CLAIM_ORDER = SPLITS[::-1]  # order of precedence: a row that several splits select belongs to the first


@dataclass(frozen=True)
class Part:
    """Rows of one file that belong to one task of a split."""

    table: Table
    rows: np.ndarray
    support: bool  # whether they may be sampled into support sets
    query: bool  # whether they may be sampled into query sets


def claim(
    split: str,
    config: SplitConfig,
    tables: dict[str, Table],
    rows_of: dict[str, dict[str, np.ndarray]],
    claimed: dict[tuple[str, str], np.ndarray],
    claim_support: bool,
    check: bool,
) -> dict[str, list[Part]]:
    """Return the parts of each task of a split, without rows that earlier splits have claimed.

    claimed: row numbers that earlier splits have claimed, by file and task; those of this split are added.
    claim_support: whether rows that are only sampled into support sets are claimed too.
    check: whether a pattern that selects nothing is an error; false for a split whose files are not all in `tables`.
    """
    parts: dict[str, list[Part]] = defaultdict(list)
    taken: dict[tuple[str, str], np.ndarray] = {}
    support = named_by_any(config.support_files, tables)
    query = named_by_any(config.files, tables) if config.files else set(tables) - support
    free = {place: rows_of[place[0]][place[1]] for place in _chosen_tasks(split, config, support | query, rows_of, check)}
    if config.labels and (several := [tables[file].source for file, _ in free if tables[file].has_label_sets]):
        raise UserError(f"tasks.{split}.labels: {several[0]} has several labels per text, and rows are not chosen by one of them; leave the setting out")
    labels = {tables[file].labels[row] for (file, _), rows in free.items() for row in rows} if config.labels else set[str]()
    chosen_labels, found = named_by_any(config.labels, labels), set[str]()
    for (file, task), rows in free.items():
        if (file, task) in claimed:
            rows = np.setdiff1d(rows, claimed[file, task], assume_unique=True)
        if config.labels:
            of_rows = [tables[file].labels[row] for row in rows]
            found.update(of_rows)
            rows = rows[[label in chosen_labels for label in of_rows]]
        if len(rows):
            if file in query or claim_support:
                taken[file, task] = np.union1d(claimed.get((file, task), rows[:0]), rows)
            parts[task].append(Part(tables[file], rows, file in support or not config.support_files, file in query))
    for pattern in config.labels:
        if check and found and not named(pattern, labels) & found:
            raise UserError(f"tasks.{split}: no label {pattern!r} in its tasks; there are {few(sorted(found))}")
    claimed.update(taken)
    return parts


def _chosen_tasks(split: str, config: SplitConfig, files: set[str], rows_of: dict[str, dict[str, np.ndarray]], check: bool) -> Iterator[tuple[str, str]]:
    """Yield (file, task) of a split, in the order of the files and of their rows.

    Raises:
        UserError: a name or pattern selects no task, and `check` is true.
    """
    there = set[str]().union(*rows_of.values())
    for setting, patterns in {"tasks": config.tasks, **{f"only.{file}": tasks for file, tasks in config.only.items()}}.items():
        for pattern in patterns:
            if check and there and pattern != "*" and not named(pattern, there):
                raise UserError(f"tasks.{split}.{setting}: no task {pattern!r}; there are {few(sorted(there))}")
    chosen = named_by_any(config.tasks, there)
    only = [(named(pattern, rows_of.keys()), named_by_any(tasks, there)) for pattern, tasks in config.only.items()]
    for file in rows_of:
        if file in files:
            of_file = next((tasks for files_of_pattern, tasks in only if file in files_of_pattern), chosen)
            yield from ((file, task) for task in rows_of[file] if task in of_file)


def with_labels(split: SplitConfig, path: str, name: str) -> SplitConfig:
    """Return the settings of a split with the labels of `labels_from` added.

    Raises:
        UserError: there is no such file or list.
    """
    if split.labels_from is None:
        return split
    file, _, keys = split.labels_from.partition(":")
    where, asked = local_path(path) / file, f"tasks.{name}.labels_from={split.labels_from}"
    try:
        found = parse_json(where.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{asked}: {where} cannot be read as JSON: {error}") from error
    for key in keys.split(".") if keys else []:
        if not isinstance(found, dict) or key not in found:
            raise UserError(f"{asked}: {where} has nothing under {key!r}" + (f"; there are {few(list(found))}" if isinstance(found, dict) else ""))
        found = found[key]
    if not isinstance(found, list) or not all(isinstance(label, str) for label in found):
        raise UserError(f"{asked}: this is not a list of labels in {where}")
    return replace(split, labels=[*split.labels, *(ExactName(clean_label(label)) for label in found)])


def rows_of_tasks(table: Table) -> dict[str, np.ndarray]:
    """Return the row numbers of each task of a file, in file order."""
    names = {name: number for number, name in enumerate(dict.fromkeys(table.tasks))}
    numbers = np.fromiter(map(names.__getitem__, table.tasks), dtype=np.int32, count=len(table.tasks))
    order = np.argsort(numbers, kind="stable")
    return dict(zip(names, np.split(order, np.cumsum(np.bincount(numbers))[:-1])))


def hold_out(config: TasksConfig, rows_of: dict[str, dict[str, np.ndarray]], seed: int, notes: list[str]) -> dict[str, SplitConfig]:
    """Return the splits with a random fraction of the tasks held out, and add a note that lists them; unchanged if there are too few tasks."""
    names = sorted(set().union(*rows_of.values()))
    each = max(1, round(config.holdout * len(names))) if config.holdout else 0
    if not each or len(names) < 2 * each + 1:
        return {name: getattr(config, name) for name in CLAIM_ORDER}
    order = np.random.default_rng([seed, 7]).permutation(len(names))
    test, validation = (list[str](ExactName(names[i]) for i in order[a : a + each]) for a in (0, each))
    notes.append(f"held out at random (tasks.holdout={config.holdout}): meta-validation {few(validation)}; meta-test {few(test)}")
    return {
        "meta_test": replace(config.meta_test, tasks=test),
        "meta_validation": replace(config.meta_validation, tasks=validation),
        "meta_train": config.meta_train,
    }


def few(names: Sequence[str], max_shown: int = 8) -> str:
    """Return the first names, and the number of further ones, as text."""
    return ", ".join(list(names)[:max_shown]) + (f" and {len(names) - max_shown} more" if len(names) > max_shown else "")
