"""Interface of an arm, and its prediction for an episode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from metatrain.tasks.encoded_episode import EncodedEpisode


@dataclass(frozen=True)
class Prediction:
    """Predictions for the queries of an episode."""

    predicted: Sequence[Any] | np.ndarray  # predicted labels, shape [queries]; label sets, boolean, [queries, way]; or generated texts
    probabilities: np.ndarray | None  # class probabilities, or those of each label, [queries, way]; None for generated texts
    seconds: float  # adaptation time
    target_loss: float | None = None  # for generated texts: mean cross-entropy of the target tokens, in nats
    left_out: int = 0  # number of support examples that a language model has no positions for


class Arm(Protocol):
    """A model or baseline that learns a new task from its support set."""

    def predict(self, episode: EncodedEpisode) -> Prediction:
        """Learn from the support set, then predict the queries."""
