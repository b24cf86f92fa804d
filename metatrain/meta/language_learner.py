"""The learner of language models: tasks whose predictions are texts, including classification by label names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from metatrain.gradient.config import InnerConfig
from metatrain.meta.config import AlgorithmConfig
from metatrain.meta.functional import FunctionalLanguageModel
from metatrain.meta.language_losses import LanguageLosses
from metatrain.meta.learner import Learner
from metatrain.models.batches import chunks
from metatrain.models.choices import losses_of_choices
from metatrain.models.generation import after_context
from metatrain.models.language_model import LanguageModel
from metatrain.tasks.encoded_episode import EncodedEpisode, TargetTokens, targets_of


class LanguageLearner(Learner):
    """Learner of a language model.

    It adapts the model's own parameters or, with `algorithm.head=in_context`, nothing: every query is read after the whole support
    set, as in MetaICL (Min et al. 2022).
    """

    functional: FunctionalLanguageModel

    def __init__(self, model: LanguageModel, algorithm: AlgorithmConfig, inner: InnerConfig):
        """Raises: UserError: the support set has to be read before a query, and the model is not decoder-only."""
        super().__init__(FunctionalLanguageModel(model, algorithm), inner)
        self._learn_rule({})

    def losses(self, episode: EncodedEpisode, seed: int | None) -> LanguageLosses:
        return LanguageLosses(self.functional, episode, seed)

    def context(self, episode: EncodedEpisode) -> np.ndarray:
        found = self.functional.context(episode)
        after_context(self.functional.model, found, episode.support)  # queries are about as long
        return found

    def query_logits(self, parameters: Mapping[str, Tensor], episode: EncodedEpisode, on_progress: Callable[[int], None] = lambda texts: None) -> Tensor | None:
        choices = targets_of(episode).choices
        if choices is None:
            return None
        model, prompts = self.functional.write_to_model(parameters), self.functional.prompts(episode)
        losses = losses_of_choices(model, prompts, choices, self.plan.part_tokens)
        on_progress(len(prompts))
        return -losses

    def probabilities(self, parameters: Mapping[str, Tensor], episode: EncodedEpisode) -> np.ndarray | None:
        logits = self.query_logits(parameters, episode)
        return None if logits is None else logits.double().softmax(1).cpu().numpy()

    def predictions(self, parameters: Mapping[str, Tensor], episode: EncodedEpisode) -> Sequence[str] | np.ndarray:
        probabilities = self.probabilities(parameters, episode)
        if probabilities is not None:
            return probabilities.argmax(1)
        prompts, model = self.functional.prompts(episode), self.functional.write_to_model(parameters)
        return [text for part in chunks(prompts, self.plan.part_tokens) for text in model.generate(prompts[part])]

    def target_loss(self, parameters: Mapping[str, Tensor], episode: EncodedEpisode) -> float:
        with torch.no_grad():
            return float(sum(self.losses(episode, seed=None).query_parts(parameters, {})))

    def longest_targets(self, texts: int) -> TargetTokens:
        return TargetTokens([np.ones(self.functional.model.max_target_length, dtype=np.int64)] * texts, (), None)
