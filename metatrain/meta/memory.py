"""How much memory the meta-gradient and adaptation need, from the learner's own graphs, and what to give up so that it fits.

Two things can be given up: graphs of inner steps are rebuilt in the backward pass instead of kept, which changes no bit of the
meta-gradient, and texts are encoded fewer at a time, which changes rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from metatrain.gradient.inner_rules import is_linear
from metatrain.gradient.meta_gradient import LEARNED, SECOND_ORDER, Method, has_recursion
from metatrain.gradient.parameters import leaves
from metatrain.meta import encoder_fit, head_fit
from metatrain.models.batches import MOST_TOKENS
from metatrain.tasks.encoded_episode import EncodedEpisode

if TYPE_CHECKING:
    from metatrain.meta.learner import Learner

# Tokens of several episodes whose texts are encoded together: with more it is not faster, and there are fewer parts for ranks to share.
TOGETHER_TOKENS = 4096

_WALKED = {"forward_over_reverse": 3.0}  # how many times its size a graph takes while it is walked
_WALKED_ELSE = 1.5
# Copies of what adapts beside the trajectory: the gradient in phi, a direction, products; in conjugate gradients and with dual numbers more.
_COPIES = {"forward_over_reverse": 14, "implicit": 8, "finite_difference": 5}
_COPIES_ELSE = 4
_COPIES_THROUGH_UPDATE = 3  # more of them where derivatives are taken through an update that is not linear


@dataclass(frozen=True)
class MemoryUse:
    """How much is held at a time."""

    part_tokens: int = MOST_TOKENS  # of texts that are encoded together
    graph_tokens: float = math.inf  # exact: support tokens, over all inner steps, whose graphs are kept rather than rebuilt
    together: int = 1  # episodes whose meta-gradients are taken in one pass

    @property
    def joint_tokens(self) -> int:
        """Of several episodes whose texts are encoded together, where nothing of the encoder adapts."""
        return min(self.part_tokens, TOGETHER_TOKENS)

    def graphs(self, support_tokens: int) -> int | None:
        """How many inner steps' graphs are kept; None: all."""
        return None if self.graph_tokens == math.inf else int(self.graph_tokens // support_tokens)

    def less(self, text: int) -> MemoryUse | None:
        """The next smaller use, down to one text of `text` tokens at a time: first no graphs, then half the texts; None: there is none."""
        if self.graph_tokens > 0:
            return replace(self, graph_tokens=0.0)
        return replace(self, part_tokens=self.part_tokens // 2) if self.part_tokens // 2 >= text else None


@dataclass(frozen=True)
class Largest:
    """The most tokens that an episode has."""

    text: int
    support: int
    query: int


@dataclass(frozen=True)
class Footprint:
    """Bytes that a learner holds, as a function of how many tokens there are."""

    learner: Learner
    adapted: int  # a copy of what adapts, but for the word embeddings
    row: int  # of the word embeddings, if they adapt
    rows: int  # of these at most
    state: float  # of the inner rule, as a share of what adapts
    loss: float  # per token: the graph of a loss
    gradient: float  # per token: the graph of its gradient
    episode: float  # per token: what is held from an episode's start to its end

    @classmethod
    def of(cls, learner: Learner, text: int) -> Footprint:
        """Measured on an episode of two texts of `text` tokens each."""
        ids, labels = learner.model.probe(text), np.array([0, 1])
        text = len(ids)
        losses = learner.losses(
            EncodedEpisode([ids, ids], labels, (), labels[:0], ("0", "1"), targets=learner.longest_targets(2), name_tokens=[ids, ids]), seed=0
        )
        theta = leaves(learner.view(losses.rows))
        with _held(theta.values()) as for_episode:
            start, fixed = losses.start(theta)
        phi, fixed = leaves(start), leaves(fixed)
        with _held([*phi.values(), *fixed.values()]) as graph:
            loss = next(losses.support_parts(phi, fixed, 0))
            of_loss = graph()
            if phi and learner.algorithm.meta_gradient in SECOND_ORDER:
                torch.autograd.grad(loss, list(phi.values()), create_graph=True, materialize_grads=True)
        words = learner.embedding if learner.embedding in phi else None
        row = phi[words][0].nbytes if words else 0
        adapted = sum(value.nbytes for name, value in phi.items() if name != learner.embedding)
        rows = learner.parameters[words].shape[0] if words else 0
        tokens = text * (4 if learner.algorithm.label_names else 2)
        size = sum(value.nbytes for value in phi.values())
        state = sum(value.nbytes for value in learner.rule.state(phi).values()) / size if size else 0.0
        return cls(learner, adapted, row, rows, state, of_loss / tokens, graph() / tokens, for_episode() / tokens)

    def meta_gradient(self, largest: Largest, use: MemoryUse) -> int:
        """The most that the meta-gradient of an episode needs, beside the learner itself."""
        learner = self.learner
        mode, steps = learner.algorithm.meta_gradient, learner.inner.steps
        copy = self.copy(largest.support + largest.query)
        # As in most of the run; the multi-step loss, if there is one, is only in its beginning, but has to fit there.
        method = Method(mode, weights=[1.0] if learner.algorithm.multi_step_until else None)
        recursion = has_recursion(method, learner.rule, any(name.startswith(LEARNED) for name in learner.parameters))
        linear = is_linear(learner.rule)
        point = copy * (1 if linear else 2 + self.state)  # a rule that is not linear needs the gradients again
        trajectory = steps * point if recursion else copy * (1 + self.state)
        copies = _COPIES.get(mode, _COPIES_ELSE) + (0 if linear else _COPIES_THROUGH_UPDATE + self.state)
        support, query = (min(max(use.part_tokens, largest.text), tokens) for tokens in (largest.support, largest.query))
        graph = self.gradient if mode in SECOND_ORDER and mode != "forward_over_reverse" else self.loss
        walked = max(_WALKED.get(mode, _WALKED_ELSE) * graph * support, _WALKED_ELSE * self.loss * query)
        held = largest.support + largest.query
        if learner.cut is None:
            held = max(held, use.joint_tokens)  # several episodes may be encoded together
        return int(trajectory + copies * copy + self.episode * held + walked)

    @property
    def kept(self) -> float:
        """What the graph of a gradient takes per support token where it is kept; 0: none is, whatever there is room for."""
        return self.gradient if self.learner.algorithm.meta_gradient == "exact" else 0.0

    def adaptation(self, largest: Largest, use: MemoryUse) -> int:
        """The most that adaptation for use and prediction need, beside the learner itself."""
        if self.learner.inner.fit_encoder:
            model = sum(value.nbytes for value in self.learner.model.parameters())
            graph = self.episode * min(max(use.part_tokens, largest.text), encoder_fit.BATCH * largest.text)
            return int((encoder_fit.COPIES * head_fit.FOLDS + 1) * model + _WALKED_ELSE * graph)
        texts = min(max(use.part_tokens, largest.text), max(largest.support, largest.query))
        return int((4 + 2 * self.state) * self.copy(largest.support) + _WALKED_ELSE * self.loss * texts)

    def copy(self, tokens: int) -> int:
        """A copy of what adapts, for an episode of so many tokens."""
        return self.adapted + self.row * min(self.rows, tokens)


def fit(footprint: Footprint, largest: Largest, room: float, uses: Iterable[MemoryUse]) -> MemoryUse | None:
    """The first of these uses that takes no more than `room` bytes beside the learner, with as many graphs kept as fit too."""
    for use in uses:
        rest = room - footprint.meta_gradient(largest, use)
        if rest >= 0:
            tokens = rest / footprint.kept if footprint.kept else math.inf
            every = footprint.learner.inner.steps * largest.support
            return replace(use, graph_tokens=math.inf if tokens >= every else tokens)
    return None


def side_by_side(footprint: Footprint, largest: Largest, room: float, use: MemoryUse, most: int) -> MemoryUse:
    """The same use for as many episodes in one pass as there is room for beside the learner, at most so many; graphs come before episodes."""
    if footprint.kept and use.graph_tokens < math.inf:
        return use
    one = footprint.meta_gradient(largest, use) + footprint.kept * footprint.learner.inner.steps * largest.support
    return replace(use, together=max(1, min(most, int(room // one))))


def halvings(smallest: int) -> list[MemoryUse]:
    """From the most texts at a time to at least `smallest` tokens, by halves, with no graph kept."""
    return [MemoryUse(MOST_TOKENS >> number, 0.0) for number in range(max(1, 1 + int(math.log2(MOST_TOKENS / smallest))))]


@contextmanager
def _held(known: Iterable[Tensor]) -> Iterator[Callable[[], int]]:
    """Count the bytes that graphs made inside hold, beside the known tensors; the function that is given tells them.

    The graphs are of use inside alone: what they hold is let go of at the end.
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
