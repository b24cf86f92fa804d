"""Inner rules: updates of the adapted parameters from a support-set gradient.

A rule may have meta-parameters (learned rates) and a state that it carries from step to step (moments). Both are dictionaries of
tensors, so that the meta-gradient flows through them too. A rule may also observe the support loss or the encodings of the support texts
(`ObservingRule`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.adam import adam

from metatrain import plugins
from metatrain.errors import UserError
from metatrain.gradient.config import InnerConfig
from metatrain.gradient.parameters import Parameters, added, by_factor

HEAD = "head."  # name prefix of the head parameters
RATES: tuple[str, ...] = ("lr", "head_lr")  # settings of a rule with two learning rates


@dataclass(frozen=True)
class Observed:
    """Values at phi_k that an inner rule observes besides the gradient; None: it does not declare the value in `observes`."""

    loss: Tensor | None = None  # support loss S, a scalar
    features: Tensor | None = None  # encodings of the support texts, in the order of the support set, [support, H]


class InnerRule(Protocol):
    """Update rule of the inner loop (`inner.rule`). `update` must be differentiable in all its tensors."""

    is_sgd: bool  # True: phi_{k+1} = phi_k - rate(name) * gradient, with fixed rates. Undeclared: False.
    # True: phi_{k+1} - phi_k and the new state depend on phi_k only through the gradient; not so with weight decay. Undeclared: False.
    adds: bool
    # A rule may also declare `reads`, the settings of `inner` that it reads beside `steps`: lr, head_lr, rank. Undeclared: all.
    # A rule may also have `advance`, which `adapt` calls instead of `update` (`FastRule`).
    # A rule whose update needs the whole of a tensor (its mean, say) declares `reads_whole_tensors`. Undeclared: False, and an episode gets only the
    # rows of the word embeddings that occur in it, some of them twice where episodes are vectorised.

    def rate(self, name: str) -> float:
        """Return the learning rate of a parameter; only linear rules need it."""

    def learned(self, adapted: Mapping[str, Tensor]) -> Parameters:
        """Return initial values of the rule's meta-parameters, for adapted parameters with these names and shapes.

        The number of classes is not known yet: `head.weight` has shape [1, H] and `head.bias` [1] here, and their
        meta-parameters must broadcast to any number of rows.
        """

    def state(self, adapted: Mapping[str, Tensor]) -> Parameters:
        """Return the state of the rule before the first step."""

    def update(
        self, adapted: Parameters, gradients: Mapping[str, Tensor], step: int, learned: Mapping[str, Tensor], state: Mapping[str, Tensor]
    ) -> tuple[Parameters, Parameters]:
        """Return (phi_{k+1}, state) from phi_k, the gradient of the support loss at phi_k, and the step k, which starts at 0."""


class ObservingRule(InnerRule, Protocol):
    """Inner rule whose update also depends on the support loss or on the encodings of the support texts.

    `update` must be differentiable in them, too. Such a rule is neither `is_sgd` nor `adds`, whatever it declares, and its episodes are not
    vectorised.
    """

    observes: tuple[str, ...]  # fields of `Observed` that `update` gets: loss, features

    def update(
        self,
        adapted: Parameters,
        gradients: Mapping[str, Tensor],
        step: int,
        learned: Mapping[str, Tensor],
        state: Mapping[str, Tensor],
        observed: Observed | None = None,
    ) -> tuple[Parameters, Parameters]:
        """Return (phi_{k+1}, state) as `InnerRule.update`; observed: never None in an inner loop."""


class FastRule(InnerRule, Protocol):
    """Inner rule with a faster update for adaptation, where nothing is differentiated through it."""

    def advance(self, adapted: Parameters, gradients: Mapping[str, Tensor], step: int, learned: Mapping[str, Tensor], state: Parameters) -> Parameters:
        """Return phi_{k+1} as `InnerRule.update`, in new tensors and without a graph; the tensors of the state change in place.

        What the state holds in between is the rule's own affair: an inner loop calls `advance` in all its steps or in none.
        """


def advances(rule: InnerRule) -> bool:
    """Return True if a rule has `advance` for its own `update`."""
    return _says(rule, "advance") and not observes(rule)


def observes(rule: InnerRule) -> tuple[str, ...]:
    """Return the fields of `Observed` that a rule declares to read; a rule that declares none reads none."""
    declared: tuple[str, ...] = getattr(rule, "observes", ())
    return declared if _says(rule, "observes") else ()


def check_observes(rule: InnerRule, name: str, missing: Mapping[str, str]) -> None:
    """Refuse a rule that observes what there is not.

    name: the rule as the user chose it, "inner.rule=NAME"; missing: why a field of `Observed` is not available, with the remedy.

    Raises:
        UserError: the rule observes an unknown or a missing field.
    """
    known = [field.name for field in fields(Observed)]
    for each in observes(rule):
        if each not in known:
            raise UserError(f"{name}: its attribute `observes` names {each!r}; a rule can observe {' and '.join(known)}")
        if each in missing:
            raise UserError(f"{name} observes the {each} of the support set: {missing[each]}")


def is_sgd(rule: InnerRule) -> bool:
    """Return True if a rule declares that its `update` is plain gradient descent."""
    return _says(rule, "is_sgd") and rule.is_sgd and not observes(rule)


def adds(rule: InnerRule) -> bool:
    """Return True if a rule declares that its `update` adds a function of the gradient."""
    return _says(rule, "adds") and rule.adds and not observes(rule)


def reads(rule: InnerRule) -> tuple[str, ...] | None:
    """Return the settings that a rule declares to read; None: it declares none, so it may read all."""
    declared: tuple[str, ...] | None = getattr(rule, "reads", None)
    return declared if _says(rule, "reads") else None


def learns_rates(rule: InnerRule) -> str | None:
    """Return the granularity of meta-learned rates, initialised at inner.lr and inner.head_lr: "per parameter" or "per step"; None: fixed rates."""
    return getattr(rule, "learns_rates", None)


def has_fixed_rates(rule: InnerRule) -> bool:
    """Return False if the rule's learning rates are learned or generated, so that inner.lr and inner.head_lr are only their initial values."""
    return not (learns_rates(rule) or getattr(rule, "generates_rates", False))


