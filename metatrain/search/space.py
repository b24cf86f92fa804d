"""Search space: sweeps in Hydra's grammar as Optuna distributions, and proposed values as overrides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep
from hydra.errors import HydraException
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from metatrain.errors import UserError

_FORMS = "interval(LOW, HIGH), tag(log, interval(LOW, HIGH)), range(FROM, TO) or choice(A, B, ...)"


def split_sweeps(arguments: list[str]) -> tuple[dict[str, str], list[str]]:
    """Return (sweeps by setting, all other arguments)."""
    sweeps, others = {}, []
    for argument in arguments:
        found = None if argument.startswith("-") else _parsed(argument)
        if found is not None and found.is_sweep_override():
            key, _, sweep = argument.partition("=")
            sweeps[key] = sweep
        else:
            others.append(argument)
    return sweeps, others


def distributions(space: Mapping[str, str]) -> dict[str, BaseDistribution]:
    """Return the distribution of each setting.

    Raises:
        UserError: the space is empty, or a sweep is invalid.
    """
    if not space:
        raise UserError(f"search.space is empty; add a setting with a sweep ({_FORMS}), or search=rates")
    return {key: _distribution(key, sweep) for key, sweep in space.items()}


def overrides(values: Mapping[str, Any]) -> list[str]:
    """Return proposed values as overrides."""
    return [f"{key}={value!r}" if isinstance(value, float) else f"{key}={value}" for key, value in values.items()]


def _parsed(argument: str) -> Override | None:
    try:
        return OverridesParser.create().parse_override(argument)
    except HydraException:
        return None  # Hydra reports the error when it composes the configuration


def _distribution(key: str, sweep: str) -> BaseDistribution:
    override = _parsed(f"{key}={sweep}")
    value: Any = override.value() if override is not None and override.is_sweep_override() else None
    if override is not None and isinstance(value, ChoiceSweep):
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    if not isinstance(value, (IntervalSweep, RangeSweep)):
        raise UserError(f"search.space: {key}={sweep} is not a sweep; write {_FORMS}")
    try:
        kind: Any
        if isinstance(value, RangeSweep):
            start, stop, step = value.start, value.stop or 0, value.step
            kind = IntDistribution if isinstance(start, int) and isinstance(step, int) else FloatDistribution
            return kind(start, stop - step, step=step)  # as in Python, the end is exclusive
        kind = IntDistribution if isinstance(value.start, int) and isinstance(value.end, int) else FloatDistribution
        return kind(value.start, value.end, log="log" in value.tags)
    except (TypeError, ValueError) as error:
        raise UserError(f"search.space: {key}={sweep}: {error}") from error
