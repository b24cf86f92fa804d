"""What a user may set about evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field

ENCODINGS_ONLY = ("logistic_regression", "prototypes")  # arms that language models have not
ARMS = ("meta_trained", "no_meta_training", *ENCODINGS_ONLY, "without_adaptation")


@dataclass
class EvaluationConfig:
    """Comparison of arms on the same meta-test episodes (config node `evaluation`)."""

    episodes: int = 50  # per meta-test task and number of shots
    shots: list[int] = field(default_factory=lambda: [5])  # support examples per class; results.json's `arms` are of the first
    queries: int | None = 50  # query examples per class, fewer where a class has no more; null: every row not in the support set
    # Of meta_trained, no_meta_training, logistic_regression, prototypes, without_adaptation; null: the first four, of a language
    # model meta_trained, no_meta_training and without_adaptation.
    arms: list[str] | None = None
    resamples: int = 2000  # of the bootstrap
