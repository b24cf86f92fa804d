"""Head rules: where the N-way linear head of an episode starts from.

A head is `logits = features @ weight.T + bias`, weight [way, H], bias [way]. A rule has learned tensors of its own
(meta-parameters) and makes the episode's head from them and, if it wants, from the support set.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from metatrain.errors import UserError

Head = dict[str, Tensor]  # {"weight": [way, H], "bias": [way]}


class HeadRule(Protocol):
    """One choice on the head axis."""

    needs_support: bool  # whether `start` reads the support features

    def learned(self, hidden: int, way: int | None) -> dict[str, Tensor]:
        """Initial values of the rule's own meta-parameters."""

    def start(self, learned: dict[str, Tensor], empty: Head, features: Tensor | None, labels: Tensor) -> Head:
        """The head before adaptation.

        `empty` is a head of zeros with the episode's shape, dtype and device; features: the support encodings
        [support, H], None unless `needs_support`; labels: [support].
        """


class LinearHead:
    """A learned row per class, as in MAML (Finn et al. 2017); the number of classes is fixed."""

    needs_support = False

    def learned(self, hidden: int, way: int | None) -> dict[str, Tensor]:
        if way is None:
            raise UserError("algorithm.head=linear learns one row per class: set episode.way, or choose algorithm.head=zero or prototype")
        return {"weight": torch.randn(way, hidden) * 0.02, "bias": torch.zeros(way)}

    def start(self, learned: dict[str, Tensor], empty: Head, features: Tensor | None, labels: Tensor) -> Head:
        if learned["bias"].shape != empty["bias"].shape:
            raise UserError(
                f"the learned linear head has {len(learned['bias'])} classes, the task {len(empty['bias'])}; "
                "use a model meta-trained with algorithm.head=zero or prototype"
            )
        return dict(learned)


class ZeroHead:
    """Zeros in every episode: any number of classes, and no class order to unlearn (Kao et al. 2021)."""

    needs_support = False

    def learned(self, hidden: int, way: int | None) -> dict[str, Tensor]:
        return {}

    def start(self, learned: dict[str, Tensor], empty: Head, features: Tensor | None, labels: Tensor) -> Head:
        return dict(empty)


class PrototypeHead:
    """Class means as a linear head, as in ProtoMAML (Triantafillou et al. 2020): W = 2sc, b = -s|c|^2.

    At the start, logits are squared Euclidean distances to the class means times a learned scale s > 0, up to a
    term that all classes share. Gradients flow into the means.
    """

    needs_support = True

    def __init__(self, scale: float):
        self.scale = scale

    def learned(self, hidden: int, way: int | None) -> dict[str, Tensor]:
        return {"log_scale": torch.tensor(self.scale).log()}

    def start(self, learned: dict[str, Tensor], empty: Head, features: Tensor | None, labels: Tensor) -> Head:
        one_hot = torch.nn.functional.one_hot(labels, len(empty["bias"])).to(features.dtype)  # [support, way]
        means = (one_hot / one_hot.sum(0)).T @ features  # [way, H]
        scale = learned["log_scale"].exp()
        return {"weight": 2 * scale * means, "bias": -scale * means.square().sum(1)}


def make_head(name: str, scale: float) -> HeadRule:
    """The head rule `algorithm.head=NAME`.

    Raises:
        UserError: there is no such rule, or the scale is not positive.
    """
    if scale <= 0:
        raise UserError(f"algorithm.head_scale={scale} must be positive")
    rules = {"linear": LinearHead, "zero": ZeroHead, "prototype": lambda: PrototypeHead(scale)}
    if name not in rules:
        raise UserError(f"algorithm.head={name} is unknown; choose one of {', '.join(rules)}")
    return rules[name]()
