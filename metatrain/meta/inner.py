"""Inner rules: how adapted parameters move on a support-set gradient."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from metatrain.errors import UserError
from metatrain.meta.config import InnerConfig

Parameters = dict[str, Tensor]


class InnerRule(Protocol):
    """One choice on the inner-rule axis. `update` must be differentiable in all its tensors."""

    def update(self, parameters: Parameters, gradients: Mapping[str, Tensor], step: int) -> Parameters:
        """theta_{k+1} from theta_k and the gradient of the support loss at it."""


class SGD:
    """theta_{k+1} = theta_k - lr * gradient, with a rate of its own for the episode's head."""

    def __init__(self, lr: float, head_lr: float | None = None):
        self.lr = lr
        self.head_lr = lr if head_lr is None else head_lr

    def update(self, parameters: Parameters, gradients: Mapping[str, Tensor], step: int) -> Parameters:
        return {name: value - (self.head_lr if name.startswith("head.") else self.lr) * gradients[name] for name, value in parameters.items()}


def make_inner_rule(config: InnerConfig) -> InnerRule:
    """The inner rule a config asks for.

    Raises:
        UserError: a rate or step count makes no sense, or the rule is unknown.
    """
    if config.rule != "sgd":
        raise UserError(f"inner.rule={config.rule} is unknown; choose sgd")
    for key, value in (("inner.lr", config.lr), ("inner.head_lr", config.head_lr)):
        if value is not None and not 0 <= value < float("inf"):
            raise UserError(f"{key}={value} must be a finite number, zero or more")
    for key, value in (("inner.steps", config.steps), ("inner.evaluation_steps", config.evaluation_steps)):
        if value is not None and value < 0:
            raise UserError(f"{key}={value} must be zero or more")
    return SGD(config.lr, config.head_lr)
