"""Meta-gradients of several episodes in one pass, for devices on which one alone is too little work.

Everything has a first dimension E for the episodes, and operations are taken over it by `torch.vmap`: each episode has its own theta
(the same values), phi, w and rule state. The sums of their losses are what `meta_gradient` differentiates; since no episode's loss
depends on another's parameters, and the recursion is linear in v, that gives each episode its own meta-gradient.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from metatrain.gradient.inner_rules import InnerRule, adds, is_linear
from metatrain.gradient.parameters import Parameters
from metatrain.meta.noise import Noise
from metatrain.meta.text_losses import Labelled, TextLosses
from metatrain.models.batches import cells, on_device, packed_cells
from metatrain.tasks.encoded_episode import EncodedEpisode

if TYPE_CHECKING:
    from metatrain.meta.encoder_learner import EncoderLearner

Shares = tuple[Tensor, ...]  # of one episode in what `packed_cells` takes
MODES = ("exact", "exact_recomputed", "first_order", "reptile")  # meta-gradients in which episodes stay apart: no norm or inner product is taken over them
# Sizes are rounded up to these, so that few different ones come up, for which kernels have to be recorded.
_LENGTH, _ROWS = 32, 256


def shape_of(episode: EncodedEpisode) -> tuple[int, int, int]:
    """What episodes that are taken together have in common: numbers of classes, support texts and queries."""
    return len(episode.names), len(episode.support), len(episode.query)


class Inputs(NamedTuple):
    """Episodes of one shape, as tensors: cells of the support texts and of the queries, labels, and rows of the word embeddings."""

    support_ids: Tensor  # [E, n, L]
    support_lengths: Tensor  # [E, n]
    support_mask: Tensor  # [E, n, 1, 1 or L, L]
    query_ids: Tensor  # [E, m, M], and so on
    query_lengths: Tensor
    query_mask: Tensor
    labels: Tensor  # [E, n]
    answers: Tensor  # [E, m]
    rows: Tensor  # [E, R], those that occur; where an episode has fewer, the last of them again; [E, 0]: all take part

    @classmethod
    def of(cls, learner: EncoderLearner, episodes: Sequence[EncodedEpisode]) -> Inputs:
        model, device = learner.model, learner.model.device
        texts: list[Sequence[np.ndarray]] = [[*episode.support, *episode.query] for episode in episodes]
        rows = np.zeros((len(episodes), 0), dtype=np.int64)
        if learner.by_row:
            distinct = [learner.distinct(each) for each in texts]
            most = _up_to(max(map(len, distinct)), _ROWS)
            rows = np.stack([np.pad(each, (0, most - len(each)), mode="edge") for each in distinct])
            texts = [[np.searchsorted(own, ids) for ids in each] for own, each in zip(distinct, texts)]
        size = len(episodes[0].support)
        support, query = (
            cells(part, device, model.architecture.causal, min(_up_to(max(len(ids) for each in part for ids in each), _LENGTH), model.max_length))
            for part in ([each[:size] for each in texts], [each[size:] for each in texts])
        )
        labels, answers = (
            on_device(np.stack([getattr(episode, name) for episode in episodes]).astype(np.int64), device) for name in ("support_labels", "query_labels")
        )
        return cls(*support, *query, labels, answers, on_device(rows, device))


class EpisodesTogether:
    """The losses of episodes of one shape, with parameters [E, ...]."""

    def __init__(self, learner: EncoderLearner, names: Sequence[str], inputs: Inputs):
        self._learner, self._names, self._noise = learner, names, Noise(learner.algorithm, None)
        self._support = inputs.support_ids, inputs.support_lengths, inputs.support_mask
        self._query = inputs.query_ids, inputs.query_lengths, inputs.query_mask
        self._labels, self._answers, self._rows = inputs.labels, inputs.answers, inputs.rows
        self.support_tokens = self._support[0].numel()
        self.query_losses: list[Tensor] = []  # [E], one for each time that all of `query_parts` were asked for
        self.query_accuracies: list[Tensor] = []

    def view(self) -> Parameters:
        """The meta-parameters of each episode, with its rows of the word embeddings."""
        episodes, found = len(self._labels), {}
        for name, value in self._learner.parameters.items():
            if name in self._learner.by_row:
                found[name] = value.index_select(0, self._rows.flatten()).view(*self._rows.shape, *value.shape[1:])
            else:
                found[name] = value.expand(episodes, *value.shape)
        return found

    def start(self, theta: Mapping[str, Tensor]) -> tuple[Parameters, Parameters]:
        def one(theta: Parameters, support: Shares, query: Shares, labels: Tensor, answers: Tensor) -> tuple[Parameters, Parameters]:
            return self._losses([(packed_cells(*support), labels)], [(packed_cells(*query), answers)]).start(theta)

        return torch.vmap(one)(dict(theta), self._support, self._query, self._labels, self._answers)

    def support_parts(self, phi: Mapping[str, Tensor], fixed: Mapping[str, Tensor], step: int) -> Iterator[Tensor]:
        def one(phi: Parameters, fixed: Parameters, support: Shares, labels: Tensor) -> Tensor:
            (loss,) = self._losses([(packed_cells(*support), labels)], []).support_parts(phi, fixed, step)
            return loss

        yield torch.vmap(one)(dict(phi), dict(fixed), self._support, self._labels).sum()

    def query_parts(self, phi: Mapping[str, Tensor], fixed: Mapping[str, Tensor]) -> Iterator[Tensor]:
        def one(phi: Parameters, fixed: Parameters, query: Shares, answers: Tensor) -> tuple[Tensor, Tensor]:
            losses = self._losses([], [(packed_cells(*query), answers)])
            (loss,) = losses.query_parts(phi, fixed)
            return loss, losses.query_accuracies[0]

        losses, accuracies = torch.vmap(one)(dict(phi), dict(fixed), self._query, self._answers)
        self.query_losses.append(losses.detach())
        self.query_accuracies.append(accuracies)
        yield losses.sum()

    def _losses(self, support: Sequence[Labelled], query: Sequence[Labelled]) -> TextLosses:
        return TextLosses(self._learner, self._names, self._noise, support, query)


def _up_to(size: int, unit: int) -> int:
    return -(-size // unit) * unit


class RuleOfEach:
    """An inner rule over parameters [E, ...]."""

    def __init__(self, rule: InnerRule):
        self._rule = rule
        self.is_linear, self.adds = is_linear(rule), adds(rule)

    def rate(self, name: str) -> float:
        return self._rule.rate(name)

    def learned(self, adapted: Mapping[str, Tensor]) -> Parameters:
        return self._rule.learned(adapted)

    def state(self, adapted: Mapping[str, Tensor]) -> Parameters:
        return torch.vmap(self._rule.state)(dict(adapted))

    def update(
        self, adapted: Parameters, gradients: Mapping[str, Tensor], step: int, learned: Mapping[str, Tensor], state: Mapping[str, Tensor]
    ) -> tuple[Parameters, Parameters]:
        if self.is_linear:  # element by element, whose they may be
            return self._rule.update(adapted, gradients, step, learned, state)

        def one(adapted: Parameters, gradients: Parameters, learned: Parameters, state: Parameters) -> tuple[Parameters, Parameters]:
            return self._rule.update(adapted, gradients, step, learned, state)

        return torch.vmap(one)(adapted, dict(gradients), dict(learned), dict(state))
