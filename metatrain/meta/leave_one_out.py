"""The inner loss `leave_one_out`: each support text is classified by the prototypes of the others, and the head is made after the inner steps.

With h_i the encodings of the support texts at unit length (label names among them, if the method reads them) and y_i their classes,

    m_c^(-i) = sum of h_j over all j with y_j = c, except text i and its copies
    S(phi) = - mean over i of log softmax_c(s cos(h_i, m_c^(-i)))_{y_i}

where i runs over the distinct texts whose class has another text. These are the episodes of Prototypical Networks (Snell et al. 2017), made of the
support set only: unlike the cross-entropy of a head that already fits the support set, the loss measures how well encodings generalise from
the other examples. It does not depend on the head. The head is made from the encodings after the last inner step, so the meta-gradient
flows into the adapted parameters through the support encodings, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from metatrain.gradient.parameters import Parameters
from metatrain.meta.functional import FunctionalClassifier
from metatrain.meta.prototypes import held_out_logits
from metatrain.meta.text_losses import TextLosses
from metatrain.tasks.encoded_episode import EncodedEpisode

MOST_TOKENS = 16_384  # of support texts before a fit: all are in one graph, and a fit adapts once for each fold


def leave_one_out_loss(features: Tensor, labels: Tensor, texts: Tensor, way: int) -> Tensor:
    """Return the mean loss of the texts whose class has another text, a scalar; 0, with a graph, if there is none.

    features: [texts, H]; labels: [texts]; texts: a number for each distinct text, [texts]: its copies in a class are left out with it, and count
    as one in the mean.
    """
    unit = F.normalize(features, dim=1)
    classes = F.one_hot(labels, way).to(unit.dtype)  # [texts, way]
    copies = ((texts[:, None] == texts) & (labels[:, None] == labels)).to(unit.dtype)  # [texts, texts]
    judged = classes.sum(0)[labels] > copies.sum(1)
    sums = classes.T @ unit  # [way, H]
    others = (sums[labels] - copies @ unit)[judged]
    scores = (unit @ F.normalize(sums, dim=1).T)[judged]
    share = 1 / copies.sum(1)[judged]
    losses = F.cross_entropy(held_out_logits(unit[judged], others, scores, labels[judged]), labels[judged], reduction="none")
    return (losses * share).sum() / share.sum().clamp(min=1)


class LeaveOneOutLosses(TextLosses):
    """Losses of an episode whose inner loss is `leave_one_out`: adapted is the encoder only, and the query loss makes the head."""

    head_after = True
    distinct: Tensor  # a number for each distinct support text, [support]

    @classmethod
    def of(cls, classifier: FunctionalClassifier, episode: EncodedEpisode, seed: int | None, encoded: bool = False) -> Self:
        losses = super().of(classifier, episode, seed, encoded)
        numbers: dict[bytes, int] = {}
        distinct = [numbers.setdefault(np.asarray(text).tobytes(), len(numbers)) for text in episode.support]
        losses.distinct = torch.tensor(distinct, device=classifier.model.device)
        return losses

    def head(self, phi: Mapping[str, Tensor], fixed: Mapping[str, Tensor]) -> Parameters:
        return self._new_head({**fixed, **phi}, fixed)

    def support_parts(self, phi: Mapping[str, Tensor], fixed: Mapping[str, Tensor], step: int) -> Iterator[Tensor]:
        """Yield the loss in one part, since every text is compared with all others."""
        features, labels, _ = zip(*self._support_encodings(phi, fixed, step))
        yield leave_one_out_loss(torch.cat(features), torch.cat(labels), self.distinct, len(self.names))
