"""Comparison of meta-gradients with each other, and with differences of the loss."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch

from metatrain.gradient.parameters import Parameters, dot
from metatrain.meta.learner import Learner
from metatrain.tasks.encoded_episode import EncodedEpisode

COMPARED = ("exact", "exact_recomputed", "forward_over_reverse", "finite_difference", "first_order")


@dataclass(frozen=True)
class Probe:
    """Result of one mode on one episode."""

    gradient: Parameters  # of every meta-parameter
    error: float  # |g - exact| / |exact|
    cosine: float  # to the exact meta-gradient
    seconds: float
    idle: list[str]  # meta-parameters whose gradient is zero or missing


def probe(learner: Learner, episode: EncodedEpisode, mode: str, exact: Parameters | None) -> Probe:
    """Return the meta-gradient of an episode in one mode, compared with `exact` (None: with itself)."""
    learner = learner.with_algorithm(replace(learner.algorithm, meta_gradient=mode))
    begin = time.perf_counter()
    part = learner.outer_gradient(episode)
    seconds = time.perf_counter() - begin
    gradient = {name: torch.zeros_like(value) for name, value in learner.parameters.items()}
    learner.add_gradient(gradient, part, 1.0)
    reference = gradient if exact is None else exact
    size = dot(reference, reference) ** 0.5
    difference = {name: value - reference[name] for name, value in gradient.items()}
    own = dot(gradient, gradient) ** 0.5
    idle = [name for name, value in gradient.items() if not value.any()]
    return Probe(gradient, dot(difference, difference) ** 0.5 / size, dot(gradient, reference) / (own * size), seconds, idle)


def slope_error(learner: Learner, episode: EncodedEpisode, gradient: Parameters, seed: int) -> float:
    """Return the relative error of the slope of the query loss after adaptation along a random direction, predicted by `gradient`.

    The slope is the central difference at a distance of 1e-6; meant for float64.
    """
    generator = torch.Generator().manual_seed(seed)
    direction = {name: torch.randn(value.shape, generator=generator, dtype=torch.float64).to(value) for name, value in learner.parameters.items()}
    distance = 1e-6

    def loss(step: float) -> float:
        for name, value in learner.parameters.items():
            value.add_(direction[name], alpha=step)
        return float(learner.outer_gradient(episode).loss_after)

    before = {name: value.clone() for name, value in learner.parameters.items()}
    slope = (loss(distance) - loss(-2 * distance)) / (2 * distance)
    for name, value in learner.parameters.items():
        value.copy_(before[name])
    predicted = dot(gradient, direction)
    return abs(slope - predicted) / abs(predicted)
