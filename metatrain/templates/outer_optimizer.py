"""An outer optimiser: SGD with Nesterov momentum."""

from typing import Any

import torch


def nesterov(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """groups: parameters with `lr` and `weight_decay`, in the form of torch.optim."""
    return torch.optim.SGD(groups, momentum=0.9, nesterov=True)
