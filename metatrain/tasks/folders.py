"""Files of a folder, and the tasks that they are named after where no column names tasks."""

from __future__ import annotations

import filecmp
import os
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from metatrain.errors import UserError
from metatrain.tasks.labels import clean_label
from metatrain.tasks.rows import stem
from metatrain.tasks.splits import few

_NO_DATA = (".", "~$", "__MACOSX")  # how names of hidden files, locks of an open document and notes of an archiver begin
_SHARD = re.compile(r"[-_.]\d+[-_]of[-_]\d+$", re.IGNORECASE)
_SPLIT = re.compile(r"(train|dev|val|valid|test|eval)(ing|el|idation|elopment|uation)?([-_.]?(set|split|data|\d+))?|held[-_]?out", re.IGNORECASE)


def visible_files(folder: Path, is_wanted: Callable[[Path], bool]) -> list[str]:
    """Relative paths of the files below a folder, sorted, without hidden ones and those in hidden folders."""
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(_NO_DATA)]
        paths = [Path(parent, name) for name in files if not name.startswith(_NO_DATA)]
        found += [str(path.relative_to(folder)) for path in paths if is_wanted(path) and path.is_file()]
    return sorted(found)


def is_split(name: str) -> bool:
    """Whether a file or folder is named as the splits of a data set are."""
    return _SPLIT.fullmatch(_SHARD.sub("", name)) is not None


def split_warning(tasks: Sequence[str]) -> str | None:
    """A warning if tasks are named like the splits of one data set; None if they are not."""
    splits = [name for name in tasks if is_split(name)]
    if len(splits) < 2:
        return None
    return f"warning: the tasks {few(splits)} are named like splits of one data set; a task for each of them tests no new task"


def copy_notes(folder: Path, files: Sequence[str]) -> dict[str, str]:
    """A warning for each file that is another's copy, byte for byte."""
    of_size: dict[int, list[str]] = defaultdict(list)
    for file in files:
        of_size[(folder / file).stat().st_size].append(file)
    notes = {}
    for alike in of_size.values():
        originals: list[str] = []
        for file in alike:
            original = next((each for each in originals if filecmp.cmp(folder / each, folder / file, shallow=False)), None)
            if original is None:
                originals.append(file)
            else:
                notes[file] = f"warning: {folder / file} is a copy of {original}; delete one of them"
    return notes


@dataclass(frozen=True)
class FileTask:
    """The task that a file is named after, and what to say about its name."""

    name: str
    note: str | None = None


def tasks_of_files(folder: Path, files: Sequence[str]) -> dict[str, FileTask]:
    """The task of each file of a folder in which no column names tasks.

    A file is a task of its name. Shards of one file are one task, and so are files in a subfolder that are named as splits are
    (books/train.csv, books/test.csv), under the name of the subfolder. Other files with one name in several subfolders are named by
    their paths.

    Raises:
        UserError: two files would be one task by their names only.
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
    if warning := split_warning(list(groups)):
        notes |= {name: warning for name in groups if is_split(name)}
    return {file: FileTask(name, notes.get(name)) for file, name in names.items()}


def _grouped(names: dict[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for file, name in names.items():
        found[name].append(file)
    return found
