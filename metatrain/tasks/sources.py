"""Task sources. A source lists its files and reads each of them as a table of rows."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any, Protocol

import numpy as np

from metatrain import plugins
from metatrain.conditions import shown
from metatrain.errors import UserError
from metatrain.paths import local_path
from metatrain.tasks.config import NamedSourceConfig, SourceConfig
from metatrain.tasks.embedded import embedded_path
from metatrain.tasks.files import BAD_ROWS, Columns, Table
from metatrain.tasks.folders import FileTask, copy_notes, split_warnings, tasks_of_files, visible_files
from metatrain.tasks.label_sets import LabelForm, label_set, read_task_file, written
from metatrain.tasks.labels import by_label, clean_label, label_notes
from metatrain.tasks.names import named_by_any
from metatrain.tasks.rows import format_of
from metatrain.tasks.splits import few
from metatrain.tasks.texts import IMAGE, subset

_IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")


class Source(Protocol):
    """Interface of a task source."""

    def files(self) -> list[str]:
        """Return the names of the files, or of their equivalents (splits of a hub data set, tasks of an image folder)."""

    def read(self, file: str) -> Table:
        """Return the rows of one file."""


class Files:
    """A data file, or all data files of a folder except hidden ones."""

    def __init__(self, path: Path, columns: Columns, bad_rows: str, names_tasks: bool = True, form: LabelForm | None = None):
        """names_tasks: True: a file that is one task is named after the file; False: after the source.

        form: of several labels of a text; None: a text has one label, or a list of labels.
        """
        self.path, self.columns, self.bad_rows = path, columns, bad_rows
        self.form = LabelForm(columns.label or "label", setting="tasks.label_separator") if form is None else form
        self.names_tasks = names_tasks and columns.task is None
        self._reported: set[str] = set()

    def files(self) -> list[str]:
        if self.path.is_file():
            return [self.path.name]
        if not self.path.is_dir():
            kinds = ", ".join(f"{kind}:" for kind in (*KINDS, *plugins.names(plugins.SOURCES)))
            raise UserError(f"tasks.path={self.path}: no such file or folder" + (f"; other sources begin with {kinds}" if ":" in str(self.path) else ""))
        if not self._found:
            raise UserError(f"tasks.path={self.path}: no csv, tsv, jsonl or parquet file in this folder; hidden files do not count")
        return self._found

    @functools.cached_property
    def _found(self) -> list[str]:
        return visible_files(self.path, lambda path: format_of(path) is not None)

    @functools.cached_property
    def _tasks(self) -> dict[str, FileTask]:
        return tasks_of_files(self.path, self._found) if self.names_tasks else {}

    @functools.cached_property
    def _copies(self) -> dict[str, str]:
        return copy_notes(self.path, self._found)

    def read(self, file: str) -> Table:
        if self.path.is_file():
            return read_task_file(self.path, self.columns, self.form, self.bad_rows)
        task = self._tasks.get(file)
        table = read_task_file(self.path / file, self.columns, self.form, self.bad_rows, task.name if task else None)
        about_file = (task.note if task else None, self._copies.get(file))
        notes = [note for note in about_file if note and note not in self._reported]  # several files may share a note
        self._reported.update(notes)
        return replace(table, notes=(*notes, *table.notes))


class Images:
    """A folder of images, TASK/LABEL/FILE or LABEL/FILE, without hidden files; `files` lists its tasks."""

    def __init__(self, path: Path, setting: str = "tasks.path"):
        """`setting`: name of the setting, for error messages.

        Raises:
            UserError: there is no such folder, its layout is different, or Pillow is not installed.
        """
        plugins.check_installed(f"{setting}={path}: a folder of images", "PIL", "pictures")
        self.path = path
        if not path.is_dir():
            raise UserError(f"{setting}={path}: no such folder")
        found = [PurePath(file).parts for file in visible_files(path, _is_image)]
        depths = {len(parts): parts for parts in reversed(found)}  # an example of each depth
        if set(depths) not in ({2}, {3}):
            there = ", ".join("/".join(parts) for parts in reversed(depths.values())) or "none"
            raise UserError(f"{setting}={path}: images ({', '.join(_IMAGES)}) must be in TASK/LABEL/FILE, or all in LABEL/FILE; there are {there}")
        self._of_task: dict[str, list[tuple[str, ...]]] = defaultdict(list)
        for parts in found:
            self._of_task[clean_label(parts[0] if len(parts) == 3 else path.resolve().name)].append(parts)
        self._warnings = split_warnings(list(self._of_task))

    def files(self) -> list[str]:
        return list(self._of_task)

    def read(self, file: str) -> Table:
        rows = self._of_task[file]
        texts = tuple(f"{IMAGE}{self.path.joinpath(*parts)}" for parts in rows)
        labels = [clean_label(parts[-2]) for parts in rows]
        notes = label_notes(str(self.path / file), labels)
        if (warning := self._warnings.get(file)) is not None:  # reported once
            notes = [warning, *notes]
            self._warnings = {name: each for name, each in self._warnings.items() if each != warning}
        return Table(str(self.path / file), texts, labels, [file] * len(rows), notes=tuple(notes))


class Named:
    """A source under a name: its files are NAME/FILE. With `task_of_file`, each file is part of the task NAME; with `prefix_tasks`, tasks are NAME/TASK."""

    def __init__(self, name: str, source: Source, task_of_file: bool, prefix_tasks: bool = False):
        self.name, self.source, self.task_of_file, self.prefix_tasks = name, source, task_of_file, prefix_tasks

    def files(self) -> list[str]:
        return [f"{self.name}/{file}" for file in self.source.files()]

    def read(self, file: str) -> Table:
        table = replace(self.source.read(file[len(self.name) + 1 :]), source_name=self.name)
        if self.task_of_file:
            return replace(table, tasks=[self.name] * len(table.texts))
        return replace(table, tasks=[f"{self.name}/{task}" for task in table.tasks]) if self.prefix_tasks else table


class TextToText:
    """A text-to-text source: its labels are target texts, and `score` compares generated texts with them."""

    def __init__(self, source: Source, score: str):
        self.source, self.score = source, score

    def files(self) -> list[str]:
        return self.source.files()

    def read(self, file: str) -> Table:
        return replace(self.source.read(file), score=self.score)


class DescribedLabels:
    """A source with some labels replaced by label descriptions."""

    def __init__(self, source: Source, descriptions: Mapping[Any, str]):
        """`descriptions`: label descriptions by label; a label may be a number."""
        self.source, self.descriptions = source, by_label(descriptions)

    def files(self) -> list[str]:
        return self.source.files()

    def read(self, file: str) -> Table:
        table = self.source.read(file)
        if table.has_label_sets:
            return replace(table, labels=[written({self.descriptions.get(label, label) for label in label_set(labels)}) for labels in table.labels])
        return replace(table, labels=[self.descriptions.get(label, label) for label in table.labels])


class DefinedLabels:
    """A source with definitions of its labels."""

    def __init__(self, source: Source, definitions: Mapping[Any, str]):
        """`definitions`: sentences by label; a label may be a number."""
        self.source, self.definitions = source, by_label(definitions)

    def files(self) -> list[str]:
        return self.source.files()

    def read(self, file: str) -> Table:
        return replace(self.source.read(file), definitions=self.definitions)


class OnlyTasks:
    """Some tasks of a source."""

    def __init__(self, source: Source, patterns: Sequence[str], setting: str):
        """`patterns`: names or shell patterns of the tasks; `setting`: that of the patterns, for error messages."""
        self.source, self.patterns, self.setting = source, patterns, setting

    def files(self) -> list[str]:
        return self.source.files()

    def read(self, file: str) -> Table:
        table = self.source.read(file)
        there = set(table.tasks)
        chosen = named_by_any(self.patterns, there)
        rows = [row for row, task in enumerate(table.tasks) if task in chosen]
        if not rows:
            raise UserError(f"{self.setting}: {table.source} has none of these tasks; there are {few(sorted(there))}")
        labels, tasks = ([values[row] for row in rows] for values in (table.labels, table.tasks))
        return replace(table, texts=subset(table.texts, np.array(rows)), labels=labels, tasks=tasks)


class Union:
    """Union of several sources."""

    def __init__(self, sources: list[Source]):
        """Raises: UserError: two sources have a file with the same name."""
        self._source_of: dict[str, Source] = {}
        for source in sources:
            for file in source.files():
                if file in self._source_of:
                    raise UserError(f"tasks.sources: two sources have a file {file!r}; give the source another name, or rename the folder")
                self._source_of[file] = source

    def files(self) -> list[str]:
        return list(self._source_of)

    def read(self, file: str) -> Table:
        return self._source_of[file].read(file)


def images_of(path: Path, setting: str) -> Table:
    """Return the images of one task, LABEL/FILE.

    Raises:
        UserError: the folder has no images, or several tasks.
    """
    source = Images(path, setting)
    if len(source.files()) > 1:
        raise UserError(f"{setting}={path} has {len(source.files())} tasks of images, TASK/LABEL/FILE; give the folder of one")
    return source.read(source.files()[0])


def images_in(path: Path) -> list[str]:
    """Return the rows of the image `path`, or of all images below the folder `path`, sorted by name; empty if there is no image."""
    below = [path / file for file in visible_files(path, _is_image)] if path.is_dir() else []
    return [f"{IMAGE}{file}" for file in ([path] if path.is_file() and _is_image(path) else below)]


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in _IMAGES


def make_source(config: SourceConfig, others: Mapping[str, NamedSourceConfig]) -> Source:
    """Return the union of a source and further named sources; an empty `config.path` stands for no source.

    Raises:
        UserError: the name of a source is empty or contains a slash, or there is no source.
    """
    if not config.path and not others:
        raise UserError("tasks.path is empty, and there are no tasks.sources; give one of them")
    for name in others:
        if not name or "/" in name:
            raise UserError(f"tasks.sources: {name!r} cannot be the name of a source; it must have no slash")
    return Union([*([_one(config, "tasks")] if config.path else []), *(_named(name, other) for name, other in others.items())])


def _named(name: str, config: NamedSourceConfig) -> Source:
    is_one_task = config.task is None and not config.images
    return Named(name, _one(config, f"tasks.sources.{name}", names_tasks=not is_one_task), is_one_task, config.prefix_tasks)


def label_form(config: SourceConfig, group: str) -> LabelForm:
    """Return the form of the labels in the files of a source; group: where its settings are."""
    return LabelForm(config.label, config.label_separator, tuple(config.label_columns), f"{group}.label_separator", f"{group}.label_columns")


def _hub(config: SourceConfig, columns: Columns, names_tasks: bool) -> Source:
    from metatrain.tasks.hub import Hub  # the library datasets takes long to import

    return Hub(config, columns, label_form(config, "tasks"))


# Constructors of sources for `tasks.path=KIND:WHERE`: (settings, columns, names_tasks) -> source.
KINDS: dict[str, Callable[[SourceConfig, Columns, bool], Source]] = {
    "hub": _hub,
    "metatrain": lambda config, columns, names_tasks: Files(embedded_path(config.path), columns, config.bad_rows, names_tasks),
}


def _one(config: SourceConfig, group: str, names_tasks: bool = True) -> Source:
    if config.bad_rows not in BAD_ROWS:
        raise UserError(f"tasks.bad_rows={config.bad_rows} is unknown; choose one of {', '.join(BAD_ROWS)}")
    columns = Columns(config.text, config.label, config.task, config.pair, config.target)
    kind, _, where = config.path.partition(":")
    form = label_form(config, group)
    form.check()
    reads_columns = config.images or kind == "hub" or (kind not in KINDS and not plugins.load(plugins.SOURCES, kind))
    if form.columns and not reads_columns:
        raise UserError(f"{form.columns_setting} is for files and the Hub, and {group}.path={config.path} is neither; leave it out")
    source: Source
    if config.images:
        source = Images(local_path(config.path))
    elif kind in KINDS:
        source = KINDS[kind](config, columns, names_tasks)
    elif make := plugins.load(plugins.SOURCES, kind):
        source = make(where, columns)
    else:
        source = Files(local_path(config.path), columns, config.bad_rows, names_tasks, form)
    if config.label_descriptions and config.target is not None:
        raise UserError("tasks.label_descriptions is for labels; with tasks.target there are none, remove one of them")
    if config.label_descriptions:
        source = DescribedLabels(source, config.label_descriptions)
    if config.label_definitions:
        source = DefinedLabels(source, config.label_definitions)
    if config.only_tasks:
        source = OnlyTasks(source, config.only_tasks, f"{group}.only_tasks={shown(config.only_tasks)}")
    return source if config.target is None else TextToText(source, config.score)
