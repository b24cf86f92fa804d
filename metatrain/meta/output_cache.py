"""Cache of the outputs of layers that do not adapt, by text: encodings of a frozen encoder, or hidden states below the first adapted layer."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

_MOST_BYTES = 2**28  # size above which the next request clears the cache

OnProgress = Callable[[int], None]
Compute = Callable[[Sequence[np.ndarray], OnProgress], Sequence[Tensor]]


class OutputCache:
    """Output of frozen layers for each text, by its token ids or pixels, computed at the first request.

    Rounding depends on which texts are computed together, and so on earlier requests.
    """

    def __init__(self, compute: Compute):
        """compute: returns the outputs for texts, a tensor each."""
        self.compute = compute
        self.seconds, self._tokens = 0.0, 0  # time taken by all computations, and number of tokens computed
        self._outputs: dict[bytes, Tensor] = {}
        self._bytes = 0

    def of(self, texts: Sequence[np.ndarray], on_progress: OnProgress = lambda texts: None) -> list[Tensor]:
        """Return the output of each text; `on_progress` is called with the number of texts just computed."""
        keys = [_key(text) for text in texts]
        if self._bytes > _MOST_BYTES:
            self._outputs, self._bytes = {}, 0
        if missing := {key: text for key, text in zip(keys, texts) if key not in self._outputs}:
            begin = time.perf_counter()
            found = dict(zip(missing, self.compute(list(missing.values()), on_progress)))
            self.seconds += time.perf_counter() - begin
            self._tokens += sum(map(len, missing.values()))
            self._outputs.update(found)
            self._bytes += sum(each.numel() * each.element_size() for each in found.values())
        return [self._outputs[key] for key in keys]

    def seconds_of(self, texts: Sequence[np.ndarray]) -> float:
        """Estimate the time to compute the outputs for different texts, at the mean speed so far; 0 if nothing was computed."""
        different = {_key(text): len(text) for text in texts}
        return self.seconds / max(self._tokens, 1) * sum(different.values())


def _key(text: np.ndarray) -> bytes:
    given = np.asarray(text)
    ids = given.astype(np.int64) if given.ndim == 1 else given  # token ids of any integer type
    return hashlib.blake2b(ids.tobytes(), digest_size=16).digest()
