"""CUDA graphs: the kernels of a function are recorded once for each shape of its arguments, and then started with one call.

Where each kernel takes less time than it takes to start it, that is most of the time there is.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metatrain.gradient.parameters import Parameters

Function = Callable[[Sequence[Tensor]], Parameters]

_MOST = 16  # graphs that are kept
_IDLE = 100  # calls after which a graph that was in none of them may make way for another; before, those that are in use would drive each other out
_SEEN = 1000  # kinds of calls that are remembered


@dataclass
class _Graph:
    graph: torch.cuda.CUDAGraph
    arguments: Sequence[Tensor]  # where it reads
    results: Parameters  # where it writes
    used: int = 0  # the last call that it was in


class Recorded:
    """Calls functions on a GPU.

    What a function reads beside its arguments has to stay where it is in memory, or to be part of the key; it waits for nothing, and its
    work is the same for all arguments of the same shapes.
    """

    def __init__(self) -> None:
        self._graphs: dict[Hashable, _Graph] = {}  # in the order of their last use
        self._seen: dict[Hashable, None] = {}
        self._calls = 0
        self._pool: Any = None  # of memory, which all share: no two run at a time

    def call(self, function: Function, arguments: Sequence[Tensor], key: Hashable) -> Parameters:
        """The results of `function(arguments)`; it is what the key says it is.

        The first call of a kind is an ordinary one, in which libraries choose their kernels; the second is recorded, if there is room.
        """
        key = (key, *((argument.shape, argument.dtype) for argument in arguments))
        self._calls += 1
        graph = self._graphs.pop(key, None)
        if graph is None:
            if key not in self._seen or not self._has_room():
                self._seen[key] = None
                if len(self._seen) > _SEEN:
                    del self._seen[next(iter(self._seen))]
                return function(arguments)
            graph = self._record(function, arguments)
        self._graphs[key], graph.used = graph, self._calls
        for own, argument in zip(graph.arguments, arguments):
            own.copy_(argument)
        graph.graph.replay()
        return {name: result.clone() for name, result in graph.results.items()}

    def _has_room(self) -> bool:
        """Whether another graph may be kept, if need be in the place of one that is not in use any more."""
        if len(self._graphs) < _MOST:
            return True
        key, oldest = next(iter(self._graphs.items()))
        if self._calls - oldest.used <= _IDLE:
            return False
        del self._graphs[key]
        return True

    def _record(self, function: Function, arguments: Sequence[Tensor]) -> _Graph:
        own = [argument.clone() for argument in arguments]
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            results = function(own)
        self._pool = graph.pool()
        return _Graph(graph, own, results)
