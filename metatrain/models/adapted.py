"""Choice of the encoder parameters that the inner loop adapts; the others are meta-learned but fixed within an episode."""

from __future__ import annotations

import re
from collections.abc import Sequence

from metatrain.errors import UserError
from metatrain.models import adapters

CHOICES = ("all", "head", "body", "last_layers", "layer_norm", "pattern", *adapters.KINDS)
HEAD_STAYS = ("body", "context")  # with these the episode's head does not adapt
_LAYER_NORM = r"(?i)layer_?norm|\.ln_|(?:^|[._])norm"
_LAYER = re.compile(r"\.(?:layer|layers|h|block)\.(\d+)\.")


def lowest_adapted_layer(adapted: Sequence[str]) -> int:
    """The first layer that adaptation changes: everything below it gives the same in the whole episode.

    0 if anything outside the layers adapts, since that may be the embeddings.
    """
    found = [_LAYER.search(name) for name in adapted]
    return min((int(match[1]) if match else 0 for match in found), default=0)


def check_choice(choice: str, pattern: str | None) -> None:
    """Raises: UserError: there is no such choice, a package that it needs is not installed, or its pattern is missing or no regular expression."""
    if choice not in CHOICES:
        raise UserError(f"algorithm.adapt={choice} is unknown; choose one of {', '.join(CHOICES)}")
    adapters.check_installed(choice)
    if (choice == "pattern") != (pattern is not None):
        raise UserError("algorithm.adapt=pattern requires algorithm.pattern=REGULAR_EXPRESSION, and the reverse; set both or neither")
    try:
        re.compile(pattern or "")
    except re.error as error:
        raise UserError(f"algorithm.pattern={pattern} is not a valid regular expression: {error}") from error


def select(names: Sequence[str], choice: str, last_layers: int = 2, pattern: str | None = None) -> list[str]:
    """Names of the adapted encoder parameters.

    The episode's head adapts too, except with HEAD_STAYS.

    Raises:
        UserError: the choice is unknown or does not fit the model.
    """
    check_choice(choice, pattern)
    if choice in ("all", "body"):
        return list(names)
    if choice == "head":
        return []
    expression = {"layer_norm": _LAYER_NORM, "pattern": pattern, **adapters.KINDS}.get(choice)
    if expression is not None:
        found = [name for name in names if re.search(expression, name)]
        if not found:
            wanted = f"parameters that match algorithm.pattern={pattern}" if choice == "pattern" else f"{choice.replace('_', ' ')} parameters"
            raise UserError(f"algorithm.adapt={choice}: the model has no {wanted}; its parameters are {', '.join(names[:3])} ...")
        return found
    depth = {name: int(layer[1]) for name in names if (layer := _LAYER.search(name))}
    layers = sorted(set(depth.values()))
    if not 1 <= last_layers <= len(layers):
        raise UserError(f"algorithm.last_layers={last_layers}, but the model has {len(layers)} layers; choose 1 to {len(layers)}")
    return [name for name in names if depth.get(name, -1) in layers[-last_layers:]]
