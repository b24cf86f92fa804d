"""Meta-gradients: the gradient of the query loss after adaptation with respect to the meta-parameters.

An episode is seen through `EpisodeLosses`: phi_0 = start(theta), phi_{k+1} = update(phi_k, grad S(phi_k, w)), and the
outer loss Q(phi_K, w). phi are the adapted parameters, theta the meta-parameters. w, which adaptation leaves as it is,
holds the meta-parameters that are not adapted, what the inner rule has learned, and what is computed from theta once an
episode (the encodings, say, where only the head adapts).

The exact gradient comes from the reverse recursion (Maclaurin et al. 2015, reverse-mode through SGD):

    v_K = dQ/dphi_K;   v_k = (d phi_{k+1} / d phi_k)' v_{k+1};   theta gets (d phi_0 / d theta)' v_0 + direct terms

so that the backward pass needs the graph of only one inner step at a time, and none has to be stored. On the way, w's share of
the gradient is accumulated in the dictionary that holds v.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Protocol, cast

import torch
from torch import Tensor

from metatrain import plugins
from metatrain.errors import UserError
from metatrain.gradient.inner_rules import FastRule, InnerRule, Observed, ObservingRule, adds, advances, is_sgd, observes
from metatrain.gradient.parameters import Parameters, add_to, detached, dot, leaves, scaled, vjp
from metatrain.gradient.second_order import GradientGraph, Loss, finite_difference, forward_over_reverse, reverse_over_reverse

LEARNED = "rule."  # what names of the inner rule's meta-parameters begin with
_STATE = "state "  # what names of the rule's state begin with; a blank occurs in no name of a parameter
_GRADIENT, _OBSERVED = "gradient ", "observed "  # the same of the other inputs of an update

# Conjugate gradients: the relative residual above which the result is not used (v = 0 leaves 1), and how much stronger the damping then is.
_WORST, _STRONGER = 0.5, 4.0

# How second derivatives of an inner step without a stored graph are computed.
Products = Callable[[Loss, Parameters, Parameters, Parameters, Parameters], None] | None
WALKED = 1.5  # peak memory of a backward pass, as a multiple of the graph's size


@dataclass(frozen=True)
class Mode:
    """A meta-gradient: how it treats the inner steps, and what that needs."""

    products: Products = None  # second derivatives of an inner step whose graph is not stored; None: they are omitted
    has_recursion: bool = True  # goes back through the inner steps
    uses_query_gradient: bool = True  # False: phi_0 - phi_K takes the place of the gradient of Q, and theta gets no direct terms
    solves_implicitly: bool = False  # takes phi_K for the minimum of the inner objective: solves for v_0 by conjugate gradients
    is_second_order: bool = False  # needs twice differentiable operations
    differentiates_gradient: bool = False  # a second backward pass goes through the graph of a gradient
    stores_graphs: bool = False  # stores the graphs of inner steps while memory allows
    separates_episodes: bool = False  # no norm or inner product over all parameters, so that episodes may be vectorised
    needs_steps: str | None = None  # why at least one inner step is needed
    needs_proximal: bool = False
    copies: int = 4  # of the adapted parameters, beside the trajectory: the gradient in phi, a direction, products
    walked: float = WALKED

    @property
    def reads(self) -> tuple[str, ...]:
        """Return the settings of `algorithm` that concern this meta-gradient and not all of them."""
        is_first_order = self.has_recursion and self.products is None
        read = {
            "proximal": self.needs_proximal,
            "cg_steps": self.solves_implicitly,
            "multi_step_until": self.has_recursion,
            "first_order_until": not is_first_order,
        }
        return tuple(name for name, is_read in read.items() if is_read)

    @property
    def differentiates_adaptation(self) -> bool:
        """Return True if meta-parameters that only the support loss depends on get a gradient: through second derivatives, or through its minimum."""
        return self.products is not None or self.solves_implicitly


MODES = {
    "exact": Mode(reverse_over_reverse, is_second_order=True, differentiates_gradient=True, stores_graphs=True, separates_episodes=True),
    "exact_recomputed": Mode(reverse_over_reverse, is_second_order=True, differentiates_gradient=True, separates_episodes=True),
    "forward_over_reverse": Mode(forward_over_reverse, is_second_order=True, copies=14, walked=3.0),
    "finite_difference": Mode(finite_difference, copies=5),
    "first_order": Mode(separates_episodes=True),
    "implicit": Mode(
        has_recursion=False,
        solves_implicitly=True,
        is_second_order=True,
        differentiates_gradient=True,
        needs_steps="assumes that the inner loop reaches a minimum",
        needs_proximal=True,
        copies=8,
    ),
    "reptile": Mode(has_recursion=False, uses_query_gradient=False, separates_episodes=True, needs_steps="needs inner steps"),
}


def mode_of(name: str) -> Mode:
    """Return the row of a meta-gradient, from this package or a plug-in.

    Raises:
        UserError: there is no such meta-gradient.
    """
    found: Mode = plugins.find(plugins.MODES, name, MODES, f"algorithm.meta_gradient={name} is unknown; choose one of")
    return found


class EpisodeLosses(Protocol):
    """Losses of one episode as differentiable functions of parameters."""

    def start(self, theta: Mapping[str, Tensor]) -> tuple[Parameters, Parameters]:
        """phi_0, the adapted parameters before the first inner step, and w; their names must differ."""

    def support_parts(self, phi: Mapping[str, Tensor], fixed: Mapping[str, Tensor], step: int) -> Iterator[Tensor]:
        """Yield scalars that sum to S in inner step `step`, each with a graph of its own, so that a large support set fits in memory.

        What is random in S must be a function of the step: a step is asked for more than once.
        """

    def query_parts(self, phi: Mapping[str, Tensor], fixed: Mapping[str, Tensor]) -> Iterator[Tensor]:
        """Yield scalars that sum to Q; called at phi_0, then once for each point at which the gradient of Q is taken, phi_K first."""


class FeatureLosses(EpisodeLosses, Protocol):
    """Losses of an episode whose support texts have encodings, for rules that observe them."""

    def support_features(self, phi: Mapping[str, Tensor], fixed: Mapping[str, Tensor], step: int) -> Iterator[Tensor]:
        """Yield the encodings [texts, H] of the support set in inner step `step`, in parts; each has a graph of its own."""


@dataclass(frozen=True)
class Method:
    """Choice of a meta-gradient."""

    mode: str = "exact"
    proximal: float = 0.0  # implicit: strength lambda of the term lambda/2 |phi - phi_0|^2 in the inner objective
    cg_steps: int = 10  # implicit: most steps of conjugate gradients
    cg_tolerance: float = 1e-6  # implicit: residual, as a share of the right-hand side, at which they stop
    weights: Sequence[float] | None = None  # multi-step loss: of Q at phi_1 to phi_K; None: Q at phi_K alone
    graphs: int | None = None  # exact: maximum number of inner steps with stored activations; those of the others are recomputed; None: all
    # Inner steps from one stored point of the trajectory to the next; the backward pass takes the steps between again (checkpointing, Chen et al. 2016).
    # None: all points are stored.
    segment: int | None = None


@dataclass(frozen=True)
class MetaGradient:
    """Meta-gradient of one episode."""

    gradient: Parameters  # one entry per meta-parameter that got any
    query_loss_before: Tensor  # Q(phi_0, w)
    query_loss: Tensor  # Q(phi_K, w)
    support_losses: tuple[Tensor, ...]  # before each inner step
    residual: float | None = None  # implicit: what conjugate gradients left, as a share of the right-hand side
    damping: float | None = None  # implicit: by how much lambda was multiplied to find a solution; 1: the equation itself was solved


def adapt(
    episode: EpisodeLosses, phi: Parameters, fixed: Mapping[str, Tensor], rule: InnerRule, steps: int, proximal: float = 0.0
) -> Iterator[tuple[Parameters, Tensor]]:
    """Adapt, and yield (phi_{k+1}, S at phi_k) after each of `steps` inner steps."""
    tape = _Tape(episode, detached(phi), detached(fixed), rule, proximal)
    for _ in range(steps):
        yield tape.step(fast=True)


def meta_gradient(episode: EpisodeLosses, theta: Mapping[str, Tensor], rule: InnerRule, steps: int, method: Method) -> MetaGradient:
    """Return the meta-gradient of one episode.

    theta must hold the tensors of all meta-parameters (their graph is not used). The modes:

    - `exact` stores the activations of the last inner steps, as many as fit in memory, and recomputes those of earlier steps in the
      backward pass; the result is bit-identical for any number of stored steps. `exact_recomputed` recomputes all of them, so peak
      memory is that of one micro-batch of the support loss. `forward_over_reverse` computes the Hessian-vector products in forward
      mode, without double backward. With `Method.segment` of about sqrt(steps), they hold 2 sqrt(steps) points of the trajectory instead of
      `steps`, and take most inner steps twice; the result is bit-identical.
    - `finite_difference` approximates Hessian-vector products by finite differences of gradients.
    - `first_order` (FOMAML, Finn et al. 2017) omits second derivatives of S.
    - `implicit` (iMAML, Rajeswaran et al. 2019) treats phi_K as the minimum of S + lambda/2 |phi - phi_0|^2 and solves
      (I + H / lambda) v_0 = dQ/dphi by conjugate gradients; if they do not converge, it retries with a larger lambda.
    - `reptile` (Nichol et al. 2018) uses phi_0 - phi_K.
    """
    theta = leaves(theta)
    start, derived = episode.start(theta)
    fixed = leaves(derived)
    with torch.no_grad():
        before = torch.stack(list(episode.query_parts(detached(start), detached(fixed)))).sum()
    tape = _Tape(episode, detached(start), fixed, rule, method.proximal)
    mode = mode_of(method.mode)
    recursion = has_recursion(method, rule, any(name.startswith(LEARNED) for name in fixed))
    graphs = (steps if method.graphs is None else method.graphs) if mode.stores_graphs else 0
    segment = method.segment or max(steps, 1)
    last = max(steps - 1, 0) // segment * segment  # first step of the last segment, the only one whose steps are stored now
    support_losses = []
    for k in range(steps):
        is_stored = recursion and k >= last
        if recursion and not is_stored and k % segment == 0:
            tape.mark()
        support_losses.append(tape.step(is_stored, with_graph=is_stored and k >= steps - graphs)[1])

    residual = damping = None
    if not mode.uses_query_gradient:
        with torch.no_grad():
            query_loss = torch.stack(list(episode.query_parts(tape.phi, detached(fixed)))).sum()
        cotangent = {name: start[name].detach() - value for name, value in tape.phi.items()}
    else:
        weights = [0.0] * (steps - 1) + [1.0] if method.weights is None else list(method.weights)
        query_loss, cotangent = _query_gradient(episode, tape.phi, fixed, weights[-1] if weights else 1.0)
        if mode.solves_implicitly:
            cotangent, residual, damping = _solve(episode, tape.phi, fixed, cotangent, method)
        elif recursion:
            for k in reversed(range(steps)):
                cotangent = tape.back(cotangent, mode.products)
                if k and weights[k - 1]:
                    add_to(cotangent, _query_gradient(episode, tape.phi, fixed, weights[k - 1])[1])
            tape.back_through_state(cotangent)

    outputs = {**start, **derived}
    reached = [name for name, value in outputs.items() if value.requires_grad and name in cotangent]
    found = torch.autograd.grad([outputs[name] for name in reached], list(theta.values()), [cotangent[name] for name in reached], allow_unused=True)
    gradient = {name: value for name, value in zip(theta, found) if value is not None}
    return MetaGradient(gradient, before, query_loss, tuple(support_losses), residual, damping)


def _query_gradient(episode: EpisodeLosses, phi: Parameters, fixed: Parameters, weight: float) -> tuple[Tensor, Parameters]:
    """Return (Q, weight times its gradient in phi and w) at phi."""
    phi, losses = leaves(phi), []
    found: Parameters = {}
    for part in episode.query_parts(phi, fixed):
        losses.append(part.detach())
        add_to(found, vjp([part * weight], None, {**phi, **fixed}))
    return torch.stack(losses).sum(), _filled(found, phi)


def has_recursion(method: Method, rule: InnerRule, learns_rates: bool) -> bool:
    """Return whether the meta-gradient goes back through the inner steps, and so stores the trajectory."""
    mode = mode_of(method.mode)
    if mode.has_recursion and mode.products is None and method.weights is None and adds(rule) and not learns_rates:
        return False  # without second derivatives v_0 = v_K, and no rate needs a gradient
    return mode.has_recursion


def missing_observations(mode: str) -> dict[str, str]:
    """Return why a rule cannot observe the fields of `Observed` under a meta-gradient, by field; empty: it can."""
    if not mode_of(mode).solves_implicitly:
        return {}
    why = f"the inner objective of algorithm.meta_gradient={mode} has a proximal term, which a rule cannot observe; choose algorithm.meta_gradient=exact"
    return {field.name: why for field in fields(Observed)}


def check_method(method: Method, steps: int) -> None:
    """Refuse an impossible meta-gradient.

    Raises:
        UserError: the mode is unknown, or what else is asked for does not go with it.
    """
    mode = mode_of(method.mode)
    if mode.needs_proximal != (method.proximal > 0):
        raise UserError("algorithm.meta_gradient=implicit requires a positive algorithm.proximal, and the reverse; set both or neither")
    if mode.needs_proximal and method.cg_steps < 1:
        raise UserError(f"algorithm.cg_steps={method.cg_steps} must be 1 or more with algorithm.meta_gradient={method.mode}")
    if mode.needs_steps and steps < 1:
        raise UserError(f"algorithm.meta_gradient={method.mode} {mode.needs_steps}; set inner.steps to 1 or more")
    if method.segment is not None and method.segment < 1:
        raise UserError(f"Method(segment={method.segment}) must be 1 or more")
    if method.weights is not None and not mode.has_recursion:
        raise UserError(f"algorithm.multi_step_until needs the loss after each inner step, which algorithm.meta_gradient={method.mode} ignores; set it to 0")


@dataclass
class _StoredStep:
    """State of one inner step that the backward pass needs."""

    before: Parameters  # phi_k and the rule's state
    gradients: Parameters  # of S at phi_k, where the update's derivatives depend on them
    observed: Parameters  # values of the fields of `Observed` that the rule reads
    graphs: list[GradientGraph]  # of the parts of S; none: they are rebuilt


class _Tape:
    """Inner loop that runs forwards, then backwards, one step at a time."""

    def __init__(self, episode: EpisodeLosses, phi: Parameters, fixed: Parameters, rule: InnerRule, proximal: float):
        self.episode, self.fixed, self.rule = episode, fixed, rule
        self._is_sgd, self._observes = is_sgd(rule), observes(rule)
        self._start = phi if proximal else None
        self._proximal = proximal
        self._learned = {name[len(LEARNED) :]: value for name, value in fixed.items() if name.startswith(LEARNED)}
        self._names = list(phi)
        self._point = {**phi, **{_STATE + name: value for name, value in rule.state(phi).items()}}
        self._steps = 0
        self._stored: list[_StoredStep] = []
        self._marked: list[tuple[int, Parameters]] = []  # number, and phi and the rule's state, of the step that begins a segment

    @property
    def phi(self) -> Parameters:
        """The newest adapted parameters, without a graph."""
        return {name: self._point[name] for name in self._names}

    def mark(self) -> None:
        """Store the point before the next step, from which `back` takes again the steps that are not stored."""
        self._marked.append((self._steps, self._point))

    def step(self, keep: bool = False, with_graph: bool = False, fast: bool = False) -> tuple[Parameters, Tensor]:
        """Take one inner step and return (phi_{k+1}, S at phi_k). `keep`: store what `back` needs; `with_graph`: also the gradient's graph.

        `fast`: by the rule's `advance`, if it has one, because there is no way back.
        """
        k, graphs, losses = self._steps, [], []
        gradients: Parameters = {}
        phi, fixed = leaves(self.phi), (leaves if with_graph else detached)(self.fixed)
        for part in self._support(k)(phi, fixed):
            losses.append(part.detach())
            if with_graph:
                found, graph = GradientGraph.of(part, phi, fixed)
                graphs.append(graph)
            else:
                found = dict(zip(phi, torch.autograd.grad(part, list(phi.values()), materialize_grads=True)))
            add_to(gradients, found)
            del found  # a copy of phi, which would be there while the next part is made
        if self._start is not None:
            gradients = {name: value + self._proximal * (self._point[name] - self._start[name]) for name, value in gradients.items()}
        loss = torch.stack(losses).sum()
        with torch.no_grad():
            observed = self._observed(loss, k)
            if keep:
                self._stored.append(_StoredStep(self._point, {} if self._is_sgd else gradients, observed, graphs))
            self._point = (self._advance if fast and advances(self.rule) else self._update)(self._point, gradients, observed, k)
        self._steps += 1
        return self.phi, loss

    def back(self, cotangent: Parameters, products: Products) -> Parameters:
        """Undo the last step: turn the gradient in (phi_{k+1}, state, w) into that in (phi_k, state, w).

        First through the update, with its gradient as an input; then through what the rule observed, and through that gradient if
        second derivatives count. The given dictionary is consumed.
        """
        if not self._stored:
            self._take_again()
        self._steps -= 1
        stored = self._stored.pop()
        self._point = stored.before
        if self._is_sgd:
            direction = scaled({name: cotangent[name] for name in self._names}, lambda name: -self.rule.rate(name))
        else:
            cotangent, direction, observed = self._through_update(stored, cotangent)
            self._through_observed(observed, cotangent)
        if products is not None and stored.graphs:
            for graph in stored.graphs:
                add_to(cotangent, graph.products(direction))
        elif products is not None:
            products(self._support(self._steps), self.phi, self.fixed, direction, cotangent)
        return cotangent

    def _take_again(self) -> None:
        """Take the steps of the newest marked segment again, and store them."""
        end = self._steps
        self._steps, self._point = self._marked.pop()
        for _ in range(end - self._steps):
            self.step(keep=True)

    def back_through_state(self, cotangent: Parameters) -> None:
        """Add the gradient through the rule's initial state, if that is computed from phi_0, to the gradient in phi_0, in place."""
        start = leaves(self.phi)
        state = {name: value for name, value in self.rule.state(start).items() if value.requires_grad and _STATE + name in cotangent}
        if state:
            add_to(cotangent, vjp(list(state.values()), [cotangent[_STATE + name] for name in state], start))

    def _through_update(self, stored: _StoredStep, cotangent: Parameters) -> tuple[Parameters, Parameters, Parameters]:
        """Return the gradient in (phi_k, state, w), that in the gradient of S, and that in what the rule observed, through the update only."""
        before, gradients, observed = leaves(stored.before), leaves(stored.gradients), leaves(stored.observed)
        after = self._update(before, gradients, observed, self._steps)
        outputs = {name: value for name, value in after.items() if name in cotangent}
        rates = {LEARNED + name: value for name, value in self._learned.items()}
        inputs = {**before, **_prefixed(_GRADIENT, gradients), **_prefixed(_OBSERVED, observed), **rates}
        found = vjp(list(outputs.values()), [cotangent[name] for name in outputs], inputs)
        direction = {name: found.pop(_GRADIENT + name) for name in self._names if _GRADIENT + name in found}
        of_observed = {name: found.pop(_OBSERVED + name) for name in observed if _OBSERVED + name in found}
        result = {name: value for name, value in cotangent.items() if name not in outputs}
        add_to(result, found)
        return _filled(result, before), _filled(direction, {name: before[name] for name in self._names}), of_observed

    def _observed(self, loss: Tensor, k: int) -> Parameters:
        """Return what the rule observes at phi_k, by name."""
        found = {"loss": loss} if "loss" in self._observes else {}
        if "features" in self._observes:
            found["features"] = torch.cat(list(self._features(k)(self.phi, self.fixed)))
        return found

    def _through_observed(self, observed: Parameters, cotangent: Parameters) -> None:
        """Add the gradient through what the rule observed at phi_k to that in (phi_k, w), in place; `observed`: the gradient in it."""
        phi, fixed = leaves(self.phi), leaves(self.fixed)
        if "loss" in observed:
            for part in self._support(self._steps)(phi, fixed):
                add_to(cotangent, vjp([part], [observed["loss"]], {**phi, **fixed}))
        if "features" in observed:
            begin = 0
            for part in self._features(self._steps)(phi, fixed):
                if part.requires_grad:  # not if the encoder neither adapts nor is trained
                    add_to(cotangent, vjp([part], [observed["features"][begin : begin + len(part)]], {**phi, **fixed}))
                begin += len(part)

    def _support(self, k: int) -> Loss:
        # A proximal objective is minimised, so it has to be the same in every step.
        return partial(self.episode.support_parts, step=k if self._start is None else 0)

    def _features(self, k: int) -> Loss:
        return partial(cast(FeatureLosses, self.episode).support_features, step=k)

    def _advance(self, point: Parameters, gradients: Parameters, observed: Parameters, k: int) -> Parameters:
        phi, state = self._split(point)
        return {**point, **cast(FastRule, self.rule).advance(phi, gradients, k, self._learned, state)}

    def _split(self, point: Parameters) -> tuple[Parameters, Parameters]:
        """Return phi and the rule's state of a point."""
        return {name: point[name] for name in self._names}, {name[len(_STATE) :]: value for name, value in point.items() if name.startswith(_STATE)}

    def _update(self, point: Parameters, gradients: Parameters, observed: Parameters, k: int) -> Parameters:
        phi, state = self._split(point)
        if self._observes:
            moved, after = cast(ObservingRule, self.rule).update(phi, gradients, k, self._learned, state, Observed(**observed))
        else:
            moved, after = self.rule.update(phi, gradients, k, self._learned, state)
        return {**moved, **_prefixed(_STATE, after)}


