"""An episode of texts, and its losses as functions of parameters: what `meta_gradient` differentiates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from metatrain.meta.inner import HEAD
from metatrain.meta.noise import ONCE, QUERY, SUPPORT, Noise
from metatrain.meta.parameters import Parameters
from metatrain.models.batches import Batch, chunks

if TYPE_CHECKING:
    from metatrain.meta.learner import Learner

_SUPPORT, _QUERY = "frozen.support.", "frozen.query"  # what the frozen part of the encoder gives, computed once an episode


@dataclass(frozen=True)
class EpisodeTexts:
    """The token ids and labels of an episode: what the learner needs to know of it."""

    support: Sequence[np.ndarray]
    support_labels: np.ndarray
    query: Sequence[np.ndarray]
    query_labels: np.ndarray
    names: Sequence[str]  # of the labels
    seed: int = 0  # of dropout and noise in meta-training

    @property
    def way(self) -> int:
        return len(self.names)


class TextLosses:
    """An episode's losses as functions of the adapted parameters phi and the meta-parameters theta.

    With gradients wanted for the word embeddings, only the rows that occur in the episode take part: they are half
    of a small model's parameters, and all but some hundred have no gradient.
    """

    def __init__(self, learner: Learner, episode: EpisodeTexts, seed: int | None):
        """`seed`: of dropout and noise, None where there is none; an episode without queries has no query loss."""
        device = learner.encoder.device
        self.learner, self.way, self.names = learner, episode.way, episode.names
        self.noise = Noise(learner.algorithm, seed)
        labels, self.query_labels = (torch.from_numpy(np.asarray(each, dtype=np.int64)).to(device) for each in (episode.support_labels, episode.query_labels))
        self.support = [(learner.encoder.batch(episode.support[part]), labels[part]) for part in chunks(episode.support)]
        self.support_size = len(episode.support)
        self.query_accuracies: list[float] = []  # one for each call of `query_loss`
        self.query = learner.encoder.batch(episode.query) if len(episode.query) else None
        self.rows: Tensor | None = None
        if learner.by_row:
            padding = torch.arange(learner.encoder.padding_id + 1, device=device)  # keeps the padding row where it is
            batches = [part for part, _ in self.support] + ([] if self.query is None else [self.query])
            self.rows = torch.unique(torch.cat([padding, *(batch.input_ids.flatten() for batch in batches)]))
            self.support = [(part.remap(self.rows), labels) for part, labels in self.support]
            self.query = self.query.remap(self.rows) if self.query is not None else None

    def view(self, parameters: Parameters) -> Parameters:
        """The parameters with only the word-embedding rows that occur."""
        return {**parameters, **{name: parameters[name].index_select(0, self.rows) for name in self.learner.by_row}}

    def start(self, theta: Mapping[str, Tensor]) -> tuple[Parameters, Parameters]:
        learner, head, noise = self.learner, self.learner.head, self.noise
        begin = {**theta, **learner.anew}
        frozen = {
            f"{_SUPPORT}{part}": learner.encode_frozen(begin, batch, noise.dropout_seed(SUPPORT, part, ONCE)) for part, (batch, _) in enumerate(self.support)
        }
        features = None
        if head.needs_support:
            parts = [
                learner.encode_rest(begin, batch, frozen[f"{_SUPPORT}{part}"], noise.dropout_seed(SUPPORT, part, ONCE, 1))
                for part, (batch, _) in enumerate(self.support)
            ]
            features = torch.cat(parts)
        if self.query is not None:
            frozen[_QUERY] = learner.encode_frozen(begin, self.query, noise.dropout_seed(QUERY, 0, ONCE))
        fixed = {name: value for name, value in theta.items() if name not in learner.adapted}
        fixed.update({name: value for name, value in frozen.items() if value is not None})
        some, size = next(iter(theta.values())), learner.encoder.hidden_size
        empty = {"weight": some.new_zeros(self.way, size), "bias": some.new_zeros(self.way)}
        learned = {name[len(HEAD) :]: value for name, value in theta.items() if name.startswith(HEAD)}
        first = head.start(learned, empty, features, torch.cat([labels for _, labels in self.support]), self.names)
        phi = {name: begin[name] for name in learner.adapted}
        (phi if learner.head_adapts else fixed).update({HEAD + name: value for name, value in first.items()})
        return phi, {name: value for name, value in fixed.items() if name not in phi}

    def support_parts(self, phi: Mapping[str, Tensor], fixed: Mapping[str, Tensor], step: int) -> Iterator[Tensor]:
        for part, (batch, labels) in enumerate(self.support):
            features = self._features(phi, fixed, f"{_SUPPORT}{part}", batch, self.noise.dropout_seed(SUPPORT, part, step))
            features = self.noise.perturbed(features, fixed, part, step)
            features, _ = self.noise.bottleneck(features, fixed, SUPPORT, part, step)
            yield F.cross_entropy(self._logits(phi, fixed, features), labels, reduction="sum") / self.support_size

    def query_loss(self, phi: Mapping[str, Tensor], fixed: Mapping[str, Tensor]) -> Tensor:
        features = self._features(phi, fixed, _QUERY, self.query, self.noise.dropout_seed(QUERY, 0, 0))
        features, penalty = self.noise.bottleneck(features, fixed, QUERY, 0, 0)
        logits = self._logits(phi, fixed, features)
        self.query_accuracies.append(float((logits.argmax(1) == self.query_labels).double().mean()))
        loss = F.cross_entropy(logits, self.query_labels)
        return loss if penalty is None else loss + penalty

    def _features(self, phi: Mapping[str, Tensor], fixed: Mapping[str, Tensor], name: str, batch: Batch, seed: int | None) -> Tensor:
        return self.learner.encode_rest({**fixed, **phi}, batch, fixed.get(name), seed)

    def _logits(self, phi: Mapping[str, Tensor], fixed: Mapping[str, Tensor], features: Tensor) -> Tensor:
        head = phi if self.learner.head_adapts else fixed
        return F.linear(features, head[HEAD + "weight"], head[HEAD + "bias"])
