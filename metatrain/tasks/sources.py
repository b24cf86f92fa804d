"""Tasks from files, folders and hub data sets, as a task distribution."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import datasets
import numpy as np

from metatrain.errors import UserError
from metatrain.tasks.audit import check_overlap, check_policy
from metatrain.tasks.config import EMBEDDED, SplitConfig, TasksConfig
from metatrain.tasks.files import Columns, Table, format_of, read_file, read_texts, table_of
from metatrain.tasks.masked_words import check_masked_words, masked_words
from metatrain.tasks.reviews import corpus_path
from metatrain.tasks.task import Task, TaskDistribution, text_key

SPLITS = ("meta_test", "meta_validation", "meta_train")  # in the order in which they claim tasks
_HUB = "hub:"
_MOST_NOTES = 5  # tasks with repeated texts that are named one by one


def load_tasks(config: TasksConfig, seed: int, splits: Sequence[str] = SPLITS) -> TaskDistribution:
    """Load the tasks of the wanted splits; the others stay empty.

    Raises:
        UserError: nothing is there, a file or row is bad, a pattern matches nothing, or splits share texts.
    """
    check_policy(config.overlap)
    check_masked_words(config.masked_words)
    if not 0 <= config.holdout < 0.5:
        raise UserError(f"tasks.holdout={config.holdout} must be at least 0 and below 0.5")
    if not -10 <= config.size_power <= 10:
        raise UserError(f"tasks.size_power={config.size_power} must be between -10 and 10; 0 draws all tasks as often, 1 in proportion to their size")
    columns = Columns(config.text, config.label, config.task)
    wanted = _wanted_files(config, splits)
    tables = {name: _read(config, name, columns) for name in wanted}
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


def _with_weights(tasks: TaskDistribution, config: TasksConfig, seed: int) -> TaskDistribution:
    """The distribution with its masked words, if it has any, and how often each meta-train task is drawn."""
    share = config.masked_words.share
    if not share and not config.size_power:
        return tasks
    sizes = np.array([len(task.texts) for task in tasks.meta_train], dtype=np.float64) ** config.size_power
    weights = (1 - share) * sizes / sizes.sum()
    if not share:
        return replace(tasks, weights=tuple(weights.tolist()))
    if config.masked_words.path is None:
        texts = [text for task in tasks.meta_train for text in task.texts]
    else:
        held_out = set().union(*(task.keys() for task in (*tasks.meta_validation, *tasks.meta_test)))
        texts = [text for text in read_texts(Path(config.masked_words.path).expanduser(), config.text) if text_key(text) not in held_out]
    task = masked_words(texts, config.masked_words, seed)
    note = f"masked words: {len(task.label_names)} words in {len(task.texts):,} sentences, {share:.0%} of the training episodes"
    # Labelled tasks that are never drawn stay: what was held out was held out from their texts.
    return replace(tasks, meta_train=(*tasks.meta_train, task), weights=(*weights.tolist(), share), notes=(*tasks.notes, note))


def _available(config: TasksConfig) -> list[str]:
    """Names of the files (or hub splits) below `tasks.path`."""
    if config.path == EMBEDDED:
        return [corpus_path().name]
    if config.path.startswith(_HUB):
        return _hub_splits(config)
    path = Path(config.path).expanduser()
    if path.is_file():
        return [path.name]
    if not path.is_dir():
        raise UserError(f"tasks.path={config.path}: no such file or folder")
    found = sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file() and format_of(file))
    if not found:
        raise UserError(f"tasks.path={config.path}: no csv, tsv, jsonl or parquet file in this folder")
    return found


def _wanted_files(config: TasksConfig, splits: Sequence[str]) -> list[str]:
    available, wanted = _available(config), set()
    for name in splits:
        split: SplitConfig = getattr(config, name)
        for pattern in (*split.files, *split.support_files, *split.only):
            matching = [file for file in available if fnmatchcase(file, pattern)]
            if not matching:
                raise UserError(f"tasks.{name}: no file {pattern!r} below {config.path}; there are {_few(available)}")
            wanted.update(matching)
        if not split.files:
            wanted.update(available)
    return sorted(wanted)


def _read(config: TasksConfig, name: str, columns: Columns) -> Table:
    if config.path == EMBEDDED:
        return read_file(corpus_path(), columns)
    if config.path.startswith(_HUB):
        return _read_hub(config, name, columns)
    path = Path(config.path).expanduser()
    return read_file(path if path.is_file() else path / name, columns)


def _hub_splits(config: TasksConfig) -> list[str]:
    try:
        return datasets.get_dataset_split_names(config.path[len(_HUB) :], config.hub_config, revision=config.hub_revision)
    except (OSError, ValueError, RuntimeError) as error:
        raise _hub_error(config, error) from error


def _read_hub(config: TasksConfig, split: str, columns: Columns) -> Table:
    name = config.path[len(_HUB) :]
    try:
        data = datasets.load_dataset(name, config.hub_config, split=split, revision=config.hub_revision)
    except (OSError, ValueError, RuntimeError) as error:
        raise _hub_error(config, error) from error
    for column in columns.names():
        if column not in data.column_names:
            raise UserError(f"{config.path} [{split}]: no column {column!r}; it has {', '.join(data.column_names)}")
    table = table_of(f"{config.path} [{split}]", data, columns, name.rsplit("/", 1)[-1])
    for row, values in enumerate(zip(table.texts, table.labels, table.tasks), start=1):
        if "" in values:
            raise UserError(f"{table.source}:{row}: a text, label or task is empty")
    return table


def _hub_error(config: TasksConfig, error: Exception) -> UserError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return UserError(f"tasks.path={config.path} cannot be loaded: {reason}")


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
    """A task without repeated texts; how many there were, and how many with another label, goes to `repeats`."""
    first: dict[bytes, int] = {}
    texts, labels, support, query = [], [], [], []
    repeated = contradictory = 0
    for table, row, in_support, in_query in rows:
        key = text_key(table.texts[row])
        if key in first:
            repeated += 1
            contradictory += labels[first[key]] != table.labels[row]
            continue
        first[key] = len(texts)
        texts.append(table.texts[row])
        labels.append(table.labels[row])
        support.append(in_support)
        query.append(in_query)
    if repeated:
        repeats[name] = (repeated, contradictory)
    names = tuple(sorted(set(labels)))
    return Task(name, tuple(texts), np.array([names.index(label) for label in labels]), names, np.array(support, bool), np.array(query, bool))


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