def _solve(episode: EpisodeLosses, phi: Parameters, fixed: Parameters, gradient: Parameters, method: Method) -> tuple[Parameters, float, float]:
    """Return v of (I + H / (d lambda)) v = dQ/dphi at phi, the relative residual of conjugate gradients, and the damping d.

    `gradient`: of Q in phi and w. v comes with w's, which gets -(d^2 S / dw dphi) v / (d lambda), since the minimum moves with w. d is 1
    where that gives a solution. Where H curves downwards so much that phi is no minimum, or the residual stays above `_WORST`, d grows
    until there is one: for larger d the matrix comes closer to I, and v to the first-order gradient.
    """
    names = list(phi)
    right, rest_of_it = ({name: value for name, value in gradient.items() if (name in phi) == of_phi} for of_phi in (True, False))

    def products(direction: Parameters) -> Parameters:
        total: Parameters = {}
        reverse_over_reverse(partial(episode.support_parts, step=0), phi, fixed, direction, total)
        return total

    damping = 1.0
    while True:
        strength = method.proximal * damping

        def times(v: Parameters, strength: float = strength) -> Parameters:
            found = products(v)
            return {name: v[name] + found.get(name, torch.zeros_like(v[name])) / strength for name in names}

        v, residual, lowest = conjugate_gradients(times, right, method.cg_steps, method.cg_tolerance)
        # Not a number compares false: such a gradient is not finite, which the outer loop looks at.
        if not (lowest <= 0 or residual > _WORST):
            break
        # Along the worst direction the curvature of H is lambda d (lowest - 1): twice that as damping makes it positive there.
        damping *= max(_STRONGER, 2 * (1 - lowest))
    add_to(rest_of_it, {name: -value / strength for name, value in products(v).items() if name not in phi})
    return {**v, **rest_of_it}, residual, damping


