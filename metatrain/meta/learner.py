"""The learner: an encoder and one choice on each of the four axes, ready for episodes.

The axes are the head rule, the adapted parameters, the inner rule and the meta-gradient; a published method is a
choice of four (see conf/algorithm/).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from metatrain.errors import UserError
from metatrain.meta.algorithm import method_at
from metatrain.meta.config import AlgorithmConfig, InnerConfig
from metatrain.meta.inner import HEAD, make_inner_rule
from metatrain.meta.meta_gradient import LEARNED, adapt, meta_gradient
from metatrain.meta.parameters import Parameters, leaves
from metatrain.models.adapted import lowest_adapted_layer, select
from metatrain.models.batches import Batch, chunks
from metatrain.models.encoder import Encoder
from metatrain.models.heads import make_head

_ENCODER = "encoder."
_SUPPORT, _QUERY = "frozen.support.", "frozen.query"  # what the frozen part of the encoder gives, computed once an episode


@dataclass(frozen=True)
class EpisodeTexts:
    """The token ids and labels of an episode: what the learner needs to know of it."""

    support: Sequence[np.ndarray]
    support_labels: np.ndarray
    query: Sequence[np.ndarray]
    query_labels: np.ndarray
    way: int


@dataclass(frozen=True)
class OuterGradient:
    """What one episode contributes to an outer step."""

    gradient: Parameters
    rows: Tensor | None  # the word-embedding rows that `gradient` has
    loss_before: float
    loss_after: float
    accuracy_before: float
    accuracy_after: float
    residual: float | None  # implicit meta-gradients: how far conjugate gradients are from the solution


class Learner:
    """Adapts to a support set, predicts, and gives the meta-gradient of an episode.

    `parameters` are the meta-parameters, the tensors the outer loop trains: `encoder.*`, `head.*` (what the head rule learns)
    and `rule.*` (what the inner rule learns).
    """

    def __init__(self, encoder: Encoder, algorithm: AlgorithmConfig, inner: InnerConfig, way: int | None):
        self.encoder = encoder
        self.algorithm = algorithm
        self.inner = inner
        self.head = make_head(algorithm.head, algorithm.head_scale)
        self.rule = make_inner_rule(inner)
        dtype, device = next(encoder.parameters()).dtype, encoder.device
        idle = set(_without_gradient(encoder))
        trained = {name: value for name, value in encoder.named_parameters() if name not in idle}
        self.parameters: Parameters = {_ENCODER + name: value.detach().clone() for name, value in trained.items()}
        for name, value in self.head.learned(encoder.hidden_size, way).items():
            self.parameters[HEAD + name] = value.to(device, dtype)
        self.adapted = [_ENCODER + name for name in select(list(trained), algorithm.adapt, algorithm.last_layers, algorithm.pattern)]
        self._head_adapts = algorithm.adapt != "body"
        moving = {name: self.parameters[name] for name in self.adapted}
        if self._head_adapts:
            moving[HEAD + "weight"] = torch.zeros(1, encoder.hidden_size, dtype=dtype, device=device)
            moving[HEAD + "bias"] = torch.zeros(1, dtype=dtype, device=device)
        self.parameters.update({LEARNED + name: value for name, value in self.rule.learned(moving).items()})
        self._embedding = _ENCODER + encoder.word_embeddings
        shape = dict(encoder.named_parameters())[encoder.word_embeddings].shape
        # The word embeddings, and rates that a rule has for each of their elements.
        self._by_row = [name for name in (self._embedding, LEARNED + self._embedding) if name in self.parameters and self.parameters[name].shape == shape]
        # The encoder's part below `_cut` does not adapt and runs once an episode; None: all of it.
        self._cut: int | None = min(lowest_adapted_layer(self.adapted), encoder.layers) if self.adapted else None

    def untrained_names(self) -> list[str]:
        """Encoder parameters that no text reaches; they stay as loaded."""
        return [name for name, _ in self.encoder.named_parameters() if _ENCODER + name not in self.parameters]

    def steps(self, evaluation: bool) -> int:
        """Inner steps in meta-training, or in validation, evaluation and finetuning."""
        if evaluation and self.inner.evaluation_steps is not None:
            return self.inner.evaluation_steps
        return self.inner.steps

    def outer_gradient(self, episode: EpisodeTexts, step: int = 0) -> OuterGradient:
        """Meta-gradient of one episode at meta-update `step`, with query loss and accuracy before and after adaptation."""
        losses = _Losses(self, episode.support, episode.support_labels, episode.way, episode.query, episode.query_labels)
        theta = losses.view(self.parameters)
        steps = self.steps(evaluation=False)
        found = meta_gradient(losses, theta, self.rule, steps, method_at(self.algorithm, steps, step))
        before, after = losses.query_accuracies[:2]
        return OuterGradient(found.gradient, losses.rows, found.query_loss_before, found.query_loss, before, after, found.residual)

    def add_gradient(self, total: Parameters, part: OuterGradient, weight: float) -> None:
        """Add one episode's weighted meta-gradient to `total`, in place."""
        for name, value in part.gradient.items():
            if part.rows is not None and name in self._by_row:
                total[name].index_add_(0, part.rows, value, alpha=weight)
            else:
                total[name].add_(value, alpha=weight)

    def adapt(self, support: Sequence[np.ndarray], labels: np.ndarray, way: int, steps: int | None = None) -> tuple[Parameters, float]:
        """All parameters after adaptation to a support set, and the support loss before the last inner step."""
        losses = _Losses(self, support, labels, way)
        with torch.no_grad():
            start, fixed = losses.start(losses.view(self.parameters))
        steps = self.steps(evaluation=True) if steps is None else steps
        moves = adapt(losses, start, fixed, self.rule, steps, self.algorithm.proximal)
        *_, (phi, loss) = [(start, float("nan"))] if steps == 0 else moves
        adapted = {**self.parameters, **{name: value for name, value in fixed.items() if name.startswith(HEAD)}, **phi}
        if losses.rows is not None and self._embedding in phi:
            adapted[self._embedding] = self.parameters[self._embedding].index_copy(0, losses.rows, phi[self._embedding])
        return adapted, loss

    def logits(self, parameters: Mapping[str, Tensor], texts: Sequence[np.ndarray]) -> Tensor:
        """Scores of shape [texts, way] under adapted parameters, without a graph."""
        with torch.no_grad():
            parts = [self._scores(parameters, self.encoder.batch(texts[part])) for part in chunks(texts)]
        return torch.cat(parts)

    def features(self, texts: Sequence[np.ndarray]) -> Tensor:
        """Encodings of shape [texts, H] under the meta-parameters, without a graph."""
        with torch.no_grad():
            return torch.cat([self._encode(self.parameters, self.encoder.batch(texts[part])) for part in chunks(texts)])

    def load_encoder(self) -> Encoder:
        """The encoder module, its weights set to the meta-parameters."""
        return self.write_to_encoder(self.parameters)

    def write_to_encoder(self, parameters: Mapping[str, Tensor]) -> Encoder:
        """Copy parameters (adapted or not) into the encoder module, for export."""
        with torch.no_grad():
            for name, value in self.encoder.named_parameters():
                if _ENCODER + name in parameters:
                    value.copy_(parameters[_ENCODER + name])
        return self.encoder

    def _encode(self, parameters: Mapping[str, Tensor], batch: Batch, **part: Any) -> Tensor:
        prefix = len(_ENCODER)
        encoder = {name[prefix:]: value for name, value in parameters.items() if name.startswith(_ENCODER)}
        return functional_call(self.encoder, encoder, (batch,), part)

    def _encode_frozen(self, parameters: Mapping[str, Tensor], batch: Batch) -> Tensor | None:
        """What the part that never adapts makes of a batch; None if every part adapts."""
        return None if self._cut == 0 else self._encode(parameters, batch, stop=self._cut)

    def _encode_rest(self, parameters: Mapping[str, Tensor], batch: Batch, frozen: Tensor | None) -> Tensor:
        """Encodings [B, H], going on from what `_encode_frozen` returned."""
        if frozen is None:
            return self._encode(parameters, batch)
        return frozen if self._cut is None else self._encode(parameters, batch, hidden=frozen, start=self._cut)

    def _scores(self, parameters: Mapping[str, Tensor], batch: Batch) -> Tensor:
        return F.linear(self._encode(parameters, batch), parameters[HEAD + "weight"], parameters[HEAD + "bias"])


