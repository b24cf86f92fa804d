"""Names of tasks, labels or files in settings: exact names first, then shell patterns (`*`, `?`, `[ab]`)."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from metatrain.tasks.labels import clean_label


class ExactName(str):
    """A name that is not a pattern, whatever characters it has."""

    __slots__ = ()


def named(pattern: str, names: Iterable[str]) -> set[str]:
    """The names that `pattern` names: the one that equals it or, if none does, those that match it. `*` names all."""
    names = set(names)
    if isinstance(pattern, ExactName):
        return names & {pattern}
    spellings = (pattern, clean_label(pattern))  # which may differ in their Unicode form, say
    for spelling in spellings:
        if spelling in names and spelling != "*":
            return {spelling}
    return {name for name in names if any(fnmatchcase(name, spelling) for spelling in spellings)}


def named_by_any(patterns: Iterable[str], names: Iterable[str]) -> set[str]:
    """The names that any of the patterns names."""
    names = set(names)
    return {name for pattern in patterns for name in named(pattern, names)}
