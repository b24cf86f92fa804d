"""The cache of outputs of frozen layers, and its estimate of the time to compute them again."""

import numpy as np
import pytest
import torch

from metatrain.meta import output_cache
from metatrain.meta.output_cache import OutputCache

TEXTS = [np.array([3, 4, 5]), np.array([6]), np.array([3, 4])]


class Sums:
    """Sums of token ids; `asked` has the texts of each computation."""

    def __init__(self):
        self.asked: list[list[list[int]]] = []

    def __call__(self, texts, on_progress):
        self.asked.append([text.tolist() for text in texts])
        on_progress(len(texts))
        return [torch.tensor([float(text.sum())]) for text in texts]


def test_each_text_is_computed_once_whatever_the_type_of_its_ids():
    compute, done = Sums(), []
    found = OutputCache(compute)
    assert [float(value) for value in found.of([*TEXTS, TEXTS[0]], done.append)] == [12.0, 6.0, 7.0, 12.0]
    assert [float(value) for value in found.of([TEXTS[2].astype(np.int32), np.array([8])], done.append)] == [7.0, 8.0]
    assert compute.asked == [[[3, 4, 5], [6], [3, 4]], [[8]]] and done == [3, 1]


def test_all_is_forgotten_when_there_is_too_much(monkeypatch):
    monkeypatch.setattr(output_cache, "_MOST_BYTES", 8)
    compute = Sums()
    found = OutputCache(compute)
    for texts in (TEXTS[:2], TEXTS[:2], TEXTS[2:], TEXTS[:1], TEXTS[:1]):
        found.of(texts)
    assert compute.asked == [[[3, 4, 5], [6]], [[3, 4]], [[3, 4, 5]]]


def test_seconds_of_texts_are_those_of_their_tokens_at_the_mean_speed(monkeypatch):
    clock = iter([10.0, 13.0, 20.0, 21.0])
    monkeypatch.setattr(output_cache.time, "perf_counter", lambda: next(clock))
    found = OutputCache(Sums())
    assert found.seconds_of(TEXTS) == 0.0
    found.of(TEXTS)  # 6 tokens in 3 seconds
    found.of([np.array([1, 2])])  # 2 in 1 second
    found.of(TEXTS)  # known
    assert found.seconds == 4.0
    assert found.seconds_of([TEXTS[0], TEXTS[0], TEXTS[1]]) == pytest.approx(0.5 * 4)
