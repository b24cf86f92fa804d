"""The learner of language models: any task whose answer is a text, classification by the names of the labels among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from metatrain.errors import UserError
from metatrain.gradient.config import InnerConfig
from metatrain.gradient.parameters import Parameters
from metatrain.meta.config import AlgorithmConfig
from metatrain.meta.language_losses import LanguageLosses
from metatrain.meta.learner import Learner
from metatrain.models.batches import chunks
from metatrain.models.choices import losses_of_choices
from metatrain.models.heads import IN_CONTEXT
from metatrain.models.language_model import LanguageModel
from metatrain.models.writer import after_context
from metatrain.tasks.encoded_episode import EncodedEpisode, TargetTokens, targets_of


class LanguageLearner(Learner):
    """A learner whose model is a language model.

    What is learned of a task is in the model's own parameters, or, with `algorithm.head=in_context`, in nothing but the input: every
    query is read after the whole support set, as in MetaICL (Min et al. 2022).
    """

    prefix = "language_model."
    model: LanguageModel

    def __init__(self, model: LanguageModel, algorithm: AlgorithmConfig, inner: InnerConfig):
        """Raises: UserError: the support set is to be read before a query, and the model is not a decoder alone."""
        self.reads_support = algorithm.head == IN_CONTEXT
        if self.reads_support and not model.decoder_alone:
            raise UserError("algorithm.head=in_context needs a decoder-only model (GPT-2, Llama); for an encoder-decoder choose algorithm.head=lm")
        super().__init__(model, algorithm, inner)
        self.learn_rule({})

    def losses(self, episode: EncodedEpisode, seed: int | None) -> LanguageLosses:
        return LanguageLosses(self, episode, seed)

    def probabilities(self, parameters: Mapping[str, Tensor], episode: EncodedEpisode) -> np.ndarray | None:
        choices = targets_of(episode).choices
        if choices is None:
            return None
        model = self.write_to_model(parameters)
        losses = losses_of_choices(model, self.prompts(episode), choices, self.memory.part_tokens)
        return (-losses.double()).softmax(1).cpu().numpy()

    def answers(self, parameters: Mapping[str, Tensor], episode: EncodedEpisode) -> Sequence[str] | np.ndarray:
        probabilities = self.probabilities(parameters, episode)
        if probabilities is not None:
            return probabilities.argmax(1)
        prompts, model = self.prompts(episode), self.write_to_model(parameters)
        return [answer for part in chunks(prompts, self.memory.part_tokens) for answer in model.write(prompts[part])]

    def target_loss(self, parameters: Mapping[str, Tensor], episode: EncodedEpisode) -> float:
        with torch.no_grad():
            return float(sum(self.losses(episode, seed=None).query_parts(parameters, {})))

    def prompts(self, episode: EncodedEpisode) -> Sequence[np.ndarray]:
        """What is read before an answer is written: the queries, after the support set if it is read too."""
        return after_context(self.model, self.context(episode), episode.query)

    def context(self, episode: EncodedEpisode) -> np.ndarray:
        """The support set as it is read before each query, token ids; none, where the model adapts instead."""
        if not self.reads_support:
            return np.zeros(0, dtype=np.int64)
        # In an order of the episode's own, else the last class would always be the nearest. An example ends as its target does.
        order = np.random.default_rng(episode.seed).permutation(len(episode.support))
        return np.concatenate([piece for row in order for piece in (episode.support[row], self.model.separator, targets_of(episode).support[row])])

    def reached(self, parameters: Parameters) -> Tensor:
        text = np.array(self.model.tokenizer("a")["input_ids"])
        return functional_call(self.model, parameters, (self.model.batch([text, text], [text, text]),)).loss.sum()

    def longest_targets(self, texts: int) -> TargetTokens:
        return TargetTokens([np.ones(self.model.max_target_length, dtype=np.int64)] * texts, (), None)
