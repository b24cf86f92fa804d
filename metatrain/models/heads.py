"""Head rules: what turns encodings into N-way logits. Their protocol is in `head_rule`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from metatrain import plugins
from metatrain.errors import UserError
from metatrain.models.head_rule import Head, HeadFacts, HeadRule, facts_of
from metatrain.models.transductive import SoftKMeansHead
from metatrain.tasks.label_names import meaningful_names

ROW = "label."  # what names of a joint head's rows begin with; the label follows


class LinearHead:
    """Linear layer with a learned row per class, as in MAML (Finn et al. 2017); the number of classes is fixed."""

    reads_names, fixed_way, reads, reads_label_sets = False, True, (), True

    def learned(self, hidden: int, way: int | None) -> dict[str, Tensor]:
        if way is None:
            raise UserError(
                "algorithm.head=linear has one learned row per class, so all episodes need the same number of classes: set episode.way to one number "
                "in metatrain train, or choose algorithm.head=zero or prototype"
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
    reads, reads_label_sets = (), True

    def learned(self, hidden: int, way: int | None) -> dict[str, Tensor]:
        return {}

    def start(self, learned: dict[str, Tensor], empty: Head, features: Tensor, labels: Tensor, names: Sequence[str]) -> Head:
        return dict(empty)


class SharedHead:
    """Linear layer whose rows all start from one learned vector, as in UnicornMAML (Ye and Chao 2022): any number and order of classes."""

    reads_names = knows_classes = False
    reads, reads_label_sets = (), True

    def learned(self, hidden: int, way: int | None) -> dict[str, Tensor]:
        return {"row": torch.randn(hidden) * 0.02}

    def start(self, learned: dict[str, Tensor], empty: Head, features: Tensor, labels: Tensor, names: Sequence[str]) -> Head:
        return {"weight": learned["row"].expand_as(empty["weight"]).clone(), "bias": empty["bias"]}


class JointHead:
    """Linear layer with a learned row for each label name of the training tasks, as in joint training.

    Tasks with the same label name share its row; rows of label names that training never saw start at zero.
    """

    row_per_label, reads = True, ()

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
    reads = ("head_scale",)

    def __init__(self, scale: float):
        self.scale = scale

    def learned(self, hidden: int, way: int | None) -> dict[str, Tensor]:
        return {"log_scale": torch.tensor(self.scale).log()}


class PrototypeHead(_Scaled):
    """Linear layer initialised from the class prototypes c, as in ProtoMAML (Triantafillou et al. 2020): W = 2sc, b = -s|c|^2.

    Before adaptation, logits are negative squared Euclidean distances to the prototypes times a learned scale s > 0, plus a constant
    that all classes share; without inner steps this is ProtoNet (Snell et al. 2017). Gradients flow into the prototypes.
    With several labels per text, each label is such a problem of two classes, the texts that have it (prototype p) and those that do not (n):
    W = 2s(p - n), b = s(|n|^2 - |p|^2).
    """

    reads_label_sets = True

    def start(self, learned: dict[str, Tensor], empty: Head, features: Tensor, labels: Tensor, names: Sequence[str]) -> Head:
        if labels.ndim == 2:
            has, lacks = (_distances(learned, means) for means in _label_means(features, labels))
            return {name: has[name] - lacks[name] for name in has}
        return _distances(learned, _class_means(features, labels, len(empty["bias"])))


class CosineHead(_Scaled):
    """Cosine-similarity head (Chen et al. 2020): W = sc/|c| for class prototypes c, b = 0, with a learned scale s > 0.

    Logits are scaled cosine similarities to the prototypes if encodings have unit length (`model.normalize=true`).
    With several labels per text, W = s(p/|p| - n/|n|) for the prototypes p and n of the texts that have a label and that do not.
    """

    needs_normalized = reads_label_sets = True

    def start(self, learned: dict[str, Tensor], empty: Head, features: Tensor, labels: Tensor, names: Sequence[str]) -> Head:
        if labels.ndim == 2:
            has, lacks = (F.normalize(means, dim=1) for means in _label_means(features, labels))
            return {"weight": learned["log_scale"].exp() * (has - lacks), "bias": empty["bias"]}
        means = _class_means(features, labels, len(empty["bias"]))
        return {"weight": learned["log_scale"].exp() * F.normalize(means, dim=1), "bias": empty["bias"]}


class RidgeHead(_Scaled):
    """Closed-form ridge regression on one-hot labels, as in R2D2 (Bertinetto et al. 2019, eq. 5 to 7).

    W = X^T (X X^T + rho I)^-1 Y for support encodings X [n, H] and one-hot labels Y [n, way]; logits of an encoding x are s x W, with
    learned rho, s > 0.
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

    needs_support, reads_names, reads = True, False, ()

    def learned(self, hidden: int, way: int | None) -> dict[str, Tensor]:
        def layer(outputs: int) -> Tensor:
            return torch.randn(outputs, hidden) / hidden**0.5

        return {"in.weight": layer(hidden), "in.bias": torch.zeros(hidden), "out.weight": layer(hidden + 1), "out.bias": torch.zeros(hidden + 1)}

    def start(self, learned: dict[str, Tensor], empty: Head, features: Tensor, labels: Tensor, names: Sequence[str]) -> Head:
        inner = torch.tanh(F.linear(features, learned["in.weight"], learned["in.bias"]))
        generated = _class_means(F.linear(inner, learned["out.weight"], learned["out.bias"]), labels, len(empty["bias"]))
        return {"weight": generated[:, :-1], "bias": generated[:, -1]}


