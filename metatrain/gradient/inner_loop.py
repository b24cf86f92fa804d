"""The meta-gradient of any `nn.Module`, from two loss functions.

maml = InnerLoop(model, lr=0.01, steps=5)
optimizer = torch.optim.Adam(maml.parameters(), lr=1e-3)
for x, y, x_query, y_query in episodes:
    optimizer.zero_grad()
    maml.backward(lambda net: mse_loss(net(x), y), lambda net: mse_loss(net(x_query), y_query))
    optimizer.step()
"""

from __future__ import annotations

import copy
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from metatrain.errors import UserError
from metatrain.gradient.config import InnerConfig
from metatrain.gradient.inner_rules import InnerRule, check_observes, make_inner_rule
from metatrain.gradient.meta_gradient import LEARNED, MetaGradient, Method, adapt, check_method, meta_gradient, missing_observations, mode_of
from metatrain.gradient.module_losses import LossFunction, ModuleLosses

__all__ = ["InnerLoop", "InnerRule", "LossFunction", "MetaGradient", "Method"]

Model = TypeVar("Model", bound=nn.Module)
Selection = str | Iterable[str] | Callable[[str], bool]
_NO_FEATURES = {"features": "the loss functions of InnerLoop return no encodings; observe the loss only"}


class InnerLoop(nn.Module, Generic[Model]):
    """The inner loop of MAML and its relatives on a model of your own.

    A loss function takes the model, whose parameters are those of the current inner step, and returns a scalar. If it yields several scalars,
    they add up to the loss, and only the activations of one are in memory at a time. `parameters()` are the meta-parameters: those of the
    model, and the learning rates that the inner rule learns (`learned`).

    Args:
        model: Any module. Parameters with `requires_grad=False` neither adapt nor get a gradient.
        rule: Inner rule: sgd, meta_sgd, lslr, curvature, adam, adam_lslr or alfa; or an object with the methods of `InnerRule`.
        lr: Learning rate of a rule given by name (default 0.01); the initial value if rates are learned.
        steps: Number of inner steps.
        adapt: Parameters that adapt: names or patterns ("head.*"), or a function that maps a name to True or False. None: all. The other
            parameters are shared by all tasks and get a meta-gradient too.
        mode: Meta-gradient: exact, exact_recomputed, forward_over_reverse, finite_difference, first_order or reptile; or a `Method`,
            which also sets the number of stored steps, the multi-step loss and the implicit gradient (iMAML).

    Raises:
        UserError: a choice is unknown or does not fit the others, or `adapt` names no trainable parameter.
    """

    def __init__(
        self,
        model: Model,
        rule: str | InnerRule = "sgd",
        lr: float | None = None,
        steps: int = 1,
        adapt: Selection | None = None,
        mode: str | Method = "exact",
    ):
        super().__init__()
        self.model = model
        self.rule = _rule(rule, lr, steps)
        self.steps = steps
        self.method = Method(mode) if isinstance(mode, str) else mode
        check_method(self.method, steps)
        check_observes(self.rule, f"rule={type(self.rule).__name__}", {**_NO_FEATURES, **missing_observations(self.method.mode)})
        if self.method.weights is not None and len(self.method.weights) != steps:
            raise UserError(f"Method(weights=...) needs a weight for each of the {steps} inner steps; it has {len(self.method.weights)}")
        self.adapted = _selected(model, adapt)  # names of the parameters that adapt
        theta = dict(model.named_parameters())
        if self.method.mode == "finite_difference" and any(theta[name].dtype not in (torch.float32, torch.float64) for name in self.adapted):
            raise UserError("mode='finite_difference' needs float32 or float64 parameters: rounding is too large in others")
        learned = self.rule.learned({name: theta[name].detach() for name in self.adapted})
        # Names of a ParameterDict have no dots.
        self.learned = nn.ParameterDict({name.replace(".", "/"): nn.Parameter(value) for name, value in learned.items()})

    def backward(self, support_loss: LossFunction[Model], query_loss: LossFunction[Model], weight: float = 1.0) -> MetaGradient:
        """Add `weight` times the meta-gradient of one episode to `.grad` of the meta-parameters, as `loss.backward()` does."""
        found = self.meta_gradient(support_loss, query_loss)
        for name, value in self._meta_parameters().items():
            if name in found.gradient:
                gradient = weight * found.gradient[name]
                value.grad = gradient if value.grad is None else value.grad + gradient
        return found

    def meta_gradient(self, support_loss: LossFunction[Model], query_loss: LossFunction[Model]) -> MetaGradient:
        """Return the meta-gradient of one episode, by parameter name ("rule.NAME" for learned rates), and its losses."""
        episode = ModuleLosses(self.model, self.adapted, support_loss, query_loss, self.steps, mode_of(self.method.mode).is_second_order)
        with torch.enable_grad():
            return meta_gradient(episode, self._meta_parameters(), self.rule, self.steps, self.method)

    def adapt(self, support_loss: LossFunction[Model], steps: int | None = None) -> Model:
        """Return a copy of the model that was adapted to a support set, in `steps` inner steps (None: as many as in meta-training)."""
        steps = self.steps if steps is None else steps
        episode = ModuleLosses(self.model, self.adapted, support_loss, support_loss, steps, second_order=False)
        phi, fixed = episode.start(self._meta_parameters())
        with torch.enable_grad():
            last = deque(adapt(episode, phi, fixed, self.rule, steps, self.method.proximal), maxlen=1)
        adapted = copy.deepcopy(self.model)
        with torch.no_grad():
            for name, value in adapted.named_parameters():
                if last and name in last[0][0]:
                    value.copy_(last[0][0][name])
        return adapted

    def _meta_parameters(self) -> dict[str, Tensor]:
        theta: dict[str, Tensor] = {name: value for name, value in self.model.named_parameters() if value.requires_grad}
        return {**theta, **{LEARNED + name.replace("/", "."): value for name, value in self.learned.items()}}


def _rule(rule: str | InnerRule, lr: float | None, steps: int) -> InnerRule:
    """The inner rule; its rate and the number of steps are checked."""
    if not isinstance(rule, str) and lr is not None:
        raise UserError(f"lr={lr} applies to an inner rule given by name; one given as an object has its own")
    config = InnerConfig(lr=0.01 if lr is None else lr, steps=steps)
    if isinstance(rule, str):
        config.rule = rule
    made = make_inner_rule(config)
    return made if isinstance(rule, str) else rule


def _selected(model: nn.Module, adapt: Selection | None) -> list[str]:
    """Names of the parameters that adapt; a tied parameter is selected by any of its names."""
    names: dict[int, list[str]] = defaultdict(list)
    for name, value in model.named_parameters(remove_duplicate=False):
        if value.requires_grad:
            names[id(value)].append(name)
        if name.startswith(LEARNED):
            raise UserError(f"the parameter {name} has the prefix of learned rates; rename its module, or put the model into another module")
    firsts = [first for first, *_ in names.values()]
    if adapt is None:
        found = set(firsts)
    elif callable(adapt):
        found = {each[0] for each in names.values() if any(map(adapt, each))}
    else:
        found = set()
        for pattern in [adapt] if isinstance(adapt, str) else adapt:
            matched = {each[0] for each in names.values() if any(fnmatchcase(name, pattern) for name in each)}
            if not matched:
                raise UserError(f"adapt={pattern!r} matches no trainable parameter of the model; it begins with {', '.join(firsts[:5])}")
            found |= matched
    if not found:
        raise UserError("adapt selects no trainable parameter of the model; at least one must adapt")
    return [name for name in firsts if name in found]
