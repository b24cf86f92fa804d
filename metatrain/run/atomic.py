"""Atomic writes: a reader sees a file or directory either as it was before or complete."""

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
        endings: allowed file name extensions, in lower case; empty: any.

    Raises:
        UserError: no file can be written there, or it is a file of a run.
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
    """Return the directory that a setting names; create it if it does not exist.

    Raises:
        UserError: it cannot be created.
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
    """Write a file atomically, and flush it to the disk."""
    write_lines(path, [text])


def write_lines(path: Path, lines: Iterable[str]) -> int:
    """Write lines, each with its line end, atomically; return their number."""
    number = 0
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        for line in lines:
            file.write(line)
            number += 1
    return number


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON with sorted keys, atomically."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary file that replaces `path` when the block ends without an error."""
    if path.exists() and not path.is_file():  # a terminal or a pipe, such as /dev/stdout, cannot be replaced
        yield path
        return
    path = path.resolve()  # writes through a link
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.touch()
    allowed = temporary.stat().st_mode  # permissions by the umask; safetensors creates files that only the owner can read
    try:
        yield temporary
        temporary.chmod(allowed)
        flush(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_directory(folder: Path) -> Iterator[Path]:
    """Yield a temporary directory that replaces `folder` when the block ends without an error."""
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
    move_into_place(temporary, folder)


def unfinished(parent: Path) -> Path:
    """Create a temporary directory in `parent`, to be moved into place when it is complete."""
    temporary = parent / f"{_UNFINISHED}{uuid.uuid4().hex}"
    temporary.mkdir(parents=True)
    return temporary


def move_into_place(temporary: Path, final: Path) -> None:
    """Rename a complete directory to its final name; an existing one is moved aside before, and removed after."""
    allowed = temporary.stat().st_mode & 0o666  # permissions by the umask; safetensors creates files that only the owner can read
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
    """Remove a directory. It is renamed first, so that no reader sees a part of it."""
    old = _aside(folder)
    failpoint("remove.aside")
    shutil.rmtree(old)
    failpoint("remove.done")


def clear_away(parent: Path) -> None:
    """Remove the temporary directories that interrupted saves and removals have left in `parent`."""
    for pattern in (f"{_UNFINISHED}*", f"{_ASIDE}*"):
        for path in parent.glob(pattern):
            shutil.rmtree(path)


def _aside(folder: Path) -> Path:
    old = folder.with_name(f"{_ASIDE}{uuid.uuid4().hex}")
    folder.rename(old)
    return old


def flush(path: Path) -> None:
    """Flush a file, or the entries of a directory, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