class FeatHead(_Scaled):
    """Prototypes adapted to each other by self-attention, as in FEAT (Ye et al. 2020): the class prototypes are a set, P [way, d].

    P' = P + softmax(P W_q (P W_k)^T / sqrt(d)) P W_v W_o; then W = 2sp', b = -s|p'|^2, as for `prototype`. W_o is initialised at zero, so
    meta-training starts from ProtoNet.
    """

    def learned(self, hidden: int, way: int | None) -> dict[str, Tensor]:
        made = {name: torch.randn(hidden, hidden) / hidden**0.5 for name in ("queries", "keys", "values")}
        return {**super().learned(hidden, way), **made, "output": torch.zeros(hidden, hidden)}

    def start(self, learned: dict[str, Tensor], empty: Head, features: Tensor, labels: Tensor, names: Sequence[str]) -> Head:
        return _distances(learned, _attended(learned, _class_means(features, labels, len(empty["bias"]))))


class FeatNamesHead(FeatHead):
    """FEAT over prototypes and label encodings: the set is the class prototypes and the encodings of the label names that have a meaning.

    All attend to all. The prototype of a class with n support texts is then (n p' + w l') / (n + w), with the label encoding l and a learned
    w > 0, initially 1; without a meaningful label name, p'. Meta-training so starts from ProtoNet with the label name as one more example.
    """

    reads_names = reads_label_encodings = True

    def learned(self, hidden: int, way: int | None) -> dict[str, Tensor]:
        return {**super().learned(hidden, way), "log_weight": torch.tensor(0.0)}

    def start(
        self, learned: dict[str, Tensor], empty: Head, features: Tensor, labels: Tensor, names: Sequence[str], label_encodings: Tensor | None = None
    ) -> Head:
        assert label_encodings is not None  # `reads_label_encodings`
        way = len(empty["bias"])
        named = torch.tensor([row for row, has_meaning in enumerate(meaningful_names(tuple(names))) if has_meaning], dtype=torch.long, device=labels.device)
        attended = _attended(learned, torch.cat([_class_means(features, labels, way), label_encodings[named]]))
        texts_of, names_of = (F.one_hot(each, way).to(features.dtype) for each in (labels, named))  # [n, way], [names, way]
        counts, weights = texts_of.sum(0)[:, None], learned["log_weight"].exp() * names_of.sum(0)[:, None]
        return _distances(learned, (counts * attended[:way] + weights * (names_of.T @ attended[way:])) / (counts + weights))


class MatchingHead(_Scaled):
    """Matching Networks (Vinyals et al. 2016, section 2.1.1), with one encoder for support texts and queries.

    p(c|x) is the attention of x to the support texts of class c: softmax over the support set of s cos(h(x), h(x_i)), with a learned scale
    s > 0, so the logit of a class is the log-sum-exp over its texts.
    """

    is_linear, constants = False, ("support", "classes")

    def start(self, learned: dict[str, Tensor], empty: Head, features: Tensor, labels: Tensor, names: Sequence[str]) -> Head:
        classes = F.one_hot(labels, len(empty["bias"])).to(features.dtype)  # [n, way]
        return {"support": F.normalize(features, dim=1), "classes": classes, "log_scale": learned["log_scale"]}

    def logits(self, head: Head, features: Tensor) -> Tensor:
        similarities = head["log_scale"].exp() * F.normalize(features, dim=1) @ head["support"].T  # [texts, n]
        return similarities[:, :, None].masked_fill(head["classes"] == 0, -torch.inf).logsumexp(1)


