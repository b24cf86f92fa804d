"""Memory that the meta-gradient and adaptation need, measured on the learner's own graphs, and execution plans that fit in it.

A plan saves memory in three ways: activations of inner steps are recomputed in the backward pass instead of stored, which changes no bit
of the meta-gradient; fewer texts are encoded at a time, which changes rounding; and most points of the inner loop's trajectory are computed again
instead of stored, which changes no bit either.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from metatrain.gradient.inner_rules import is_sgd
from metatrain.gradient.meta_gradient import LEARNED, WALKED, Method, has_recursion, mode_of
from metatrain.gradient.parameters import leaves
from metatrain.meta import encoder_fit, head_fit
from metatrain.meta.algorithm import reads_label_names
from metatrain.meta.learner import Learner
from metatrain.meta.plan import ExecutionPlan
from metatrain.models.batches import MAX_TOKENS
from metatrain.tasks.encoded_episode import EncodedEpisode

# Copies of the adapted parameters in addition to the trajectory: gradient in phi, direction, products; more with conjugate gradients and dual numbers.
_COPIES_THROUGH_UPDATE = 3  # additional copies if the update is not linear


@dataclass(frozen=True)
class Largest:
    """Maximum numbers of tokens of an episode: of a text, of the support set and of the queries."""

    text: int
    support: int
    query: int


@dataclass(frozen=True)
class Footprint:
    """Memory of a learner in bytes, as a function of the number of tokens."""

    learner: Learner
    adapted: int  # a copy of the adapted parameters, without the word embeddings
    row: int  # of the word embeddings, if they adapt
    rows: int  # of these at most
    state: float  # of the inner rule, as a fraction of the adapted parameters
    loss: float  # per token: the graph of a loss
    gradient: float  # per token: the graph of its gradient
    episode: float  # per token: held from the start of an episode to its end

    @classmethod
    def of(cls, learner: Learner, text: int) -> Footprint:
        """Measure it on an episode of two texts of `text` tokens each."""
        ids, labels = learner.model.probe(text), np.array([0, 1])
        text = len(ids)
        losses = learner.losses(
            EncodedEpisode([ids, ids], labels, (), labels[:0], ("0", "1"), targets=learner.longest_targets(2), name_tokens=[ids, ids]), seed=0
        )
        theta = leaves(learner.functional.view(learner.parameters, losses.rows))
        with _held(theta.values()) as for_episode:
            start, fixed = losses.start(theta)
        phi, fixed = leaves(start), leaves(fixed)
        with _held([*phi.values(), *fixed.values()]) as graph:
            loss = next(losses.support_parts(phi, fixed, 0))
            of_loss = graph()
            if phi and mode_of(learner.algorithm.meta_gradient).is_second_order:
                torch.autograd.grad(loss, list(phi.values()), create_graph=True, materialize_grads=True)
        words = learner.functional.embedding if learner.functional.embedding in phi else None
        row = phi[words][0].nbytes if words else 0
        adapted = sum(value.nbytes for name, value in phi.items() if name != learner.functional.embedding)
        rows = learner.parameters[words].shape[0] if words else 0
        tokens = text * (2 + 2 * learner.algorithm.label_names_weight if reads_label_names(learner.algorithm) else 2)
        size = sum(value.nbytes for value in phi.values())
        state = sum(value.nbytes for value in learner.rule.state(phi).values()) / size if size else 0.0
        return cls(learner, adapted, row, rows, state, of_loss / tokens, graph() / tokens, for_episode() / tokens)

    def meta_gradient(self, largest: Largest, plan: ExecutionPlan) -> int:
        """Return the peak memory of an episode's meta-gradient, in addition to the learner itself."""
        learner = self.learner
        mode, steps = learner.algorithm.meta_gradient, learner.inner.steps
        row = mode_of(mode)
        copy = self.copy(largest.support + largest.query)
        # The mode of most of the run; the multi-step loss applies only at the beginning, but must fit too.
        method = Method(mode, weights=[1.0] if learner.algorithm.multi_step_until else None)
        recursion = has_recursion(method, learner.rule, any(name.startswith(LEARNED) for name in learner.parameters))
        plain = is_sgd(learner.rule)
        point = copy * (1 if plain else 2 + self.state)  # other rules than plain gradient descent need the gradients again
        segment = plan.segment(steps)
        stored = steps if segment is None else math.ceil(steps / segment) - 1 + segment  # the beginnings of earlier segments, and one segment
        trajectory = min(steps, stored) * point if recursion else copy * (1 + self.state)
        copies = row.copies + (0 if plain else _COPIES_THROUGH_UPDATE + self.state)
        most = math.inf if learner.functional.is_transductive else max(plan.part_tokens, largest.text)
        support, query = (min(most, tokens) for tokens in (largest.support, largest.query))
        if learner.functional.head_after:  # the inner loss compares all support texts with each other, and so does the head of the query loss
            support, query = largest.support, query + largest.support
        graph = self.gradient if row.differentiates_gradient else self.loss
        walked = max(row.walked * graph * support, WALKED * self.loss * query)
        held = largest.support + largest.query
        if learner.functional.first_adapted_layer is None:
            held = max(held, plan.shared_tokens)  # several episodes may be encoded together
        return int(trajectory + copies * copy + self.episode * held + walked)

    @property
    def stored(self) -> float:
        """Bytes per support token of stored activations; 0: the mode stores none."""
        return self.gradient if mode_of(self.learner.algorithm.meta_gradient).stores_graphs else 0.0

    def adaptation(self, largest: Largest, plan: ExecutionPlan) -> int:
        """Return the peak memory of adaptation for use and of prediction, in addition to the learner itself."""
        if self.learner.inner.fit_encoder:
            model = sum(value.nbytes for value in self.learner.model.parameters())
            graph = self.episode * min(max(plan.part_tokens, largest.text), encoder_fit.BATCH * largest.text)
            return int((encoder_fit.COPIES * head_fit.FOLDS + 1) * model + WALKED * graph)
        texts = min(max(plan.part_tokens, largest.text), max(largest.support, largest.query))
        if self.learner.functional.head_after:
            texts = max(texts, largest.support)
        return int((4 + 2 * self.state) * self.copy(largest.support) + WALKED * self.loss * texts)

    def copy(self, tokens: int) -> int:
        """Return the size of a copy of the adapted parameters, for an episode of this number of tokens."""
        return self.adapted + self.row * min(self.rows, tokens)


