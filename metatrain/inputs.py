"""Texts and images that Python callers give, as models read them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from metatrain.errors import UserError
from metatrain.tasks.columns import usual_column
from metatrain.tasks.labels import is_blank
from metatrain.tasks.texts import IMAGE, PAIR, has_lone_surrogate, plain

Text = str | tuple[str, str]  # a tuple: two texts that belong together, a premise and a hypothesis, say


def listed_texts(texts: Iterable[Text]) -> list[str]:
    """Return the texts, such as a list or a column of a table, as they are read.

    Raises:
        UserError: it is one text instead of several, or one of them is no text that a tokenizer can read.
    """
    if isinstance(texts, str):
        raise UserError("texts must be a list of strings, not a string; use [text]")
    if is_table(texts):
        texts = texts_of_table(texts)
    return [read_text(text, f"texts[{number}]") for number, text in enumerate(texts)]


def is_table(value: object) -> bool:
    """Return True for a DataFrame of pandas, or anything else with named columns."""
    return hasattr(value, "columns") and hasattr(value, "__getitem__")


def texts_of_table(table: Any) -> list[Text]:
    """Return the texts of a DataFrame: its column of a usual name for texts, and with one for a second text, pairs.

    Raises:
        UserError: no column has such a name.
    """
    names = [str(name) for name in table.columns]
    text = _usual_column(names, "text", "use table[COLUMN]")
    pair = usual_column([name for name in names if name != text], "pair")
    return list(table[text]) if pair is None else list(zip(table[text], table[pair]))


def labelled_of_table(table: Any) -> list[tuple[Any, Any]]:
    """Return the pairs (text, label) of a DataFrame, by columns of usual names.

    Raises:
        UserError: no column has such a name.
    """
    label = _usual_column([str(name) for name in table.columns], "label", "use zip(table[TEXT], table[LABEL])")
    return list(zip(texts_of_table(table.drop(columns=[label])), table[label]))


def _usual_column(names: list[str], kind: str, remedy: str) -> str:
    """Return the column of a usual name for this kind, text or label. Raises: UserError: there is none."""
    found = usual_column(names, kind)
    if found is None:
        raise UserError(f"the table has no column with a usual name for {kind}s; it has {', '.join(map(repr, names))}: {remedy}")
    return found


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


def check_not_blank(text: Text, where: str) -> None:
    """Raises: UserError: an example has no text to learn from."""
    if all(map(is_blank, (text,) if isinstance(text, str) else text)):
        raise UserError(f"{where} is empty; remove it, or give it a text")


def is_text(text: object) -> bool:
    """Return True for a text, or a tuple of two that belong together."""
    return isinstance(text, str) or (isinstance(text, tuple) and len(text) == 2 and all(isinstance(part, str) for part in text))
