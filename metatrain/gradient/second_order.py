"""Products of second derivatives of the support loss S(phi, w) with a direction u in phi: H u and (d^2 S / dw dphi) u.

There are three ways: reverse over reverse mode, forward over reverse mode (Pearlmutter 1994; as in MixFlow-MG, Kemaev et al. 2025),
and finite differences of gradients, an approximation that needs no second derivative of any operation. Each adds the products to a
dictionary with the entries of phi and w, one part of S at a time, so that the graph of only one part is in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from metatrain.errors import UserError
from metatrain.gradient.parameters import Parameters, add_to, dot, leaves, vjp

Loss = Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], Iterable[Tensor]]  # (phi, w) to parts of S

# Half the distance of the two points of a difference, as a share of the size of phi: errors of rounding and of the
# quadratic approximation are about equal there in the dtype.
_DISTANCE = {torch.float64: 1e-5, torch.float32: 3e-3}


@dataclass(frozen=True)
class GradientGraph:
    """Graph of the gradient of a part of S in phi, for a second reverse pass."""

    inputs: Parameters  # phi and w, leaves
    gradient: Mapping[str, GradientEdge]  # where it depends on them; without the values, which nothing here needs and which take a copy of phi

    @classmethod
    def of(cls, part: Tensor, phi: Parameters, fixed: Parameters) -> tuple[Parameters, GradientGraph]:
        """Return the gradient of a part of S, and its graph; phi and fixed are the leaves that the part was computed from."""
        # Zeros for parameters that are unused in this episode: a model of images and texts has parameters for each.
        found = dict(zip(phi, torch.autograd.grad(part, list(phi.values()), create_graph=True, materialize_grads=True)))
        edges = {name: get_gradient_edge(value) for name, value in found.items() if value.requires_grad}
        return {name: value.detach() for name, value in found.items()}, cls({**phi, **fixed}, edges)

    def products(self, direction: Parameters) -> Parameters:
        """Return the products by differentiating the gradient, which frees the graph."""
        return vjp(list(self.gradient.values()), [direction[name] for name in self.gradient], self.inputs) if self.gradient else {}


def reverse_over_reverse(loss: Loss, phi: Parameters, fixed: Parameters, direction: Parameters, total: Parameters) -> None:
    """Add the products by differentiating the gradient; the graph of one part of S is in memory at a time."""
    phi, fixed = leaves(phi), leaves(fixed)
    for part in loss(phi, fixed):
        add_to(total, GradientGraph.of(part, phi, fixed)[1].products(direction))


def forward_over_reverse(loss: Loss, phi: Parameters, fixed: Parameters, direction: Parameters, total: Parameters) -> None:
    """Add the products as tangents of the gradient along u.

    Raises:
        UserError: the model has an operation whose gradient has no forward derivative (SiLU, say).
    """
    try:
        with forward_ad.dual_level():
            duals = {name: forward_ad.make_dual(value.detach().requires_grad_(), direction[name]) for name, value in phi.items()}
            for part in loss(duals, fixed):
                add_to(total, _tangents(vjp([part], None, {**duals, **fixed})))
    except RuntimeError as error:
        # What PyTorch says where a forward derivative is missing, or writes to the zero that stands for the derivative of a constant.
        if not isinstance(error, NotImplementedError) and "ZeroTensors" not in str(error):
            raise
        raise UserError(f"algorithm.meta_gradient=forward_over_reverse does not work with this model ({error}); choose exact_recomputed") from error


def _tangents(values: Parameters) -> Parameters:
    """Return the tangents of the values that have one."""
    found = {name: forward_ad.unpack_dual(value).tangent for name, value in values.items()}
    return {name: tangent for name, tangent in found.items() if tangent is not None}


def finite_difference(loss: Loss, phi: Parameters, fixed: Parameters, direction: Parameters, total: Parameters) -> None:
    """Add central differences of the gradient along u, an approximation of the products."""
    size = dot(direction, direction) ** 0.5
    if size == 0:
        return
    step = _DISTANCE[next(iter(phi.values())).dtype] * max(dot(phi, phi) ** 0.5, 1.0) / size
    difference: Parameters = {}
    for sign in (1.0, -1.0):
        point = leaves({name: value + sign * step * direction[name] for name, value in phi.items()})
        for part in loss(point, fixed):
            found = vjp([part], None, {**point, **fixed})
            add_to(difference, {name: gradient * (sign / (2 * step)) for name, gradient in found.items()})
    add_to(total, difference)
