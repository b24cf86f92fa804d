"""An episode as a learner sees it: token ids, labels and wanted texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Targets:
    """What a language model is to write, as token ids."""

    support: Sequence[np.ndarray]  # after each support text
    query: Sequence[np.ndarray]  # after each query
    choices: Sequence[np.ndarray] | None  # the names of the labels; None: a text-to-text task, any text may be an answer


@dataclass(frozen=True)
class EpisodeTexts:
    """The token ids and labels of an episode: what the learner needs to know of it."""

    support: Sequence[np.ndarray]
    support_labels: np.ndarray
    query: Sequence[np.ndarray]
    query_labels: np.ndarray
    names: Sequence[str]  # of the labels
    seed: int = 0  # of dropout and noise in meta-training
    targets: Targets | None = None  # for language models

    def without_queries(self) -> EpisodeTexts:
        """The support set alone."""
        targets = None if self.targets is None else replace(self.targets, query=())
        return replace(self, query=(), query_labels=np.zeros(0, np.int64), targets=targets)

    def with_support_in_order(self, order: np.ndarray) -> EpisodeTexts:
        """The support texts as they are, with labels and targets of others: `order[i]` says whose text i gets."""
        targets = None if self.targets is None else replace(self.targets, support=[self.targets.support[i] for i in order])
        return replace(self, support_labels=self.support_labels[order], targets=targets)
