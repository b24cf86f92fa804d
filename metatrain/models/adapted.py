"""Which of the encoder's parameters the inner loop adapts; the others are meta-learned but fixed within an episode."""

from __future__ import annotations

import re
from collections.abc import Sequence

from metatrain.errors import UserError

CHOICES = ("all", "head", "last_layers")
_LAYER = re.compile(r"\.(?:layer|layers|h|block)\.(\d+)\.")


def lowest_adapted_layer(adapted: Sequence[str]) -> int:
    """The first layer that adaptation changes: everything below it gives the same in the whole episode.

    0 if anything outside the layers adapts, since that may be the embeddings.
    """
    found = [_LAYER.search(name) for name in adapted]
    return min((int(match[1]) if match else 0 for match in found), default=0)


def check_choice(choice: str) -> None:
    """Raises: UserError: there is no such choice."""
    if choice not in CHOICES:
        raise UserError(f"algorithm.adapt={choice} is unknown; choose one of {', '.join(CHOICES)}")


def select(names: Sequence[str], choice: str, last_layers: int) -> list[str]:
    """Names of the adapted encoder parameters (the episode's head always adapts).

    Raises:
        UserError: the choice is unknown or does not fit the model.
    """
    check_choice(choice)
    if choice == "all":
        return list(names)
    if choice == "head":
        return []
    depth = {name: int(found[1]) for name in names if (found := _LAYER.search(name))}
    layers = sorted(set(depth.values()))
    if not 1 <= last_layers <= len(layers):
        raise UserError(f"algorithm.last_layers={last_layers}, but the model has {len(layers)} layers; choose 1 to {len(layers)}")
    return [name for name in names if depth.get(name, -1) in layers[-last_layers:]]