class RelationHead:
    """Relation Network (Sung et al. 2018): a learned two-layer perceptron (ReLU) compares an encoding with each class prototype.

    The logit of class c is u^T ReLU(A mean_c + B h(x) + a), in place of the paper's sigmoid and squared error.
    """

    needs_support, reads_names, is_linear, reads = True, False, False, ()

    def learned(self, hidden: int, way: int | None) -> dict[str, Tensor]:
        first = torch.randn(2, hidden, hidden) / (2 * hidden) ** 0.5
        return {"of_class": first[0], "of_text": first[1], "bias": torch.zeros(hidden), "out": torch.randn(hidden) / hidden**0.5}

    def start(self, learned: dict[str, Tensor], empty: Head, features: Tensor, labels: Tensor, names: Sequence[str]) -> Head:
        return {"prototypes": _class_means(features, labels, len(empty["bias"]))}

    def logits(self, head: Head, features: Tensor) -> Tensor:
        of_class, of_text = F.linear(head["prototypes"], head["of_class"], head["bias"]), F.linear(features, head["of_text"])
        return torch.relu(of_class + of_text[:, None]) @ head["out"]


class MaskedWordHead:
    """Prediction head of a masked language model, as in PET (Schick and Schuetze 2021, section 3.1) and LM-BFF (Gao et al. 2021, eq. 1).

    The logit of a class is that of its label word v at the mask of the template, h . E[v] + b[v]; of a label word of several tokens, the mean of
    their logits. The rows are the model's output embeddings themselves, most often its word embeddings, and adapt with them.
    """

    reads_word_embeddings, learns, reads = True, False, ()

    def learned(self, hidden: int, way: int | None) -> dict[str, Tensor]:
        return {}

    def start(self, learned: dict[str, Tensor], empty: Head, features: Tensor, labels: Tensor, names: Sequence[str], words: Head | None = None) -> Head:
        assert words is not None  # `reads_word_embeddings`
        return dict(words)


def _class_means(features: Tensor, labels: Tensor, way: int) -> Tensor:
    """Means over each class of features [n, D], shape [way, D]."""
    one_hot = F.one_hot(labels, way).to(features.dtype)  # [n, way]
    return (one_hot / one_hot.sum(0)).T @ features


def _label_means(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the means of the texts that have each label and of those that do not, both [way, H].

    features: [n, H]; labels: as `HeadRule.start` has them, [n, way]. Where there are none of either, both means are that of the others, which
    gives no evidence for or against the label.
    """
    masks = [(labels == value).to(features.dtype) for value in (1, 0)]
    has, lacks = (mask.T @ features / mask.sum(0).clamp(min=1)[:, None] for mask in masks)
    has_some, lacks_some = (mask.sum(0)[:, None] > 0 for mask in masks)
    return torch.where(has_some, has, lacks), torch.where(lacks_some, lacks, has)


def _distances(learned: dict[str, Tensor], means: Tensor) -> Head:
    """Return the linear head whose logits are negative squared distances to means [way, H], scaled, plus a constant."""
    scale = learned["log_scale"].exp()
    return {"weight": 2 * scale * means, "bias": -scale * means.square().sum(1)}


def _attended(learned: dict[str, Tensor], elements: Tensor) -> Tensor:
    """Return the elements of a set [n, H] after one layer of self-attention."""
    scores = (elements @ learned["queries"]) @ (elements @ learned["keys"]).T / elements.shape[1] ** 0.5  # [n, n]
    return elements + scores.softmax(1) @ (elements @ learned["values"]) @ learned["output"]


def make_head(name: str, scale: float, labels: Sequence[str] = ()) -> HeadRule:
    """The head rule `algorithm.head=NAME`; labels: the names of all labels of the training tasks.

    Raises:
        UserError: there is no such rule, its facts contradict each other, or the scale is not positive.
    """
    if scale <= 0:
        raise UserError(f"algorithm.head_scale={scale} must be positive")
    make = plugins.find(plugins.HEADS, name, RULES, f"algorithm.head={name} is unknown; choose one of", LANGUAGE_MODELS)
    made: HeadRule = make(scale, labels)
    facts = facts_of(made)
    if (facts.is_linear and facts.reads_queries) or (not facts.is_linear and not hasattr(made, "logits")):
        raise UserError(
            f"algorithm.head={name} is declared wrongly: is_linear=False requires a method `logits`, and reads_queries=True requires is_linear=False"
        )
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
    "feat": lambda scale, labels: FeatHead(scale),
    "feat_names": lambda scale, labels: FeatNamesHead(scale),
    "matching": lambda scale, labels: MatchingHead(scale),
    "relation": lambda scale, labels: RelationHead(),
    "soft_k_means": lambda scale, labels: SoftKMeansHead(),
    "mlm": lambda scale, labels: MaskedWordHead(),
}
LANGUAGE_MODELS = {
    "lm": HeadFacts(is_language_model=True, learns=False, reads=()),
    "in_context": HeadFacts(is_language_model=True, learns=False, reads_support=True, reads=()),
}


def head_facts(name: str) -> HeadFacts:
    """The properties of `algorithm.head=NAME`, a head rule or a language model.

    Raises:
        UserError: there is no such head.
    """
    return LANGUAGE_MODELS.get(name) or facts_of(make_head(name, scale=1.0))