def reads_whole_tensors(rule: InnerRule) -> bool:
    """Return True if the update of an element depends on the other elements of its tensor, so that no rows of a tensor may be left out."""
    return bool(getattr(rule, "reads_whole_tensors", False))


def as_rates(rule: InnerRule, learned: Tensor) -> Tensor:
    """Return the learning rates that a learned tensor of a rule with `learns_rates` stands for."""
    return learned.exp() if getattr(rule, "learns_logarithms", False) else learned


def _says(rule: InnerRule, name: str) -> bool:
    """Return True if an attribute describes the rule's own `update`, rather than an overridden `update` of a base class.

    Undeclared properties are taken as false, which is always correct but needs more memory and time.
    """
    for place in (vars(rule), *map(vars, type(rule).__mro__)):
        if name in place or "update" in place:
            return name in place
    return False


class _Rates:
    """Base of the rules: one learning rate for the encoder and one for the head, no meta-parameters and no state."""

    def __init__(self, config: InnerConfig):
        self.lr = config.lr
        self.head_lr = config.lr if config.head_lr is None else config.head_lr
        self.steps = config.steps
        self.rank = config.rank

    def rate(self, name: str) -> float:
        return self.head_lr if name.startswith(HEAD) else self.lr

    def learned(self, adapted: Mapping[str, Tensor]) -> Parameters:
        return {}

    def state(self, adapted: Mapping[str, Tensor]) -> Parameters:
        return {}


class SGD(_Rates):
    """phi_{k+1} = phi_k - lr * gradient."""

    is_sgd = adds = True
    reads = RATES

    def update(
        self, adapted: Parameters, gradients: Mapping[str, Tensor], step: int, learned: Mapping[str, Tensor], state: Mapping[str, Tensor]
    ) -> tuple[Parameters, Parameters]:
        return added(adapted, gradients, lambda name: -self.rate(name)), {}


class MetaSGD(_Rates):
    """phi_{k+1} = phi_k - alpha * gradient, elementwise, alpha meta-learned (Meta-SGD, Li et al. 2017, eq. 2) and possibly negative."""

    is_sgd, adds, learns_rates = False, True, "per parameter"
    reads = RATES

    def learned(self, adapted: Mapping[str, Tensor]) -> Parameters:
        return {name: torch.full_like(value, self.rate(name)) for name, value in adapted.items()}

    def update(
        self, adapted: Parameters, gradients: Mapping[str, Tensor], step: int, learned: Mapping[str, Tensor], state: Mapping[str, Tensor]
    ) -> tuple[Parameters, Parameters]:
        return {name: torch.addcmul(value, learned[name], gradients[name], value=-1) for name, value in adapted.items()}, {}


class LSLR(_Rates):
    """Meta-learned learning rate per parameter tensor and inner step: LSLR of MAML++ (Antoniou et al. 2019, section 4), which has one per layer and step.

    With more steps at test time than in meta-training, the additional steps use the rate of the last one.
    """

    is_sgd, adds, learns_rates = False, True, "per step"
    reads = RATES

    def learned(self, adapted: Mapping[str, Tensor]) -> Parameters:
        return {name: value.new_full((max(1, self.steps),), self.rate(name)) for name, value in adapted.items()}

    def update(
        self, adapted: Parameters, gradients: Mapping[str, Tensor], step: int, learned: Mapping[str, Tensor], state: Mapping[str, Tensor]
    ) -> tuple[Parameters, Parameters]:
        return {name: value - learned[name][min(step, len(learned[name]) - 1)] * gradients[name] for name, value in adapted.items()}, {}


