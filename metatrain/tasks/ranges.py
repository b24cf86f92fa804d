"""Ranges of numbers in episode settings: `2..10` is drawn per episode, `..6` is as many as there are and at most 6."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from metatrain.errors import UserError

Number = int | str  # a setting: a number, or a range as text
_RANGE = re.compile(r"(\d*)\.\.(\d+)")


@dataclass(frozen=True)
class Range:
    """Numbers that a setting allows; least=None: always the highest possible one up to `most`."""

    least: int | None
    most: int

    @property
    def is_exact(self) -> bool:
        """True if the setting is a single number."""
        return self.least == self.most

    def pick(self, available: int, rng: np.random.Generator) -> int:
        """Return the number for one episode, at most `available` unless it is exact; only a range with two ends draws from `rng`."""
        if self.least is None:
            return min(self.most, available)
        if self.is_exact:
            return self.most
        return int(rng.integers(self.least, max(self.least, min(self.most, available)) + 1))


def read_range(key: str, value: Number, least: int) -> Range:
    """Return the range that a setting states: a number, `A..B` or `..B`.

    key: name of the setting, for messages; least: the lowest number that it allows.

    Raises:
        UserError: the value is neither a number nor a range, a number is below `least`, or the ends are in the wrong order.
    """
    found = _RANGE.fullmatch(str(value))
    if found is not None:
        low, most = int(found[1]) if found[1] else None, int(found[2])
    elif re.fullmatch(r"-?\d+", str(value)):
        low = most = int(value)
    else:
        raise UserError(f"{key}={value} must be a number, a range such as {least}..10 (drawn per episode), or ..10 (at most 10)")
    if most < least or (low is not None and low < least):
        raise UserError(f"{key}={value} must be {least} or more")
    if low is not None and low > most:
        raise UserError(f"{key}={value}: the first number is larger than the second; write {key}={most}..{low}")
    return Range(low, most)
