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
from metatrain.gradient.parameters import Parameters, leaves
from metatrain.meta import encoder_fit, head_fit
from metatrain.meta.learner import Learner
from metatrain.meta.plan import ExecutionPlan
from metatrain.models.batches import MAX_TOKENS
from metatrain.tasks.encoded_episode import EncodedEpisode

# Copies of the adapted parameters in addition to the trajectory: gradient in phi, direction, products; more with conjugate gradients and dual numbers.
_COPIES_THROUGH_UPDATE = 3  # additional copies if the update is not linear


@dataclass(frozen=True)
class Largest:
    """Maximum numbers of tokens of an episode: of a text, of the support set, of the queries, and of a target."""

    text: int
    support: int
    query: int
    target: int = 0  # which the numbers of a text contain
    typical: int | None = None  # root mean square of the numbers of tokens of the texts; None: that of the longest text
    batch: float = math.inf  # of all episodes of a meta-batch together


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
    of_loss: float = 0.0  # in the graph of a loss, however many tokens there are: weights in bf16, for example
    of_gradient: float = 0.0  # the same in the graph of its gradient
    of_episode: float = 0.0  # the same from the start of an episode to its end

    @classmethod
    def of_largest(cls, learner: Learner, largest: Largest) -> Footprint:
        """Measure it on texts of the typical length in episodes of this size."""
        typical = largest.text if largest.typical is None else largest.typical
        return cls.of(learner, max(1, typical - largest.target), largest.target)

    @classmethod
    def of(cls, learner: Learner, text: int, target: int = 0) -> Footprint:
        """Measure it on episodes of two and of four texts of `text` tokens each, which for a language model have targets of `target` tokens."""
        few, more = (_Graphs.of(learner, text, target, texts) for texts in (2, 4))
        slopes = [(of_more - of_few) / (more.tokens - few.tokens) for of_few, of_more in zip(few.sizes, more.sizes)]
        constants = [max(0.0, of_few - slope * few.tokens) for of_few, slope in zip(few.sizes, slopes)]
        phi, words = few.phi, learner.functional.embedding if learner.functional.embedding in few.phi else None
        row = phi[words][0].nbytes if words else 0
        adapted = sum(value.nbytes for name, value in phi.items() if name != learner.functional.embedding)
        rows = learner.parameters[words].shape[0] if words else 0
        size = sum(value.nbytes for value in phi.values())
        state = sum(value.nbytes for value in learner.rule.state(phi).values()) / size if size else 0.0
        return cls(learner, adapted, row, rows, state, *slopes, *constants)

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
        of_steps = self.of_gradient + self.gradient * support if row.differentiates_gradient else self.of_loss + self.loss * support
        walked = max(0.0 if steps == 0 else row.walked * of_steps, WALKED * (self.of_loss + self.loss * query))
        held = largest.support + largest.query
        if learner.functional.first_adapted_layer is None:
            held = max(held, int(min(plan.shared_tokens, largest.batch)))  # several episodes may be encoded together
        return int(trajectory + copies * copy + self.of_episode + self.episode * held + walked)

    def stored(self, largest: Largest) -> float:
        """Return the bytes per support token of stored activations; 0: the mode stores none."""
        return self.gradient + self.of_gradient / largest.support if mode_of(self.learner.algorithm.meta_gradient).stores_graphs else 0.0

    def adaptation(self, largest: Largest, plan: ExecutionPlan) -> int:
        """Return the peak memory of adaptation for use and of prediction, in addition to the learner itself."""
        whole = 0
        if self.learner.inner.fit_encoder or self.learner.budget is not None:  # with a budget, only where there are many examples, which is not known here
            model = sum(value.nbytes for value in self.learner.model.parameters())
            fixed, each = max(self.of_episode, self.of_loss), max(self.episode, self.loss)
            graph = fixed + each * min(max(plan.part_tokens, largest.text), encoder_fit.BATCH * largest.text)
            whole = int((encoder_fit.COPIES * head_fit.FOLDS + 1) * model + WALKED * graph)
            if self.learner.inner.fit_encoder:
                return whole
        texts = min(max(plan.part_tokens, largest.text), max(largest.support, largest.query))
        if self.learner.functional.head_after:
            texts = max(texts, largest.support)
        return max(whole, int((4 + 2 * self.state) * self.copy(largest.support) + WALKED * (self.of_loss + self.loss * texts)))

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
            stored = footprint.stored(largest)
            tokens = rest / stored if stored else math.inf
            every = footprint.learner.inner.steps * largest.support
            return replace(plan, graph_tokens=math.inf if tokens >= every else tokens)
    return None


def with_episodes(footprint: Footprint, largest: Largest, room: float, plan: ExecutionPlan, most: int) -> ExecutionPlan:
    """Return the plan with as many episodes in one pass as fit, at most `most`; storing activations has priority."""
    stored = footprint.stored(largest)
    if stored and plan.graph_tokens < math.inf:
        return plan
    one = footprint.meta_gradient(largest, plan) + stored * footprint.learner.inner.steps * largest.support
    return replace(plan, vectorised=max(1, min(most, int(room // one))))


def halvings(smallest: int) -> list[ExecutionPlan]:
    """Return plans that store no activations, from the default number of tokens at a time down to `smallest`, by halves; then one with segments."""
    plans = [ExecutionPlan(MAX_TOKENS >> number, 0.0) for number in range(max(1, 1 + int(math.log2(MAX_TOKENS / smallest))))]
    return [*plans, replace(plans[-1], segments=True)]


@dataclass(frozen=True)
class _Graphs:
    """Bytes that the graphs of one episode hold."""

    tokens: int
    sizes: tuple[int, int, int]  # the graph of the support loss, that of its gradient, and what is held for the whole episode
    phi: Parameters

    @classmethod
    def of(cls, learner: Learner, text: int, target: int, texts: int) -> _Graphs:
        """Measure an episode of this number of texts."""
        labels, ids = np.arange(texts) % 2, [learner.model.probe(text)] * texts
        episode = EncodedEpisode(ids, labels, (), labels[:0], ("0", "1"), targets=learner.targets_of_length(texts, target), name_tokens=ids[:2])
        losses = learner.losses(episode, seed=0)
        theta = leaves(learner.functional.view(learner.parameters, losses.rows))
        module = [*learner.model.parameters(), *learner.model.buffers()]  # those that are not trained are in graphs, too
        with _held([*module, *theta.values()]) as for_episode:
            start, fixed = losses.start(theta)
        phi, fixed = leaves(start), leaves(fixed)
        with _held([*module, *phi.values(), *fixed.values()]) as graph:
            loss = next(losses.support_parts(phi, fixed, 0))
            of_loss = graph()
            if phi and mode_of(learner.algorithm.meta_gradient).is_second_order:
                torch.autograd.grad(loss, list(phi.values()), create_graph=True, materialize_grads=True)
        return cls(sum(learner.sizes(episode)[0]), (of_loss, graph(), for_episode()), phi)


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
