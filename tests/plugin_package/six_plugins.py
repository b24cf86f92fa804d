"""Six plug-ins: a warped inner rule, a metric head that sees the queries, a contrastive outer loss, a sampler, a metric, and an arm."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from metatrain.evaluation.arms import ArmRow
from metatrain.evaluation.frozen_arms import FrozenFeatures
from metatrain.evaluation.metrics import Metric
from metatrain.evaluation.prediction import Prediction
from metatrain.gradient.config import InnerConfig
from metatrain.gradient.inner_rules import HEAD
from metatrain.gradient.parameters import Parameters
from metatrain.meta.contrastive import OuterLoss
from metatrain.models.head_rule import Head
from metatrain.tasks.encoded_episode import EncodedEpisode
from metatrain.tasks.sampler import Sampler


class Warped:
    """phi_{k+1} = phi_k - lr * gradient M, with a meta-learned matrix M for each weight matrix (a form of WarpGrad, Flennerhag et al. 2020)."""

    is_sgd, adds = False, True
    reads = ("lr", "head_lr")

    def __init__(self, config: InnerConfig):
        self.lr = config.lr
        self.head_lr = config.lr if config.head_lr is None else config.head_lr

    def rate(self, name: str) -> float:
        return self.head_lr if name.startswith(HEAD) else self.lr

    def learned(self, adapted: Mapping[str, Tensor]) -> Parameters:
        return {name: torch.eye(value.shape[1], dtype=value.dtype, device=value.device) for name, value in adapted.items() if value.dim() == 2}

    def state(self, adapted: Mapping[str, Tensor]) -> Parameters:
        return {}

    def update(
        self, adapted: Parameters, gradients: Mapping[str, Tensor], step: int, learned: Mapping[str, Tensor], state: Mapping[str, Tensor]
    ) -> tuple[Parameters, Parameters]:
        warped = {name: gradient @ learned[name] if name in learned else gradient for name, gradient in gradients.items()}
        return {name: value - self.rate(name) * warped[name] for name, value in adapted.items()}, {}


class TransductiveCosine:
    """Cosine similarity to class directions that the queries, softly assigned by a learned temperature, have moved."""

    needs_support, reads_names, is_linear, reads_queries, constants, reads = True, False, False, True, ("counts",), ()

    def __init__(self, scale: float, labels: Sequence[str]):
        pass

    def learned(self, hidden: int, way: int | None) -> dict[str, Tensor]:
        return {"temperature": torch.tensor(2.0)}

    def start(self, learned: dict[str, Tensor], empty: Head, features: Tensor, labels: Tensor, names: Sequence[str]) -> Head:
        one_hot = F.one_hot(labels, len(names)).to(features.dtype)
        return {"sums": one_hot.T @ F.normalize(features, dim=1), "counts": one_hot.sum(0)[:, None]}

    def logits(self, head: Head, features: Tensor) -> Tensor:
        unit, scale = F.normalize(features, dim=1), head["temperature"].exp()
        shares = (scale * unit @ F.normalize(head["sums"], dim=1).T).softmax(1)
        return scale * unit @ F.normalize(head["sums"] + shares.T @ unit, dim=1).T


def lifted_structure(views: Sequence[Tensor], classes: Tensor, temperature: float) -> Tensor:
    """Mean over the texts of log-sum-exp over others of another class, minus that over others of the same class."""
    unit = F.normalize(views[0], dim=1)
    scores = unit @ unit.T / temperature
    same = classes[:, None] == classes
    itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    lowest = torch.finfo(scores.dtype).min
    far, near = (scores.masked_fill(~pairs, lowest).logsumexp(1) for pairs in (~same, same & ~itself))
    has_both = (~same).any(1) & (same & ~itself).any(1)
    return F.softplus(far - near)[has_both].sum() / has_both.sum().clamp(min=1)


lifted = OuterLoss(lifted_structure)


def easy_first(sampler: Sampler, step: int) -> np.ndarray | None:
    """Easy tasks in the first half of the meta-updates, then all as often."""
    return -sampler.config.strength * sampler.hardness() if step < sampler.steps / 2 else None


def worst_recall(predicted: np.ndarray, labels: np.ndarray, probabilities: np.ndarray | None) -> float:
    return float(min(np.mean(predicted[labels == label] == label) for label in np.unique(labels)))


worst_class = Metric("recall of the worst class", worst_recall)


class NearestSupportText:
    """1-nearest-neighbour classification on frozen encodings."""

    def __init__(self, features: FrozenFeatures):
        self.features = features

    def predict(self, episode: EncodedEpisode) -> Prediction:
        support, query = self.features.known(episode.support), self.features.known(episode.query)
        nearest = ((query[:, None] - support) ** 2).sum(2).argmin(1)
        return Prediction(episode.support_labels[nearest], None, 0.0)


nearest_support_text = ArmRow("the class of the nearest support text", lambda learners: NearestSupportText(learners.features), reads=())
