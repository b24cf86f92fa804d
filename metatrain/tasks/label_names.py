"""Meaningful label names: those that can serve as examples of their classes."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Mapping, Sequence

from metatrain.errors import UserError
from metatrain.tasks.task import plain_name

_BORDER = re.compile(r"(?<=[^\W\d_])(?=\d)|(?<=\d)(?=[^\W\d_])|(?<=[a-z])(?=[A-Z])")  # between letters and digits, and in camelCase
_ROMAN = re.compile("[IVX]+")
LABEL_TEXTS = ("name", "definition", "name_and_definition")
_SHORTEST = 2  # minimum number of letters of a word, in alphabetic scripts


@functools.lru_cache(maxsize=4096)
def meaningful_names(names: tuple[str, ...]) -> tuple[bool, ...]:
    """Return for each label name whether it describes its class in words, as `refund` does and `28`, `C`, `x7` and `LABEL_3` do not.

    Numbers, codes and single letters are not words. Words that all names share do not count if the names have no others.
    """
    words = [_words(name) for name in names]
    shared = frozenset.intersection(*words) if words else frozenset()
    if len(words) > 1 and all(each <= shared for each in words):
        return (False,) * len(names)
    return tuple(map(bool, words))


def _words(name: str) -> frozenset[str]:
    """Return the words and symbols (emoji) of a name."""
    read = "".join(letter if unicodedata.category(letter)[0] in "LMN" else " " for letter in unicodedata.normalize("NFKC", name))
    parts = [part for token in read.split() for part in _BORDER.split(token) if part and not _ROMAN.fullmatch(part)]
    words = {part.casefold() for part in parts if _is_word(part)}
    if any(letter.isdigit() for letter in name) and all(len(word) <= _SHORTEST for word in words):
        words = set()  # a code: B2, AB-12, 3rd
    return frozenset(words | {letter for letter in name if unicodedata.category(letter) == "So"})


def _is_word(part: str) -> bool:
    """Return whether a part of a name has two letters or more, or one of a script whose characters are words."""
    letters = sum(unicodedata.category(letter)[0] in "LM" for letter in part)
    return letters >= _SHORTEST or (letters == 1 and unicodedata.east_asian_width(part[0]) == "W")


def unread_note(names_of: Sequence[tuple[str, Sequence[str]]]) -> str | None:
    """Return one line on the tasks (name, label names) whose label names have no meaning, for a method that reads them; None: there is no such task."""
    found = [(task, name) for task, names in names_of for name, is_meaningful in zip(names, meaningful_names(tuple(names))) if not is_meaningful]
    if not found:
        return None
    tasks = list(dict.fromkeys(task for task, _ in found))
    labels = ", ".join(repr(name) for _, name in found[:3]) + (", ..." if len(found) > 3 else "")
    where = tasks[0] if len(tasks) == 1 else f"{tasks[0]} and {len(tasks) - 1} more task{'s' * (len(tasks) > 2)}"
    return f"label names without meaning are not used as examples: {labels} in {where}; descriptive label names help if examples are few"


def check_label_text(setting: str, form: str) -> None:
    """Raises: UserError: `form`, the value of a setting, is none of `LABEL_TEXTS`."""
    if form not in LABEL_TEXTS:
        raise UserError(f"{setting}={form} is unknown; choose one of {', '.join(LABEL_TEXTS)}")


def label_texts(names: Sequence[str], definitions: Mapping[str, str], form: str) -> tuple[str, ...] | None:
    """Return the texts of labels for methods that read label names, in one of the forms of `LABEL_TEXTS`; None: the names."""
    if form == "name" or not definitions:
        return None
    of_name = "{definition}" if form == "definition" else "{name}: {definition}"
    return tuple(of_name.format(name=plain_name(name), definition=definitions[name]) if name in definitions else name for name in names)