class _Losses:
    """An episode's losses as functions of the adapted parameters phi and the meta-parameters theta.

    With gradients wanted for the word embeddings, only the rows that occur in the episode take part: they are half
    of a small model's parameters, and all but some hundred have no gradient.
    """

    def __init__(
        self,
        learner: Learner,
        support: Sequence[np.ndarray],
        support_labels: np.ndarray,
        way: int,
        query: Sequence[np.ndarray] = (),
        query_labels: np.ndarray | None = None,
    ):
        device = learner.encoder.device
        self.learner, self.way = learner, way
        labels = torch.from_numpy(np.asarray(support_labels, dtype=np.int64)).to(device)
        self.support = [(learner.encoder.batch(support[part]), labels[part]) for part in chunks(support)]
        self.support_size = len(support)
        self.query_accuracies: list[float] = []  # one for each call of `query_loss`
        self.query = learner.encoder.batch(query) if len(query) else None
        if query_labels is not None:
            self.query_labels = torch.from_numpy(np.asarray(query_labels, dtype=np.int64)).to(device)
        self.rows: Tensor | None = None
        if learner._by_row:
            padding = torch.arange(learner.encoder.padding_id + 1, device=device)  # keeps the padding row where it is
            batches = [part for part, _ in self.support] + ([] if self.query is None else [self.query])
            self.rows = torch.unique(torch.cat([padding, *(batch.input_ids.flatten() for batch in batches)]))
            self.support = [(part.remap(self.rows), labels) for part, labels in self.support]
            self.query = self.query.remap(self.rows) if self.query is not None else None

    def view(self, parameters: Parameters) -> Parameters:
        """The parameters with only the word-embedding rows that occur."""
        return {**parameters, **{name: parameters[name].index_select(0, self.rows) for name in self.learner._by_row}}

    def start(self, theta: Mapping[str, Tensor]) -> tuple[Parameters, Parameters]:
        learner, head = self.learner, self.learner.head
        batches = {f"{_SUPPORT}{number}": batch for number, (batch, _) in enumerate(self.support)}
        if self.query is not None:
            batches[_QUERY] = self.query
        frozen = {name: learner._encode_frozen(theta, batch) for name, batch in batches.items()}
        fixed = {name: value for name, value in theta.items() if name not in learner.adapted}
        fixed.update({name: value for name, value in frozen.items() if value is not None})
        features = None
        if head.needs_support:
            features = torch.cat([learner._encode_rest(theta, batch, frozen[name]) for name, batch in batches.items() if name != _QUERY])
        some, size = next(iter(theta.values())), learner.encoder.hidden_size
        empty = {"weight": some.new_zeros(self.way, size), "bias": some.new_zeros(self.way)}
        learned = {name[len(HEAD) :]: value for name, value in theta.items() if name.startswith(HEAD)}
        first = head.start(learned, empty, features, torch.cat([labels for _, labels in self.support]))
        phi = {name: theta[name] for name in learner.adapted}
        (phi if learner._head_adapts else fixed).update({HEAD + name: value for name, value in first.items()})
        return phi, {name: value for name, value in fixed.items() if name not in phi}

    def support_parts(self, phi: Mapping[str, Tensor], fixed: Mapping[str, Tensor]) -> Iterator[Tensor]:
        for number, (batch, labels) in enumerate(self.support):
            logits = self._logits(phi, fixed, f"{_SUPPORT}{number}", batch)
            yield F.cross_entropy(logits, labels, reduction="sum") / self.support_size

    def query_loss(self, phi: Mapping[str, Tensor], fixed: Mapping[str, Tensor]) -> Tensor:
        logits = self._logits(phi, fixed, _QUERY, self.query)
        self.query_accuracies.append(float((logits.argmax(1) == self.query_labels).double().mean()))
        return F.cross_entropy(logits, self.query_labels)

    def _logits(self, phi: Mapping[str, Tensor], fixed: Mapping[str, Tensor], name: str, batch: Batch) -> Tensor:
        features = self.learner._encode_rest({**fixed, **phi}, batch, fixed.get(name))
        head = phi if self.learner._head_adapts else fixed
        return F.linear(features, head[HEAD + "weight"], head[HEAD + "bias"])


def _without_gradient(encoder: Encoder) -> list[str]:
    """Names of encoder parameters that no text reaches (an unused pooler, say): they cannot be trained.

    Raises:
        UserError: no parameter is reached at all.
    """
    parameters = leaves(dict(encoder.named_parameters()))
    text = np.array(encoder.tokenizer("a")["input_ids"])
    output = functional_call(encoder, parameters, (encoder.batch([text, text]),)).square().sum()
    found = torch.autograd.grad(output, list(parameters.values()), allow_unused=True)
    missing = [name for name, value in zip(parameters, found) if value is None]
    if len(missing) == len(parameters):
        raise UserError("model.name: no parameter of the model affects its encodings")
    return missing
