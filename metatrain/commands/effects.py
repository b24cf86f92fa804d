"""Which settings of a command have an effect."""

from __future__ import annotations

from typing import Any

from metatrain.config.effects import Effects


def effects_of(config: Any, trains: bool = True) -> Effects:
    """Return the effects of the settings of a typed configuration."""
    from metatrain.commands.components import COMPONENTS

    return Effects.of(config, COMPONENTS, trains)
