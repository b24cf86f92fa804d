"""Names of tasks, labels or files in settings: exact names first, then shell patterns (`*`, `?`, `[ab]`)."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from fnmatch import fnmatchcase

from metatrain.tasks.labels import clean_label


class ExactName(str):
    """A name that is never interpreted as a pattern."""

    __slots__ = ()


def named(pattern: str, names: Iterable[str]) -> set[str]:
    """Return the names that a pattern selects: the equal one or, if there is none, those that match it. `*` selects all."""
    names = names if isinstance(names, AbstractSet) else set(names)  # not copied: there may be ten thousand names, and as many patterns
    if isinstance(pattern, ExactName):
        return {pattern} if pattern in names else set()
    spellings = (pattern, clean_label(pattern))  # they may differ in their Unicode form, for example
    for spelling in spellings:
        if spelling in names and spelling != "*":
            return {spelling}
    return {name for name in names if any(fnmatchcase(name, spelling) for spelling in spellings)}


def named_by_any(patterns: Iterable[str], names: Iterable[str]) -> set[str]:
    """Return the names that any of the patterns selects."""
    names = set(names)
    return {name for pattern in patterns for name in named(pattern, names)}
