"""Labelled data of one task, as it lies about: a file of rows, a folder of images, or a folder of text files (LABEL/FILE.txt)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePath

from metatrain.errors import UserError
from metatrain.tasks.columns import found_columns
from metatrain.tasks.files import Columns, Table, read_file
from metatrain.tasks.labels import clean_label, label_notes
from metatrain.tasks.sources import images_in, images_of
from metatrain.tasks.text_files import TEXT_FILE, read_text_file, text_files
from metatrain.tasks.texts import TextStore


def read_labelled(path: Path, setting: str, columns: Columns, guessed: Mapping[str, str]) -> tuple[Table, Columns]:
    """Read the labelled examples of a task; return them and the columns that were read.

    Args:
        setting: name of the setting, for error messages.
        guessed: columns (`text`, `label`) that are found by names and values where the file has no column of that name, with the settings that
            name them.

    Raises:
        UserError: the file or folder cannot be read; the message says where.
    """
    if path.is_dir():
        return texts_of(path, setting) if text_files(path) and not images_in(path) else images_of(path, setting), columns
    columns, notes = found_columns(path, columns, guessed)
    table = read_file(path, columns)
    return replace(table, notes=(*notes, *table.notes)), columns


def texts_of(folder: Path, setting: str) -> Table:
    """Return the texts of one task, LABEL/FILE.txt; a file is a text.

    Raises:
        UserError: a text file is not in a folder of a label, or cannot be read.
    """
    files, texts, notes = text_files(folder), TextStore(), list[str]()
    for file in files:
        if len(PurePath(file).parts) != 2:
            raise UserError(f"{setting}={folder}: text files must be in LABEL/FILE{TEXT_FILE}; there is {file}")
    num_legacy = 0
    for text, problem, is_legacy in map(read_text_file, (folder / file for file in files)):
        if problem is not None:
            raise UserError(problem)
        texts.add(text)
        num_legacy += is_legacy
    if num_legacy:
        notes.append(f"{folder}: {num_legacy} of {len(files)} files are not UTF-8; read as Windows-1252 (cp1252)")
    labels = [clean_label(PurePath(file).parts[0]) for file in files]
    notes += label_notes(str(folder), labels)
    return Table(str(folder), texts.done(), labels, [folder.name] * len(files), notes=tuple(notes), files=tuple(str(folder / file) for file in files))
