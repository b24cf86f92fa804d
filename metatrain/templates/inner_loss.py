"""An inner loss: cross-entropy on the support set with label smoothing."""

from collections.abc import Iterator, Mapping

import torch.nn.functional as F
from torch import Tensor

from metatrain.meta.text_losses import TextLosses


class SmoothedLosses(TextLosses):
    def support_parts(self, phi: Mapping[str, Tensor], fixed: Mapping[str, Tensor], step: int) -> Iterator[Tensor]:
        for features, labels, _ in self._wholes(self._support_encodings(phi, fixed, step)):
            logits = self._logits(phi, fixed, features)
            yield F.cross_entropy(logits, labels, reduction="sum", label_smoothing=0.1) / self.support_size
