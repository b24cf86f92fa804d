"""What each setting means, from where it is defined: its type, its default and the comment beside it."""

from __future__ import annotations

import dataclasses
import inspect
import textwrap
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO
from typing import Any, get_args, get_type_hints


@dataclass(frozen=True)
class Setting:
    """One thing that a user may set."""

    key: str
    type: str
    default: Any
    meaning: str
    where: str  # the dataclass that has it


def settings_of(schema: Any, prefix: str = "") -> Iterator[Setting]:
    """All settings of a command's schema, in the order of their definition; a group comes before what is in it."""
    meanings, hints = _comments(schema), get_type_hints(schema)
    for field in dataclasses.fields(schema):
        key, hint = prefix + field.name, hints[field.name]
        inner = next((kind for kind in (hint, *get_args(hint)) if dataclasses.is_dataclass(kind)), None)
        group = inner is not None and dataclasses.is_dataclass(hint)
        meaning = meanings.get(field.name) or (_first_line(inner) if inner else "")
        yield Setting(key, _name(hint), None if group else _default(field), meaning, f"{schema.__module__}.{schema.__name__}")
        if group:
            yield from settings_of(inner, f"{key}.")


def leaves(values: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Keys and plain values of nested settings, in their order."""
    if isinstance(values, dict):
        for key, each in values.items():
            yield from leaves(each, f"{path}.{key}" if path else key)
    else:
        yield path, values


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _first_line(kind: Any) -> str:
    return (inspect.getdoc(kind) or "").splitlines()[0]


def _name(hint: Any) -> str:
    if dataclasses.is_dataclass(hint):
        return "group"
    name = hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)
    return name.replace("typing.", "").replace("NoneType", "null").replace("None", "null")


def _comments(schema: type) -> dict[str, str]:
    """By field: the comment behind it, and those in the lines right above it. Fields of a base class have theirs there."""
    found: dict[str, str] = {}
    for kind in reversed(schema.__mro__):
        if dataclasses.is_dataclass(kind):
            found.update(_own_comments(kind))
    return found


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
