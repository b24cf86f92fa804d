"""Policy that skips meta-updates with a non-finite or unusually large gradient."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from metatrain.errors import UserError
from metatrain.training.config import OuterConfig

_NORMS = 20  # number of recent meta-gradients whose norms give the median
_FEW = 5  # fewer norms give no median
_SKIPS = 3  # number of skipped meta-updates in a row that stops the run


@dataclass
class UpdatePolicy:
    """Norms of recent meta-gradients, as plain values for a checkpoint."""

    norms: list[float] = field(default_factory=list)  # of the last applied meta-gradients
    skipped: int = 0  # number of meta-updates skipped in a row

    def largest_norm(self, config: OuterConfig) -> float:
        """Return the largest gradient norm that is not skipped."""
        if config.spike is None or len(self.norms) < _FEW:
            return math.inf
        return config.spike * statistics.median(self.norms)

    def judge(self, config: OuterConfig, step: int, norm: float, not_finite: Sequence[str], say: Callable[[str], None]) -> str | None:
        """Return the reason to skip the meta-update with this gradient norm, or None; not_finite: tasks with non-finite query losses.

        Raises:
            UserError: it ends the run.
        """
        finite = math.isfinite(norm) and not not_finite
        if finite and norm <= self.largest_norm(config):
            self.norms, self.skipped = [*self.norms, norm][-_NORMS:], 0
            return None
        self.skipped += 1
        if finite:
            reason = f"the norm of the meta-gradient, {norm:.3g}, exceeds {config.spike:g} times the median of the last updates"
        else:
            reason = f"{f'the query loss of task {not_finite[0]!r}' if not_finite else 'the meta-gradient'} is not finite"
        at = f"meta-update {step + 1}"
        if not finite and config.nonfinite == "stop":
            raise UserError(f"{reason} at {at}; lower inner.lr, inner.steps or outer.lr")
        if self.skipped >= _SKIPS:
            raise UserError(f"{_SKIPS} meta-updates in a row were skipped: {reason} at {at}; lower inner.lr or outer.lr, or raise outer.spike")
        say(f"warning: {at} is skipped: {reason}")
        return reason
