"""Effects of the settings of each command: which of them are read."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from metatrain.commands.components import COMPONENTS
from metatrain.config.effects import Effects, typed_keys
from metatrain.config.renamed import NOTES
from metatrain.config.schema import TrainConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from metatrain.meta.learner import Learner

_OF_CHECKPOINT = ("algorithm", "inner", "model", "prompt")  # groups of settings that replace those of a checkpoint


def effects_of(config: Any) -> Effects:
    """Return the effects of the settings of a command that meta-trains, or prepares it."""
    return _effects(config, {}, trains=True)


def effects_of_use(config: Any) -> Effects:
    """Return the effects of the settings of a command that opens a checkpoint; what it adapts is known later (`check_adaptation`)."""
    return replace(_effects(config, {}, trains=False), unknown=_OF_CHECKPOINT)


def check_adaptation(config: Any, overrides: Sequence[str], learner: Learner, refuse: bool) -> list[str]:
    """Return notes about settings of the command line that replace those of a checkpoint and have no effect on its adaptation.

    refuse: whether this is a single run, for which there are no notes but an error.

    Raises:
        UserError: a setting has no effect.
    """
    inner = replace(learner.inner, steps=learner.steps(evaluation=True), evaluation_steps=None)
    model = {**asdict(config.model), "name": config.checkpoint}
    effects = _effects(config, {"algorithm": asdict(learner.algorithm), "inner": asdict(inner), "model": model}, trains=False)
    given = [item for item in overrides if typed_keys([item]) and typed_keys([item])[0].startswith(_OF_CHECKPOINT)]
    if refuse:
        effects.check(given)
    for line in effects.notes(typed_keys(given)):
        NOTES.add(f"warning: {line}")
    return list(NOTES.take())


def effects_of_values(schema: type, values: dict[str, Any], trains: bool) -> Effects:
    """Return the effects of settings with these values; groups that a command does not have are those of `metatrain train` by default."""
    return Effects(schema, {**asdict(TrainConfig()), **values}, COMPONENTS, trains)


def _effects(config: Any, values: dict[str, Any], trains: bool) -> Effects:
    return effects_of_values(type(config), {**asdict(config), **values}, trains)