def conjugate_gradients(times: Callable[[Parameters], Parameters], right: Parameters, steps: int, tolerance: float) -> tuple[Parameters, float, float]:
    """Solve matrix v = right from v = 0 in at most `steps` steps; return (v, relative residual, lowest curvature).

    times: the product of the symmetric matrix with a vector; tolerance: the relative residual that is enough. The curvature p'Mp / p'p of the
    directions p is infinite where none was needed; at one that is not positive there is no solution to be found this way, and v is where it was.
    """
    v = {name: torch.zeros_like(value) for name, value in right.items()}
    rest, direction = dict(right), dict(right)
    size = first = dot(rest, rest)
    lowest = math.inf
    for _ in range(steps):
        if first == 0 or size <= tolerance**2 * first:
            break
        ahead = times(direction)
        curvature = dot(direction, ahead)
        lowest = min(lowest, curvature / dot(direction, direction))
        if curvature <= 0:
            break
        length = size / curvature
        v = {name: v[name] + length * direction[name] for name in v}
        rest = {name: rest[name] - length * ahead[name] for name in v}
        size, before = dot(rest, rest), size
        direction = {name: rest[name] + size / before * direction[name] for name in v}
    return v, (size / first) ** 0.5 if first else 0.0, lowest


def _prefixed(prefix: str, values: Mapping[str, Tensor]) -> Parameters:
    return {prefix + name: value for name, value in values.items()}


def _filled(found: Parameters, like: Parameters) -> Parameters:
    """Return `found`, with zeros for the names of `like` that are missing."""
    return {**{name: torch.zeros_like(value) for name, value in like.items() if name not in found}, **found}
