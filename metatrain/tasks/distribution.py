"""The task distribution: assignment of the sources' rows to the tasks of each split."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from metatrain.errors import UserError
from metatrain.paths import local_path
from metatrain.tasks.audit import check_overlap, check_policy
from metatrain.tasks.config import SAMPLE_BY, SplitConfig, TasksConfig
from metatrain.tasks.files import Columns, Table, read_texts
from metatrain.tasks.folds import chosen_by_fold
from metatrain.tasks.keys import near_key
from metatrain.tasks.label_names import check_label_text, label_texts
from metatrain.tasks.label_sets import LabelForm, as_matrix, label_set, read_task_file
from metatrain.tasks.labels import as_text, clean_label
from metatrain.tasks.masked_words import check_masked_words
from metatrain.tasks.names import named
from metatrain.tasks.near_duplicates import near_duplicates
from metatrain.tasks.rows import stem
from metatrain.tasks.self_supervised import generator_of, settings_of
from metatrain.tasks.sources import make_source
from metatrain.tasks.splits import CLAIM_ORDER, Part, claim, few, hold_out, rows_of_tasks, with_labels
from metatrain.tasks.task import Task, TaskDistribution, numbered
from metatrain.tasks.texts import Chained, sample, subset

_MOST_NOTES = 5  # maximum number of tasks with repeated texts that are reported by name


def load_tasks(config: TasksConfig, seed: int, splits: Sequence[str] = CLAIM_ORDER, hold_out_seed: int | None = None) -> TaskDistribution:
    """Load the tasks of the requested splits; the others stay empty.

    hold_out_seed: seed that selects the held-out tasks if the settings name no split; None: `seed`. Self-supervised tasks always use `seed`.

    Raises:
        UserError: there are no tasks, a file or row is bad, a pattern matches nothing, or splits share texts.
    """
    check_policy(config.overlap)
    check_masked_words(config.masked_words)
    _check_shares(config)
    if not 0 <= config.holdout < 0.5:
        raise UserError(f"tasks.holdout={config.holdout} must be at least 0 and below 0.5")
    if not -10 <= config.size_power <= 10:
        raise UserError(f"tasks.size_power={config.size_power} must be between -10 and 10; 0 draws all tasks as often, 1 in proportion to their size")
    if config.trains_on_all_folds and "meta_train" not in splits:
        raise UserError("tasks.fold=null: no fold is held out, so there is no meta-test task; set tasks.fold=K")
    check_label_text("tasks.label_text", config.label_text)
    if config.sample_by not in SAMPLE_BY:
        raise UserError(f"tasks.sample_by={config.sample_by} is unknown; choose one of {', '.join(SAMPLE_BY)}")
    if config.max_rows is not None and config.max_rows < 1:
        raise UserError(f"tasks.max_rows={config.max_rows} must be 1 or more, or null for all rows")
    source = make_source(config, config.sources)
    lists = {str(getattr(config, name).labels_from).partition(":")[0] for name in CLAIM_ORDER}
    files = [file for file in source.files() if file not in lists]
    config = chosen_by_fold(config, files)
    chosen = {name: with_labels(getattr(config, name), config.path, name) for name in CLAIM_ORDER}
    tables = {file: source.read(file) for file in _files_of_splits(config, files, splits)}
    if len(splits) == len(CLAIM_ORDER) or len(tables) == len(files):
        _check_label_descriptions(config, tables)  # otherwise, the rows with a label may be in a file of another split
    rows_of = {file: rows_of_tasks(table) for file, table in tables.items()}
    notes = [note for table in tables.values() for note in table.notes] + _shared_names(config, rows_of)
    repeats: dict[str, tuple[int, int]] = {}
    names_none = not chosen["meta_validation"].tasks and not chosen["meta_test"].tasks
    if names_none and len(splits) > 1 and not config.trains_on_all_folds:
        chosen = hold_out(config, rows_of, seed if hold_out_seed is None else hold_out_seed, notes)
    claimed: dict[tuple[str, str], np.ndarray] = {}
    built: dict[str, Any] = {}
    for name in CLAIM_ORDER:
        rows = claim(name, chosen[name], tables, rows_of, claimed, claim_support=config.overlap != "drop_queries", check=name in splits)
        if config.overlap == "keep":
            claimed.clear()
        if name in splits:
            tasks = (_task(task, parts, repeats, config.label_text) for task, parts in sorted(rows.items()))
            built[name] = tuple(task if config.max_rows is None else capped(task, config.max_rows) for task in tasks)
    notes += [*_repeat_notes(repeats), *near_duplicates([task for name in CLAIM_ORDER for task in built.get(name, ())])]
    distribution = check_overlap(TaskDistribution(config.name, **built), config.overlap, notes)
    return _with_weights(distribution, config, seed) if "meta_train" in splits else distribution


def _check_shares(config: TasksConfig) -> None:
    shares = {name: settings.share for name, settings in settings_of(config).items()}
    for name, share in shares.items():
        generator_of(name)
        if not 0 <= share <= 1:
            raise UserError(f"tasks.{name}.share={share} must be between 0 and 1")
    if sum(shares.values()) > 1:
        raise UserError(f"the shares of self-supervised episodes add up to {sum(shares.values()):g}: {', '.join(name for name in shares if shares[name])}")


def _with_weights(tasks: TaskDistribution, config: TasksConfig, seed: int) -> TaskDistribution:
    """Return the distribution with its self-supervised tasks, if any, and the sampling weights of the meta-training tasks."""
    kinds = {name: settings for name, settings in settings_of(config).items() if settings.share}
    shares = {name: settings.share for name, settings in kinds.items()}
    by_source = config.sample_by == "sources"
    if not shares and not config.size_power and not by_source:
        return tasks
    sizes = np.array([len(task.texts) for task in tasks.meta_train], dtype=np.float64) ** config.size_power
    if by_source:
        _, of_task = np.unique([task.source for task in tasks.meta_train], return_inverse=True)
        sizes /= np.bincount(of_task, sizes)[of_task]
    weights = ((1 - sum(shares.values())) * sizes / sizes.sum()).tolist()
    # Labelled tasks of weight 0 stay in the distribution: held-out texts were removed from them.
    training, notes = list(tasks.meta_train), list(tasks.notes)
    for name, share in shares.items():
        generator, settings = generator_of(name), kinds[name]
        made = generator.make(_raw_texts(tasks, settings, config.text, seed), settings, seed)
        training += made
        weights += [share / len(made)] * len(made)
        number, rows = (sum(len(part) for part in parts) for parts in zip(*((task.label_names, task.texts) for task in made)))
        notes.append(f"{name.replace('_', ' ')}: {number} {generator.classes} in {rows:,} texts, {share:.0%} of the training episodes")
    return replace(tasks, meta_train=tuple(training), weights=tuple(weights), notes=tuple(notes))


def _raw_texts(tasks: TaskDistribution, config: Any, column: str, seed: int) -> list[str]:
    """Return the texts of the meta-training tasks, or those of a file without held-out texts; a random sample of at most `max_texts`."""
    if config.path is None:
        texts: Iterable[str] = (text for task in tasks.meta_train for text in task.texts)
    else:
        # Copies of a held-out text may differ in punctuation; near keys match them, and raw text loses little by dropping a few more.
        held_out = {near_key(text, None) for task in (*tasks.meta_validation, *tasks.meta_test) for text in task.texts}
        texts = (text for text in read_texts(local_path(config.path), column) if near_key(text, None) not in held_out)
    return sample(texts, config.max_texts, np.random.default_rng([seed, 41]))


def _files_of_splits(config: TasksConfig, available: Sequence[str], splits: Sequence[str]) -> list[str]:
    found = set()
    for name in splits:
        split: SplitConfig = getattr(config, name)
        for pattern in (*split.files, *split.support_files, *split.only):
            matching = named(pattern, available)
            if not matching:
                raise UserError(f"tasks.{name}: no file {pattern!r} below {config.path or 'tasks.sources'}; there are {few(available)}")
            found.update(matching)
        if not split.files and split.tasks:
            found.update(available)
    return sorted(found)


def _check_label_descriptions(config: TasksConfig, tables: dict[str, Table]) -> None:
    """Check that each described or defined label occurs in a row.

    Raises:
        UserError: a label does not occur; the message names the setting and the label.
    """
    sources = {"": config, **{f"{name}/": source for name, source in config.sources.items()}}
    for prefix, source in sources.items():
        group = f"tasks.sources.{prefix[:-1]}" if prefix else "tasks"
        of_source = [table for file, table in tables.items() if (file.startswith(prefix) if prefix else not file.startswith(tuple(sources)[1:]))]
        if not of_source:  # its files may belong to other splits
            continue
        there = set[str]().union(*(label_set(labels) if table.has_label_sets else (labels,) for table in of_source for labels in set(table.labels)))
        described = {("label_descriptions", as_text(label)): text for label, text in source.label_descriptions.items()}
        defined = {("label_definitions", as_text(label)): clean_label(as_text(label)) for label in source.label_definitions}
        for (setting, label), found in {**described, **defined}.items():
            if found not in there:
                raise UserError(f"{group}.{setting}: no row has the label {label!r}; there are {few(sorted(there))}")


def _shared_names(config: TasksConfig, rows_of: dict[str, dict[str, np.ndarray]]) -> list[str]:
    """Return a note for each task whose rows come from several sources under the same name."""
    sources: dict[str, dict[str, None]] = {}
    for file, tasks in rows_of.items():
        source = next((f"tasks.sources.{name}" for name in config.sources if file.startswith(f"{name}/")), "tasks.path")
        for task in tasks:
            sources.setdefault(task, {})[source] = None
    return [f"task '{task}' has rows from {' and '.join(found)}, because both contain a task of this name" for task, found in sources.items() if len(found) > 1]


def _task(name: str, parts: list[Part], repeats: dict[str, tuple[int, int]], label_text: str = "name") -> Task:
    """Return a task without repeated texts; add the numbers of repeated and of contradictory texts to `repeats`.

    label_text: `tasks.label_text`.

    Raises:
        UserError: some rows have one label and others several or target texts, or no text has a label.
    """
    kinds = {(part.table.score, part.table.has_label_sets) for part in parts}
    if len(kinds) > 1:
        sources = ", ".join(sorted({part.table.source for part in parts}))
        raise UserError(f"task '{name}' is in {sources}, which have different kinds of answers; give one of them another name with tasks.sources")
    ((score, has_sets),) = kinds
    texts = _chained([subset(part.table.texts, part.rows) for part in parts])
    answers = _chained([subset(part.table.labels, part.rows) for part in parts])
    sizes = [len(part.rows) for part in parts]
    support, query = (np.repeat(np.array([getattr(part, pool) for part in parts], dtype=bool), sizes) for pool in ("support", "query"))
    sets = list(map(label_set, answers)) if has_sets else []
    names = (name,) if score else tuple(sorted(set[str]().union(*sets) if has_sets else set(answers)))
    if not names:
        raise UserError(f"task '{name}': no text has a label ({parts[0].table.source})")
    numbers = {label: number for number, label in enumerate(names)}
    label_sets = as_matrix(sets, names) if has_sets else None
    if label_sets is not None:
        labels = numbered(label_sets)
    else:
        labels = np.zeros(len(texts), dtype=np.int64) if score else np.fromiter(map(numbers.__getitem__, answers), dtype=np.int64, count=len(texts))
    defined = {label: text for part in parts for label, text in part.table.definitions.items()}
    read = None if score else label_texts(names, defined, label_text)
    task = Task(name, texts, labels, names, support, query, None, answers if score else None, score, parts[0].table.source_name, read, label_sets)
    if len(np.unique(task.keys)) == len(texts):  # the usual case; a plain sort is faster than one that also returns positions
        return task
    # Keep the support row of a text that is both a support row and a query row: fixed support sets are small.
    order = np.argsort(~support, kind="stable")
    _, first, same = np.unique(task.keys[order], return_index=True, return_inverse=True)
    first = order[first]
    repeats[name] = (len(texts) - len(first), int((labels[first][same] != labels[order]).sum()))
    kept = task.subset(np.isin(np.arange(len(texts)), first))
    # A label may occur only on repeated texts.
    there = np.unique(kept.labels) if kept.label_sets is None else np.flatnonzero(kept.label_sets.any(0))
    read = None if read is None else tuple(read[label] for label in there)
    names = tuple(names[label] for label in there)
    if kept.label_sets is not None:
        return replace(kept, label_sets=kept.label_sets[:, there], label_names=names, label_texts=read)
    return replace(kept, labels=np.searchsorted(there, kept.labels), label_names=names, label_texts=read)


def capped(task: Task, max_rows: int) -> Task:
    """Return a task with at most `max_rows` rows for support sets and for queries, from the largest classes first.

    The rows of a class are those whose texts have the smallest hashes: a random sample that depends on nothing but the rows. The rows of a
    multi-label task are sampled as one class.
    """
    keep = np.ones(len(task.texts), dtype=bool)
    labels = task.labels if task.label_sets is None else np.zeros_like(task.labels)
    for pool in (task.support_pool, ~task.support_pool):  # rows for both uses count as rows for support sets
        for label, most in enumerate(_fair(np.bincount(labels[pool], minlength=len(task.label_names)), max_rows)):
            rows = np.flatnonzero(pool & (labels == label))
            keep[rows[np.argsort(task.keys[rows], kind="stable")[most:]]] = False
    return task.subset(keep)


def _fair(sizes: np.ndarray, total: int) -> list[int]:
    """Return how much of each size to take so that the sum is at most `total`: all of the small ones, equal parts of the others, at least 1."""
    taken, rest = [0] * len(sizes), total
    for place, number in enumerate(order := np.argsort(sizes, kind="stable")):
        taken[number] = min(int(sizes[number]), max(1, rest // (len(order) - place)))
        rest -= taken[number]
    return taken


def _chained(parts: list[Sequence[str]]) -> Sequence[str]:
    """Return the concatenation of several sequences."""
    if len(parts) == 1:
        return parts[0]
    return tuple(text for part in parts for text in part) if all(isinstance(part, tuple) for part in parts) else Chained(parts)


def task_of_file(path: Path, columns: Columns, form: LabelForm | None = None) -> Task:
    """Return all rows of a file as a task; form: of several labels of a text; None: a text has one label, or a list of labels.

    Raises:
        UserError: the file cannot be read; the message says `file:line`.
    """
    table = read_task_file(path, columns, form or LabelForm(columns.label or "label", setting="tasks.label_separator"), "refuse")
    return _task(stem(path), [Part(table, np.arange(len(table.texts)), True, True)], {})


def _repeat_notes(repeats: dict[str, tuple[int, int]]) -> list[str]:
    if len(repeats) > _MOST_NOTES:
        total, contradictory = (sum(counts) for counts in zip(*repeats.values()))
        repeats = {f"{len(repeats)} tasks": (total, contradictory)}
    else:
        repeats = {f"task '{name}'": counts for name, counts in repeats.items()}
    return [f"{what}: {count} repeated texts removed" + (f", {other} with another label" if other else "") for what, (count, other) in repeats.items()]
