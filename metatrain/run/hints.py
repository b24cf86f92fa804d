"""Paths and commands in messages, written so that they can be pasted into a shell."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from metatrain.config.overrides import override


def shown(path: Path) -> str:
    """Return the path as a user would type it: relative to the working directory if it lies below that."""
    if not path.is_relative_to(Path.cwd()):
        return str(path)
    name = str(path.relative_to(Path.cwd()))
    return f"./{name}" if name.startswith("-") else name  # else a command would read it as a flag


def resume_command(path: Path, *settings: str) -> str:
    """Return `metatrain resume PATH SETTINGS`."""
    return " ".join(["metatrain resume", shell_quoted(shown(path)), *settings])


def typed_setting(key: str, path: Path | str) -> str:
    """Return KEY=PATH, as a shell and then Hydra read it."""
    return shell_quoted(override(key, shown(path) if isinstance(path, Path) else path))


def shell_quoted(text: str) -> str:
    """Return a word of a shell; bytes that cannot be printed are written as escapes, in the `$'...'` that bash, zsh and ksh read."""
    if text.isprintable():
        return shlex.quote(text)
    escapes = ("".join(f"\\x{byte:02x}" for byte in os.fsencode(char)) for char in text)
    return "$'" + "".join(char if char.isprintable() and char not in "'\\" else escape for char, escape in zip(text, escapes)) + "'"
