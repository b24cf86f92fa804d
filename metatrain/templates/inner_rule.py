"""An inner rule: SGD with a learning rate that decays over the inner steps by a meta-learned factor per tensor."""

from collections.abc import Mapping

from torch import Tensor

from metatrain.gradient.config import InnerConfig
from metatrain.gradient.inner_rules import HEAD
from metatrain.gradient.parameters import Parameters


class DecayingSGD:
    is_sgd = False  # whether phi_{k+1} = phi_k - rate(name) * gradient, with fixed rates
    adds = True  # whether phi_{k+1} - phi_k and the state depend on phi_k only through the gradient (false with weight decay)
    reads = ("lr", "head_lr")

    def __init__(self, config: InnerConfig):
        self.lr = config.lr
        self.head_lr = config.lr if config.head_lr is None else config.head_lr

    def rate(self, name: str) -> float:
        return self.head_lr if name.startswith(HEAD) else self.lr

    def learned(self, adapted: Mapping[str, Tensor]) -> Parameters:
        return {name: value.new_tensor(1.0) for name, value in adapted.items()}

    def state(self, adapted: Mapping[str, Tensor]) -> Parameters:
        return {}

    def update(
        self, adapted: Parameters, gradients: Mapping[str, Tensor], step: int, learned: Mapping[str, Tensor], state: Mapping[str, Tensor]
    ) -> tuple[Parameters, Parameters]:
        return {name: value - self.rate(name) * learned[name] ** step * gradients[name] for name, value in adapted.items()}, {}
