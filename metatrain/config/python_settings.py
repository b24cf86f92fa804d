"""Settings given in Python, as overrides of the command line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

from metatrain.config.overrides import text_value
from metatrain.config.schema import SCHEMAS
from metatrain.config.settings import settings_of
from metatrain.errors import UserError, one_line


def as_overrides(command: str, settings: Mapping[str, Any]) -> list[str]:
    """Return KEY=VALUE for each setting.

    {"inner": {"lr": 0.1}} and {"inner.lr": 0.1} are the same; {"algorithm": "maml"} chooses an option of a config group, and
    {"algorithm": ["maml", {"adapt": "head"}]} also sets settings of it.

    Raises:
        UserError: a value is of a type that no setting has.
    """
    schemas = {SCHEMAS[command], SCHEMAS["train"]}  # those of train for `tasks` of evaluate, whose default is null
    mappings = {setting.key for schema in schemas for setting in settings_of(schema) if setting.type.startswith("dict[")}
    return [f"{'++' if key in mappings and isinstance(value, Mapping) else ''}{key}={_written(key, value)}" for key, value in _leaves(settings, mappings)]


def _leaves(settings: Mapping[str, Any], mappings: set[str], group: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if not isinstance(name, str):
            raise UserError(f"{group or 'settings'}: the name of a setting must be a string, not {name!r}")
        key = f"{group}{name}"
        if isinstance(value, Mapping) and key not in mappings:
            yield from _leaves(value, mappings, f"{key}.")
        elif isinstance(value, (list, tuple)) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], Mapping):
            yield key, value[0]
            yield from _leaves(value[1], mappings, f"{key}.")
        else:
            yield key, value


def _written(key: str, value: Any) -> str:
    """Return a value in Hydra's grammar. Raises: UserError: no setting has values of this type."""
    if hasattr(value, "columns"):
        raise UserError(f"{key} is a table; write it to a file (to_csv, to_parquet), or use metatrain.FewShotClassifier().fit(table[TEXT], table[LABEL])")
    if getattr(value, "ndim", None) == 0:  # a number of numpy
        value = value.item()
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (str, PurePath)):
        return text_value(str(value))
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{text_value(str(name))}:{_written(key, each)}' for name, each in value.items())}}}"
    if isinstance(value, (list, tuple)):
        return f"[{','.join(_written(key, each) for each in value)}]"
    raise UserError(f"{key}={one_line(repr(value))}: a setting is a string, a number, a truth value, None, a list or a mapping, not {type(value).__name__}")
