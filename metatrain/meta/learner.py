"""The learner: an encoder and one choice on each of the four axes, ready for episodes.

The axes are the head rule, the adapted parameters, the inner rule and the meta-gradient; a published method is a
choice of four (see conf/algorithm/).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from metatrain.errors import UserError
from metatrain.meta import noise
from metatrain.meta.algorithm import method_at
from metatrain.meta.config import AlgorithmConfig, InnerConfig
from metatrain.meta.inner import HEAD, make_inner_rule
from metatrain.meta.memory import MemoryUse
from metatrain.meta.meta_gradient import LEARNED, adapt, meta_gradient
from metatrain.meta.parameters import Parameters, leaves, vjp
from metatrain.meta.text_losses import ENCODINGS, EpisodeTexts, TextLosses
from metatrain.models.adapted import HEAD_STAYS, lowest_adapted_layer, select
from metatrain.models.adapters import is_adapter
from metatrain.models.batches import Batch, chunks
from metatrain.models.encoder import Encoder
from metatrain.models.heads import make_head

_ENCODER = "encoder."


@dataclass(frozen=True)
class OuterGradient:
    """What one episode contributes to an outer step."""

    gradient: Parameters
    rows: Tensor | None  # the word-embedding rows that `gradient` has
    loss_before: Tensor
    loss_after: Tensor
    accuracy_before: Tensor
    accuracy_after: Tensor
    residual: float | None  # implicit meta-gradients: how far conjugate gradients are from the solution


class Learner:
    """Adapts to a support set, predicts, and gives the meta-gradient of an episode.

    `parameters` are the meta-parameters, the tensors the outer loop trains: `encoder.*`, `head.*` (what the head rule learns),
    `rule.*` (what the inner rule learns) and `noise.*`. Encoder parameters that are not trained stay in the encoder module.
    """

    def __init__(self, encoder: Encoder, algorithm: AlgorithmConfig, inner: InnerConfig, way: int | None, labels: Sequence[str] = ()):
        """`way`: classes of every episode, or None where it varies; `labels`: names of the training tasks' labels."""
        self.encoder = encoder.requires_grad_(False)
        self.algorithm = algorithm
        self.inner = inner
        self.head = make_head(algorithm.head, algorithm.head_scale, labels)
        self.rule = make_inner_rule(inner)
        self.memory = MemoryUse()
        encoder.set_dropout(algorithm.dropout)
        dtype, device = next(encoder.parameters()).dtype, encoder.device
        self.unreached = _without_gradient(encoder)
        values = {_ENCODER + name: value.detach().clone() for name, value in encoder.named_parameters() if name not in self.unreached}
        plain = [name[len(_ENCODER) :] for name in values]
        self.adapted = [_ENCODER + name for name in select(plain, algorithm.adapt, algorithm.last_layers, algorithm.pattern)]
        if algorithm.train == "adapted":
            values = {name: value for name, value in values.items() if name in self.adapted or is_adapter(name)}
        # What starts at zero in every episode adapts without being a meta-parameter.
        self.anew: Parameters = {name: torch.zeros_like(values.pop(name)) for name in self.adapted if algorithm.adapt == "context"}
        self.parameters: Parameters = values
        for name, value in self.head.learned(encoder.hidden_size, way).items():
            self.parameters[HEAD + name] = value.to(device, dtype)
        self.parameters.update({name: value.to(device, dtype) for name, value in noise.learned(algorithm, encoder.hidden_size).items()})
        self.head_adapts = algorithm.adapt not in HEAD_STAYS
        moving = {name: {**values, **self.anew}[name] for name in self.adapted}
        if self.head_adapts:
            moving[HEAD + "weight"] = torch.zeros(1, encoder.hidden_size, dtype=dtype, device=device)
            moving[HEAD + "bias"] = torch.zeros(1, dtype=dtype, device=device)
        self.parameters.update({LEARNED + name: value for name, value in self.rule.learned(moving).items()})
        self.embedding = _ENCODER + encoder.word_embeddings
        shape = dict(encoder.named_parameters())[encoder.word_embeddings].shape
        # The word embeddings, and rates that a rule has for each of their elements.
        self._by_row = [name for name in (self.embedding, LEARNED + self.embedding) if name in self.parameters and self.parameters[name].shape == shape]
        # The encoder's part below the cut does not adapt and runs once an episode; None: all of it.
        self.cut: int | None = min(lowest_adapted_layer(self.adapted), encoder.layers) if self.adapted else None

    def steps(self, evaluation: bool) -> int:
        """Inner steps in meta-training, or in validation, evaluation and finetuning."""
        if evaluation and self.inner.evaluation_steps is not None:
            return self.inner.evaluation_steps
        return self.inner.steps

    def outer_gradient(self, episode: EpisodeTexts, step: int = 0) -> OuterGradient:
        """Meta-gradient of one episode at meta-update `step`, with query loss and accuracy before and after adaptation."""
        losses = TextLosses(self, episode, episode.seed)
        return self._outer_gradient(losses, self.view(losses.rows), losses.rows, step)

    def groups(self, episodes: Sequence[EpisodeTexts]) -> list[list[EpisodeTexts]]:
        """Episodes in groups for `outer_gradients`: as many as fit where nothing of the encoder adapts or is dropped, else one each."""
        together = self.cut is None and not self.algorithm.dropout
        groups: list[list[EpisodeTexts]] = []
        for episode in episodes:
            tokens = sum(len(text) for each in [*(groups[-1] if groups else []), episode] for text in (*each.support, *each.query))
            if groups and together and tokens <= self.memory.part_tokens:
                groups[-1].append(episode)
            else:
                groups.append([episode])
        return groups

    def outer_gradients(self, episodes: Sequence[EpisodeTexts], step: int = 0) -> list[OuterGradient]:
        """Meta-gradients of a group of episodes whose sum is wanted, in order.

        If there are several, their texts are encoded together, and the encoder's share of the sum is in the last one.
        """
        if len(episodes) == 1:
            return [self.outer_gradient(episode, step) for episode in episodes]
        (batch,), rows = self.occurring([self.encoder.batch([text for episode in episodes for text in (*episode.support, *episode.query)])])
        view = self.view(rows)
        encoder = leaves({name: value for name, value in view.items() if name.startswith(_ENCODER)})
        others = {name: value for name, value in view.items() if not name.startswith(_ENCODER)}
        together = self.encode(encoder, batch)
        sizes = [size for episode in episodes for size in (len(episode.support), len(episode.query))]
        pieces = torch.split(together.detach(), sizes)
        found, cotangents = [], []
        for episode, encodings in zip(episodes, zip(pieces[::2], pieces[1::2])):
            losses = TextLosses(self, episode, episode.seed, encoded=True)
            part = self._outer_gradient(losses, {**others, **dict(zip(ENCODINGS, encodings))}, rows, step)
            cotangents += [part.gradient.pop(name, torch.zeros_like(value)) for name, value in zip(ENCODINGS, encodings)]
            found.append(part)
        found[-1].gradient.update(vjp([together], [torch.cat(cotangents)], encoder))
        return found

    def mean_gradient(self, episodes: Sequence[EpisodeTexts], step: int = 0) -> Parameters:
        """The mean meta-gradient of episodes, of every meta-parameter."""
        total = {name: torch.zeros_like(value) for name, value in self.parameters.items()}
        for group in self.groups(episodes):
            for part in self.outer_gradients(group, step):
                self.add_gradient(total, part, 1.0 / len(episodes))
        return total

    def _outer_gradient(self, losses: TextLosses, theta: Parameters, rows: Tensor | None, step: int) -> OuterGradient:
        steps = self.steps(evaluation=False)
        method = replace(method_at(self.algorithm, steps, step), graphs=self.memory.graphs(losses.support_tokens))
        found = meta_gradient(losses, theta, self.rule, steps, method)
        before, after = losses.query_accuracies[:2]
        return OuterGradient(found.gradient, rows, found.query_loss_before, found.query_loss, before, after, found.residual)

    def add_gradient(self, total: Parameters, part: OuterGradient, weight: float) -> None:
        """Add one episode's weighted meta-gradient to `total`, in place."""
        for name, value in part.gradient.items():
            if part.rows is not None and name in self._by_row:
                total[name].index_add_(0, part.rows, value, alpha=weight)
            else:
                total[name].add_(value, alpha=weight)

    def occurring(self, batches: list[Batch]) -> tuple[list[Batch], Tensor | None]:
        """The batches over the word embeddings that occur in them alone, and which rows these are; None: all of them.

        With gradients wanted for the word embeddings, others need not take part: they are half of a small model's
        parameters, and all but some hundred have no gradient.
        """
        if not self._by_row:
            return batches, None
        fixed = torch.arange(self.encoder.fixed_ids, device=self.encoder.device)  # so these rows keep their place
        rows = torch.unique(torch.cat([fixed, *(batch.token_ids() for batch in batches)]))
        return [batch.remap(rows) for batch in batches], rows

    def view(self, rows: Tensor | None) -> Parameters:
        """The meta-parameters with these rows of the word embeddings."""
        return {**self.parameters, **{name: self.parameters[name].index_select(0, rows) for name in self._by_row}}

    def adapt(self, support: Sequence[np.ndarray], labels: np.ndarray, names: Sequence[str], steps: int | None = None) -> tuple[Parameters, float]:
        """All parameters after adaptation to a support set, and the support loss before the last inner step.

        labels: positions in `names`, [support].
        """
        losses = TextLosses(self, EpisodeTexts(support, labels, (), np.zeros(0, np.int64), names), seed=None)
        with torch.no_grad():
            start, fixed = losses.start(self.view(losses.rows))
        steps = self.steps(evaluation=True) if steps is None else steps
        moves = adapt(losses, start, fixed, self.rule, steps, self.algorithm.proximal)
        *_, (phi, loss) = [(start, torch.tensor(float("nan")))] if steps == 0 else moves
        adapted = {**self.parameters, **{name: value for name, value in fixed.items() if name.startswith(HEAD)}, **phi}
        if losses.rows is not None and self.embedding in phi:
            adapted[self.embedding] = self.parameters[self.embedding].index_copy(0, losses.rows, phi[self.embedding])
        return adapted, float(loss)

    def logits(self, parameters: Mapping[str, Tensor], texts: Sequence[np.ndarray]) -> Tensor:
        """Scores of shape [texts, way] under adapted parameters, without a graph."""
        with torch.no_grad():
            parts = [self._scores(parameters, self.encoder.batch(texts[part])) for part in chunks(texts, self.memory.part_tokens)]
        return torch.cat(parts)

    def features(self, texts: Sequence[np.ndarray]) -> Tensor:
        """Encodings of shape [texts, H] under the meta-parameters, without a graph."""
        with torch.no_grad():
            return torch.cat([self.encode(self.initial, self.encoder.batch(texts[part])) for part in chunks(texts, self.memory.part_tokens)])

    def load(self, values: Mapping[str, Tensor]) -> None:
        """Set meta-parameters, and encoder parameters that are not trained, by name."""
        module = {_ENCODER + name: value for name, value in self.encoder.named_parameters()}
        with torch.no_grad():
            for name, value in values.items():
                (self.parameters[name] if name in self.parameters else module[name]).copy_(value)

    def load_encoder(self) -> Encoder:
        """The encoder module, its weights set to the meta-parameters."""
        return self.write_to_encoder(self.initial)

    def write_to_encoder(self, parameters: Mapping[str, Tensor]) -> Encoder:
        """Copy parameters (adapted or not) into the encoder module, for export."""
        with torch.no_grad():
            for name, value in self.encoder.named_parameters():
                if _ENCODER + name in parameters:
                    value.copy_(parameters[_ENCODER + name])
        return self.encoder

    @property
    def initial(self) -> Parameters:
        """The meta-parameters, and what starts anew in every episode."""
        return {**self.parameters, **self.anew}

    def encode(self, parameters: Mapping[str, Tensor], batch: Batch, **part: Any) -> Tensor:
        """The encoder as a function of its parameters; `part` as in `Encoder.forward`."""
        prefix = len(_ENCODER)
        encoder = {name[prefix:]: value for name, value in parameters.items() if name.startswith(_ENCODER)}
        return functional_call(self.encoder, encoder, (batch,), part)

    def encode_frozen(self, parameters: Mapping[str, Tensor], batch: Batch, seed: int | None) -> Tensor | None:
        """What the part that never adapts makes of a batch; None if every part adapts."""
        return None if self.cut == 0 else self.encode(parameters, batch, stop=self.cut, seed=seed)

    def encode_rest(self, parameters: Mapping[str, Tensor], batch: Batch, frozen: Tensor | None, seed: int | None) -> Tensor:
        """Encodings [B, H], going on from what `encode_frozen` returned."""
        if frozen is None:
            return self.encode(parameters, batch, seed=seed)
        return frozen if self.cut is None else self.encode(parameters, batch, hidden=frozen, start=self.cut, seed=seed)

    def _scores(self, parameters: Mapping[str, Tensor], batch: Batch) -> Tensor:
        return F.linear(self.encode(parameters, batch), parameters[HEAD + "weight"], parameters[HEAD + "bias"])


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
