"""Settings of a hyperparameter search."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class SearchConfig:
    """Hyperparameter search (config group `search`)."""

    # Search space: a mapping from settings to Hydra sweeps: tag(log, interval(1e-5, 1e-3)), range(1, 9), choice(maml, anil). On the command
    # line, a sweep can be given as the value of the setting itself: outer.lr=tag(log,interval(1e-5,1e-3)).
    space: dict[str, str] = field(default_factory=dict)
    trials: int = 20  # total number of trials, including those of an earlier start of the same search
    sampler: str = "tpe"  # how settings are proposed: tpe (Bergstra et al. 2011) | random
    # How trials are stopped early: halving (successive halving, Jamieson and Talwalkar 2016: every trial runs to a rung and pauses there; the
    # best are resumed) | hyperband (Li et al. 2018: a trial that falls behind is stopped for good) | none.
    pruner: str = "halving"
    reduction: int = 3  # reduction factor of the pruner: 1 in N trials at a rung is promoted, and the next rung is N times as far; 2 or more
    first_rung: float = 0.2  # fraction of a trial's validations after which it is first judged; above 0, at most 1
    storage: str | None = None  # database of the search, as an SQLAlchemy URL (sqlite:///..., postgresql+psycopg://...); null: a journal file in its directory
