"""Classification of texts by prototypes that are computed without them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SCALE = 10.0  # of cosine similarities as logits


def held_out_logits(unit: Tensor, others: Tensor, scores: Tensor, labels: Tensor) -> Tensor:
    """Return logits of texts under prototypes from which each text itself is left out, [texts, way].

    unit: encodings at unit length, [texts, H]; others: sum of the other encodings of each text's own class, [texts, H]; scores: cosines to the
    prototypes of all texts, [texts, way].
    """
    own = (unit * F.normalize(others, dim=1)).sum(1, keepdim=True)
    return SCALE * torch.where(F.one_hot(labels, scores.shape[1]).bool(), own, scores)
