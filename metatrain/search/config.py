"""What a user may set about a search for settings."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class SearchConfig:
    """A search (config group `search`)."""

    # Settings to search, each with a sweep of Hydra's grammar: tag(log, interval(1e-5, 1e-3)), range(1, 9), choice(maml, anil). On the
    # command line such a sweep may stand for the setting itself: outer.lr=tag(log,interval(1e-5,1e-3)).
    space: dict[str, str] = field(default_factory=dict)
    trials: int = 20  # in all; those of an earlier start of the same search count
    sampler: str = "tpe"  # what proposes settings: tpe (Bergstra et al. 2011) | random
    # Who may go on: halving (Jamieson and Talwalkar 2016: all trials are begun, wait at a rung, and the best go on from where they are) |
    # hyperband (Li et al. 2018: each is judged on its way, and one that is behind ends for good) | none (all).
    pruner: str = "halving"
    reduction: int = 3  # of the trials at a rung, one of so many goes on to the next, which is so many times as far
    first_rung: float = 0.2  # how far into its validations a trial is judged for the first time
    storage: str | None = None  # a database, as an URL of SQLAlchemy (sqlite:///..., postgresql+psycopg://...); null: a journal in the search's directory
