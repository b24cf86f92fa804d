"""When kernels are captured; that they compute the same is tested on a GPU (tests/training/test_gpu.py)."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from metatrain.meta import cuda_graphs
from metatrain.meta.cuda_graphs import CudaGraphs, _Graph


@dataclass
class Replay:
    """In place of a CUDA graph: it runs the function again."""

    function: Any
    arguments: list[torch.Tensor]
    results: dict[str, torch.Tensor]
    made: list[str]

    def replay(self) -> None:
        self.made.append("replayed")
        self.results["double"].copy_(self.function(self.arguments)["double"])


@pytest.fixture
def log(monkeypatch) -> list[str]:
    """What was done, in order."""
    made: list[str] = []

    def capture(self, function, arguments) -> _Graph:
        made.append("captured")
        own = [argument.clone() for argument in arguments]
        results = {"double": torch.zeros_like(own[0])}
        return _Graph(Replay(function, own, results, made), own, results)

    monkeypatch.setattr(CudaGraphs, "_capture", capture)
    return made


def doubled(subject: CudaGraphs, size: int, log: list[str], key: str = "") -> list[str]:
    """What a call with so many numbers does."""
    del log[:]
    given = torch.randn(size)
    found = subject.call(lambda arguments: {"double": 2 * arguments[0]}, [given], key)
    assert torch.equal(found["double"], 2 * given)
    return list(log)


def test_the_second_call_of_a_kind_is_captured_and_later_ones_replayed(log):
    subject = CudaGraphs()
    assert doubled(subject, 3, log) == []
    assert doubled(subject, 3, log) == ["captured", "replayed"]
    assert doubled(subject, 4, log) == []  # another shape
    assert doubled(subject, 3, log, "another function") == []
    assert doubled(subject, 3, log) == ["replayed"]


def test_results_stay_when_others_come(log):
    subject = CudaGraphs()
    given = [torch.randn(2) for _ in range(4)]
    found = [subject.call(lambda arguments: {"double": 2 * arguments[0]}, [each], "")["double"] for each in given]
    for one, other in zip(found, given):
        assert torch.equal(one, 2 * other)


def test_graphs_in_use_do_not_drive_each_other_out(log, monkeypatch):
    monkeypatch.setattr(cuda_graphs, "_MOST", 2)
    monkeypatch.setattr(cuda_graphs, "_IDLE", 5)
    subject = CudaGraphs()
    for size in (1, 1, 2, 2):
        doubled(subject, size, log)
    for size in (3, 3, 1, 2, 3):
        assert doubled(subject, size, log) == ([] if size == 3 else ["replayed"])  # no room for a third
    for _ in range(5):
        doubled(subject, 2, log)
    assert doubled(subject, 3, log) == ["captured", "replayed"]  # in the place of 1, which was in none of the last calls
    assert doubled(subject, 1, log) == []
    assert doubled(subject, 2, log) == ["replayed"]
