"""The outer optimiser: AdamW, or that of a plug-in, on the meta-parameters, with warm-up, a schedule and clipping."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from metatrain import plugins
from metatrain.errors import UserError
from metatrain.gradient.parameters import Parameters
from metatrain.training.config import OuterConfig

# Factor of the peak learning rate, from the share of the meta-updates after warm-up that are done, from 0 to below 1.
SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "linear": lambda done: 1.0 - done,
    "cosine": lambda done: 0.5 * (1.0 + math.cos(math.pi * done)),
}
Groups = list[dict[str, Any]]  # parameters in the form of torch.optim: `params`, `lr` and `weight_decay`, and `base_lr`, the peak learning rate
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
    schedule_of(config.schedule)
    optimizer_of(config.optimizer)


def rate(config: OuterConfig, step: int) -> float:
    """Return the factor of the learning rate at meta-update `step` (from 0): linear warm-up, then the schedule."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    return schedule_of(config.schedule)((step - config.warmup) / max(1, config.steps - config.warmup))


def schedule_of(name: str) -> Callable[[float], float]:
    """Return a schedule, from this package or a plug-in.

    Raises:
        UserError: there is no such schedule.
    """
    found: Callable[[float], float] = plugins.find(plugins.SCHEDULES, name, SCHEDULES, f"outer.schedule={name} is unknown; choose one of")
    return found


def _adamw(groups: Groups) -> torch.optim.Optimizer:
    """Return AdamW. On a CPU, an update is bound by memory traffic: fused AdamW reads each tensor once instead of once per operation."""
    fused = all(value.device.type == "cpu" for group in groups for value in group["params"]) or None
    return torch.optim.AdamW(groups, fused=fused)


OPTIMIZERS: dict[str, Callable[[Groups], torch.optim.Optimizer]] = {"adamw": _adamw}


def optimizer_of(name: str) -> Callable[[Groups], torch.optim.Optimizer]:
    """Return what makes an outer optimiser, from this package or a plug-in.

    Raises:
        UserError: there is no such optimiser.
    """
    unknown = f"outer.optimizer={name} is unknown; choose one of"
    found: Callable[[Groups], torch.optim.Optimizer] = plugins.find(plugins.OUTER_OPTIMIZERS, name, OPTIMIZERS, unknown)
    return found


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
        made: Groups = [{"params": values, "lr": lr, "base_lr": lr, "weight_decay": decay} for (lr, decay), values in groups.items()]
        self.optimizer = optimizer_of(config.optimizer)(made)

    def step(self, gradient: Parameters, step: int, largest: float = math.inf) -> float:
        """Apply one meta-update; return the norm of the meta-gradient before clipping.

        If the norm is not finite, or above `largest`, nothing is changed.
        """
        for name, value in self.parameters.items():
            value.grad = gradient[name]
        limit = math.inf if self.config.clip is None else self.config.clip
        norm = float(torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), limit))
        if math.isfinite(norm) and norm <= largest:
            for group in self.optimizer.param_groups:
                group["lr"] = group["base_lr"] * rate(self.config, step)
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def state(self) -> dict[str, Tensor]:
        """Return the tensors of the optimiser, named `PARAMETER/KEY`.

        Raises:
            UserError: the optimiser keeps something else, which a checkpoint cannot hold.
        """
        names = {id(value): name for name, value in self.parameters.items()}
        found = {}
        for value, entry in self.optimizer.state.items():
            for key, kept in entry.items():
                if not isinstance(kept, Tensor):
                    raise UserError(f"outer.optimizer={self.config.optimizer} keeps `{key}`, which is no tensor; checkpoints hold only tensors")
                found[f"{names[id(value)]}/{key}"] = kept
        return found

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Restore the tensors that `state` returned."""
        for full, tensor in state.items():
            name, key = full.rsplit("/", 1)
            self.optimizer.state[self.parameters[name]][key] = tensor if key == "step" else tensor.to(self.parameters[name].device)
