"""Where tasks come from: each source lists its files and reads one of them as a table of rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import datasets
from huggingface_hub import constants

from metatrain import plugins
from metatrain.errors import RestartableError, UserError
from metatrain.tasks.config import EMBEDDED, SourceConfig
from metatrain.tasks.files import BAD_ROWS, Columns, Table, dataset_rows, format_of, read_file, table_of
from metatrain.tasks.reviews import corpus_path
from metatrain.tasks.texts import PICTURE

_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
_HUB = "hub:"


class Source(Protocol):
    """What a source has to do."""

    def files(self) -> list[str]:
        """Names of its files, or of what it has in their place."""

    def read(self, file: str) -> Table:
        """The rows of one of them."""


class Files:
    """A file, or all data files of a folder."""

    def __init__(self, path: Path, columns: Columns, bad_rows: str):
        self.path, self.columns, self.bad_rows = path, columns, bad_rows

    def files(self) -> list[str]:
        if self.path.is_file():
            return [self.path.name]
        if not self.path.is_dir():
            raise UserError(f"tasks.path={self.path}: no such file or folder")
        found = sorted(str(file.relative_to(self.path)) for file in self.path.rglob("*") if file.is_file() and format_of(file))
        if not found:
            raise UserError(f"tasks.path={self.path}: no csv, tsv, jsonl or parquet file in this folder")
        return found

    def read(self, file: str) -> Table:
        return read_file(self.path if self.path.is_file() else self.path / file, self.columns, self.bad_rows)


class Pictures:
    """A folder of pictures, TASK/LABEL/FILE or LABEL/FILE; what it has in place of files are the tasks."""

    def __init__(self, path: Path, setting: str = "tasks.path"):
        """`setting`: what says so, for errors.

        Raises:
            UserError: there is no such folder, or it is not laid out so.
        """
        self.path = path
        if not path.is_dir():
            raise UserError(f"{setting}={path}: no such folder")
        found = sorted(file.relative_to(path).parts for file in path.rglob("*") if file.suffix.lower() in _PICTURES)
        depths = set(map(len, found))
        if depths not in ({2}, {3}):
            raise UserError(f"{setting}={path}: pictures ({', '.join(_PICTURES)}) must lie in TASK/LABEL/FILE, or all in LABEL/FILE")
        self._of_task: dict[str, list[tuple[str, ...]]] = defaultdict(list)
        for parts in found:
            self._of_task[parts[0] if len(parts) == 3 else path.name].append(parts)

    def files(self) -> list[str]:
        return list(self._of_task)

    def read(self, file: str) -> Table:
        rows = self._of_task[file]
        texts = tuple(f"{PICTURE}{self.path.joinpath(*parts)}" for parts in rows)
        return Table(str(self.path / file), texts, [parts[-2] for parts in rows], [file] * len(rows))


class Hub:
    """The splits of a data set on the Hugging Face hub."""

    def __init__(self, config: SourceConfig, columns: Columns):
        self.name, self.config, self.columns = config.path[len(_HUB) :], config, columns

    def files(self) -> list[str]:
        try:
            return datasets.get_dataset_split_names(self.name, self.config.hub_config, revision=self.config.hub_revision)
        except (OSError, ValueError, RuntimeError) as error:
            raise self._error(error) from error

    def read(self, file: str) -> Table:
        source = f"{self.config.path} [{file}]"
        try:
            data = datasets.load_dataset(self.name, self.config.hub_config, split=file, revision=self.config.hub_revision)
        except (OSError, ValueError, RuntimeError) as error:
            raise self._error(error) from error
        return table_of(source, dataset_rows(data), self.columns, self.name.rsplit("/", 1)[-1], self.config.bad_rows)

    def _error(self, error: Exception) -> UserError | RestartableError:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if isinstance(error, ConnectionError) and not constants.HF_HUB_OFFLINE:
            return RestartableError(f"tasks.path={self.config.path}: the hub cannot be reached ({reason}); try again: what has come is kept")
        return UserError(f"tasks.path={self.config.path} cannot be loaded: {reason}")


class Named:
    """Another source under a name: its files are NAME/FILE, and a file that is a task is called NAME."""

    def __init__(self, name: str, source: Source, task_of_file: bool):
        self.name, self.source, self.task_of_file = name, source, task_of_file

    def files(self) -> list[str]:
        return [f"{self.name}/{file}" for file in self.source.files()]

    def read(self, file: str) -> Table:
        table = self.source.read(file[len(self.name) + 1 :])
        return replace(table, tasks=[self.name] * len(table.texts)) if self.task_of_file else table


class TextToText:
    """A source whose labels are texts of their own, and how answers are compared with them."""

    def __init__(self, source: Source, score: str):
        self.source, self.score = source, score

    def files(self) -> list[str]:
        return self.source.files()

    def read(self, file: str) -> Table:
        return replace(self.source.read(file), score=self.score)


class InWords:
    """A source with some labels in other words."""

    def __init__(self, source: Source, words: Mapping[Any, str]):
        """`words`: a label may be written as a number."""
        self.source, self.words = source, {str(label): word for label, word in words.items()}

    def files(self) -> list[str]:
        return self.source.files()

    def read(self, file: str) -> Table:
        table = self.source.read(file)
        return replace(table, labels=[self.words.get(label, label) for label in table.labels])


class Together:
    """Several sources as one."""

    def __init__(self, sources: list[Source]):
        self._source_of = {file: source for source in sources for file in source.files()}

    def files(self) -> list[str]:
        return list(self._source_of)

    def read(self, file: str) -> Table:
        return self._source_of[file].read(file)


def pictures_of(path: Path, setting: str) -> Table:
    """The pictures of one task, LABEL/FILE.

    Raises:
        UserError: the folder has none, or several tasks.
    """
    source = Pictures(path, setting)
    if len(source.files()) > 1:
        raise UserError(f"{setting}={path} has {len(source.files())} tasks of pictures, TASK/LABEL/FILE; give the folder of one")
    return source.read(source.files()[0])


def pictures_in(path: Path) -> list[str]:
    """What stands for the picture `path`, or for all below the folder `path`, in the order of their names; none: there is no picture."""
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    return [f"{PICTURE}{file}" for file in files if file.suffix.lower() in _PICTURES]


def make_source(config: SourceConfig, others: Mapping[str, SourceConfig]) -> Source:
    """A source, and further ones by their names.

    Raises:
        UserError: a name of these is no name.
    """
    for name in others:
        if not name or "/" in name:
            raise UserError(f"tasks.sources: {name!r} cannot be the name of a source; it must have no slash")
    return Together([_one(config), *(Named(name, _one(other), other.task is None and not other.pictures) for name, other in others.items())])


def _one(config: SourceConfig) -> Source:
    if config.bad_rows not in BAD_ROWS:
        raise UserError(f"tasks.bad_rows={config.bad_rows} is unknown; choose one of {', '.join(BAD_ROWS)}")
    columns = Columns(config.text, config.label, config.task, config.pair, config.target)
    if config.pictures:
        source: Source = Pictures(Path(config.path).expanduser())
    elif config.path.startswith(_HUB):
        source = Hub(config, columns)
    elif make := plugins.load(plugins.SOURCES, config.path.partition(":")[0]):
        source = make(config.path.partition(":")[2], columns)
    else:
        source = Files(corpus_path() if config.path == EMBEDDED else Path(config.path).expanduser(), columns, config.bad_rows)
    if config.label_words and config.target is not None:
        raise UserError("tasks.label_words is for labels; with tasks.target there are none, take one of them away")
    if config.label_words:
        source = InWords(source, config.label_words)
    return source if config.target is None else TextToText(source, config.score)
