"""The outer optimiser: AdamW on the meta-parameters with warm-up, a schedule and clipping."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from metatrain.errors import UserError
from metatrain.gradient.parameters import Parameters
from metatrain.training.config import OuterConfig

SCHEDULES = ("constant", "linear", "cosine")
NONFINITE = ("stop", "skip")


def check_outer(config: OuterConfig) -> None:
    """Raises: UserError: a value makes no sense."""
    for key in ("steps", "meta_batch"):
        if getattr(config, key) < 1:
            raise UserError(f"outer.{key}={getattr(config, key)} must be 1 or more")
    for key in ("lr", "head_lr", "rule_lr", "warmup", "clip", "weight_decay"):
        value = getattr(config, key)
        if value is not None and not 0 <= value < math.inf:
            raise UserError(f"outer.{key}={value} must be a finite number, zero or more")
    if not 0 < config.weight_interpolation <= 1:
        raise UserError(f"outer.weight_interpolation={config.weight_interpolation} must be above 0 and at most 1")
    if config.spike is not None and not 1 < config.spike < math.inf:
        raise UserError(f"outer.spike={config.spike} must be above 1; it is a multiple of the median gradient norm")
    if config.nonfinite not in NONFINITE:
        raise UserError(f"outer.nonfinite={config.nonfinite} is unknown; choose one of {', '.join(NONFINITE)}")
    if config.schedule not in SCHEDULES:
        raise UserError(f"outer.schedule={config.schedule} is unknown; choose one of {', '.join(SCHEDULES)}")


def rate(config: OuterConfig, step: int) -> float:
    """Return the factor of the learning rate at meta-update `step` (from 0): linear warm-up, then the schedule."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    if config.schedule == "constant":
        return 1.0
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    return 1.0 - done if config.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))


def interpolated(initial: Parameters, trained: Parameters, share: float) -> Parameters:
    """Return (1 - share) * initial + share * trained for parameters in `initial`, others as trained: WiSE-FT (Wortsman et al. 2022, eq. 1)."""
    return {name: torch.lerp(initial[name], value, share) if name in initial else value for name, value in trained.items()}


class OuterOptimizer:
    """Applies mean meta-gradients to a learner's parameters, in place."""

    def __init__(self, parameters: Parameters, config: OuterConfig):
        self.parameters = parameters
        self.config = config
        groups: dict[tuple[float, float], list[Tensor]] = {}
        for name, value in parameters.items():
            part = name.split(".", 1)[0]
            own = {"head": config.head_lr, "rule": config.rule_lr}.get(part)
            decay = config.weight_decay if value.dim() > 1 and part != "rule" else 0.0
            groups.setdefault((config.lr if own is None else own, decay), []).append(value)
        # On a CPU, an update is bound by memory traffic: fused AdamW reads each tensor once instead of once per operation.
        once = all(value.device.type == "cpu" for value in parameters.values()) or None
        made = [{"params": values, "lr": lr, "base_lr": lr, "weight_decay": decay} for (lr, decay), values in groups.items()]
        self.adamw = torch.optim.AdamW(made, fused=once)

    def step(self, gradient: Parameters, step: int, largest: float = math.inf) -> float:
        """Apply one meta-update; return the norm of the meta-gradient before clipping.

        If the norm is not finite, or above `largest`, nothing is changed.
        """
        for name, value in self.parameters.items():
            value.grad = gradient[name]
        limit = math.inf if self.config.clip is None else self.config.clip
        norm = float(torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), limit))
        if math.isfinite(norm) and norm <= largest:
            for group in self.adamw.param_groups:
                group["lr"] = group["base_lr"] * rate(self.config, step)
            self.adamw.step()
        self.adamw.zero_grad(set_to_none=True)
        return norm

    def state(self) -> dict[str, Tensor]:
        """Return the tensors of the optimiser, named `PARAMETER/KEY`."""
        names = {id(value): name for name, value in self.parameters.items()}
        return {f"{names[id(value)]}/{key}": tensor for value, entry in self.adamw.state.items() for key, tensor in entry.items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Restore the tensors that `state` returned."""
        for full, tensor in state.items():
            name, key = full.rsplit("/", 1)
            self.adamw.state[self.parameters[name]][key] = tensor if key == "step" else tensor.to(self.parameters[name].device)
