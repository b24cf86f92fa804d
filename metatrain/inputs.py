"""Texts and images that Python callers give, as models read them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from metatrain.errors import UserError
from metatrain.tasks.texts import IMAGE, PAIR, has_lone_surrogate, plain

Text = str | tuple[str, str]  # a tuple: two texts that belong together, a premise and a hypothesis, say


def listed_texts(texts: Iterable[Text]) -> list[str]:
    """Return the texts, such as a list or a column of a table, as they are read.

    Raises:
        UserError: it is one text instead of several, or one of them is no text that a tokenizer can read.
    """
    if isinstance(texts, str):
        raise UserError("texts must be a list of strings, not a string; use [text]")
    if hasattr(texts, "columns"):  # iterating over a table would give the names of its columns
        raise UserError("texts must be a list or a column, not a table; use table[COLUMN]")
    return [read_text(text, f"texts[{number}]") for number, text in enumerate(texts)]


def listed_images(paths: Iterable[str | os.PathLike[str]]) -> list[str]:
    """Return image files as an image model reads them.

    Raises:
        UserError: it is one path instead of several, or one of them is no path.
    """
    if isinstance(paths, (str, os.PathLike)):
        raise UserError("images must be a list of paths, not a path; use [path]")
    given = list(paths)
    for number, path in enumerate(given):
        if not isinstance(path, (str, os.PathLike)):
            raise UserError(f"images[{number}] must be a path, not {path!r}")
    return [f"{IMAGE}{os.fspath(path)}" for path in given]


def read_text(text: Any, where: str) -> str:
    """Return a text, or two that belong together, as the tokenizer is given it.

    Raises:
        UserError: it is no text that a tokenizer can read.
    """
    if not is_text(text):
        raise UserError(f"{where} must be a string, not {text!r}")
    parts = (text,) if isinstance(text, str) else text
    if any(map(has_lone_surrogate, parts)):
        raise UserError(f"{where} has half a character (a lone surrogate): {text!r}")
    return PAIR.join(map(plain, parts))


def is_text(text: object) -> bool:
    """Return True for a text, or a tuple of two that belong together."""
    return isinstance(text, str) or (isinstance(text, tuple) and len(text) == 2 and all(isinstance(part, str) for part in text))
