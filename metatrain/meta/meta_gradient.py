"""Meta-gradients: the gradient of the query loss after adaptation with respect to the meta-parameters.

An episode is seen through `EpisodeLosses`: phi_0 = start(theta), phi_{k+1} = update(phi_k, grad S(phi_k, w)), and the
outer loss Q(phi_K, w). phi are the adapted parameters, theta the meta-parameters. w, which adaptation leaves as it is,
holds the meta-parameters that are not adapted and what is computed from theta once an episode (the encodings, say, where
only the head adapts).

The exact gradient comes from the reverse recursion (Maclaurin et al. 2015, reverse-mode through SGD):

    v_K = dQ/dphi_K,    v_k = (d phi_{k+1} / d phi_k)^T v_{k+1},    result = (d phi_0 / d theta)^T v_0 + direct terms

which for SGD is v_k = v_{k+1} - H_k (lr * v_{k+1}). Each step's graph is local, so only one of them (`recomputed`)
or the K of them (`stored`) are alive, never one graph through the whole inner loop.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from metatrain.errors import UserError
from metatrain.meta.inner import InnerRule, Parameters

MODES = ("exact", "exact_recomputed", "first_order")


class EpisodeLosses(Protocol):
    """One episode as differentiable functions of parameters."""

    def start(self, theta: Mapping[str, Tensor]) -> tuple[Parameters, Parameters]:
        """phi_0, the adapted parameters before the first inner step, and w; their names must differ."""

    def support_parts(self, phi: Mapping[str, Tensor], fixed: Mapping[str, Tensor]) -> Iterator[Tensor]:
        """Scalars that add up to S, each with a graph of its own, so that a large support set fits in memory."""

    def query_loss(self, phi: Mapping[str, Tensor], fixed: Mapping[str, Tensor]) -> Tensor:
        """Q, a scalar; asked for at phi_0 and at phi_K."""


@dataclass(frozen=True)
class MetaGradient:
    """The meta-gradient of one episode and the adapted parameters it was taken at."""

    gradient: Parameters  # one entry per meta-parameter that got any
    adapted: Parameters
    query_loss_before: float  # Q(phi_0, w)
    query_loss: float  # Q(phi_K, w)
    support_losses: tuple[float, ...]  # before each inner step


def leaves(parameters: Mapping[str, Tensor]) -> Parameters:
    """The same values as leaves of a new graph."""
    return {name: value.detach().requires_grad_() for name, value in parameters.items()}


def detached(parameters: Mapping[str, Tensor]) -> Parameters:
    """The same values outside any graph."""
    return {name: value.detach() for name, value in parameters.items()}


def adapt(episode: EpisodeLosses, phi: Parameters, fixed: Mapping[str, Tensor], rule: InnerRule, steps: int) -> Iterator[tuple[Parameters, float]]:
    """The trajectory of plain adaptation: after each of `steps` inner steps, (phi_{k+1}, S at phi_k)."""
    for k in range(steps):
        phi = leaves(phi)
        total, loss = [torch.zeros_like(value) for value in phi.values()], 0.0
        for part in episode.support_parts(phi, fixed):
            for sum_so_far, gradient in zip(total, torch.autograd.grad(part, list(phi.values()))):
                sum_so_far += gradient
            loss += part.item()
        with torch.no_grad():
            phi = rule.update(phi, dict(zip(phi, total)), k)
        yield phi, loss


def meta_gradient(episode: EpisodeLosses, theta: Mapping[str, Tensor], rule: InnerRule, steps: int, mode: str) -> MetaGradient:
    """The meta-gradient of one episode.

    theta must hold the tensors of all meta-parameters (their graph is not used). `exact` and `exact_recomputed` are
    the same numbers at different cost: the first keeps the graph of every inner step, the second rebuilds each in
    the backward pass and so needs the memory of one. `first_order` (FOMAML) takes d phi_K / d phi_0 = 1.
    """
    theta = leaves(theta)
    start, derived = episode.start(theta)
    phi, fixed = detached(start), leaves(derived)
    with torch.no_grad():
        query_loss_before = episode.query_loss(phi, fixed).item()
    tape: list[_Step] = []
    trajectory: list[Parameters] = []
    support_losses: list[float] = []
    if mode == "first_order":
        for after, loss in adapt(episode, phi, detached(fixed), rule, steps):
            phi = after
            support_losses.append(loss)
    else:
        for k in range(steps):
            step = _step(episode, phi, fixed, rule, k, keep_graph=mode == "exact")
            support_losses.append(step.loss)
            if mode == "exact":
                tape.append(step)
            else:
                trajectory.append(phi)
            phi = detached(step.after)
            del step

    total: Parameters = {}  # gradient with respect to `fixed`
    phi = leaves(phi)
    query_loss = episode.query_loss(phi, fixed)
    cotangent = _split(_vjp([query_loss], None, phi, fixed), phi, total)
    for k in reversed(range(0 if mode == "first_order" else steps)):
        step = tape.pop() if mode == "exact" else _step(episode, trajectory.pop(), fixed, rule, k, keep_graph=True)
        found = _vjp(list(step.after.values()), [cotangent[name] for name in step.after], step.before, fixed)
        cotangent = _split(found, phi, total)
        del step
    outputs = {**start, **derived}
    cotangent.update(total)
    wanted = [name for name, value in outputs.items() if value.requires_grad and name in cotangent]
    found = torch.autograd.grad([outputs[name] for name in wanted], list(theta.values()), [cotangent[name] for name in wanted], allow_unused=True)
    gradient = {name: value for name, value in zip(theta, found) if value is not None}
    return MetaGradient(gradient, detached(phi), query_loss_before, query_loss.item(), tuple(support_losses))


def check_mode(mode: str) -> None:
    """Raises: UserError: the mode is unknown."""
    if mode not in MODES:
        raise UserError(f"algorithm.meta_gradient={mode} is unknown; choose one of {', '.join(MODES)}")


@dataclass
class _Step:
    before: Parameters  # leaves
    after: Parameters  # with the graph of the update, the gradient inside it included
    loss: float


def _step(episode: EpisodeLosses, phi: Parameters, fixed: Parameters, rule: InnerRule, k: int, keep_graph: bool) -> _Step:
    before = leaves(phi)
    loss = torch.stack(list(episode.support_parts(before, fixed))).sum()
    gradients = dict(zip(before, torch.autograd.grad(loss, list(before.values()), create_graph=keep_graph)))
    with torch.set_grad_enabled(keep_graph):
        after = rule.update(before, gradients, k)
    return _Step(before, after, loss.item())


def _vjp(outputs: list[Tensor], cotangents: list[Tensor] | None, phi: Parameters, fixed: Parameters) -> Parameters:
    inputs = {**phi, **fixed}
    found = torch.autograd.grad(outputs, list(inputs.values()), cotangents, allow_unused=True)
    return {name: value for name, value in zip(inputs, found) if value is not None}


def _split(found: Parameters, phi: Parameters, total: Parameters) -> Parameters:
    """Keep phi's entries as the next cotangent; add the rest to the gradient with respect to the fixed tensors."""
    for name, value in found.items():
        if name not in phi:
            total[name] = total[name] + value if name in total else value
    return {name: found.get(name, torch.zeros_like(phi[name])) for name in phi}
