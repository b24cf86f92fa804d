"""A small text problem that first-order meta-gradients cannot solve.

    python examples/second_order.py [seeds]

A task has two classes, each with a topic word of its own. A support text also says, twice, which topic it is *not* about: that of the
other class. A query text does not:

    support, class 1:  cold tea and not coffee here not coffee      support, class 2:  not tea one coffee not tea again
    query, class 1:    some tea for me                              query, class 2:    a coffee after all

A support text contains the topic of the other class more often than its own, so adaptation learns the labels the wrong way round, unless the
encoder ignores a word after "not". No query text contains "not", so only the gradient through adaptation can teach this: the exact
meta-gradient does, the first-order one does not. The classifier is attention pooling over word vectors and a zero-initialised head; all
parameters adapt. The output is the accuracy in % on 600 new tasks without meta-training, and after meta-training with either meta-gradient,
with the half-width of its 95% interval:

    seed 0, 0 updates, exact: 18.7 ± 0.9 (1 s)
    seed 0, 300 updates, exact: 100.0 ± 0.0 (3 s)
    seed 0, 300 updates, first_order: 47.0 ± 1.0 (2 s)
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from metatrain.gradient.config import InnerConfig
from metatrain.gradient.inner_rules import SGD
from metatrain.gradient.meta_gradient import Method, adapt, meta_gradient
from metatrain.gradient.parameters import Parameters

SHOTS, QUERIES, LENGTH, TOPICS, FILLERS, SIZE = 4, 8, 8, 40, 40, 24
NOT = TOPICS + FILLERS  # word ids: topics, fillers, "not", and the beginning of a text
BEGIN, WORDS = NOT + 1, NOT + 2
TASKS, UPDATES, TEST_TASKS, STEPS = 16, 300, 600, 3
RULE = SGD(InnerConfig(lr=1.0, steps=STEPS))


def texts(topics: Tensor, others: Tensor | None, generator: torch.Generator) -> Tensor:
    """Word ids [texts, LENGTH]: fillers, one of them replaced by the topic and, if there are others, two by "not" OTHER."""
    count = len(topics)
    words = TOPICS + torch.randint(FILLERS, (count, LENGTH), generator=generator)
    # Places of two words each, in a random order: one has the topic, two may have "not OTHER".
    order = torch.rand(count, LENGTH // 2, generator=generator).argsort(1)
    row = torch.arange(count)
    words[row, 2 * order[:, 0] + torch.randint(2, (count,), generator=generator)] = topics
    if others is not None:
        for place in (1, 2):
            words[row, 2 * order[:, place]] = NOT
            words[row, 2 * order[:, place] + 1] = others
    return words


class Topics:
    """Many tasks as one episode: each adapts its own copy of the classifier, so their losses add up."""

    def __init__(self, tasks: int, generator: torch.Generator):
        self.tasks = tasks
        pairs = torch.rand(tasks, TOPICS, generator=generator).argsort(1)[:, :2]  # [tasks, 2]

        def rows(each: int, with_others: bool) -> Tensor:  # [tasks, 2 * each, LENGTH], the first class first
            topics, others = pairs.repeat_interleave(each, 1), pairs.flip(1).repeat_interleave(each, 1)
            return texts(topics.flatten(), others.flatten() if with_others else None, generator).view(tasks, 2 * each, LENGTH)

        self.support, self.query = rows(SHOTS, True), rows(QUERIES, False)

    def start(self, theta: Mapping[str, Tensor]) -> tuple[Parameters, Parameters]:
        head = theta["vectors"].new_zeros(self.tasks, 2, SIZE)
        return {**{name: value.expand(self.tasks, *value.shape) for name, value in theta.items()}, "head": head}, {}

    def support_parts(self, phi: Mapping[str, Tensor], fixed: Mapping[str, Tensor], step: int) -> Iterator[Tensor]:
        yield self._loss(phi, self.support) * self.tasks

    def query_parts(self, phi: Mapping[str, Tensor], fixed: Mapping[str, Tensor]) -> Iterator[Tensor]:
        yield self._loss(phi, self.query)

    def _loss(self, phi: Mapping[str, Tensor], words: Tensor) -> Tensor:
        logits = self._logits(phi, words)
        return F.cross_entropy(logits.flatten(0, 1), self._labels(words).flatten())

    def accuracies(self, phi: Mapping[str, Tensor]) -> Tensor:
        """Query accuracy of each task, [tasks]."""
        return (self._logits(phi, self.query).argmax(2) == self._labels(self.query)).float().mean(1)

    def _labels(self, words: Tensor) -> Tensor:
        return torch.arange(2).repeat_interleave(words.shape[1] // 2).expand(self.tasks, -1)

    def _logits(self, phi: Mapping[str, Tensor], words: Tensor) -> Tensor:
        """[tasks, texts, 2]. A word's share in the encoding depends on itself and on the word before it."""
        task = torch.arange(self.tasks)[:, None, None]
        vectors = phi["vectors"][task, words]  # [tasks, texts, LENGTH, SIZE]
        before = torch.cat([torch.full_like(words[..., :1], BEGIN), words[..., :-1]], 2)
        scores = phi["own"][task, words] + phi["before"][task, before]
        encoded = (scores.softmax(2)[..., None] * vectors).sum(2)
        return encoded @ phi["head"].transpose(1, 2)


def train(seed: int, mode: str, updates: int = UPDATES) -> dict[str, Tensor]:
    """Meta-train a classifier from scratch."""
    generator = torch.Generator().manual_seed(seed)
    theta = {"vectors": torch.randn(WORDS, SIZE, generator=generator), "own": torch.zeros(WORDS), "before": torch.zeros(WORDS)}
    optimizer = torch.optim.Adam(list(theta.values()), lr=1e-2)
    for _ in range(updates):
        found = meta_gradient(Topics(TASKS, generator), theta, RULE, STEPS, Method(mode))
        for name, value in theta.items():
            value.grad = found.gradient[name]
        optimizer.step()
    return theta


def test_accuracy(theta: dict[str, Tensor], seed: int) -> tuple[float, float]:
    """(mean, half-width of the 95% interval) over test tasks after adaptation."""
    episode = Topics(TEST_TASKS, torch.Generator().manual_seed(10_000 + seed))
    *_, (phi, _) = adapt(episode, episode.start(theta)[0], {}, RULE, STEPS)
    found = episode.accuracies(phi)
    return float(found.mean()), 1.96 * float(found.std()) / math.sqrt(TEST_TASKS)


def main() -> None:
    torch.set_num_threads(1)  # more threads do not speed up tensors this small
    for seed in range(int(sys.argv[1]) if len(sys.argv) > 1 else 3):
        for mode, updates in (("exact", 0), ("exact", UPDATES), ("first_order", UPDATES)):
            begin = time.perf_counter()
            mean, half = test_accuracy(train(seed, mode, updates), seed)
            print(f"seed {seed}, {updates} updates, {mode}: {100 * mean:.1f} ± {100 * half:.1f} ({time.perf_counter() - begin:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
