"""Settings that have no effect: the conditions of `metatrain.conditions`, evaluated against a composed configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, get_args, get_origin, get_type_hints

from metatrain.conditions import READ_WHEN, Components, Condition, Place, Unread
from metatrain.errors import UserError


@dataclasses.dataclass(frozen=True)
class Effects:
    """The settings of a command that are read, given all of its settings."""

    schema: type  # of the configuration
    values: Mapping[str, Any]  # the configuration as plain values
    components: Components
    trains: bool = True  # whether the command meta-trains
    unknown: tuple[str, ...] = ()  # groups whose values are not known yet; their settings count as read

    def unread(self, key: str) -> Unread | None:
        """Return why a setting has no effect; None: it is read, or it is not a setting of the configuration."""
        if key.partition(".")[0] in self.unknown:
            return None
        for prefix, condition in conditions_of(self.schema, key):
            place = Place(prefix, self.values, self.components, self.trains)
            for other in condition.depends_on:
                if (found := self.unread(place.full(other))) is not None:
                    return found
            if (found := condition.unread(place)) is not None:
                return found
        return None

    def notes(self, keys: Iterable[str]) -> list[str]:
        """Return a line for each reason for which some of these settings have no effect."""
        found: dict[str, list[str]] = {}
        for key in dict.fromkeys(keys):
            if (unread := self.unread(key)) is not None:
                found.setdefault(unread.because, []).append(key)
        return [f"{', '.join(names)} {'has' if len(names) == 1 else 'have'} no effect: {because}" for because, names in found.items()]

    def check(self, overrides: Sequence[str]) -> None:
        """Raises: UserError: a setting of the command line has no effect, other than in a stage that is switched off."""
        for key in typed_keys(overrides):
            found = self.unread(key)
            if found is not None and not found.is_switched_off:
                raise UserError(f"{key} has no effect: {found.because}; {f'{found.remedy}, or leave' if found.remedy else 'leave'} {key} out")

    def words(self, key: str) -> str:
        """Return when a setting is read, "" if always."""
        found = (condition.words(Place(prefix, self.values, self.components, self.trains)) for prefix, condition in conditions_of(self.schema, key))
        return " and ".join(filter(None, found))


def typed_keys(overrides: Sequence[str]) -> list[str]:
    """Return the keys of settings in overrides; one that is deleted (`~key`) is left out."""
    return [item.lstrip("+").partition("=")[0] for item in overrides if not item.startswith("~")]


def conditions_of(schema: Any, key: str) -> Iterator[tuple[str, Condition]]:
    """Yield the conditions of a setting, those of the groups around it first, each with the key of the setting or group that states it."""
    parts = key.split(".")
    for place, part in enumerate(parts):
        if not dataclasses.is_dataclass(schema):
            # An entry of a mapping, whose name is free.
            schema = next((kind for kind in get_args(schema) if dataclasses.is_dataclass(kind)), None)
            continue
        field = next((each for each in dataclasses.fields(schema) if each.name == part), None)
        if field is None:
            return
        for condition in field.metadata.get(READ_WHEN, ()):
            yield ".".join(parts[: place + 1]), condition
        hint = get_type_hints(schema)[part]
        options = (hint,) if get_origin(hint) is dict else (hint, *get_args(hint))
        schema = next((kind for kind in options if dataclasses.is_dataclass(kind)), hint)
