"""Files of a folder, and their tasks if no column names tasks: each file is a task, except for shards, splits and copies."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from metatrain.errors import UserError
from metatrain.tasks.labels import clean_label
from metatrain.tasks.rows import stem
from metatrain.tasks.splits import few

_NO_DATA = (".", "~$", "__MACOSX")  # prefixes of hidden files, of lock files of open documents, and of metadata in archives
_COPY = re.compile(
    r"^(copy of|kopie von|copie de|copia de) |[ _-]*(\(\d+\)|[ _-](copy|copie|kopie|copia)( ?\(?\d+\)?)?|[._-](bak|backup|orig|old|checkpoint))$", re.IGNORECASE
)
_SHARD = re.compile(r"[-_.]\d+[-_]of[-_]\d+$", re.IGNORECASE)
_SPLIT = re.compile(r"(train|dev|val|valid|test|eval)(ing|el|idation|elopment|uation)?([-_.]?(set|split|data|\d+))?|held[-_]?out", re.IGNORECASE)

_BETWEEN_PARTS = re.compile(r"[/_.\s-]+")


def visible_files(folder: Path, matches: Callable[[Path], bool]) -> list[str]:
    """Return the sorted relative paths of the files below a folder that match, links included, without hidden files and folders."""
    return sorted(str(path.relative_to(folder)) for path in _files_below(folder, frozenset()) if matches(path))


def _files_below(folder: Path, above: frozenset[Path]) -> Iterator[Path]:
    """Yield the files below a folder; `above`: its resolved parent folders, since a link may point to one of them."""
    here = folder.resolve()
    if here not in above:
        for path in folder.iterdir():
            if path.name.startswith(_NO_DATA):
                continue
            if path.is_dir():
                yield from _files_below(path, above | {here})
            elif path.is_file():
                yield path


def is_split(name: str) -> bool:
    """Return True if a file or folder has the name of a split."""
    return _SPLIT.fullmatch(_SHARD.sub("", name)) is not None


def split_warnings(tasks: Sequence[str]) -> dict[str, str]:
    """Return a warning for each task that is named like one of several splits of a data set: train and test, or books_train and books_test."""
    data_sets = _grouped({name: _without_split(name) for name in tasks})
    return {
        name: f"warning: the tasks {few(splits)} are named like splits of one data set; a task for each of them tests no new task"
        for splits in data_sets.values()
        if len(splits) > 1
        for name in splits
    }


def _without_split(name: str) -> str:
    """Return a name without the part that names a split, other parts joined by underscores; unchanged if no part names a split."""
    if is_split(name):
        return ""
    parts = _BETWEEN_PARTS.split(name)
    kept = [part for part in parts if not is_split(part)]
    return name if len(kept) == len(parts) else "_".join(kept)


def copy_notes(folder: Path, files: Sequence[str]) -> dict[str, str]:
    """Return a warning for each file that is a copy of another one, by its content or by its name (`books (1).csv` beside `books.csv`)."""
    notes = {}
    by_name = {PurePath(file).with_name(stem(Path(file))): file for file in files}
    for path, file in by_name.items():
        original = by_name.get(path.with_name(_COPY.sub("", path.name)))
        if original not in (None, file):
            notes[file] = f"warning: {folder / file} is named like a copy of {original}; delete one of them, or rename it"
    for alike in _grouped({file: str((folder / file).stat().st_size) for file in files}).values():
        originals: dict[bytes, str] = {}  # by their content
        for file in alike if len(alike) > 1 else ():
            original = originals.setdefault(_content_hash(folder / file), file)
            if original != file and original not in notes:
                notes[file] = f"warning: {folder / file} is a copy of {original}; delete one of them"
    return notes


def _content_hash(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


@dataclass(frozen=True)
class FileTask:
    """Task of a file."""

    name: str
    note: str | None = None  # remark on the name


def tasks_of_files(folder: Path, files: Sequence[str]) -> dict[str, FileTask]:
    """Return the task of each file of a folder in which no column names tasks.

    Each file is a task with the name of the file. The shards of a file are one task. Files in a subfolder that are named like splits
    (books/train.csv, books/test.csv) are one task with the name of the subfolder. Other files with equal names in several subfolders
    are tasks with the names of their paths.

    Raises:
        UserError: two files would be the same task only because their names are equal.
    """
    own = {file: stem(Path(file)) for file in files}
    names = {file: _SHARD.sub("", name) for file, name in own.items()}
    names |= {file: PurePath(file).parent.as_posix() for file, name in names.items() if is_split(name) and len(PurePath(file).parts) > 1}
    parts = {file for file in files if is_split(_SHARD.sub("", own[file])) or _SHARD.search(own[file])}  # of one data set
    for alike in _grouped(names).values():
        if len(alike) > 1 and not parts.issuperset(alike):
            names |= {file: PurePath(file).with_name(own[file]).as_posix() for file in alike if file not in parts}
    names = {file: clean_label(name) for file, name in names.items()}
    groups = _grouped(names)
    notes: dict[str, str] = {}
    for name, alike in groups.items():
        if len(alike) > 1 and not parts.issuperset(alike):
            raise UserError(f"{folder}: {few(alike)} would be one task, '{name}'; rename one, or set tasks.task to a column with the names of tasks")
        if len(alike) > 1 or name != clean_label(own[alike[0]]):
            notes[name] = f"task '{name}': {few(alike)}"
    notes |= split_warnings(list(groups))
    return {file: FileTask(name, notes.get(name)) for file, name in names.items()}


def _grouped(names: dict[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for file, name in names.items():
        found[name].append(file)
    return found
