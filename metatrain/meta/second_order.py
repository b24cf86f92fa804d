"""Products of second derivatives of the support loss S(phi, w) with a direction u in phi: H u and (d^2 S / dw dphi) u.

Three ways to the same numbers: two reverse passes, a forward pass over a reverse one (Pearlmutter 1994; as in MixFlow-MG,
Kemaev et al. 2025), and differences of gradients, which are no derivatives but need no second derivative of any operation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor

from metatrain.errors import UserError
from metatrain.meta.parameters import Parameters, add_to, dot, leaves, vjp

Loss = Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], Iterable[Tensor]]  # (phi, w) to parts of S

# Half the distance of the two points of a difference, as a share of the size of phi: errors of rounding and of the
# quadratic approximation are about equal there in the dtype.
_DISTANCE = {torch.float64: 1e-5, torch.float32: 3e-3}


@dataclass(frozen=True)
class GradientGraph:
    """The gradient of S in phi with the graph that leads to it: what a second reverse pass goes through."""

    loss: Tensor  # without a graph
    phi: Parameters  # leaves
    fixed: Parameters  # leaves
    gradient: Sequence[Tensor]  # in the order of phi

    @classmethod
    def of_parts(cls, loss: Loss, phi: Parameters, fixed: Parameters) -> Iterator[GradientGraph]:
        """The graph of each part of S."""
        phi = leaves(phi)
        for part in loss(phi, fixed):
            # Zeros for what takes no part in this episode: a model of pictures and texts has parameters for either.
            gradient = torch.autograd.grad(part, list(phi.values()), create_graph=True, materialize_grads=True)
            yield cls(part.detach(), phi, fixed, gradient)

    def products(self, direction: Parameters) -> Parameters:
        """Products by differentiating the gradient, which frees the graph."""
        curved = [(gradient, direction[name]) for name, gradient in zip(self.phi, self.gradient) if gradient.requires_grad]
        if not curved:
            return {}
        return vjp([gradient for gradient, _ in curved], [along for _, along in curved], {**self.phi, **self.fixed})


def reverse_over_reverse(loss: Loss, phi: Parameters, fixed: Parameters, direction: Parameters) -> Parameters:
    """Products by differentiating the gradient; the graph of one part of S is alive at a time."""
    return sum_of_products(GradientGraph.of_parts(loss, phi, fixed), direction)


def sum_of_products(graphs: Iterable[GradientGraph], direction: Parameters) -> Parameters:
    """Products of S from the graphs of its parts."""
    total: Parameters = {}
    for graph in graphs:
        add_to(total, graph.products(direction))
        del graph
    return total


def forward_over_reverse(loss: Loss, phi: Parameters, fixed: Parameters, direction: Parameters) -> Parameters:
    """Products as the tangent of the gradient along u.

    Raises:
        UserError: the model has an operation whose gradient has no forward derivative (SiLU, say).
    """
    try:
        return _forward_over_reverse(loss, phi, fixed, direction)
    except NotImplementedError as error:
        raise UserError(f"algorithm.meta_gradient=forward_over_reverse does not fit this model ({error}); choose exact_recomputed") from error


def _forward_over_reverse(loss: Loss, phi: Parameters, fixed: Parameters, direction: Parameters) -> Parameters:
    total: Parameters = {}
    with forward_ad.dual_level():
        duals = {name: forward_ad.make_dual(value.detach().requires_grad_(), direction[name]) for name, value in phi.items()}
        for part in loss(duals, fixed):
            found = torch.autograd.grad(part, [*duals.values(), *fixed.values()], allow_unused=True)
            tangents = {}
            for name, gradient in zip([*duals, *fixed], found):
                tangent = None if gradient is None else forward_ad.unpack_dual(gradient).tangent
                if tangent is not None:
                    tangents[name] = tangent
            add_to(total, tangents)
    return total


def finite_difference(loss: Loss, phi: Parameters, fixed: Parameters, direction: Parameters) -> Parameters:
    """Central differences of the gradient along u: an approximation."""
    size = dot(direction, direction) ** 0.5
    if size == 0:
        return {}
    step = _DISTANCE[next(iter(phi.values())).dtype] * max(dot(phi, phi) ** 0.5, 1.0) / size
    total: Parameters = {}
    for sign in (1.0, -1.0):
        point = leaves({name: value + sign * step * direction[name] for name, value in phi.items()})
        for part in loss(point, fixed):
            found = vjp([part], None, {**point, **fixed})
            add_to(total, {name: gradient * (sign / (2 * step)) for name, gradient in found.items()})
    return total
