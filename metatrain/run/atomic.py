"""Files and directories that a reader sees as they were or as they are to be, never half written."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from metatrain.errors import UserError
from metatrain.paths import local_path
from metatrain.run.failpoints import failpoint

_ASIDE = ".old-"
_UNFINISHED = ".tmp-"
_OF_RUN = ("run.json", "config.yaml", "overrides.yaml", "metrics.jsonl", "results.json", "analysis.json", "run.log")


def place_for(setting: str, name: str, endings: Collection[str] = ()) -> Path:
    """Return the path of an output file named by a setting, and create its directory.

    Args:
        endings: of its name, in lower case; empty: any.

    Raises:
        UserError: no file can be there, or it is one by which a run is known.
    """
    path = local_path(name)
    if path.is_dir():
        raise UserError(f"{setting}={name} is a directory; give a file in it")
    if endings and path.suffix.lower() not in endings:
        raise UserError(f"{setting}={name}: use a file name that ends in {' or '.join(endings)}")
    if path.name in _OF_RUN and path.exists() and (path.parent / _OF_RUN[0]).is_file():
        raise UserError(f"{setting}={name} is a file of a run and would be overwritten; choose another file")
    _make(path.parent, setting, name)
    return path


def folder_for(setting: str, name: str) -> Path:
    """The directory whose name is the value of a setting, made if it is not there.

    Raises:
        UserError: none can be there.
    """
    path = local_path(name)
    _make(path, setting, name)
    return path


def _make(folder: Path, setting: str, name: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"{setting}={name}: {error.filename} is a file, not a directory; choose another path") from error


def write_text(path: Path, text: str) -> None:
    """Write a file whole, and to the disk."""
    write_lines(path, [text])


def write_lines(path: Path, lines: Iterable[str]) -> int:
    """As `write_text`, line by line; each brings its end. Returns how many there were."""
    number = 0
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        for line in lines:
            file.write(line)
            number += 1
    return number


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A file to write into, which takes the place of `path` only when the work inside has succeeded."""
    if path.exists() and not path.is_file():  # a terminal or a pipe (/dev/stdout, say), whose place nothing can take
        yield path
        return
    path = path.resolve()  # of a link, what it points to
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.touch()
    allowed = temporary.stat().st_mode  # what the umask leaves; safetensors makes files for their owner's eyes alone
    try:
        yield temporary
        temporary.chmod(allowed)
        flush(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """A directory to write into, which takes the place of `folder` only when the work inside has succeeded."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for path in (*(path for path in temporary.rglob("*") if path.is_file()), temporary):
            flush(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    put_in_place(temporary, folder)


def unfinished(parent: Path) -> Path:
    """A new directory beside those of `parent`, to be put in place when it is whole."""
    temporary = parent / f"{_UNFINISHED}{uuid.uuid4().hex}"
    temporary.mkdir(parents=True)
    return temporary


def put_in_place(temporary: Path, final: Path) -> None:
    """Give a directory that is whole its name; one that has it already is set aside before, and removed after."""
    allowed = temporary.stat().st_mode & 0o666  # what the umask leaves; safetensors makes files for their owner's eyes alone
    for path in temporary.rglob("*"):
        if path.is_file():
            path.chmod(allowed)
    old = _aside(final) if final.exists() else None
    if old:
        failpoint("place.aside")
    temporary.rename(final)
    failpoint("place.renamed")
    flush(final.parent)
    if old:
        shutil.rmtree(old)


def remove(folder: Path) -> None:
    """Remove a directory: at once from sight, so that nobody takes what is left of it for all of it."""
    old = _aside(folder)
    failpoint("remove.aside")
    shutil.rmtree(old)
    failpoint("remove.done")


def clear_away(parent: Path) -> None:
    """Remove what interrupted saves and removals have left in a directory."""
    for pattern in (f"{_UNFINISHED}*", f"{_ASIDE}*"):
        for path in parent.glob(pattern):
            shutil.rmtree(path)


def _aside(folder: Path) -> Path:
    old = folder.with_name(f"{_ASIDE}{uuid.uuid4().hex}")
    folder.rename(old)
    return old


def flush(path: Path) -> None:
    """Have a file, or a directory's list of files, written to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
