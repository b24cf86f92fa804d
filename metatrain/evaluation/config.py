"""What a user may set about evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field

ARMS = ("meta_trained", "no_meta_training", "logistic_regression", "prototypes")


@dataclass
class EvaluationConfig:
    """Comparison of arms on the same meta-test episodes (config node `evaluation`)."""

    episodes: int = 50  # per meta-test task and number of shots
    shots: list[int] = field(default_factory=lambda: [5])  # support examples per class; results.json's `arms` are of the first
    queries: int | None = 50  # query examples per class, fewer where a class has no more; null: every row not in the support set
    arms: list[str] = field(default_factory=lambda: list(ARMS))
    resamples: int = 2000  # of the bootstrap
