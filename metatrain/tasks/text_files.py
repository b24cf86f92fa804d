"""Text files of a folder, each of which is one text."""

from __future__ import annotations

from pathlib import Path

from metatrain.tasks.folders import visible_files
from metatrain.tasks.labels import is_blank
from metatrain.tasks.rows import NOT_UTF8, is_windows_1252
from metatrain.tasks.texts import plain

TEXT_FILE = ".txt"


def text_files(folder: Path) -> list[str]:
    """Return the relative paths of the text files below a folder, sorted, without hidden ones."""
    return visible_files(folder, lambda path: path.suffix.lower() == TEXT_FILE)


def read_text_file(path: Path) -> tuple[str, str | None, bool]:
    """Return the text of a file, why it cannot be read (None: it can), and whether it is Windows-1252."""
    content = path.read_bytes()
    is_legacy = not content.isascii() and is_windows_1252([content])
    try:
        text = plain(content.decode("cp1252" if is_legacy else "utf-8-sig"))
    except UnicodeDecodeError:
        return "", f"{path}: {NOT_UTF8}", False
    return (text, None, is_legacy) if not is_blank(text) else ("", f"{path}: the file is empty", False)
