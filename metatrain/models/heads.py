"""Head rules: where the N-way linear head of an episode starts from.

A head is `logits = features @ weight.T + bias`, weight [way, H], bias [way]. A rule has learned tensors of its own
(meta-parameters) and makes the episode's head from them and, if it wants, from the support set.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from metatrain import plugins
from metatrain.errors import UserError

Head = dict[str, Tensor]  # {"weight": [way, H], "bias": [way]}
ROW = "label."  # what names of a joint head's rows begin with; the label follows


@dataclass(frozen=True)
class HeadFacts:
    """Properties of a head rule. A head class states those that differ from these defaults as attributes of the same names."""

    needs_support: bool = False  # `start` reads the support encodings
    reads_names: bool = True  # `start` depends on the label names; False: episodes may be vectorised (torch.vmap)
    fixed_way: bool = False  # for one number of classes only
    knows_classes: bool = True  # before the first inner step, logits differ between classes
    row_per_label: bool = False  # a learned row for each label name of the training tasks; rows of other labels start at zero
    needs_normalized: bool = False  # requires encodings of unit length
    learns: bool = True  # has meta-parameters
    is_language_model: bool = False  # no head: a language model generates the label name or another text
    reads_support: bool = False  # a language model that reads the support set before each query and has no inner loop


class HeadRule(Protocol):
    """One choice on the head axis; its properties (`HeadFacts`) are attributes of the class."""

    def learned(self, hidden: int, way: int | None) -> dict[str, Tensor]:
        """Initial values of the rule's own meta-parameters."""

    def start(self, learned: dict[str, Tensor], empty: Head, features: Tensor, labels: Tensor, names: Sequence[str]) -> Head:
        """The head before adaptation.

        `empty` is a head of zeros with the episode's shape, dtype and device; features: the support encodings
        [support, H], or none of them, [0, H], where they are not needed; labels: [support]; names: of the labels, [way].
        """


class LinearHead:
    """Linear layer with a learned row per class, as in MAML (Finn et al. 2017); the number of classes is fixed."""

    reads_names, fixed_way = False, True

    def learned(self, hidden: int, way: int | None) -> dict[str, Tensor]:
        if way is None:
            raise UserError(
                "algorithm.head=linear learns one row per class: choose algorithm.head=zero or prototype, or set episode.way to one number in metatrain train"
            )
        return {"weight": torch.randn(way, hidden) * 0.02, "bias": torch.zeros(way)}

    def start(self, learned: dict[str, Tensor], empty: Head, features: Tensor, labels: Tensor, names: Sequence[str]) -> Head:
        if learned["bias"].shape != empty["bias"].shape:
            raise UserError(
                f"the learned linear head has {len(learned['bias'])} classes, but the task has {len(empty['bias'])}; "
                "use a model meta-trained with algorithm.head=zero or prototype"
            )
        return dict(learned)


class ZeroHead:
    """Linear layer initialised at zero in every episode: any number of classes, no memorised class order (Kao et al. 2021)."""

    reads_names = knows_classes = learns = False

    def learned(self, hidden: int, way: int | None) -> dict[str, Tensor]:
        return {}

    def start(self, learned: dict[str, Tensor], empty: Head, features: Tensor, labels: Tensor, names: Sequence[str]) -> Head:
        return dict(empty)


class SharedHead:
    """Linear layer whose rows all start from one learned vector, as in UnicornMAML (Ye and Chao 2022): any number and order of classes."""

    reads_names = knows_classes = False

    def learned(self, hidden: int, way: int | None) -> dict[str, Tensor]:
        return {"row": torch.randn(hidden) * 0.02}

    def start(self, learned: dict[str, Tensor], empty: Head, features: Tensor, labels: Tensor, names: Sequence[str]) -> Head:
        return {"weight": learned["row"].expand_as(empty["weight"]).clone(), "bias": empty["bias"]}


class JointHead:
    """Linear layer with a learned row for each label name of the training tasks, as in joint training.

    Tasks with the same label name share its row; rows of label names that training never saw start at zero.
    """

    row_per_label = True

    def __init__(self, labels: Sequence[str]):
        self.labels = labels

    def learned(self, hidden: int, way: int | None) -> dict[str, Tensor]:
        return {f"{ROW}{label}": torch.cat([torch.randn(hidden) * 0.02, torch.zeros(1)]) for label in self.labels}

    def start(self, learned: dict[str, Tensor], empty: Head, features: Tensor, labels: Tensor, names: Sequence[str]) -> Head:
        new = torch.cat([empty["weight"][0], empty["bias"][:1]])
        rows = torch.stack([learned.get(f"{ROW}{name}", new) for name in names])  # [way, H + 1]
        return {"weight": rows[:, :-1], "bias": rows[:, -1]}


class _Scaled:
    """Base of heads computed only from support encodings: a learned positive scale of their logits."""

    needs_support, reads_names = True, False

    def __init__(self, scale: float):
        self.scale = scale

    def learned(self, hidden: int, way: int | None) -> dict[str, Tensor]:
        return {"log_scale": torch.tensor(self.scale).log()}


