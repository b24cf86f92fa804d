"""The learner of encoders: classification by a head on encodings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from metatrain.errors import UserError
from metatrain.gradient.config import InnerConfig
from metatrain.gradient.inner_rules import HEAD, reads_whole_tensors
from metatrain.gradient.parameters import Parameters
from metatrain.meta import noise
from metatrain.meta.config import AlgorithmConfig
from metatrain.meta.contrastive import AuxiliaryGradient, contrastive_gradient
from metatrain.meta.functional import FunctionalClassifier
from metatrain.meta.head_fit import Fit
from metatrain.meta.inner_losses import inner_loss
from metatrain.meta.label_set_fit import fit_label_sets
from metatrain.meta.learner import Learner
from metatrain.meta.name_choice import NameChoice
from metatrain.meta.progress import Progress, Silent
from metatrain.meta.strategies import OuterGradient, grouped, shared_encoding, shares_encoding, vectorised, vectorises
from metatrain.meta.support_fit import choice_of_names, fit_support
from metatrain.meta.text_losses import TextLosses
from metatrain.models.batches import on_device
from metatrain.models.encoder import Encoder
from metatrain.models.head_rule import Head, HeadRule
from metatrain.models.heads import make_head
from metatrain.models.images import ImageEncoder
from metatrain.tasks.encoded_episode import EncodedEpisode


class EncoderLearner(Learner):
    """Learner of an encoder of texts, of images, or of both."""

    functional: FunctionalClassifier

    def __init__(self, encoder: Encoder | ImageEncoder, algorithm: AlgorithmConfig, inner: InnerConfig, way: int | None, labels: Sequence[str] = ()):
        """`way`: number of classes of every episode, or None if it varies; `labels`: label names of the training tasks."""
        head = make_head(algorithm.head, algorithm.head_scale, labels)
        self._losses = inner_loss(inner.loss)
        functional = FunctionalClassifier(encoder, algorithm, head, self._losses.head_after)
        super().__init__(functional, inner)
        dtype, device = next(encoder.parameters()).dtype, encoder.device
        for name, value in head.learned(encoder.hidden_size, way).items():
            self.parameters[HEAD + name] = value.to(device, dtype)
        self.parameters.update({name: value.to(device, dtype) for name, value in noise.learned(algorithm, encoder.hidden_size).items()})
        row = {"weight": torch.zeros(1, encoder.hidden_size, dtype=dtype, device=device), "bias": torch.zeros(1, dtype=dtype, device=device)}
        moving = row if functional.head_facts.is_linear else self._head_of_one(row)
        constants = functional.head_facts.constants
        self._learn_rule({HEAD + name: value for name, value in moving.items() if functional.head_adapts and name not in constants})
        if not reads_whole_tensors(self.rule):
            functional.use_sparse_rows(self.parameters)

    def _head_of_one(self, row: Head) -> Head:
        """Return the head of an episode of one class with one support text, whose shapes learned rates have; row: a linear head of zeros."""
        functional = self.functional
        learned = {name[len(HEAD) :]: value for name, value in self.parameters.items() if name.startswith(HEAD)}
        more = {"label_encodings": row["weight"]} if functional.head_facts.reads_label_encodings else {}
        head: Any = functional.head
        with torch.no_grad():
            found: Head = head.start(learned, row, row["weight"], row["bias"].long(), ["0"], **more)
        return found

    def with_head(self, head: HeadRule) -> EncoderLearner:
        """Return this learner, with the same tensors and another head rule, which has no learned tensors."""
        return self.with_functional(self.functional.with_head(head))

    def losses(self, episode: EncodedEpisode, seed: int | None) -> TextLosses:
        if episode.targets is not None and episode.targets.choices is None:
            raise UserError("an encoder predicts labels, but the tasks have target texts: set algorithm.head=lm and a language model (model=t5_small)")
        return self._losses.of(self.functional, self.functional.read(episode), seed)

    def sizes(self, episode: EncodedEpisode) -> tuple[list[int], list[int]]:
        support, query, *names = self.functional.texts_of(self.functional.read(episode))
        return [len(text) for part in (support, *names) for text in part], list(map(len, query))

    @property
    def encodings(self) -> EncoderLearner:
        return self

    def query_logits(self, parameters: Mapping[str, Tensor], episode: EncodedEpisode, on_progress: Callable[[int], None] = lambda texts: None) -> Tensor:
        return self.logits(parameters, episode.query, on_progress)

    def probabilities(self, parameters: Mapping[str, Tensor], episode: EncodedEpisode) -> np.ndarray:
        logits = self.query_logits(parameters, episode).double()
        return (logits.sigmoid() if episode.is_multi_label else logits.softmax(1)).cpu().numpy()

    def predictions(self, parameters: Mapping[str, Tensor], episode: EncodedEpisode) -> np.ndarray:
        return self.query_logits(parameters, episode).argmax(1).cpu().numpy()

    def logits(self, parameters: Mapping[str, Tensor], texts: Sequence[np.ndarray], on_progress: Callable[[int], None] = lambda texts: None) -> Tensor:
        """Return logits [texts, way] under adapted parameters; `on_progress` is called with the number of texts just done."""
        return self.functional.logits(parameters, texts, on_progress)

    def features(self, texts: Sequence[np.ndarray], on_progress: Callable[[int], None] = lambda texts: None) -> Tensor:
        """Return encodings [texts, H] under the meta-parameters; `on_progress` as in `logits`."""
        return self.functional.features(self.initial, texts, on_progress)

    def keeps_encoder(self, parameters: Mapping[str, Tensor]) -> bool:
        """Return whether adapted parameters have the encoder as it was meta-trained."""
        return all(value is self.parameters.get(name) for name, value in parameters.items() if name.startswith(self.prefix))

    def adapt(self, episode: EncodedEpisode, steps: int | None = None) -> tuple[Parameters, float]:
        if self.inner.fit_head and steps is None and episode.is_multi_label:
            return fit_label_sets(self, self.functional, episode)
        if self.inner.fit_head and steps is None:
            adapted, loss, _ = self.fit(episode)
            return adapted, loss
        adapted, loss = super().adapt(episode, steps)
        if steps is None and (temperature := self.made_temperature(episode)) is not None:
            adapted.update({HEAD + name: adapted[HEAD + name] / temperature for name in ("weight", "bias")})
        return adapted, loss

    @property
    def takes_temperature(self) -> bool:
        facts = self.functional.head_facts
        return facts.is_linear and not facts.reads_word_embeddings and not facts.row_per_label

    def as_read(self, episode: EncodedEpisode) -> EncodedEpisode:
        """Return an episode without label names as examples where its support set is better read without them."""
        choice = self.choose_names(episode)
        return episode if choice is None or choice.read else replace(episode, reads_names=False)

    def makes_steps(self, episode: EncodedEpisode) -> bool:
        """Return whether the inner loop has steps to make: `leave_one_out` needs a class with two examples, label names not counted."""
        return not self.functional.head_after or bool((np.bincount(episode.support_labels) > 1).any())

    def with_budget(self, seconds: float | None, trains_encoder: bool = True) -> Self:
        if seconds is not None and isinstance(self.model, Encoder) and self.model.windows is not None:
            raise UserError("inner.budget may adapt the encoder, and model.long_texts=windows needs one that stays as it is; remove one of the two")
        return super().with_budget(seconds, trains_encoder)

    def fit(self, episode: EncodedEpisode, progress: Progress | None = None) -> tuple[Parameters, float, Fit | None]:
        if not self.inner.fit_head:
            return *self.adapt(episode), None
        adapted, fit = self.fit_support(episode, progress)
        return adapted, fit.loss, fit

    def fit_support(self, episode: EncodedEpisode, progress: Progress | None = None) -> tuple[Parameters, Fit]:
        """Fit the head, and then the whole encoder if that helps, as `support_fit.fit_support`; return all parameters and the choices made."""
        return fit_support(self, self.functional, self._losses, episode, progress or Silent())

    def choose_names(self, episode: EncodedEpisode) -> NameChoice | None:
        """Choose whether label names are examples in evaluation and finetuning, from the support set; None: there are none to read, or all are read."""
        if episode.is_multi_label:
            return None
        support = self.functional.read(episode.without_queries())
        return choice_of_names(support, len(episode.support), self.features(support.support)) if len(support.support) > len(episode.support) else None

    def rows(self, episodes: Sequence[EncodedEpisode]) -> Tensor | None:
        if not self.functional.sparse:
            return None
        texts = [text for each in map(self.functional.read, episodes) for part in self.functional.texts_of(each) for text in part]
        return on_device(self.functional.distinct(texts), self.model.device)

    def groups(self, episodes: Sequence[EncodedEpisode]) -> list[list[EncodedEpisode]]:
        return grouped(self.functional, self.rule, episodes)

    def outer_gradients(self, episodes: Sequence[EncodedEpisode], step: int = 0) -> list[OuterGradient]:
        """Return the meta-gradients of a group of episodes whose sum is needed, in order.

        Shares of the sum that belong to no single episode are in the last one.
        """
        if vectorises(self.functional, self.rule, episodes):
            return vectorised(self.functional, self.adaptation, episodes, step)
        if shares_encoding(self.functional, episodes):
            return shared_encoding(self.functional, self.adaptation, episodes, step)
        return super().outer_gradients(episodes, step)

    def auxiliary_gradient(self, episodes: Sequence[EncodedEpisode]) -> AuxiliaryGradient | None:
        return contrastive_gradient(self.functional, self.parameters, episodes) if self.algorithm.contrastive else None
