"""Execution plan of meta-gradients: the sizes that bound memory use, and captured CUDA graphs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from metatrain.meta.cuda_graphs import CudaGraphs
from metatrain.models.batches import MAX_TOKENS

# Tokens of several episodes whose texts are encoded at once: with more it is not faster, and there are fewer parts for ranks to share.
SHARED_TOKENS = 4096


@dataclass(frozen=True)
class ExecutionPlan:
    """Number of texts, inner steps and episodes in memory at a time. A plan changes rounding and speed, never the method."""

    part_tokens: int = MAX_TOKENS  # maximum number of tokens encoded at a time
    graph_tokens: float = math.inf  # exact: support tokens, summed over inner steps, whose activations are stored rather than recomputed
    segments: bool = False  # store only about sqrt(steps) points of the inner loop's trajectory at a time, and take most inner steps twice
    vectorised: int = 1  # episodes whose meta-gradients are taken in one pass
    cuda_graphs: CudaGraphs | None = field(default=None, compare=False)  # captures vectorised passes; None: no capture, kernels are launched individually

    @property
    def shared_tokens(self) -> int:
        """Tokens of several episodes that are encoded at once if nothing of the encoder adapts."""
        return min(self.part_tokens, SHARED_TOKENS)

    def graphs(self, support_tokens: int) -> int | None:
        """Return the number of inner steps whose activations are stored; None: all."""
        return None if self.graph_tokens == math.inf else int(self.graph_tokens // support_tokens)

    def segment(self, steps: int) -> int | None:
        """Return the number of inner steps from one stored point of the trajectory to the next; None: all are stored."""
        return math.isqrt(max(steps - 1, 0)) + 1 if self.segments else None  # the square root, rounded up

    def smaller(self, text: int) -> ExecutionPlan | None:
        """Return the next plan that needs less memory, down to one text of `text` tokens at a time; None: there is none.

        First no activations are stored, then half the texts are encoded at a time, then most inner steps are taken twice.
        """
        if self.graph_tokens > 0:
            return replace(self, graph_tokens=0.0)
        if self.part_tokens // 2 >= text:
            return replace(self, part_tokens=self.part_tokens // 2)
        return None if self.segments else replace(self, segments=True)