class PrototypeHead(_Scaled):
    """Linear layer initialised from the class prototypes c, as in ProtoMAML (Triantafillou et al. 2020): W = 2sc, b = -s|c|^2.

    Before adaptation, logits are negative squared Euclidean distances to the prototypes times a learned scale s > 0, plus a constant
    that all classes share; without inner steps this is ProtoNet (Snell et al. 2017). Gradients flow into the prototypes.
    """

    def start(self, learned: dict[str, Tensor], empty: Head, features: Tensor, labels: Tensor, names: Sequence[str]) -> Head:
        means = _class_means(features, labels, len(empty["bias"]))
        scale = learned["log_scale"].exp()
        return {"weight": 2 * scale * means, "bias": -scale * means.square().sum(1)}


class CosineHead(_Scaled):
    """Cosine-similarity head (Chen et al. 2020): W = sc/|c| for class prototypes c, b = 0, with a learned scale s > 0.

    Logits are scaled cosine similarities to the prototypes if encodings have unit length (`model.normalize=true`).
    """

    needs_normalized = True

    def start(self, learned: dict[str, Tensor], empty: Head, features: Tensor, labels: Tensor, names: Sequence[str]) -> Head:
        means = _class_means(features, labels, len(empty["bias"]))
        return {"weight": learned["log_scale"].exp() * F.normalize(means, dim=1), "bias": empty["bias"]}


class RidgeHead(_Scaled):
    """Closed-form ridge regression on one-hot labels, as in R2D2 (Bertinetto et al. 2019, eq. 5 to 7).

    W = X'(XX' + lambda I)^-1 Y for support encodings X [n, H] and one-hot labels Y [n, way]; logits of an encoding x are s x W, with
    learned lambda, s > 0.
    """

    def learned(self, hidden: int, way: int | None) -> dict[str, Tensor]:
        return {**super().learned(hidden, way), "log_lambda": torch.tensor(0.0)}

    def start(self, learned: dict[str, Tensor], empty: Head, features: Tensor, labels: Tensor, names: Sequence[str]) -> Head:
        one_hot = F.one_hot(labels, len(empty["bias"])).to(features.dtype)
        gram = features @ features.T + learned["log_lambda"].exp() * torch.eye(len(features), dtype=features.dtype, device=features.device)
        weight = torch.linalg.solve(gram, one_hot).T @ features  # [way, H]
        return {"weight": learned["log_scale"].exp() * weight, "bias": empty["bias"]}


class GeneratedHead:
    """Head generated from the support set, as in LEOPARD (Bansal et al. 2020, eq. 2 and 3).

    (w_c, b_c) is the mean output of a learned two-layer perceptron (tanh) over the support encodings of class c.
    """

    needs_support, reads_names = True, False

    def learned(self, hidden: int, way: int | None) -> dict[str, Tensor]:
        def layer(outputs: int) -> Tensor:
            return torch.randn(outputs, hidden) / hidden**0.5

        return {"in.weight": layer(hidden), "in.bias": torch.zeros(hidden), "out.weight": layer(hidden + 1), "out.bias": torch.zeros(hidden + 1)}

    def start(self, learned: dict[str, Tensor], empty: Head, features: Tensor, labels: Tensor, names: Sequence[str]) -> Head:
        inner = torch.tanh(F.linear(features, learned["in.weight"], learned["in.bias"]))
        generated = _class_means(F.linear(inner, learned["out.weight"], learned["out.bias"]), labels, len(empty["bias"]))
        return {"weight": generated[:, :-1], "bias": generated[:, -1]}


def _class_means(features: Tensor, labels: Tensor, way: int) -> Tensor:
    """Means over each class of features [n, D], shape [way, D]."""
    one_hot = F.one_hot(labels, way).to(features.dtype)  # [n, way]
    return (one_hot / one_hot.sum(0)).T @ features


def make_head(name: str, scale: float, labels: Sequence[str] = ()) -> HeadRule:
    """The head rule `algorithm.head=NAME`; labels: the names of all labels of the training tasks.

    Raises:
        UserError: there is no such rule, or the scale is not positive.
    """
    if scale <= 0:
        raise UserError(f"algorithm.head_scale={scale} must be positive")
    make = plugins.find(plugins.HEADS, name, RULES, f"algorithm.head={name} is unknown; choose one of", LANGUAGE_MODELS)
    made: HeadRule = make(scale, labels)
    return made


# How each is made from `algorithm.head_scale` and the names of the training tasks' labels.
RULES: dict[str, Callable[[float, Sequence[str]], HeadRule]] = {
    "linear": lambda scale, labels: LinearHead(),
    "zero": lambda scale, labels: ZeroHead(),
    "shared": lambda scale, labels: SharedHead(),
    "joint": lambda scale, labels: JointHead(labels),
    "prototype": lambda scale, labels: PrototypeHead(scale),
    "cosine": lambda scale, labels: CosineHead(scale),
    "ridge": lambda scale, labels: RidgeHead(scale),
    "generated": lambda scale, labels: GeneratedHead(),
}
LANGUAGE_MODELS = {"lm": HeadFacts(is_language_model=True), "in_context": HeadFacts(is_language_model=True, reads_support=True)}


def facts_of(head: HeadRule) -> HeadFacts:
    """The properties that a head states, and the defaults of the others."""
    return HeadFacts(**{each.name: getattr(head, each.name) for each in fields(HeadFacts) if hasattr(head, each.name)})


def head_facts(name: str) -> HeadFacts:
    """The properties of `algorithm.head=NAME`, a head rule or a language model.

    Raises:
        UserError: there is no such head.
    """
    return LANGUAGE_MODELS.get(name) or facts_of(make_head(name, scale=1.0))
