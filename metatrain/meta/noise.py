"""Randomness in the losses of an episode in meta-training: dropout, learned noise and an information bottleneck.

Every draw is a function of the episode's seed and of where it is made (set, part, inner step), so that all passes over an
inner step see the same function and the meta-gradient is the gradient of something. Adaptation for use has no noise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from metatrain.errors import UserError
from metatrain.gradient.meta_gradient import mode_of
from metatrain.gradient.parameters import Parameters
from metatrain.meta.config import AlgorithmConfig

NOISE = "noise."  # prefix of the names of the noise's meta-parameters
SUPPORT, QUERY = 0, 1
ONCE = 2**32 - 1  # replaces the inner step for values that are computed once per episode

_DROPOUT_IN = {"both": (SUPPORT, QUERY), "support": (SUPPORT,), "query": (QUERY,)}


def check_noise(algorithm: AlgorithmConfig) -> None:
    """Raises: UserError: a value makes no sense, or the meta-gradient cannot learn the noise."""
    if not 0 <= algorithm.dropout < 1:
        raise UserError(f"algorithm.dropout={algorithm.dropout} must be at least 0 and below 1")
    if algorithm.dropout_in not in _DROPOUT_IN:
        raise UserError(f"algorithm.dropout_in={algorithm.dropout_in} is unknown; choose one of {', '.join(_DROPOUT_IN)}")
    if not 0 <= algorithm.information_penalty < math.inf:
        raise UserError(f"algorithm.information_penalty={algorithm.information_penalty} must be a finite number, zero or more")
    mode = mode_of(algorithm.meta_gradient)
    if algorithm.information_penalty and not mode.uses_query_gradient:
        raise UserError(
            f"algorithm.information_penalty is a term of the query loss, which algorithm.meta_gradient={algorithm.meta_gradient} does not use; choose another"
        )
    if algorithm.meta_dropout and not mode.differentiates_adaptation:
        raise UserError(
            f"algorithm.meta_dropout is learned through adaptation, which algorithm.meta_gradient={algorithm.meta_gradient} does not differentiate; "
            "choose algorithm.meta_gradient=exact"
        )


def learned(algorithm: AlgorithmConfig, hidden: int) -> Parameters:
    """Return initial values of the noise's meta-parameters."""
    made = {}
    if algorithm.meta_dropout:
        made["weight"] = torch.zeros(hidden, hidden)
        made["bias"] = torch.full((hidden,), math.log(math.e - 1))  # softplus of it is 1
    if algorithm.information_penalty:
        made["log_sigma"] = torch.full((hidden,), math.log(0.1))
    return {NOISE + name: value for name, value in made.items()}


class Noise:
    """Random draws of one episode; `seed=None`: there is no noise."""

    def __init__(self, algorithm: AlgorithmConfig, seed: int | None):
        self._seed = seed
        self._meta_dropout = algorithm.meta_dropout and seed is not None
        self._penalty = algorithm.information_penalty if seed is not None else 0.0
        self._dropped = _DROPOUT_IN[algorithm.dropout_in] if algorithm.dropout and seed is not None else ()

    def dropout_seed(self, role: int, part: int, step: int, draw: int = 0) -> int | None:
        """Return the seed of the dropout masks of a pass; None: it has no dropout. draw: a number for each of several passes over one part in a step."""
        return _mixed(self._seed, role, part, step, draw) if self._seed is not None and role in self._dropped else None

    def perturbed(self, features: Tensor, values: Mapping[str, Tensor], part: int, step: int) -> Tensor:
        """Multiply the support encodings h by softplus(W h + b + e), e ~ N(0, I): Meta Dropout (Lee et al. 2020) on the encodings only.

        W and b are meta-learned through the effect of the noise on adaptation. The mean factor is about 1 at initialisation.
        """
        if not self._meta_dropout:
            return features
        mean = F.linear(features, values[NOISE + "weight"], values[NOISE + "bias"])
        return features * F.softplus(mean + self._normal(features, SUPPORT, part, step, 2))

    def bottleneck(self, features: Tensor, values: Mapping[str, Tensor], role: int, part: int, step: int) -> tuple[Tensor, Tensor | None]:
        """Replace the encodings h by samples z ~ N(h, sigma^2), as in MR-MAML on activations (Yin et al. 2020); return z and the penalty.

        The penalty is `information_penalty` times the mean KL(N(h, sigma^2) || N(0, I)) over the texts, with a learned sigma > 0. It bounds
        the information that encodings carry about the text, so the model has to use the support set.
        """
        if not self._penalty:
            return features, None
        log_sigma = values[NOISE + "log_sigma"]
        noisy = features + log_sigma.exp() * self._normal(features, role, part, step, 3)
        divergence = 0.5 * (features.square() + (2 * log_sigma).exp() - 1 - 2 * log_sigma).sum(1).mean()
        return noisy, self._penalty * divergence

    def _normal(self, like: Tensor, *place: int) -> Tensor:
        # Drawn in float32 on the CPU, so that neither precision nor device changes it.
        assert self._seed is not None  # without one there is no noise
        drawn = torch.randn(like.shape, generator=torch.Generator().manual_seed(_mixed(self._seed, *place)))
        return drawn.to(like.device, like.dtype)


def _mixed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
