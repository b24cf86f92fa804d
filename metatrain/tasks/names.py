"""Which tasks, labels or files a setting names: exact names first, then shell patterns (`*`, `?`, `[ab]`)."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase


class ExactName(str):
    """A name that is not a pattern, whatever characters it has."""

    __slots__ = ()


def named(pattern: str, names: Iterable[str]) -> set[str]:
    """The names that `pattern` names: the one that equals it or, if none does, those that match it. `*` names all."""
    names = set(names)
    if isinstance(pattern, ExactName) or (pattern in names and pattern != "*"):
        return names & {pattern}
    return {name for name in names if fnmatchcase(name, pattern)}


def named_by_any(patterns: Iterable[str], names: Iterable[str]) -> set[str]:
    """The names that any of the patterns names."""
    names = set(names)
    return {name for pattern in patterns for name in named(pattern, names)}