def fit(footprint: Footprint, largest: Largest, room: float, plans: Iterable[ExecutionPlan]) -> ExecutionPlan | None:
    """Return the first plan that needs at most `room` bytes in addition to the learner, with activations stored for as many steps as fit."""
    for plan in plans:
        rest = room - footprint.meta_gradient(largest, plan)
        if rest >= 0 and plan.segments:
            return plan
        if rest >= 0:
            tokens = rest / footprint.stored if footprint.stored else math.inf
            every = footprint.learner.inner.steps * largest.support
            return replace(plan, graph_tokens=math.inf if tokens >= every else tokens)
    return None


def with_episodes(footprint: Footprint, largest: Largest, room: float, plan: ExecutionPlan, most: int) -> ExecutionPlan:
    """Return the plan with as many episodes in one pass as fit, at most `most`; storing activations has priority."""
    if footprint.stored and plan.graph_tokens < math.inf:
        return plan
    one = footprint.meta_gradient(largest, plan) + footprint.stored * footprint.learner.inner.steps * largest.support
    return replace(plan, vectorised=max(1, min(most, int(room // one))))


def halvings(smallest: int) -> list[ExecutionPlan]:
    """Return plans that store no activations, from the default number of tokens at a time down to `smallest`, by halves; then one with segments."""
    plans = [ExecutionPlan(MAX_TOKENS >> number, 0.0) for number in range(max(1, 1 + int(math.log2(MAX_TOKENS / smallest))))]
    return [*plans, replace(plans[-1], segments=True)]


@contextmanager
def _held(known: Iterable[Tensor]) -> Iterator[Callable[[], int]]:
    """Yield a function that returns the bytes held by graphs that are made inside, without those of the known tensors.

    The graphs can be used only inside: their tensors are freed at the end.
    """
    sizes: dict[int, int] = {}
    outside = {value.untyped_storage().data_ptr() for value in known}
    saved: list[Tensor] = []  # here rather than in the graph, which would hold itself, for ever, by what is an output of it

    def pack(value: Tensor) -> int:
        storage = value.untyped_storage()
        if storage.data_ptr() not in outside:
            sizes[storage.data_ptr()] = storage.nbytes()
        saved.append(value)
        return len(saved) - 1

    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, saved.__getitem__):
            yield lambda: sum(sizes.values())
    finally:
        saved.clear()
