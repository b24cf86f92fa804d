"""The learner: a model and one choice on each of the four axes, ready for episodes.

The axes are the head rule, the adapted parameters, the inner rule and the meta-gradient; a published method is a
choice of four (see conf/algorithm/). Here is what learners of every kind of model have in common.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from metatrain.errors import UserError
from metatrain.gradient.config import InnerConfig
from metatrain.gradient.inner_rules import HEAD, make_inner_rule
from metatrain.gradient.meta_gradient import LEARNED, SECOND_ORDER, EpisodeLosses, adapt, meta_gradient
from metatrain.gradient.parameters import Gradient, Parameters, leaves
from metatrain.meta.algorithm import method_at
from metatrain.meta.config import AlgorithmConfig
from metatrain.meta.memory import MemoryUse
from metatrain.meta.recorded import Recorded
from metatrain.models.adapted import select
from metatrain.models.adapters import is_adapter
from metatrain.tasks.encoded_episode import EncodedEpisode, TargetTokens


class Losses(EpisodeLosses, Protocol):
    """The losses of an episode of texts, and what comes to light with them."""

    @property
    def rows(self) -> Tensor | None:
        """The word-embedding rows that take part; None: all."""

    support_tokens: int
    query_accuracies: list[Tensor]  # one for each time that all of `query_parts` were asked for


@dataclass(frozen=True)
class OuterGradient(Gradient):
    """What one episode contributes to an outer step."""

    loss_before: Tensor
    loss_after: Tensor
    accuracy_before: Tensor
    accuracy_after: Tensor
    residual: float | None = None  # implicit meta-gradients: how far conjugate gradients are from the solution
    damping: float | None = None  # implicit meta-gradients: by how much `algorithm.proximal` was multiplied to find a solution


class Learner:
    """Adapts to a support set, answers queries, and gives the meta-gradient of an episode.

    `parameters` are the meta-parameters, the tensors the outer loop trains: the model's under `prefix`, `head.*` (what the head rule
    learns), `rule.*` (what the inner rule learns) and `noise.*`. Model parameters that are not trained stay in the module.
    """

    model: Any  # the kind that the learner is for
    prefix: str  # of the names of the model's parameters
    head_adapts = False  # whether an episode has a head beside the model that adapts
    embedding: str | None = None  # name of the word embeddings, where only the rows that occur take part
    reads_support = False  # whether each query is read after the whole support set
    recorded: Recorded | None = None  # what records the kernels of episodes together
    cut: int | None = 0  # the model's part below the cut does not adapt and runs once an episode; None: all of it

    def __init__(self, model: Any, algorithm: AlgorithmConfig, inner: InnerConfig):
        self.model = model.requires_grad_(False)
        self.algorithm = algorithm
        self.inner = inner
        self.rule = make_inner_rule(inner)
        self.memory = MemoryUse()
        self.by_row: list[str] = []  # the word embeddings, and rates that a rule has for each of their elements
        self.model.set_dropout(algorithm.dropout)
        self.unreached = self._without_gradient()
        prefix = self.prefix
        values = {prefix + name: value.detach().clone() for name, value in model.named_parameters() if name not in self.unreached}
        plain = [name[len(prefix) :] for name in values]
        self.adapted = [prefix + name for name in select(plain, algorithm.adapt, algorithm.last_layers, algorithm.pattern)]
        if algorithm.train == "adapted":
            values = {name: value for name, value in values.items() if name in self.adapted or is_adapter(name)}
        # What starts at zero in every episode adapts without being a meta-parameter.
        self.anew: Parameters = {name: torch.zeros_like(values.pop(name)) for name in self.adapted if algorithm.adapt == "context"}
        self.parameters: Parameters = values

    def learn_rule(self, head: Parameters) -> None:
        """Add what the inner rule learns of the adapted parameters, and of such an episode's head, to the meta-parameters."""
        moving = {**{name: self.initial[name] for name in self.adapted}, **head}
        self.parameters.update({LEARNED + name: value for name, value in self.rule.learned(moving).items()})

    def losses(self, episode: EncodedEpisode, seed: int | None) -> Losses:
        """The losses of an episode; an episode without queries has no query loss. seed: of dropout and noise; None: there is none."""
        raise NotImplementedError

    def answers(self, parameters: Mapping[str, Tensor], episode: EncodedEpisode) -> Sequence[Any] | np.ndarray:
        """What adapted parameters answer to the queries: labels as positions in `episode.names`, or texts."""
        raise NotImplementedError

    def probabilities(self, parameters: Mapping[str, Tensor], episode: EncodedEpisode) -> np.ndarray | None:
        """Of the labels for each query, [queries, way]; None where any text may be an answer."""
        raise NotImplementedError

    def target_loss(self, parameters: Mapping[str, Tensor], episode: EncodedEpisode) -> float:
        """Mean cross-entropy, in nats, of the tokens that adapted parameters ought to write; of learners that write."""
        raise NotImplementedError

    def reached(self, parameters: Parameters) -> Tensor:
        """A number that depends on every parameter of the model that a text reaches."""
        raise NotImplementedError

    def longest_targets(self, texts: int) -> TargetTokens | None:
        """Targets of so many texts, as long as they can be, to measure with; None: this learner writes nothing."""
        return None

    def steps(self, evaluation: bool) -> int:
        """Inner steps in meta-training, or in validation, evaluation and finetuning."""
        if evaluation and self.inner.evaluation_steps is not None:
            return self.inner.evaluation_steps
        return self.inner.steps

    def outer_gradient(self, episode: EncodedEpisode, step: int = 0) -> OuterGradient:
        """Meta-gradient of one episode at meta-update `step`, with query loss and accuracy before and after adaptation."""
        losses = self.losses(episode, episode.seed)
        return self._outer_gradient(losses, self.view(losses.rows), losses.rows, step)

    def cost(self, episode: EncodedEpisode) -> float:
        """About how much work the meta-gradient of an episode is, compared with others, from its tokens."""
        support, query = (sum(map(len, texts)) for texts in (episode.support, episode.query))
        if self.cut is None:
            return support + query
        return self.steps(evaluation=False) * (3.0 if self.algorithm.meta_gradient in SECOND_ORDER else 1.0) * support + query

    def rows(self, episodes: Sequence[EncodedEpisode]) -> Tensor | None:
        """The word-embedding rows that any of these episodes' meta-gradients may have; None: all."""
        return None

    def groups(self, episodes: Sequence[EncodedEpisode]) -> list[list[EncodedEpisode]]:
        """Episodes in groups for `outer_gradients`."""
        return [[episode] for episode in episodes]

    def outer_gradients(self, episodes: Sequence[EncodedEpisode], step: int = 0) -> list[OuterGradient]:
        """Meta-gradients of a group of episodes whose sum is wanted, in order."""
        return [self.outer_gradient(episode, step) for episode in episodes]

    def mean_gradient(self, episodes: Sequence[EncodedEpisode], step: int = 0) -> Parameters:
        """The mean meta-gradient of episodes, of every meta-parameter."""
        total = {name: torch.zeros_like(value) for name, value in self.parameters.items()}
        for group in self.groups(episodes):
            for part in self.outer_gradients(group, step):
                self.add_gradient(total, part, 1.0 / len(episodes))
            del part  # not there while the next is taken
        return total

    def _outer_gradient(self, losses: Losses, theta: Parameters, rows: Tensor | None, step: int) -> OuterGradient:
        steps = self.steps(evaluation=False)
        method = replace(method_at(self.algorithm, steps, step), graphs=self.memory.graphs(losses.support_tokens))
        found = meta_gradient(losses, theta, self.rule, steps, method)
        before, after = losses.query_accuracies[:2]
        return OuterGradient(found.gradient, rows, found.query_loss_before, found.query_loss, before, after, found.residual, found.damping)

    def add_gradient(self, total: Parameters, part: Gradient, weight: float) -> None:
        """Add a weighted gradient to `total`, in place."""
        for name, value in part.gradient.items():
            if part.rows is not None and name in self.by_row:
                total[name].index_add_(0, part.rows, value, alpha=weight)
            else:
                total[name].add_(value, alpha=weight)

    def view(self, rows: Tensor | None) -> Parameters:
        """The meta-parameters with these rows of the word embeddings; None: with all."""
        if rows is None:
            return dict(self.parameters)
        return {**self.parameters, **{name: self.parameters[name].index_select(0, rows) for name in self.by_row}}

    def adapt(self, episode: EncodedEpisode, steps: int | None = None) -> tuple[Parameters, float]:
        """All parameters after adaptation to an episode's support set, and the support loss before the last inner step."""
        losses = self.losses(episode.without_queries(), seed=None)
        phi, loss = self._adapted(losses, self.view(losses.rows), steps)
        adapted = {**self.parameters, **phi}
        if losses.rows is not None and self.embedding in phi:
            adapted[self.embedding] = self.parameters[self.embedding].index_copy(0, losses.rows, phi[self.embedding])
        return adapted, loss

    def _adapted(self, losses: Losses, theta: Parameters, steps: int | None) -> tuple[Parameters, float]:
        """What adapts and the head, after adaptation from theta, and the support loss before the last inner step."""
        with torch.no_grad():
            start, fixed = losses.start(theta)
        steps = self.steps(evaluation=True) if steps is None else steps
        moves = adapt(losses, start, fixed, self.rule, steps, self.algorithm.proximal)
        ((phi, loss),) = deque(moves, maxlen=1) or [(start, torch.tensor(float("nan")))]  # nothing is kept of the moves before the last
        return {**{name: value for name, value in fixed.items() if name.startswith(HEAD)}, **phi}, float(loss)

    def load(self, values: Mapping[str, Tensor]) -> None:
        """Set meta-parameters, and model parameters that are not trained, by name."""
        module = {self.prefix + name: value for name, value in self.model.named_parameters()}
        with torch.no_grad():
            for name, value in values.items():
                (self.parameters[name] if name in self.parameters else module[name]).copy_(value)

    def load_model(self) -> Any:
        """The model, its weights set to the meta-parameters."""
        return self.write_to_model(self.initial)

    def write_to_model(self, parameters: Mapping[str, Tensor]) -> Any:
        """Copy parameters (adapted or not) into the model, for export."""
        with torch.no_grad():
            for name, value in self.model.named_parameters():
                if self.prefix + name in parameters:
                    value.copy_(parameters[self.prefix + name])
        return self.model

    @property
    def of_model(self) -> Parameters:
        """A copy of those meta-parameters that are the model's own."""
        return {name: value.clone() for name, value in self.parameters.items() if name.startswith(self.prefix)}

    @property
    def initial(self) -> Parameters:
        """The meta-parameters, and what starts anew in every episode."""
        return {**self.parameters, **self.anew}

    def call(self, parameters: Mapping[str, Tensor], batch: Any, **options: Any) -> Any:
        """The model as a function of its parameters."""
        prefix = len(self.prefix)
        own = {name[prefix:]: value for name, value in parameters.items() if name.startswith(self.prefix)}
        return functional_call(self.model, own, (batch,), options)

    def _without_gradient(self) -> list[str]:
        """Names of model parameters that no text reaches (an unused pooler, say): they cannot be trained.

        Raises:
            UserError: no parameter is reached at all.
        """
        parameters = leaves(dict(self.model.named_parameters()))
        found = torch.autograd.grad(self.reached(parameters), list(parameters.values()), allow_unused=True)
        missing = [name for name, value in zip(parameters, found) if value is None]
        if len(missing) == len(parameters):
            raise UserError("model.name: no parameter of the model affects its output")
        return missing
