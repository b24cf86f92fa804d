"""Losses and inner rule vectorised over episodes, for devices on which a single episode is too little work.

Everything has a first dimension E for the episodes, over which `torch.vmap` maps the operations: each episode has its own theta
(the same values), phi, w and rule state. `meta_gradient` differentiates the sums of their losses. Since no episode's loss depends
on another's parameters, and the recursion is linear in v, that gives each episode its own meta-gradient.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from metatrain.gradient.inner_rules import InnerRule, adds, is_sgd
from metatrain.gradient.parameters import Parameters
from metatrain.meta.functional import FunctionalClassifier
from metatrain.meta.noise import Noise
from metatrain.meta.text_losses import Labelled, TextLosses
from metatrain.models.batches import cells, on_device, packed_cells
from metatrain.tasks.encoded_episode import EncodedEpisode

Shares = tuple[Tensor, ...]  # one episode's share of the arguments of `packed_cells`
# Sizes are rounded up to multiples of these, so that few different shapes have to be captured as CUDA graphs.
_LENGTH, _ROWS = 32, 256


def shape_of(episode: EncodedEpisode) -> tuple[int, int, int, bool]:
    """Return the numbers of classes, support texts and queries, and whether texts have several labels: what vectorised episodes have in common."""
    return len(episode.names), len(episode.support), len(episode.query), episode.is_multi_label


class Inputs(NamedTuple):
    """Episodes of one shape, as tensors: cells of the support texts and of the queries, labels, and rows of the word embeddings."""

    support_ids: Tensor  # [E, n, L]
    support_lengths: Tensor  # [E, n]
    support_mask: Tensor  # [E, n, 1, 1 or L, L]
    query_ids: Tensor  # [E, m, M], and so on
    query_lengths: Tensor
    query_mask: Tensor
    labels: Tensor  # [E, n], or [E, n, way] with several labels per text
    query_labels: Tensor  # [E, m], or [E, m, way]
    rows: Tensor  # [E, R], those that occur; where an episode has fewer, the last of them again; [E, 0]: all take part

    @classmethod
    def of(cls, classifier: FunctionalClassifier, episodes: Sequence[EncodedEpisode]) -> Inputs:
        model, device = classifier.model, classifier.model.device
        texts: list[Sequence[np.ndarray]] = [[*episode.support, *episode.query] for episode in episodes]
        rows = np.zeros((len(episodes), 0), dtype=np.int64)
        if classifier.sparse:
            distinct = [classifier.distinct(each) for each in texts]
            most = _up_to(max(map(len, distinct)), _ROWS)
            rows = np.stack([np.pad(each, (0, most - len(each)), mode="edge") for each in distinct])
            texts = [[np.searchsorted(own, ids) for ids in each] for own, each in zip(distinct, texts)]
        size = len(episodes[0].support)
        support, query = (
            cells(part, device, model.architecture.causal, min(_up_to(max(len(ids) for each in part for ids in each), _LENGTH), model.max_length))
            for part in ([each[:size] for each in texts], [each[size:] for each in texts])
        )
        labels, query_labels = (
            on_device(np.stack([getattr(episode, name) for episode in episodes]).astype(np.int64), device) for name in ("support_labels", "query_labels")
        )
        return cls(*support, *query, labels, query_labels, on_device(rows, device))


class VectorisedLosses:
    """Losses of episodes of one shape, with parameters [E, ...]."""

    def __init__(self, classifier: FunctionalClassifier, parameters: Parameters, names: Sequence[str], inputs: Inputs):
        self._classifier, self._parameters, self._names, self._noise = classifier, parameters, names, Noise(classifier.algorithm, None)
        self._support = inputs.support_ids, inputs.support_lengths, inputs.support_mask
        self._query = inputs.query_ids, inputs.query_lengths, inputs.query_mask
        self._labels, self._query_labels, self._rows = inputs.labels, inputs.query_labels, inputs.rows
        self.support_tokens = self._support[0].numel()
        self.query_losses: list[Tensor] = []  # [E], one for each complete pass over `query_parts`
        self.query_accuracies: list[Tensor] = []

    def view(self) -> Parameters:
        """Return the meta-parameters of each episode, with its rows of the word embeddings."""
        episodes, found = len(self._labels), {}
        for name, value in self._parameters.items():
            if name in self._classifier.sparse:
                found[name] = value.index_select(0, self._rows.flatten()).view(*self._rows.shape, *value.shape[1:])
            else:
                found[name] = value.expand(episodes, *value.shape)
        return found

    def start(self, theta: Mapping[str, Tensor]) -> tuple[Parameters, Parameters]:
        def one(theta: Parameters, support: Shares, query: Shares, labels: Tensor, query_labels: Tensor) -> tuple[Parameters, Parameters]:
            return self._losses([(packed_cells(*support), labels)], [(packed_cells(*query), query_labels)]).start(theta)

        return torch.vmap(one)(dict(theta), self._support, self._query, self._labels, self._query_labels)

    def support_parts(self, phi: Mapping[str, Tensor], fixed: Mapping[str, Tensor], step: int) -> Iterator[Tensor]:
        def one(phi: Parameters, fixed: Parameters, support: Shares, labels: Tensor) -> Tensor:
            (loss,) = self._losses([(packed_cells(*support), labels)], []).support_parts(phi, fixed, step)
            return loss

        yield torch.vmap(one)(dict(phi), dict(fixed), self._support, self._labels).sum()

    def query_parts(self, phi: Mapping[str, Tensor], fixed: Mapping[str, Tensor]) -> Iterator[Tensor]:
        def one(phi: Parameters, fixed: Parameters, query: Shares, query_labels: Tensor) -> tuple[Tensor, Tensor]:
            losses = self._losses([], [(packed_cells(*query), query_labels)])
            (loss,) = losses.query_parts(phi, fixed)
            return loss, losses.query_accuracies[0]

        losses, accuracies = torch.vmap(one)(dict(phi), dict(fixed), self._query, self._query_labels)
        self.query_losses.append(losses.detach())
        self.query_accuracies.append(accuracies)
        yield losses.sum()

    def _losses(self, support: Sequence[Labelled], query: Sequence[Labelled]) -> TextLosses:
        return TextLosses(self._classifier, self._names, self._noise, support, query)


def _up_to(size: int, unit: int) -> int:
    return -(-size // unit) * unit


class VectorisedRule:
    """Inner rule over parameters [E, ...]."""

    def __init__(self, rule: InnerRule):
        self._rule = rule
        self.is_sgd, self.adds = is_sgd(rule), adds(rule)

    def rate(self, name: str) -> float:
        return self._rule.rate(name)

    def learned(self, adapted: Mapping[str, Tensor]) -> Parameters:
        return self._rule.learned(adapted)

    def state(self, adapted: Mapping[str, Tensor]) -> Parameters:
        return torch.vmap(self._rule.state)(dict(adapted))

    def update(
        self, adapted: Parameters, gradients: Mapping[str, Tensor], step: int, learned: Mapping[str, Tensor], state: Mapping[str, Tensor]
    ) -> tuple[Parameters, Parameters]:
        if self.is_sgd:  # elementwise, so the episode does not matter
            return self._rule.update(adapted, gradients, step, learned, state)

        def one(adapted: Parameters, gradients: Parameters, learned: Parameters, state: Parameters) -> tuple[Parameters, Parameters]:
            return self._rule.update(adapted, gradients, step, learned, state)

        return torch.vmap(one)(adapted, dict(gradients), dict(learned), dict(state))
