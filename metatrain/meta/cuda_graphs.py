"""CUDA graphs: the kernels of a function are captured once for each shape of its arguments, and then launched with one call.

If a kernel takes less time than its launch, launches are most of the run time.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metatrain.gradient.parameters import Parameters

Function = Callable[[Sequence[Tensor]], Parameters]

_MOST = 16  # graphs in memory
_IDLE = 100  # calls without a graph after which it may be evicted; with fewer, graphs in use would evict each other
_SEEN = 1000  # keys and shapes that are remembered


@dataclass
class _Graph:
    graph: torch.cuda.CUDAGraph
    arguments: Sequence[Tensor]  # input buffers
    results: Parameters  # output buffers
    used: int = 0  # number of the last call that used it


class CudaGraphs:
    """Calls functions on a GPU through captured graphs.

    Tensors that a function reads in addition to its arguments must stay at their address in memory, or be part of the key. The function
    must not synchronise, and its kernels must be the same for all arguments of the same shapes.
    """

    def __init__(self) -> None:
        self._graphs: dict[Hashable, _Graph] = {}  # least recently used first
        self._seen: dict[Hashable, None] = {}
        self._calls = 0
        self._pool: Any = None  # memory pool that all graphs share: no two run at a time

    def call(self, function: Function, arguments: Sequence[Tensor], key: Hashable) -> Parameters:
        """Return `function(arguments)`; the key identifies the function.

        The first call of a key and shapes is an ordinary one, in which libraries choose their kernels; the second is captured, if there is room.
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
            graph = self._capture(function, arguments)
        self._graphs[key], graph.used = graph, self._calls
        for own, argument in zip(graph.arguments, arguments):
            own.copy_(argument)
        graph.graph.replay()
        return {name: result.clone() for name, result in graph.results.items()}

    def _has_room(self) -> bool:
        """Return whether another graph can be kept; evict one that is no longer in use if needed."""
        if len(self._graphs) < _MOST:
            return True
        key, oldest = next(iter(self._graphs.items()))
        if self._calls - oldest.used <= _IDLE:
            return False
        del self._graphs[key]
        return True

    def _capture(self, function: Function, arguments: Sequence[Tensor]) -> _Graph:
        own = [argument.clone() for argument in arguments]
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            results = function(own)
        self._pool = graph.pool()
        return _Graph(graph, own, results)
