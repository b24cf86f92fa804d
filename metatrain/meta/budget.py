"""The time budget of a fit (`inner.budget`): what it allows, estimated from the time that earlier parts of the same fit took.

An inner step takes three times as long as encoding the same texts by the layers that adapt: it is a forward pass and a backward pass, which takes about
twice as long.
"""

from __future__ import annotations

import math
import time

import torch

PER_STEP = 3.0  # time of an inner step, in units of the time to encode the same texts


class Budget:
    """Time that a fit may take, from now on; seconds: None: any."""

    def __init__(self, seconds: float | None):
        self.seconds = seconds
        self._begin = time.monotonic()

    @property
    def is_limited(self) -> bool:
        """Return whether there is a limit."""
        return self.seconds is not None

    @property
    def spent(self) -> float:
        """Return the seconds since its beginning; with a limit, after all work that is queued on a GPU."""
        if self.is_limited and torch.cuda.is_initialized():
            torch.cuda.synchronize()
        return time.monotonic() - self._begin

    @property
    def left(self) -> float:
        """Return the seconds that are left, infinite without a limit."""
        return math.inf if self.seconds is None else self.seconds - self.spent

    def folds(self, adaptation: float, wanted: int) -> int:
        """Return for how many of the wanted folds there is time, if all examples adapt too; adaptation: its estimated time, in seconds."""
        if not self.is_limited:
            return wanted
        return max(0, min(wanted, math.floor(self.left / adaptation) - 1)) if adaptation > 0 else wanted

    def __str__(self) -> str:
        return f"inner.budget={self.seconds:g} s"


def seconds_of_adaptation(encoding: float, steps: int) -> float:
    """Estimate the time of an adaptation and of encoding the examples again after it; encoding: the time of that, in seconds."""
    return encoding * (1 + PER_STEP * steps)
