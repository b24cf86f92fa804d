"""Contrastive terms of the outer loss: over all texts of a meta-batch, with their labels or without."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from metatrain import plugins
from metatrain.errors import UserError
from metatrain.gradient.parameters import Gradient, Parameters, add_to, leaves, vjp
from metatrain.meta.config import AlgorithmConfig
from metatrain.meta.functional import FunctionalClassifier
from metatrain.models.adapted import row_of
from metatrain.models.batches import Batch, chunks
from metatrain.models.heads import head_facts
from metatrain.tasks.encoded_episode import EncodedEpisode

Views = Sequence[Tensor]  # encodings of the texts, [n, H], one view for each pass over them


@dataclass(frozen=True)
class OuterLoss:
    """A term of the outer loss over the encodings of a meta-batch (`algorithm.contrastive`)."""

    loss: Callable[[Views, Tensor, float], Tensor]  # (views, classes [n], temperature) -> scalar
    views: int = 1  # number of passes over the texts; of several, each has its own dropout


@dataclass(frozen=True)
class AuxiliaryGradient(Gradient):
    """Gradient of a term of the outer loss over a whole meta-batch."""

    loss: float


def check_contrastive(algorithm: AlgorithmConfig) -> None:
    """Raises: UserError: the kind is unknown, a value makes no sense, or there is nothing to contrast."""
    if algorithm.contrastive is None:
        return
    term = outer_loss(algorithm.contrastive)
    for key in ("contrastive_weight", "contrastive_temperature"):
        if not 0 < getattr(algorithm, key) < math.inf:
            raise UserError(f"algorithm.{key}={getattr(algorithm, key)} must be a positive number")
    if head_facts(algorithm.head).is_language_model:
        raise UserError(f"algorithm.contrastive needs encodings, and algorithm.head={algorithm.head} has none; remove it")
    if algorithm.train == "adapted" and not row_of(algorithm.adapt).model_adapts:
        raise UserError("algorithm.contrastive trains the encoder, which algorithm.train=adapted freezes here; set algorithm.train=all")
    if term.views > 1 and not algorithm.dropout:
        passes = "two" if term.views == 2 else str(term.views)
        raise UserError(
            f"algorithm.contrastive={algorithm.contrastive} compares {passes} passes with different dropout: set algorithm.dropout, for example to 0.1"
        )


def supervised(encodings: Tensor, classes: Tensor, temperature: float) -> Tensor:
    """L_out of Khosla et al. (2020, eq. 2), mean over the texts of encodings [n, H] that have another of their class (classes [n])."""
    unit = F.normalize(encodings, dim=1)
    scores = unit @ unit.T / temperature
    itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    log_p = scores - scores.masked_fill(itself, -math.inf).logsumexp(1, keepdim=True)
    same = (classes[:, None] == classes) & ~itself
    number = same.sum(1)
    has = number > 0
    return -((log_p * same).sum(1)[has] / number[has]).sum() / has.sum().clamp(min=1)


def unsupervised(one: Tensor, other: Tensor, temperature: float) -> Tensor:
    """SimCSE (Gao et al. 2021, eq. 4): each text's two encodings, from [n, H] each, find each other among all texts."""
    scores = F.normalize(one, dim=1) @ F.normalize(other, dim=1).T / temperature
    return F.cross_entropy(scores, torch.arange(len(one), device=one.device))


LOSSES = {
    "supervised": OuterLoss(lambda views, classes, temperature: supervised(views[0], classes, temperature)),
    "unsupervised": OuterLoss(lambda views, classes, temperature: unsupervised(views[0], views[1], temperature), views=2),
}


def outer_loss(name: str) -> OuterLoss:
    """Return a term of the outer loss, from this package or a plug-in.

    Raises:
        UserError: there is no such term.
    """
    found: OuterLoss = plugins.find(plugins.OUTER_LOSSES, name, LOSSES, f"algorithm.contrastive={name} is unknown; choose null or one of")
    return found


def contrastive_gradient(classifier: FunctionalClassifier, parameters: Parameters, episodes: Sequence[EncodedEpisode]) -> AuxiliaryGradient:
    """Return the gradient of the contrastive term over the texts of these episodes, at the meta-parameters.

    Labels with the same name are the same class in all episodes. Encodings are computed twice, first without a graph for the loss and
    then with one, a part of the texts at a time (Gao et al. 2021b), so that memory does not grow with the meta-batch.
    """
    algorithm = classifier.algorithm
    assert algorithm.contrastive is not None  # the caller has looked
    term = outer_loss(algorithm.contrastive)
    texts = [text for episode in episodes for text in (*episode.support, *episode.query)]
    names = [episode.names[label] for episode in episodes for label in (*episode.support_labels, *episode.query_labels)]
    parts = chunks(texts, classifier.plan.part_tokens)
    found_texts, rows = classifier.occurring(texts)
    batches = [classifier.model.batch(found_texts[part]) for part in parts]
    theta = leaves({name: value for name, value in classifier.view(parameters, rows).items() if name.startswith(classifier.prefix)})
    views: list[list[int | None]] = [[None] * len(parts)]
    if term.views > 1:
        mixed = np.random.SeedSequence([episode.seed for episode in episodes]).generate_state(term.views * len(parts), np.uint64) >> 1
        views = [[int(seed) for seed in mixed[begin : begin + len(parts)]] for begin in range(0, len(mixed), len(parts))]

    def encoded(batch: Batch, seed: int | None) -> Tensor:
        return classifier.encode({**theta, **classifier.reset}, batch, seed=seed)

    with torch.no_grad():
        found = [torch.cat([encoded(batch, seed) for batch, seed in zip(batches, seeds)]) for seeds in views]
    found = [each.requires_grad_() for each in found]
    _, classes = np.unique(names, return_inverse=True)
    loss = term.loss(found, torch.from_numpy(classes).to(found[0].device), algorithm.contrastive_temperature)
    gradient: Parameters = {}
    for seeds, cotangents in zip(views, torch.autograd.grad(loss, found)):
        for batch, seed, part in zip(batches, seeds, parts):
            add_to(gradient, vjp([encoded(batch, seed)], [cotangents[part]], theta))
    return AuxiliaryGradient(gradient, rows, float(loss.detach()))
