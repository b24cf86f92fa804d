"""An outer loss: texts of a meta-batch are closer to the mean of their class than to those of other classes (ProtoNCE, Li et al. 2021)."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from metatrain.meta.contrastive import OuterLoss


def prototype_contrast(views: Sequence[Tensor], classes: Tensor, temperature: float) -> Tensor:
    """views: encodings [texts, H], one view for each pass over the texts; classes: [texts]."""
    unit = F.normalize(views[0], dim=1)
    one_hot = F.one_hot(classes).to(unit.dtype)
    means = F.normalize((one_hot / one_hot.sum(0)).T @ unit, dim=1)
    return F.cross_entropy(unit @ means.T / temperature, classes)


prototype_nce = OuterLoss(prototype_contrast)
