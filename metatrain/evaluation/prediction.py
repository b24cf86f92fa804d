"""What an arm makes of an episode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from metatrain.meta.episode_texts import EpisodeTexts


@dataclass(frozen=True)
class Prediction:
    """Answers to the queries of an episode."""

    answers: Sequence[Any] | np.ndarray  # labels, shape [queries], or texts
    probabilities: np.ndarray | None  # of the labels, [queries, way]; None where texts are written
    seconds: float  # that adaptation took
    target_loss: float | None = None  # where texts are written: mean cross-entropy of the wanted ones' tokens, in nats


class Arm(Protocol):
    """One way of getting a model for a new task."""

    def predict(self, episode: EpisodeTexts) -> Prediction:
        """Learn from the support set, then answer the queries."""
