"""Descriptions of settings, read from the dataclasses that define them: type, default and the comment of the field."""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from io import StringIO
from typing import Any, get_args, get_type_hints


@dataclass(frozen=True)
class Setting:
    """One setting, or a group of settings."""

    key: str
    type: str
    default: Any
    meaning: str
    where: str  # the dataclass that defines it


@dataclass(frozen=True)
class Change:
    """A setting whose value changes."""

    key: str
    before: Any  # None: the setting was not there
    after: Any

    def __str__(self) -> str:
        return f"{self.key}: {self.before} -> {self.after}"


def changes(before: Any, after: Any) -> tuple[Change, ...]:
    """Return the settings that differ between two configurations of one schema, sorted by key."""
    old, new = dict(leaves(dataclasses.asdict(before))), dict(leaves(dataclasses.asdict(after)))
    return tuple(Change(key, old.get(key), new.get(key)) for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key))


def settings_of(schema: Any) -> Iterator[Setting]:
    """Yield all settings of a command's schema in the order of their definition; a group comes before its settings."""
    yield from _settings_of(schema(), "")


def _settings_of(defaults: Any, prefix: str) -> Iterator[Setting]:
    """Yield the settings of an instance; its values are the defaults, because a parent may set other defaults than the class of a group."""
    schema = type(defaults)
    meanings, hints = _comments(schema), get_type_hints(schema)
    for field in dataclasses.fields(schema):
        key, hint, default = prefix + field.name, hints[field.name], getattr(defaults, field.name)
        inner = next((kind for kind in (hint, *get_args(hint)) if dataclasses.is_dataclass(kind)), None)
        group = inner is not None and dataclasses.is_dataclass(hint)
        meaning = meanings.get(field.name) or (_first_line(inner) if inner else "")
        yield Setting(key, _name(hint), None if group else default, meaning, f"{schema.__module__}.{schema.__name__}")
        if group:
            yield from _settings_of(default, f"{key}.")


def leaves(values: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the keys and plain values of nested settings, in order."""
    if isinstance(values, dict):
        for key, each in values.items():
            yield from leaves(each, f"{path}.{key}" if path else key)
    else:
        yield path, values


def escaped(value: Any) -> Any:
    """Return resolved values with `${` escaped, so that it is not interpolated again."""
    if isinstance(value, dict):
        return {key: escaped(each) for key, each in value.items()}
    if isinstance(value, list):
        return [escaped(each) for each in value]
    return re.sub(r"(\\*)\$\{", lambda found: 2 * found[1] + "\\${", value) if isinstance(value, str) else value


def _first_line(kind: Any) -> str:
    return (inspect.getdoc(kind) or "").splitlines()[0]


def _name(hint: Any) -> str:
    if dataclasses.is_dataclass(hint):
        return "group"
    name = hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)
    return name.replace("typing.", "").replace("NoneType", "null").replace("None", "null")


def _comments(schema: type) -> dict[str, str]:
    """Return the comment of each field: the lines above it and the end of its line; fields of a base class are commented there."""
    found: dict[str, str] = {}
    for kind in reversed(schema.__mro__):
        if dataclasses.is_dataclass(kind):
            found.update(_own_comments(kind))
    return found


@cache  # commands share most groups, and reading source takes long
def _own_comments(kind: type) -> dict[str, str]:
    found: dict[str, str] = {}
    above: list[str] = []
    name: str | None = None
    line = 0
    for token in tokenize.generate_tokens(StringIO(textwrap.dedent(inspect.getsource(kind))).readline):
        if token.type == tokenize.COMMENT:
            text = token.string.lstrip("# ")
            if token.line.strip().startswith("#"):
                above.append(text)
            elif name:
                found[name] = " ".join([*above, text]) if above else text
        elif token.type == tokenize.NEWLINE:
            if name and above and name not in found:
                found[name] = " ".join(above)
            above, name = [], None
        elif token.type == tokenize.NAME and name is None and token.start[0] != line:
            line = token.start[0]
            name = token.string if token.line.strip().startswith(f"{token.string}:") else None
    return found
