"""The meta-gradient as a function of the meta-update: annealing of the derivative order and of the multi-step loss."""

from __future__ import annotations

from metatrain.gradient.meta_gradient import Method
from metatrain.meta.config import AlgorithmConfig


def method_at(algorithm: AlgorithmConfig, inner_steps: int, step: int) -> Method:
    """Return the meta-gradient to take in meta-update `step`."""
    mode = "first_order" if step < algorithm.first_order_until else algorithm.meta_gradient
    weights = multi_step_weights(inner_steps, step, algorithm.multi_step_until) if algorithm.multi_step_until and inner_steps > 1 else None
    return Method(mode, algorithm.proximal, algorithm.cg_steps, weights=weights)


def multi_step_weights(inner_steps: int, step: int, until: int) -> list[float]:
    """Return the weights of the query losses after each inner step, as in MAML++ (Antoniou et al. 2019, section 4); they add up to 1.

    They start equal. Those of the early steps decrease linearly until meta-update `until`, to 3% of their initial value.
    """
    early = max(1.0 - step / until, 0.03) / inner_steps
    return [early] * (inner_steps - 1) + [1.0 - early * (inner_steps - 1)]
