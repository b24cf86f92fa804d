"""The learner: a model and one choice on each of the four axes, ready for episodes.

The axes are the head rule, the adapted parameters, the inner rule and the meta-gradient; a published method is a
choice of four (see conf/algorithm/). This module has what learners of every kind of model share.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from metatrain.errors import UserError
from metatrain.gradient.config import InnerConfig
from metatrain.gradient.inner_rules import HEAD, make_inner_rule
from metatrain.gradient.meta_gradient import LEARNED, adapt, mode_of
from metatrain.gradient.parameters import Gradient, Parameters
from metatrain.meta.config import AlgorithmConfig
from metatrain.meta.contrastive import AuxiliaryGradient
from metatrain.meta.functional import FunctionalClassifier, FunctionalModel
from metatrain.meta.head_fit import Fit
from metatrain.meta.name_choice import NameChoice
from metatrain.meta.plan import ExecutionPlan
from metatrain.meta.progress import Progress
from metatrain.meta.strategies import Adaptation, Losses, OuterGradient, sequential
from metatrain.meta.temperature import LearnedTemperature
from metatrain.models.head_rule import HeadRule
from metatrain.models.reading import Reading
from metatrain.tasks.encoded_episode import EncodedEpisode, TargetTokens


class EncodingLearner(Protocol):
    """Methods that only learners of an encoder have: encodings, and classification by a head on them."""

    functional: FunctionalClassifier
    parameters: Parameters

    @property
    def model(self) -> Any:
        """The encoder."""

    def features(self, texts: Sequence[np.ndarray], on_progress: Callable[[int], None] = ...) -> Tensor:
        """Return encodings [texts, H] under the meta-parameters; `on_progress` is called with the number of texts just done."""

    def logits(self, parameters: Mapping[str, Tensor], texts: Sequence[np.ndarray], on_progress: Callable[[int], None] = ...) -> Tensor:
        """Return logits [texts, way] under adapted parameters; `on_progress` as in `features`."""

    def probabilities(self, parameters: Mapping[str, Tensor], episode: EncodedEpisode) -> np.ndarray:
        """Return the probabilities of the labels for each query, [queries, way]."""

    def keeps_encoder(self, parameters: Mapping[str, Tensor]) -> bool:
        """Return whether adapted parameters have the encoder as it was meta-trained."""

    def with_head(self, head: HeadRule) -> EncodingLearner:
        """Return this learner, with the same tensors and another head rule, which has no learned tensors."""

    def choose_names(self, episode: EncodedEpisode) -> NameChoice | None:
        """Choose whether label names are examples in evaluation and finetuning, from the support set; None: there are none to read."""


class Learner:
    """Adapts to a support set, predicts queries, and computes the meta-gradient of episodes.

    `parameters` are the meta-parameters, the tensors the outer loop trains: the model's under `prefix`, `head.*` (learned by the head
    rule), `rule.*` (learned by the inner rule) and `noise.*`. Model parameters that are not trained stay in the module.
    """

    functional: FunctionalModel
    temperature: LearnedTemperature | None = None  # learned across tasks; None: there is none
    budget: float | None = None  # seconds that a fit may take; None: any
    trains_encoder = True  # whether a fit with a budget may train the whole encoder

    def __init__(self, functional: FunctionalModel, inner: InnerConfig):
        self.functional = functional
        self.inner = inner
        self.rule = make_inner_rule(inner)
        self.parameters = functional.meta_parameters()

    @property
    def model(self) -> Any:
        """The module, whose own values are those of parameters that are not trained."""
        return self.functional.model

    @property
    def prefix(self) -> str:
        """First part of the names of the model's parameters."""
        return self.functional.prefix

    @property
    def algorithm(self) -> AlgorithmConfig:
        """Settings of the method."""
        return self.functional.algorithm

    @property
    def plan(self) -> ExecutionPlan:
        """Execution plan of meta-gradients and adaptation."""
        return self.functional.plan

    def with_plan(self, plan: ExecutionPlan) -> Self:
        """Return this learner, with the same tensors, executed by another plan."""
        return self.with_functional(self.functional.with_plan(plan))

    def with_algorithm(self, algorithm: AlgorithmConfig) -> Self:
        """Return this learner, with the same tensors and other settings of the method; those that choose parameters have no effect."""
        return self.with_functional(self.functional.with_algorithm(algorithm))

    def with_functional(self, functional: FunctionalModel) -> Self:
        """Return this learner, with the same tensors and another view of the same model."""
        other = copy.copy(self)
        other.functional = functional
        return other

    def with_parameters(self, parameters: Parameters) -> Self:
        """Return this learner with other meta-parameters."""
        other = copy.copy(self)
        other.parameters = parameters
        return other

    def with_temperature(self, temperature: LearnedTemperature | None) -> Self:
        """Return this learner with temperatures learned across tasks; None: without."""
        other = copy.copy(self)
        other.temperature = temperature
        return other

    def with_budget(self, seconds: float | None, trains_encoder: bool = True) -> Self:
        """Return this learner with a time limit for each fit (`inner.budget`); None: without. trains_encoder: whether a fit may train the whole encoder.

        Raises:
            UserError: it is not positive.
        """
        if seconds is None:
            return self
        if not 0 < seconds < float("inf"):
            raise UserError(f"inner.budget={seconds:g} must be a number of seconds above 0, or null")
        other = copy.copy(self)
        other.budget, other.trains_encoder = seconds, trains_encoder
        return other

    @property
    def takes_temperature(self) -> bool:
        """Return whether adaptation makes a linear head, whose logits a temperature divides."""
        return False

    def made_temperature(self, episode: EncodedEpisode) -> float | None:
        """Return the temperature learned across tasks of the head that adaptation makes for an episode without fitting it; None: there is none."""
        made = None if self.temperature is None else self.temperature.made
        return None if made is None or episode.is_multi_label else made.at(len(episode.names), len(episode.support) / len(episode.names))

    @property
    def encodings(self) -> EncodingLearner | None:
        """This learner if its model is an encoder; None for a language model, which has no encodings."""
        return None

    def reading(self, episode: EncodedEpisode) -> Reading | None:
        """Return what the model reads around every query of this episode; None: it is an encoder.

        Raises: UserError: a prompt exceeds the positions of the model, with queries as long as the support texts.
        """
        return None

    def losses(self, episode: EncodedEpisode, seed: int | None) -> Losses:
        """Return the losses of an episode; without queries there is no query loss. seed: of dropout and noise; None: there is none."""
        raise NotImplementedError

    def predictions(self, parameters: Mapping[str, Tensor], episode: EncodedEpisode) -> Sequence[Any] | np.ndarray:
        """Return the predictions of adapted parameters for the queries: labels as positions in `episode.names`, or texts."""
        raise NotImplementedError

    def query_logits(self, parameters: Mapping[str, Tensor], episode: EncodedEpisode, on_progress: Callable[[int], None] = lambda texts: None) -> Tensor | None:
        """Return the logits of the labels for each query, [queries, way]; None if any text may be predicted.

        `on_progress` is called with the number of queries just done.
        """
        raise NotImplementedError

    def probabilities(self, parameters: Mapping[str, Tensor], episode: EncodedEpisode) -> np.ndarray | None:
        """Return the probabilities of the labels for each query, [queries, way]; None if any text may be predicted."""
        raise NotImplementedError

    def target_loss(self, parameters: Mapping[str, Tensor], episode: EncodedEpisode) -> float | None:
        """Return the mean cross-entropy, in nats, of the target tokens under adapted parameters; None if there are no target tokens."""
        return None

    def auxiliary_gradient(self, episodes: Sequence[EncodedEpisode]) -> AuxiliaryGradient | None:
        """Return the gradient of a term of the outer loss over all these episodes; None: the method has no such term."""
        return None

    def sizes(self, episode: EncodedEpisode) -> tuple[list[int], list[int]]:
        """Return the numbers of tokens of the sequences that are read for the support loss and for the query loss of an episode."""
        raise NotImplementedError

    def targets_of_length(self, texts: int, tokens: int) -> TargetTokens | None:
        """Return targets of this number of tokens for a number of texts, to measure memory with; None: this learner generates nothing."""
        return None

    def steps(self, evaluation: bool) -> int:
        """Return the number of inner steps in meta-training, or in validation, evaluation and finetuning."""
        if evaluation and self.inner.evaluation_steps is not None:
            return self.inner.evaluation_steps
        return self.inner.steps

    def cost(self, episode: EncodedEpisode) -> float:
        """Estimate the work of an episode's meta-gradient, relative to others, from its tokens."""
        support, query = (sum(map(len, texts)) for texts in (episode.support, episode.query))
        if self.functional.first_adapted_layer is None:
            return support + query
        return self.steps(evaluation=False) * (3.0 if mode_of(self.algorithm.meta_gradient).is_second_order else 1.0) * support + query

    def rows(self, episodes: Sequence[EncodedEpisode]) -> Tensor | None:
        """Return the rows of the word embeddings that any of these episodes' meta-gradients may have; None: all."""
        return None

    def groups(self, episodes: Sequence[EncodedEpisode]) -> list[list[EncodedEpisode]]:
        """Split episodes into groups for `outer_gradients`."""
        return [[episode] for episode in episodes]

    def outer_gradient(self, episode: EncodedEpisode, step: int = 0) -> OuterGradient:
        """Return the meta-gradient of one episode at meta-update `step`, with query loss and accuracy before and after adaptation."""
        return sequential(self.functional, self.adaptation, lambda episode: self.losses(episode, episode.seed), [episode], step)[0]

    def outer_gradients(self, episodes: Sequence[EncodedEpisode], step: int = 0) -> list[OuterGradient]:
        """Return the meta-gradients of a group of episodes whose sum is needed, in order."""
        return [self.outer_gradient(episode, step) for episode in episodes]

    def mean_gradient(self, episodes: Sequence[EncodedEpisode], step: int = 0) -> Parameters:
        """Return the mean meta-gradient of episodes, of every meta-parameter."""
        total = {name: torch.zeros_like(value) for name, value in self.parameters.items()}
        for group in self.groups(episodes):
            for part in self.outer_gradients(group, step):
                self.add_gradient(total, part, 1.0 / len(episodes))
            del part  # its memory is needed for the next
        return total

    def add_gradient(self, total: Parameters, part: Gradient, weight: float) -> None:
        """Add a weighted gradient to `total`, in place."""
        for name, value in part.gradient.items():
            if part.rows is not None and name in self.functional.sparse:
                total[name].index_add_(0, part.rows, value, alpha=weight)
            else:
                total[name].add_(value, alpha=weight)

    def fit(self, episode: EncodedEpisode, progress: Progress | None = None) -> tuple[Parameters, float, Fit | None]:
        """Adapt to an episode's support set for use; return all parameters, the support loss, and the choices made if parameters were fitted.

        Progress is reported if adaptation takes long.
        """
        return *self.adapt(episode), None

    def adapt(self, episode: EncodedEpisode, steps: int | None = None) -> tuple[Parameters, float]:
        """Return all parameters after adaptation to an episode's support set, and the support loss before the last inner step."""
        losses = self.losses(self.as_read(episode).without_queries(), seed=None)
        phi, loss = self.adapted_from(self.functional.view(self.parameters, losses.rows), losses, steps if self.makes_steps(episode) else 0)
        return self._all(phi, losses), loss

    def trajectory(self, episode: EncodedEpisode, steps: int) -> Iterator[Parameters]:
        """Yield all parameters after 0, 1, ..., `steps` inner steps on an episode's support set; each are those of `adapt` with that number of steps."""
        losses = self.losses(self.as_read(episode).without_queries(), seed=None)
        with torch.no_grad():
            start, fixed = losses.start(self.functional.view(self.parameters, losses.rows))
        yield (first := self._all(_with_head(losses, start, fixed), losses))
        if not self.makes_steps(episode):
            yield from [first] * steps
            return
        for phi, _ in adapt(losses, start, fixed, self.rule, steps, self.algorithm.proximal):
            yield self._all(_with_head(losses, phi, fixed), losses)

    def makes_steps(self, episode: EncodedEpisode) -> bool:
        """Return whether the inner loss of this episode can be computed; if not, adaptation makes no inner steps."""
        return True

    def as_read(self, episode: EncodedEpisode) -> EncodedEpisode:
        """Return an episode with the choices that precede adaptation."""
        return episode

    def _all(self, phi: Parameters, losses: Losses) -> Parameters:
        """Return all parameters, from those that differ in the episode of these losses."""
        adapted, words = {**self.parameters, **phi}, self.functional.embedding
        if losses.rows is not None and words is not None and words in phi:
            adapted[words] = self.parameters[words].index_copy(0, losses.rows, phi[words])
        return adapted

    def adapted_from(self, theta: Parameters, losses: Losses, steps: int | None) -> tuple[Parameters, float]:
        """Return the adapted parameters and the head after adaptation from theta, and the support loss before the last inner step."""
        with torch.no_grad():
            start, fixed = losses.start(theta)
        steps = self.steps(evaluation=True) if steps is None else steps
        trajectory = adapt(losses, start, fixed, self.rule, steps, self.algorithm.proximal)
        ((phi, loss),) = deque(trajectory, maxlen=1) or [(start, torch.tensor(float("nan")))]  # earlier steps are not stored
        return _with_head(losses, phi, fixed), float(loss)

    def load(self, values: Mapping[str, Tensor]) -> None:
        """Set meta-parameters, and model parameters that are not trained, by name."""
        module = {self.prefix + name: value for name, value in self.model.named_parameters()}
        with torch.no_grad():
            for name, value in values.items():
                (self.parameters[name] if name in self.parameters else module[name]).copy_(value)

    def load_model(self) -> Any:
        """Return the module with the meta-parameters as its weights."""
        return self.functional.write_to_model(self.initial)

    def copy_of_model(self) -> Parameters:
        """Return a copy of the meta-parameters that belong to the model."""
        return {name: value.clone() for name, value in self.parameters.items() if name.startswith(self.prefix)}

    @property
    def initial(self) -> Parameters:
        """The meta-parameters, and the parameters that are reset in every episode."""
        return {**self.parameters, **self.functional.reset}

    @property
    def adaptation(self) -> Adaptation:
        """The inner loop of meta-training."""
        return Adaptation(self.parameters, self.rule, self.steps(evaluation=False))

    def _learn_rule(self, head: Parameters) -> None:
        """Add the meta-parameters of the inner rule, for the adapted parameters and the head of an episode."""
        moving = {**{name: self.initial[name] for name in self.functional.adapted}, **head}
        self.parameters.update({LEARNED + name: value for name, value in self.rule.learned(moving).items()})


def _with_head(losses: Losses, phi: Parameters, fixed: Parameters) -> Parameters:
    """Return adapted parameters with the head that they give, also where it is fixed, or made after the inner steps."""
    with torch.no_grad():
        head = losses.head(phi, fixed)
    return {**{name: value for name, value in fixed.items() if name.startswith(HEAD)}, **phi, **head}
