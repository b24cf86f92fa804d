"""CUDA graphs: the kernels of a function are recorded once for each shape of its arguments, and then started with one call.

Where each kernel takes less time than it takes to start it, that is most of the time there is.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metatrain.meta.parameters import Parameters

Function = Callable[[Sequence[Tensor]], Parameters]

_MOST = 8  # graphs that are kept


@dataclass(frozen=True)
class _Graph:
    graph: torch.cuda.CUDAGraph
    arguments: Sequence[Tensor]  # where it reads
    results: Parameters  # where it writes


class Recorded:
    """Calls functions on a GPU.

    What a function reads beside its arguments has to stay where it is in memory, or to be part of the key; it waits for nothing, and its
    work is the same for all arguments of the same shapes.
    """

    def __init__(self) -> None:
        self._graphs: dict[Hashable, _Graph | None] = {}  # in the order of their last use; None: it has been called once
        self._pool: Any = None  # of memory, which all share: no two run at a time

    def call(self, function: Function, arguments: Sequence[Tensor], key: Hashable) -> Parameters:
        """The results of `function(arguments)`; it is what the key says it is.

        The first call of a kind is an ordinary one, in which libraries choose their kernels, the second is recorded.
        """
        key = (key, *((argument.shape, argument.dtype) for argument in arguments))
        if key not in self._graphs:
            self._graphs[key] = None
            return function(arguments)
        graph = self._graphs.pop(key)
        if graph is None:
            graph = self._record(function, arguments)
        self._graphs[key] = graph
        while len(self._graphs) > _MOST:
            del self._graphs[next(iter(self._graphs))]
        for own, argument in zip(graph.arguments, arguments):
            own.copy_(argument)
        graph.graph.replay()
        return {name: result.clone() for name, result in graph.results.items()}

    def _record(self, function: Function, arguments: Sequence[Tensor]) -> _Graph:
        own = [argument.clone() for argument in arguments]
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            results = function(own)
        self._pool = graph.pool()
        return _Graph(graph, own, results)
