"""Heads that classify the queries of an episode together."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from metatrain.models.head_rule import Head


class SoftKMeansHead:
    """Prototypes refined by one step of soft k-means on the texts that are predicted together (Ren et al. 2018, eq. 3 and 4).

    p_c is the mean of the support encodings of class c, z_jc = softmax_c(-|h(x_j) - p_c|^2) for the texts x_j, and
    p'_c = (sum of support encodings of c + sum_j z_jc h(x_j)) / (number of support texts of c + sum_j z_jc); logits are -|h(x) - p'_c|^2.
    """

    needs_support, reads_names, is_linear, reads_queries, learns, constants, reads = True, False, False, True, False, ("counts",), ()

    def learned(self, hidden: int, way: int | None) -> dict[str, Tensor]:
        return {}

    def start(self, learned: dict[str, Tensor], empty: Head, features: Tensor, labels: Tensor, names: Sequence[str]) -> Head:
        one_hot = F.one_hot(labels, len(empty["bias"])).to(features.dtype)  # [n, way]
        return {"sums": one_hot.T @ features, "counts": one_hot.sum(0)}

    def logits(self, head: Head, features: Tensor) -> Tensor:
        shares = _negative_distances(features, head["sums"] / head["counts"][:, None]).softmax(1)  # [texts, way]
        return _negative_distances(features, (head["sums"] + shares.T @ features) / (head["counts"] + shares.sum(0))[:, None])


def _negative_distances(features: Tensor, means: Tensor) -> Tensor:
    """Return negative squared distances [texts, way]; `torch.cdist` has no second derivative."""
    return -(features[:, None] - means).square().sum(2)
