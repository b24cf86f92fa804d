"""Dictionaries of named tensors, and operations on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

Parameters = dict[str, Tensor]


@dataclass(frozen=True)
class Gradient:
    """Gradients of the meta-parameters that have one."""

    gradient: Parameters
    rows: Tensor | None  # the word-embedding rows that `gradient` has; None: all


def leaves(parameters: Mapping[str, Tensor]) -> Parameters:
    """Return the same values as leaves of a new graph."""
    return {name: value.detach().requires_grad_() for name, value in parameters.items()}


def detached(parameters: Mapping[str, Tensor]) -> Parameters:
    """Return the same values without a graph."""
    return {name: value.detach() for name, value in parameters.items()}


def add_to(total: Parameters, more: Mapping[str, Tensor]) -> None:
    """Add `more` to `total` by name; tensors are added out of place, since they may be needed elsewhere."""
    for name, value in more.items():
        total[name] = total[name] + value if name in total else value


def added(one: Parameters, other: Mapping[str, Tensor], factor: Callable[[str], float] = lambda name: 1.0) -> Parameters:
    """Return `one` plus factor(name) times `other`, for the names in both, with one operation per factor to save GPU kernel launches."""
    found = dict(one)
    for size, names in by_factor([name for name in one if name in other], factor).items():
        sums = torch._foreach_add([one[name] for name in names], [other[name] for name in names], alpha=size)
        found.update(zip(names, sums))
    return found


def scaled(values: Parameters, factor: Callable[[str], float]) -> Parameters:
    """Return each tensor times factor(name)."""
    found: Parameters = {}
    for size, names in by_factor(values, factor).items():
        found.update(zip(names, torch._foreach_mul([values[name] for name in names], size)))
    return found


def by_factor(names: Iterable[str], factor: Callable[[str], float]) -> dict[float, list[str]]:
    """Return the names grouped by their factor."""
    groups: dict[float, list[str]] = {}
    for name in names:
        groups.setdefault(factor(name), []).append(name)
    return groups


def vjp(outputs: Sequence[Tensor] | Sequence[GradientEdge], cotangents: list[Tensor] | None, inputs: Mapping[str, Tensor]) -> Parameters:
    """Return vector-Jacobian products, without the inputs that the outputs do not depend on."""
    found = torch.autograd.grad(outputs, list(inputs.values()), cotangents, allow_unused=True)
    return {name: value for name, value in zip(inputs, found) if value is not None}


def dot(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """Return the inner product over the names of `one`, summed in float64."""
    return float(sum((value.double() * other[name].double()).sum() for name, value in one.items()))
