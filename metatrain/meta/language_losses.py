"""Losses of an episode under a language model: token cross-entropy of the target after each text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from metatrain.gradient.parameters import Parameters
from metatrain.meta.functional import FunctionalLanguageModel
from metatrain.meta.noise import QUERY, SUPPORT, Noise
from metatrain.models.batches import chunks
from metatrain.models.language_model import TargetBatch
from metatrain.tasks.encoded_episode import EncodedEpisode, targets_of


class LanguageLosses:
    """Support and query loss of an episode as functions of the adapted parameters phi and the meta-parameters theta.

    S and Q are means over the target tokens of the support set and of the queries. `query_accuracies` are the
    fractions of the queries' target tokens that are most likely given the tokens before them.
    """

    def __init__(self, functional: FunctionalLanguageModel, episode: EncodedEpisode, seed: int | None):
        reading = functional.reading(episode)
        episode = functional.read(episode)
        targets = targets_of(episode)
        self.functional = functional
        self.noise = Noise(functional.algorithm, seed)
        self.rows = None
        self.support_tokens = _size(episode.support) + _size(targets.support)
        self.query_accuracies: list[Tensor] = []
        self._expected = {SUPPORT: _size(targets.support), QUERY: _size(targets.query)}
        model = functional.model
        self._support = self._batches(reading.of(model, episode.support, examples=False), targets.support, shared=len(reading.opening))
        self._query = self._batches(reading.of(model, episode.query), targets.query, shared=len(reading.context))

    def start(self, theta: Mapping[str, Tensor]) -> tuple[Parameters, Parameters]:
        begin = {**theta, **self.functional.reset}
        adapted = self.functional.adapted
        return {name: begin[name] for name in adapted}, {name: value for name, value in theta.items() if name not in adapted}

    def head(self, phi: Mapping[str, Tensor], fixed: Mapping[str, Tensor]) -> Parameters:
        return {}

    def support_parts(self, phi: Mapping[str, Tensor], fixed: Mapping[str, Tensor], step: int) -> Iterator[Tensor]:
        for part, batch in enumerate(self._support):
            found = self.functional.call({**fixed, **phi}, batch, seed=self.noise.dropout_seed(SUPPORT, part, step))
            yield found.loss.sum() / self._expected[SUPPORT]

    def query_parts(self, phi: Mapping[str, Tensor], fixed: Mapping[str, Tensor]) -> Iterator[Tensor]:
        correct = []
        for part, batch in enumerate(self._query):
            found = self.functional.call({**fixed, **phi}, batch, seed=self.noise.dropout_seed(QUERY, part, 0))
            correct.append(found.correct.detach().sum())
            yield found.loss.sum() / self._expected[QUERY]
        self.query_accuracies.append(torch.stack(correct).sum() / self._expected[QUERY])

    def _batches(self, texts: Sequence[np.ndarray], targets: Sequence[np.ndarray], shared: int = 0) -> list[TargetBatch]:
        both = [np.concatenate([text, target]) for text, target in zip(texts, targets)]
        return [self.functional.model.batch(texts[part], targets[part], shared) for part in chunks(both, self.functional.plan.part_tokens)]


def _size(texts: Sequence[np.ndarray]) -> int:
    return sum(map(len, texts))
