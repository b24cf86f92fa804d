"""Conditions under which a setting is read. A config dataclass states them beside the field.

    last_layers: int = field(default=2, metadata=when(chosen("algorithm.adapt")))
    strength: float = field(default=1.0, metadata=when(needs(".by", lambda by: by != "fixed", "is not fixed")))

A key that begins with a dot is that of a setting in the same group. A field without conditions is always read. The settings that a condition
depends on have to be read too: their own conditions apply as well. `metatrain.config.effects` evaluates conditions against a configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

READ_WHEN = "read_when"  # key of the conditions in the metadata of a field


class Components(Protocol):
    """Built-in and plug-in components that a setting chooses by name."""

    def facts(self, setting: str, value: Any) -> Any:
        """Return the facts of the component that the setting `setting=value` chooses; its `reads` names the settings it reads, None: all."""

    def names(self, setting: str) -> list[str]:
        """Return the names of the built-in components that the setting chooses from."""


@dataclass(frozen=True)
class Unread:
    """A setting is not read."""

    because: str  # "algorithm.adapt=all has no LoRA matrices"
    remedy: str  # "choose algorithm.adapt=lora"
    is_switched_off: bool = False  # with the stage that reads it (the meta-test, for example); never refused


@dataclass(frozen=True)
class Place:
    """A setting in a configuration."""

    key: str
    values: Mapping[str, Any]  # the configuration as plain values
    components: Components
    trains: bool  # whether the command meta-trains

    @property
    def name(self) -> str:
        """Name of the setting in its group."""
        return self.key.rpartition(".")[2]

    def full(self, key: str) -> str:
        """Return the key of a setting, which may be one of the same group (".name")."""
        return f"{self.key.rpartition('.')[0]}{key}".removeprefix(".") if key.startswith(".") else key

    def value(self, key: str) -> Any:
        """Return the value of a setting."""
        found: Any = self.values
        for part in self.full(key).split("."):
            found = found[part]
        return found

    def given(self, key: str) -> str:
        """Return SETTING=VALUE as a user would type it."""
        return f"{self.full(key)}={shown(self.value(key))}"

    def facts(self, key: str) -> Any:
        """Return the facts of the component that a setting chooses."""
        return self.components.facts(self.full(key), self.value(key))

    def is_read_by(self, facts: Any) -> bool:
        """Return whether a component with these facts reads the setting."""
        return facts.reads is None or self.name in facts.reads

    def readers(self, key: str) -> list[str]:
        """Return the names of the built-in components of a setting that read this one."""
        full = self.full(key)
        return [name for name in self.components.names(full) if self.is_read_by(self.components.facts(full, name))]


@dataclass(frozen=True)
class Condition:
    """When a setting is read."""

    unread: Callable[[Place], Unread | None]  # why the setting has no effect; None: it is read
    words: Callable[[Place], str]  # "algorithm.adapt is lora"; empty: nothing worth saying
    depends_on: tuple[str, ...] = ()  # settings that have to be read themselves


def when(*conditions: Condition) -> Mapping[str, Any]:
    """Return the metadata of a field that is read if all conditions hold."""
    return {READ_WHEN: conditions}


def needs(key: str, holds: Callable[[Any], bool], words: str, remedy: str | None = None, switches: bool = False) -> Condition:
    """Return the condition that another setting has a suitable value.

    words: what it is then, such as "is above 0"; switches: it switches the stage that reads the setting on or off.
    """

    def unread(place: Place) -> Unread | None:
        return None if holds(place.value(key)) else Unread(place.given(key), remedy or f"set {place.full(key)}", switches)

    return Condition(unread, lambda place: f"{place.full(key)} {words}", (key,))


def chosen(key: str) -> Condition:
    """Return the condition that the component chosen by another setting declares to read this one, or declares nothing."""

    def unread(place: Place) -> Unread | None:
        if place.is_read_by(place.facts(key)):
            return None
        names = place.readers(key)
        return Unread(f"{place.given(key)} does not read it", f"choose {place.full(key)}={either(names)}" if names else f"choose another {place.full(key)}")

    def words(place: Place) -> str:
        names = place.readers(key)
        return "" if len(names) == len(place.components.names(place.full(key))) else f"{place.full(key)} is {either(names)}"

    return Condition(unread, words, (key,))


def never(because: str, remedy: str = "") -> Condition:
    """Return the condition of a setting that nothing reads."""
    return Condition(lambda place: Unread(because, remedy), lambda place: "")


TRAINING = Condition(lambda place: None if place.trains else Unread("this command does not meta-train", "set it in metatrain train"), lambda place: "")


def shown(value: Any) -> str:
    """Return a value as a user would type it."""
    if isinstance(value, list):
        return f"[{','.join(map(shown, value))}]"
    return {"None": "null", "True": "true", "False": "false"}.get(str(value), str(value))


def either(names: list[str]) -> str:
    """Return "a, b or c"."""
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
