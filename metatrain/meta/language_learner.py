"""The learner of language models: tasks whose predictions are texts, including classification by label names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor

from metatrain.gradient.config import InnerConfig
from metatrain.meta.config import AlgorithmConfig
from metatrain.meta.functional import FunctionalLanguageModel, check_reads_support
from metatrain.meta.language_losses import LanguageLosses
from metatrain.meta.learner import Learner
from metatrain.models.batches import chunks
from metatrain.models.language_model import LanguageModel
from metatrain.models.reading import Reading, pieces_of
from metatrain.models.scoring import label_scores
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

    def prompted(self, reads_support: bool, scoring: str | None = None) -> Self:
        """Return this learner, with the same tensors, which reads the support set before each query or does not; scoring: None: `prompt.scoring`.

        Raises: UserError: the support set has to be read before a query, and the model is not decoder-only.
        """
        check_reads_support(self.model, reads_support)
        return self.with_functional(self.functional.prompted(reads_support, scoring))

    def features(self, texts: Sequence[np.ndarray], on_progress: Callable[[int], None] = lambda texts: None) -> Tensor:
        """Return the mean hidden states of texts under the meta-parameters, [texts, H]; `on_progress` is called with the number of texts just done."""
        model, found = self.functional.write_to_model(self.initial), []
        for part in chunks(texts, self.plan.part_tokens):
            found.append(model.mean_states(texts[part]))
            on_progress(len(found[-1]))
        return torch.cat(found)

    def losses(self, episode: EncodedEpisode, seed: int | None) -> LanguageLosses:
        return LanguageLosses(self.functional, episode, seed)

    def reading(self, episode: EncodedEpisode) -> Reading:
        found = self.functional.reading(episode)
        found.of(self.model, episode.support)  # queries are about as long
        return found

    def query_logits(self, parameters: Mapping[str, Tensor], episode: EncodedEpisode, on_progress: Callable[[int], None] = lambda texts: None) -> Tensor | None:
        choices = targets_of(episode).choices
        if choices is None:
            return None
        model, reading = self.functional.write_to_model(parameters), self.functional.reading(episode)
        scores = label_scores(model, reading, episode.query, choices, self.plan.part_tokens, self.functional.scoring)
        on_progress(len(episode.query))
        return scores

    def scores(self, parameters: Mapping[str, Tensor], texts: Sequence[np.ndarray], names: Sequence[str], context: np.ndarray) -> Tensor:
        """Return the scores of labels with these names, [texts, labels], under adapted parameters; context: of the reading of their examples."""
        model = self.functional.write_to_model(parameters)
        pieces, encode = pieces_of(model, names), model.tokens().encode_targets
        assert encode is not None  # as for every language model
        reading = Reading(pieces.opening, context, pieces.cue)
        return label_scores(model, reading, texts, encode.names(names), self.plan.part_tokens, self.functional.scoring)

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

    def sizes(self, episode: EncodedEpisode) -> tuple[list[int], list[int]]:
        reading, read = self.functional.reading(episode), self.functional.read(episode)
        targets, after = targets_of(read), len(reading.cue) + (len(self.model.separator) if self.model.decoder_only else 0)
        support = [len(reading.opening) + len(text) + after + len(target) for text, target in zip(read.support, targets.support)]
        query = [len(text) + after + len(target) for text, target in zip(read.query, targets.query)]
        if self.model.has_kv_cache and len(reading.context):
            return support, [*query, len(reading.context)]  # what precedes all queries is read once
        return support, [len(reading.context) + size for size in query]

    def targets_of_length(self, texts: int, tokens: int) -> TargetTokens:
        targets = [np.ones(max(1, tokens), dtype=np.int64)] * texts
        is_channel = self.model.prompt is not None and self.model.prompt.is_channel
        return TargetTokens(targets, (), targets if is_channel else None)
