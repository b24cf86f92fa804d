"""The choice whether label names are used as examples: only if they agree with the support set."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from metatrain.meta.prototypes import held_out_logits

_CLEAR = 4  # minimum distance of a perfect score from guessing, in standard deviations of the score of guessing, for the score to decide


@dataclass(frozen=True)
class NameChoice:
    """Decision whether the label names of a support set are used as examples, with the reason."""

    read: bool
    why: str


def choose_names(features: Tensor, labels: Tensor, names: Tensor, named: Tensor, way: int) -> NameChoice:
    """Choose whether label names are examples: if they agree with the support set in leave-one-out classification.

    Each example is classified by the cosines of its encoding to the class means of the other examples, with the names among them and
    without; the lower log loss decides. Where no class has two examples, a class is known by its name only: then the names must rank the
    true class higher than guessing does (mean reciprocal rank), if there are enough examples to tell.

    features: [examples, H]; labels: [examples]; names: encodings of the names that are read, [names, H]; named: their classes, [names].
    """
    features, names = (F.normalize(each.double(), dim=1) for each in (features, names))
    name_sums = features.new_zeros(way, features.shape[1]).index_add_(0, named, names)
    counts = torch.bincount(labels, minlength=way)
    if bool((counts > 1).any()):
        sums = features.new_zeros(way, features.shape[1]).index_add_(0, labels, features)
        judged = counts[labels] > 1
        with_names, without = (_held_out_loss(features, labels, total, judged) for total in (sums + name_sums, sums))
        return NameChoice(with_names <= without, f"log loss on held-out examples {with_names:.3f} with them, {without:.3f} without")
    known = torch.isin(labels, named)
    scores = (features @ F.normalize(name_sums, dim=1).T)[known]
    ranks = 1 + (scores > scores.gather(1, labels[known, None])).double().sum(1)
    inverse = 1 / torch.arange(1, way + 1, dtype=torch.double)
    guessed, spread = float(inverse.mean()), float(inverse.std(correction=0)) / max(1, len(ranks)) ** 0.5
    if not len(ranks) or guessed + _CLEAR * spread > 1:
        return NameChoice(True, "too few examples to decide")
    found = float(ranks.reciprocal().mean())
    return NameChoice(found >= guessed + spread, f"mean reciprocal rank by label names {found:.3f}, by random guessing {guessed:.3f}")


def _held_out_loss(features: Tensor, labels: Tensor, sums: Tensor, judged: Tensor) -> float:
    """Return the mean log loss of examples under the class means without the example itself.

    judged: whether an example counts, [examples]; sums: of the encodings of each class, [way, H].
    """
    logits = held_out_logits(features, sums[labels] - features, features @ F.normalize(sums, dim=1).T, labels)
    return float(F.cross_entropy(logits[judged], labels[judged]))
