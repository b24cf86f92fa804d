"""The learner of encoders: classification by a head on encodings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from metatrain.errors import UserError
from metatrain.meta import noise
from metatrain.meta.config import AlgorithmConfig, InnerConfig
from metatrain.meta.episode_texts import EpisodeTexts
from metatrain.meta.head_fit import Fit, fit_head
from metatrain.meta.inner import HEAD
from metatrain.meta.learner import Learner, OuterGradient
from metatrain.meta.meta_gradient import LEARNED
from metatrain.meta.parameters import Parameters, leaves, vjp
from metatrain.meta.text_losses import ENCODINGS, TextLosses
from metatrain.models.adapted import HEAD_STAYS, lowest_adapted_layer
from metatrain.models.batches import Batch, Mixed, chunks
from metatrain.models.encoder import Encoder
from metatrain.models.heads import Head, make_head
from metatrain.models.pictures import PictureEncoder


class EncoderLearner(Learner):
    """A learner whose model is an encoder, of texts, of pictures, or of both."""

    prefix = "encoder."
    model: Any  # Encoder | PictureEncoder; which batches it takes is its own affair

    def __init__(self, encoder: Encoder | PictureEncoder, algorithm: AlgorithmConfig, inner: InnerConfig, way: int | None, labels: Sequence[str] = ()):
        """`way`: classes of every episode, or None where it varies; `labels`: names of the training tasks' labels."""
        self.head = make_head(algorithm.head, algorithm.head_scale, labels)
        super().__init__(encoder, algorithm, inner)
        dtype, device = next(encoder.parameters()).dtype, encoder.device
        for name, value in self.head.learned(encoder.hidden_size, way).items():
            self.parameters[HEAD + name] = value.to(device, dtype)
        self.parameters.update({name: value.to(device, dtype) for name, value in noise.learned(algorithm, encoder.hidden_size).items()})
        self.head_adapts = algorithm.adapt not in HEAD_STAYS
        head = {"weight": torch.zeros(1, encoder.hidden_size, dtype=dtype, device=device), "bias": torch.zeros(1, dtype=dtype, device=device)}
        self.learn_rule({HEAD + name: value for name, value in head.items()} if self.head_adapts else {})
        if encoder.word_embeddings is not None:
            self.embedding = self.prefix + encoder.word_embeddings
            shape = dict(encoder.named_parameters())[encoder.word_embeddings].shape
            self.by_row = [name for name in (self.embedding, LEARNED + self.embedding) if name in self.parameters and self.parameters[name].shape == shape]
        self.cut = min(lowest_adapted_layer(self.adapted), encoder.layers) if self.adapted else None

    def losses(self, episode: EpisodeTexts, seed: int | None) -> TextLosses:
        if episode.targets is not None and episode.targets.choices is None:
            raise UserError("an encoder gives labels, and the tasks have target texts: set algorithm.head=lm, and a language model (model=t5_small, say)")
        return TextLosses(self, self._read(episode), seed)

    def probabilities(self, parameters: Mapping[str, Tensor], episode: EpisodeTexts) -> np.ndarray:
        return self.logits(parameters, episode.query).double().softmax(1).cpu().numpy()

    def adapt(self, episode: EpisodeTexts, steps: int | None = None) -> tuple[Parameters, float]:
        if not self.inner.fit_head or steps is not None:
            return super().adapt(episode, steps)
        adapted, fit = self.fit(episode)
        return adapted, fit.loss

    def fit(self, episode: EpisodeTexts) -> tuple[Parameters, Fit]:
        """All parameters with a head fitted to an episode's support set (`inner.fit_head`), and what was chosen for it."""
        support = self._read(episode.without_queries())
        features, labels = self.features(support.support), torch.from_numpy(np.asarray(support.support_labels, dtype=np.int64)).to(self.model.device)

        def start(rows: np.ndarray) -> Head:
            """The meta-learned head of some of the examples."""
            part = replace(support, support=[support.support[row] for row in rows], support_labels=support.support_labels[rows])
            theta = {**self.parameters, **dict(zip(ENCODINGS, (features[torch.from_numpy(rows)], features[:0])))}
            head, _ = self._adapted(TextLosses(self, part, None, encoded=True), theta, None)
            return {name: head[HEAD + name] for name in ("weight", "bias")}

        examples = np.arange(len(labels)) < len(episode.support)  # before the names of the classes
        fit = fit_head(start, features, labels, ~examples, episode.seed)
        return {**self.parameters, **{HEAD + name: value for name, value in fit.head.items()}}, fit

    def answers(self, parameters: Mapping[str, Tensor], episode: EpisodeTexts) -> np.ndarray:
        return self.logits(parameters, episode.query).argmax(1).cpu().numpy()

    def reached(self, parameters: Parameters) -> Tensor:
        return functional_call(self.model, parameters, (self.model.batch(self.model.example()),)).square().sum()

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

    def rows(self, episodes: Sequence[EpisodeTexts]) -> Tensor | None:
        if not self.by_row:
            return None
        texts = [torch.from_numpy(np.concatenate([*each.support, *each.query])) for each in map(self._read, episodes)]
        return torch.unique(torch.cat([torch.arange(self.model.fixed_ids), *texts])).to(self.model.device)

    def outer_gradients(self, episodes: Sequence[EpisodeTexts], step: int = 0) -> list[OuterGradient]:
        """Meta-gradients of a group of episodes whose sum is wanted, in order.

        If there are several, their texts are encoded together, and the encoder's share of the sum is in the last one.
        """
        if len(episodes) == 1:
            return [self.outer_gradient(episode, step) for episode in episodes]
        episodes = [self._read(episode) for episode in episodes]
        (batch,), rows = self.occurring([self.model.batch([text for episode in episodes for text in (*episode.support, *episode.query)])])
        view = self.view(rows)
        encoder = leaves({name: value for name, value in view.items() if name.startswith(self.prefix)})
        others = {name: value for name, value in view.items() if not name.startswith(self.prefix)}
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

    def _read(self, episode: EpisodeTexts) -> EpisodeTexts:
        """The episode with everything that is learned from in its support set."""
        return episode.with_names() if self.algorithm.label_names else episode

    def occurring(self, batches: list[Batch]) -> tuple[list[Batch], Tensor | None]:
        """The batches over the word embeddings that occur in them alone, and which rows these are; None: all of them.

        With gradients wanted for the word embeddings, others need not take part: they are half of a small model's
        parameters, and all but some hundred have no gradient.
        """
        texts = [batch for batch in batches if not isinstance(batch, Mixed)]
        if not self.by_row or len(texts) < len(batches):
            return batches, None
        fixed = torch.arange(self.model.fixed_ids, device=self.model.device)  # so these rows keep their place
        rows = torch.unique(torch.cat([fixed, *(batch.token_ids() for batch in texts)]))
        return [batch.remap(rows) for batch in texts], rows

    def logits(self, parameters: Mapping[str, Tensor], texts: Sequence[np.ndarray]) -> Tensor:
        """Scores of shape [texts, way] under adapted parameters, without a graph."""
        with torch.no_grad():
            parts = [self._scores(parameters, self.model.batch(texts[part])) for part in chunks(texts, self.memory.part_tokens)]
        return torch.cat(parts)

    def features(self, texts: Sequence[np.ndarray]) -> Tensor:
        """Encodings of shape [texts, H] under the meta-parameters, without a graph."""
        with torch.no_grad():
            return torch.cat([self.encode(self.initial, self.model.batch(texts[part])) for part in chunks(texts, self.memory.part_tokens)])

    def encode(self, parameters: Mapping[str, Tensor], batch: Batch | None, **part: Any) -> Tensor:
        """The encoder as a function of its parameters; `part` as in `Encoder.forward`. batch: None only where `hidden` is all that is needed."""
        return self.call(parameters, batch, **part)

    def encode_frozen(self, parameters: Mapping[str, Tensor], batch: Batch | None, seed: int | None) -> Tensor | None:
        """What the part that never adapts makes of a batch; None if every part adapts."""
        return None if self.cut == 0 else self.encode(parameters, batch, stop=self.cut, seed=seed)

    def encode_rest(self, parameters: Mapping[str, Tensor], batch: Batch | None, frozen: Tensor | None, seed: int | None) -> Tensor:
        """Encodings [B, H], going on from what `encode_frozen` returned."""
        if frozen is None:
            return self.encode(parameters, batch, seed=seed)
        return frozen if self.cut is None else self.encode(parameters, batch, hidden=frozen, start=self.cut, seed=seed)

    def _scores(self, parameters: Mapping[str, Tensor], batch: Batch) -> Tensor:
        return F.linear(self.encode(parameters, batch), parameters[HEAD + "weight"], parameters[HEAD + "bias"])
