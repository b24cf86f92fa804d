"""Choice of the encoder parameters that the inner loop adapts; the others are meta-learned but fixed within an episode."""

from __future__ import annotations

import re
from collections.abc import Sequence

from metatrain import plugins
from metatrain.errors import UserError
from metatrain.models import adapters
from metatrain.models.adapters import AdaptedRow, AdapterSettings
from metatrain.models.backbone import Backbone

_LAYER_NORM = r"(?i)layer_?norm|\.ln_|(?:^|[._])norm"
_LAYER = re.compile(r"\.(?:layer|layers|h|block)\.(\d+)\.")


def lowest_adapted_layer(adapted: Sequence[str]) -> int:
    """Return the first adapted layer; the output of the layers below it is constant within an episode.

    0 if a parameter outside the layers adapts, since it may be the embeddings.
    """
    found = [_LAYER.search(name) for name in adapted]
    return min((int(match[1]) if match else 0 for match in found), default=0)


def number_of_layers(names: Sequence[str]) -> int:
    """Return the number of layers that `last_layers` counts among parameters with these names; 0: it knows none."""
    return len({int(layer[1]) for name in names if (layer := _LAYER.search(name))})


def _last_layers(names: Sequence[str], last_layers: int, pattern: str | None) -> list[str]:
    depth = {name: int(layer[1]) for name in names if (layer := _LAYER.search(name))}
    layers = sorted(set(depth.values()))
    if last_layers < 1:
        raise UserError(f"algorithm.last_layers={last_layers} must be 1 or more")
    return [name for name in names if depth.get(name, -1) in layers[-last_layers:]]


def _matching(names: Sequence[str], last_layers: int, pattern: str | None) -> list[str]:
    return [name for name in names if re.search(pattern or "", name)]


ROWS: dict[str, AdaptedRow] = {
    "all": AdaptedRow("", reads=()),
    "head": AdaptedRow(select=lambda names, last_layers, pattern: [], model_adapts=False, reads=()),
    "body": AdaptedRow("", head_adapts=False, reads=()),
    "last_layers": AdaptedRow(select=_last_layers, reads=("last_layers",)),
    "layer_norm": AdaptedRow(_LAYER_NORM, reads=()),
    "pattern": AdaptedRow(select=_matching, needs_pattern=True, reads=("pattern",)),
    **adapters.ROWS,
}


def row_of(choice: str) -> AdaptedRow:
    """Return the row of `algorithm.adapt=CHOICE`, from this package or a plug-in.

    Raises:
        UserError: there is no such choice.
    """
    found: AdaptedRow = plugins.find(plugins.ADAPTED, choice, ROWS, f"algorithm.adapt={choice} is unknown; choose one of")
    return found


def check_choice(choice: str, pattern: str | None) -> None:
    """Raises: UserError: there is no such choice, a package that it needs is not installed, or its pattern is missing or no regular expression."""
    row = row_of(choice)
    if row.package is not None:
        plugins.check_installed(f"algorithm.adapt={choice}", *row.package)
    if row.needs_pattern != (pattern is not None):
        raise UserError("algorithm.adapt=pattern requires algorithm.pattern=REGULAR_EXPRESSION, and the reverse; set both or neither")
    try:
        re.compile(pattern or "")
    except re.error as error:
        raise UserError(f"algorithm.pattern={pattern} is not a valid regular expression: {error}") from error


def select(names: Sequence[str], choice: str, last_layers: int = 2, pattern: str | None = None) -> list[str]:
    """Return the names of the adapted parameters of a model; whether the episode's head adapts too is a property of the choice (`head_adapts`).

    Raises:
        UserError: the choice is unknown or does not fit the model.
    """
    check_choice(choice, pattern)
    row = row_of(choice)
    if row.select is not None:
        found = row.select(names, last_layers, pattern)
    else:
        found = _matching(names, last_layers, row.pattern)
    if row.model_adapts and not found:
        missing = f"parameters that match algorithm.pattern={pattern}" if row.needs_pattern else f"{choice.replace('_', ' ')} parameters"
        raise UserError(f"algorithm.adapt={choice}: the model has no {missing}; its parameters are {', '.join(names[:3])} ...")
    return found


def attach(backbone: Backbone, choice: str, settings: AdapterSettings) -> None:
    """Add the adapters of a choice to a model, in place; a choice without adapters changes nothing.

    Raises:
        UserError: a package is missing, or the adapters do not fit this architecture.
    """
    row = row_of(choice)
    if row.package is not None:
        plugins.check_installed(f"algorithm.adapt={choice}", *row.package)
    if row.attach is not None:
        row.attach(backbone, settings)
