"""Settings that were renamed. The former keys still work: in overrides, in YAML files of users, and in files of earlier runs and models."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from metatrain.errors import UserError

# Former key -> key, in the same group; `*` is any name.
RENAMED = {
    "outer.blend": "outer.weight_interpolation",
    "episode.mix": "episode.cross_task_fraction",
    "hardware.together": "hardware.vectorized_episodes",
    "none_of_these": "oos_false_rejection_rate",
    "nearness": "similarity_weight",
    "tasks.pictures": "tasks.images",
    "tasks.sources.*.pictures": "tasks.sources.*.images",
    "tasks.label_words": "tasks.label_descriptions",
    "tasks.sources.*.label_words": "tasks.sources.*.label_descriptions",
    "tasks.sampling.memory": "tasks.sampling.decay",
    "tasks.masked_words.words": "tasks.masked_words.max_words",
    "tasks.masked_words.least_sentences": "tasks.masked_words.min_sentences",
    "tasks.masked_words.most_sentences": "tasks.masked_words.max_sentences",
    "tasks.masked_words.most_share": "tasks.masked_words.max_share",
    "tasks.masked_words.most_texts": "tasks.masked_words.max_texts",
    "tasks.clusters.most_texts": "tasks.clusters.max_texts",
    "tasks.sentence_order.most_texts": "tasks.sentence_order.max_texts",
    "tasks.sentence_order.rows": "tasks.sentence_order.max_pairs",
    "tasks.same_text.most_texts": "tasks.same_text.max_texts",
    "tasks.same_text.rows": "tasks.same_text.max_pairs",
}
_FORMER = {new: old for old, new in RENAMED.items()}


def current_key(key: str) -> str:
    """Return the present key of a setting, or of one inside it, that may have a former key."""
    return _translated(key, RENAMED)


def current(settings: Mapping[str, Any], group: str = "") -> tuple[dict[str, Any], list[str]]:
    """Return (settings under their present keys, the former keys that were found); `group`: the key of the group that they are in.

    Raises:
        UserError: a setting is given under both of its keys.
    """
    former: list[str] = []
    return _all_translated(settings, RENAMED, f"{group}." if group else "", former), former


def former(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings under their former keys: hashes that name runs of a grid stay the same."""
    return _all_translated(settings, _FORMER, "", [])


def current_override(item: str) -> tuple[str, str | None]:
    """Return (an override KEY=VALUE under its present key, the former key or None). Values that are sources of tasks are translated as well."""
    sign, key, rest = _OVERRIDE.match(item).groups()  # type: ignore[union-attr]  # matches any text
    new, inside = current_key(key), None
    if key == "tasks.sources" or (key.startswith("tasks.sources.") and key.count(".") == 2):
        rest, inside = _in_sources(rest)
    return f"{sign}{new}{rest}", key if new != key else inside


def said_of(former_key: str) -> str:
    """Return the line that tells a user the present key of a setting."""
    return f"{former_key} is now {current_key(former_key)}; the former name still works"


_OVERRIDE = re.compile(r"([+~]*)([^=]*)(.*)", re.DOTALL)


def _in_sources(value: str) -> tuple[str, str | None]:
    """Translate the names in a dictionary of Hydra's grammar, {NAME: {path: ..., pictures: true}} or {path: ..., pictures: true}."""
    found = None
    for old, new in RENAMED.items():
        if old.startswith("tasks.sources.*."):
            value, number = re.subn(rf"([{{,]\s*){old.rpartition('.')[2]}(\s*:)", rf"\g<1>{new.rpartition('.')[2]}\2", value)
            found = old.replace("*", "NAME") if number else found
    return value, found


def _translated(key: str, table: Mapping[str, str]) -> str:
    parts = key.split(".")
    for old, new in table.items():
        pattern = old.split(".")
        if len(pattern) <= len(parts) and all(name in ("*", part) for name, part in zip(pattern, parts)):
            return ".".join([*parts[: len(pattern) - 1], new.rpartition(".")[2], *parts[len(pattern) :]])
    return key


def _all_translated(settings: Mapping[str, Any], table: Mapping[str, str], prefix: str, found: list[str]) -> dict[str, Any]:
    translated: dict[str, Any] = {}
    for name, value in settings.items():
        key = f"{prefix}{name}"
        new = _translated(key, table)
        if new != key:
            found.append(key)
            name = new.rpartition(".")[2]
            if name in settings:
                raise UserError(f"{key} is the former name of {new}, and both are given; remove {key}")
        translated[name] = _all_translated(value, table, f"{new}.", found) if isinstance(value, Mapping) else value
    return translated


class Notes:
    """Lines about former keys that were met while a command was composed, each of which is to be shown once."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._shown: set[str] = set()

    def add(self, line: str) -> None:
        if line not in self._shown:
            self._shown.add(line)
            self._lines.append(line)

    def take(self) -> Iterator[str]:
        """Yield the lines that were not shown yet."""
        while self._lines:
            yield self._lines.pop(0)

    def reset(self) -> None:
        """Forget all lines: another command begins."""
        self._lines.clear()
        self._shown.clear()


NOTES = Notes()