class Curvature(_Rates):
    """Inner gradients transformed by meta-learned matrices: a low-rank form of Meta-Curvature (Park and Oliva 2019).

    The gradient G of a weight matrix becomes G (I + U V^T), with U, V [inputs, rank]; the gradient g of a vector becomes (1 + d) g,
    elementwise. V and d are initialised at zero, so meta-training starts from SGD.
    """

    is_sgd, adds = False, True
    reads = (*RATES, "rank")

    def learned(self, adapted: Mapping[str, Tensor]) -> Parameters:
        made = {}
        for name, value in adapted.items():
            if value.dim() == 2:
                inputs = value.shape[1]
                made[f"{name}.u"] = torch.randn(inputs, self.rank, dtype=value.dtype, device=value.device) / inputs**0.5
                made[f"{name}.v"] = value.new_zeros(inputs, self.rank)
            else:
                made[f"{name}.d"] = torch.zeros_like(value)
        return made

    def update(
        self, adapted: Parameters, gradients: Mapping[str, Tensor], step: int, learned: Mapping[str, Tensor], state: Mapping[str, Tensor]
    ) -> tuple[Parameters, Parameters]:
        moved = {}
        for name, value in adapted.items():
            gradient = gradients[name]
            if value.dim() == 2:
                gradient = gradient + (gradient @ learned[f"{name}.u"]) @ learned[f"{name}.v"].T
            else:
                gradient = gradient * (1 + learned[f"{name}.d"])
            moved[name] = torch.sub(value, gradient, alpha=self.rate(name))
        return moved, {}


class Adam(_Rates):
    """Adam (Kingma and Ba 2015), with moments reset to zero in each episode.

    epsilon is also added under the square root: the derivative of the root is infinite at zero, and gradients that are exactly
    zero are common (those of the encoder in the first step of a zero-initialised head).
    """

    is_sgd, adds = False, True
    reads = RATES
    first, second, constant = 0.9, 0.999, 1e-8

    def state(self, adapted: Mapping[str, Tensor]) -> Parameters:
        return {f"{moment}.{name}": torch.zeros_like(value) for moment in ("m", "v") for name, value in adapted.items()}

    def update(
        self, adapted: Parameters, gradients: Mapping[str, Tensor], step: int, learned: Mapping[str, Tensor], state: Mapping[str, Tensor]
    ) -> tuple[Parameters, Parameters]:
        moved, after = {}, {}
        first, second = 1 - self.first ** (step + 1), 1 - self.second ** (step + 1)  # corrections of the bias of the moments
        # With d = sqrt(second), m / first / (sqrt(v / second + constant^2) + constant) = (d / first) m / (sqrt(v + (d constant)^2) + d constant):
        # the same without a division of each element by `second`, in few passes over memory, which is what a step costs.
        constant, scale = self.constant * second**0.5, second**0.5 / first
        for name, value in adapted.items():
            gradient = gradients[name]
            m = torch.lerp(state[f"m.{name}"], gradient, 1 - self.first)
            v = torch.addcmul(self.second * state[f"v.{name}"], gradient, gradient, value=1 - self.second)
            after[f"m.{name}"], after[f"v.{name}"] = m, v
            root = (v + constant**2).sqrt_() + constant
            rate = self._rate(name, step, learned)
            if isinstance(rate, Tensor):
                moved[name] = value - scale * rate * (m / root)
            else:
                moved[name] = torch.addcdiv(value, m, root, value=-scale * rate)
        return moved, after

    def advance(self, adapted: Parameters, gradients: Mapping[str, Tensor], step: int, learned: Mapping[str, Tensor], state: Parameters) -> Parameters:
        """Update by PyTorch's fused Adam, in one pass over memory.

        Its denominator is sqrt(v / second) + constant. If constant^2 (1 / beta2 - 1) is added to v before each step, v is constant^2 second larger
        after it, which gives the denominator of `update`.
        """
        moved = {name: value.clone() for name, value in adapted.items()}
        for rate, names in by_factor(adapted, lambda name: float(self._rate(name, step, learned))).items():
            firsts, seconds = ([state[f"{moment}.{name}"] for name in names] for moment in ("m", "v"))
            for v in seconds:
                v.add_(self.constant**2 * (1 / self.second - 1))
            adam(
                [moved[name] for name in names],
                [gradients[name] for name in names],
                firsts,
                seconds,
                [],
                [torch.tensor(float(step), device=v.device) for v in seconds],
                fused=True,
                amsgrad=False,
                beta1=self.first,
                beta2=self.second,
                lr=rate,
                weight_decay=0.0,
                eps=self.constant,
                maximize=False,
            )
        return moved

    def _rate(self, name: str, step: int, learned: Mapping[str, Tensor]) -> float | Tensor:
        return self.rate(name)


