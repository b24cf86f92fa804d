"""Detection of the columns of a file: texts, labels, target texts, task names."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from metatrain.errors import UserError
from metatrain.tasks.files import Columns, column_values, is_plain, read_file, rows_of
from metatrain.tasks.labels import as_text, clean_label

# Common column names, most likely first.
_NAMES = {
    "text": ("text", "sentence", "review", "content", "utterance", "question", "source", "premise", "sentence1", "document", "body", "message"),
    "pair": ("hypothesis", "sentence2", "question2", "text2", "text_pair", "pair"),
    "label": ("label", "class", "category", "intent", "sentiment", "target", "y", "rating", "polarity"),
    "target": ("target", "summary", "translation", "answer", "output"),
    "task": ("task", "domain", "product", "lang", "language", "topic", "dataset", "source"),
}
_MOST_CLASSES = 0.5  # maximum number of distinct labels as a fraction of the rows
_MOST_TASKS = 0.2  # maximum number of distinct task names as a fraction of the rows
_SAMPLE = 1000  # rows from which columns are guessed
_LABEL_WORDS = 5  # maximum number of words of a label


@dataclass(frozen=True)
class Guess:
    """Columns, and the number of rows per class of each task."""

    columns: Columns
    tasks: dict[str, dict[str, int]]
    notes: list[str]


def guess_columns(path: Path, given: Mapping[str, str]) -> Guess:
    """Detect the columns that are not given; `given`: names of columns under text, pair, label, target and task.

    A column with a common name is chosen if its values fit. Otherwise, texts are the column with the longest values, and labels a column
    with few distinct, short values.

    Raises:
        UserError: the file cannot be read, a given column is missing, or no column fits.
    """
    values = column_values(path)
    chosen, notes = {key: clean_label(name) for key, name in given.items()}, []
    for key, name in chosen.items():
        if name not in values:
            raise UserError(f"{path}: no column {name!r} ({key}={name}); the file has {', '.join(map(repr, values))}")
    text = chosen.get("text") or _text(values, set(chosen.values()), path)
    free = [name for name in values if name not in {*chosen.values(), text}]
    task = chosen.get("task") or _named(free, "task", lambda name: _distinct(values[name]) <= max(2, _MOST_TASKS * len(values[name])))
    free = [name for name in free if name != task]
    pair = chosen.get("pair") or _named(free, "pair", lambda name: True)
    free = [name for name in free if name != pair]
    label, target = chosen.get("label"), chosen.get("target")
    if not label and not target:
        label = _label(values, free)
        if label is None:
            target = _named(free, "target", lambda name: True)
        if label is None and target is None:
            raise UserError(f"{path}: no column looks like labels (few different values, each in several rows); say which with label=COLUMN or target=COLUMN")
    columns = Columns(text, label or "label", task, pair, target)
    for key, found in {"text": text, "pair": pair, "label": label, "target": target, "task": task}.items():
        if found:
            notes.append(f"{key}: column {found!r}" + ("" if key in given or found == key else " (guessed)"))
    table = read_file(path, columns)  # names the line if a value is missing
    notes += table.notes
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for answer, name in zip(table.labels, table.tasks):
        counts[name]["text" if target else answer] += 1
    for name, classes in counts.items():
        if label and len(classes) < 2:
            raise UserError(f"{path}: task '{name}' has only one class ({next(iter(classes))!r}); a task needs two or more (label={label}, task={task})")
    return Guess(columns, {name: dict(classes) for name, classes in sorted(counts.items())}, notes)


def found_columns(path: Path, columns: Columns, guessed: Mapping[str, str]) -> tuple[Columns, list[str]]:
    """Return the columns to read of a file, and a remark on each that was guessed, from the first rows of the file.

    guessed: columns (`text`, `label`) to find as `guess_columns` does where the file has none of that name, with the settings that name them. If the
    text is guessed, so is the second text of a pair.

    Raises:
        UserError: the file cannot be read.
    """
    rows = [row for _, row in itertools.islice(rows_of(path, []), _SAMPLE) if isinstance(row, dict)]
    names = {clean_label(str(name)): name for name in (rows[0] if rows else {}) if name}
    values = {name: [as_text(row.get(key) or "") for row in rows] for name, key in names.items() if all(is_plain(row.get(key)) for row in rows)}
    missing = [key for key in guessed if (wanted := getattr(columns, key)) is not None and clean_label(wanted) not in names]
    if not values or not missing or (columns.target and missing == ["label"]):
        return columns, []
    taken = {clean_label(name) for name in columns.names() if clean_label(name) in values}
    free = [name for name in values if name not in taken]
    found: dict[str, str] = {}
    if "label" in missing and not columns.target and (label := _label(values, [name for name in free if _named([name], "text", _is_any) is None])):
        found["label"] = label
    free = [name for name in free if name not in found.values()]
    if "text" in missing and free:
        found["text"] = _text({name: values[name] for name in free}, set(), path)
        if columns.label is not None and columns.pair is None and (pair := _named([name for name in free if name != found["text"]], "pair", _is_any)):
            found["pair"] = pair
    notes = [f"{path}: {key}: column {name!r} (guessed; {guessed.get(key, 'data.pair')}=COLUMN names another)" for key, name in sorted(found.items())]
    return replace(columns, **found), notes


def usual_column(names: list[str], kind: str) -> str | None:
    """Return the column with the most usual name of its kind: text, pair, label, target or task; None: there is none."""
    return _named(names, kind, _is_any)


def _is_any(name: str) -> bool:
    return True


def _text(values: dict[str, list[str]], taken: set[str], path: Path) -> str:
    free = [name for name in values if name not in taken]
    if not free:
        raise UserError(f"{path}: no column is left for the texts; the file has {', '.join(map(repr, values))}")
    named = _named(free, "text", lambda name: _distinct(values[name]) > _MOST_CLASSES * len(values[name]))
    return named or max(free, key=lambda name: sum(map(len, values[name])))


def _label(values: dict[str, list[str]], free: list[str]) -> str | None:
    def fits(name: str) -> bool:
        column = values[name]
        return 2 <= _distinct(column) <= _MOST_CLASSES * len(column) and max(len(value.split()) for value in column) <= _LABEL_WORDS

    fitting = [name for name in free if fits(name)]
    return _named(fitting, "label", lambda name: True) or min(fitting, key=lambda name: _distinct(values[name]), default=None)


def _named(free: list[str], kind: str, fits: Callable[[str], bool]) -> str | None:
    lower = {name.lower(): name for name in free}
    return next((lower[name] for name in _NAMES[kind] if name in lower and fits(lower[name])), None)


def _distinct(values: list[str]) -> int:
    return len(set(values))