class AdamLSLR(Adam):
    """Adam with a meta-learned learning rate per parameter tensor and inner step, as LSLR; learned are logarithms, so that rates stay positive."""

    is_sgd, adds, learns_rates, learns_logarithms = False, True, "per step", True

    def learned(self, adapted: Mapping[str, Tensor]) -> Parameters:
        return {name: value.new_full((max(1, self.steps),), math.log(self.rate(name))) for name, value in adapted.items()}

    def _rate(self, name: str, step: int, learned: Mapping[str, Tensor]) -> float | Tensor:
        return learned[name][min(step, len(learned[name]) - 1)].exp()


class ALFA(_Rates):
    """Rate and weight decay of each tensor and inner step, generated from the means of its values and gradients (ALFA, Baik et al. 2020, section 3).

    phi_{k+1} = (1 - d_k b_{t,k}) phi_k - a_k alpha_{t,k} gradient for tensor t. The factors (a_k, d_k), two for each of the N adapted tensors, are
    the output of a perceptron with one hidden layer (ReLU), which reads the 2N means of phi_k and of the gradient and has 2N hidden units, as in the
    authors' code. alpha and b are learned for each tensor and step; additional steps at test time use those of the last one. Initially a = d = 1,
    alpha is inner.lr (inner.head_lr for the head) and b is 0, so meta-training starts from SGD.
    """

    is_sgd, adds, generates_rates, reads_whole_tensors = False, False, True, True
    reads = RATES

    def learned(self, adapted: Mapping[str, Tensor]) -> Parameters:
        made: Parameters = {}
        if not adapted:  # a head made from the support set, without inner steps
            return made
        for name, value in adapted.items():
            made[f"{name}.alpha"] = value.new_full((max(1, self.steps),), self.rate(name))
            made[f"{name}.decay"] = value.new_zeros(max(1, self.steps))
        some, size = next(iter(adapted.values())), 2 * len(adapted)
        made["generator.in.weight"] = torch.randn(size, size, dtype=some.dtype, device=some.device) / size**0.5
        made["generator.in.bias"] = some.new_zeros(size)
        made["generator.out.weight"] = some.new_zeros(size, size)
        made["generator.out.bias"] = some.new_ones(size)
        return made

    def update(
        self, adapted: Parameters, gradients: Mapping[str, Tensor], step: int, learned: Mapping[str, Tensor], state: Mapping[str, Tensor]
    ) -> tuple[Parameters, Parameters]:
        names = sorted(adapted)  # an input of the network belongs to a tensor, in whatever order the tensors come
        means = torch.stack([*(adapted[name].mean() for name in names), *(gradients[name].mean() for name in names)])
        hidden = F.linear(means, learned["generator.in.weight"], learned["generator.in.bias"]).relu()
        factors = F.linear(hidden, learned["generator.out.weight"], learned["generator.out.bias"]).unbind()
        moved = {}
        for place, name in enumerate(names):
            alpha, decay = (learned[f"{name}.{kind}"][min(step, len(learned[f"{name}.{kind}"]) - 1)] for kind in ("alpha", "decay"))
            kept, rate = 1 - factors[len(names) + place] * decay, factors[place] * alpha
            moved[name] = kept * adapted[name] - rate * gradients[name]
        return {name: moved[name] for name in adapted}, {}


RULES: dict[str, Callable[[InnerConfig], InnerRule]] = {
    "sgd": SGD,
    "meta_sgd": MetaSGD,
    "lslr": LSLR,
    "curvature": Curvature,
    "adam": Adam,
    "adam_lslr": AdamLSLR,
    "alfa": ALFA,
}


def make_inner_rule(config: InnerConfig) -> InnerRule:
    """Return the inner rule of a config.

    Raises:
        UserError: a rate or number of steps is out of range, or the rule is unknown.
    """
    make = plugins.find(plugins.INNER_RULES, config.rule, RULES, f"inner.rule={config.rule} is unknown; choose one of")
    for key, value in (("inner.lr", config.lr), ("inner.head_lr", config.head_lr)):
        if value is not None and not 0 <= value < float("inf"):
            raise UserError(f"{key}={value} must be a finite number, zero or more")
        if value == 0 and config.rule == "adam_lslr":
            raise UserError(f"{key}=0: inner.rule=adam_lslr learns the logarithm of the rate; choose a positive initial value")
    for key, value in (("inner.steps", config.steps), ("inner.evaluation_steps", config.evaluation_steps)):
        if value is not None and value < 0:
            raise UserError(f"{key}={value} must be zero or more")
    if config.rank < 1:
        raise UserError(f"inner.rank={config.rank} must be 1 or more")
    return make(config)
