"""The components that settings choose by name, and the facts that decide which other settings are read.

Most components import torch, so each kind is imported when a condition first asks for its facts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from metatrain.gradient.config import InnerConfig
from metatrain.models.config import BUILT_IN

Kind = tuple[Callable[[Any], Any], Iterable[str]]  # from a name to the facts of the component, and the names of the built-in components


@dataclass(frozen=True)
class RuleFacts:
    """Properties of an inner rule."""

    reads: tuple[str, ...] | None  # settings of `inner` that it reads; None: all
    learns: bool  # has meta-parameters
    observes: tuple[str, ...] = ()  # the support loss or the encodings, which cannot be vectorised over episodes


def rule_facts(name: str) -> RuleFacts:
    """Return the properties of `inner.rule=NAME`.

    Raises:
        UserError: there is no such rule.
    """
    import torch

    from metatrain.gradient.inner_rules import make_inner_rule, observes, reads

    rule = make_inner_rule(InnerConfig(rule=name))
    return RuleFacts(reads(rule), bool(rule.learned({"layer.weight": torch.zeros(1, 1), "layer.bias": torch.zeros(1)})), observes(rule))


@dataclass(frozen=True)
class ModelFacts:
    """Properties of a model that follow from its name."""

    is_packed: bool  # known to run on texts end to end, without padding


_PACKED = ("minilm", "tiny")


def _heads() -> Kind:
    from metatrain.models.heads import LANGUAGE_MODELS, RULES, head_facts

    return head_facts, (*RULES, *LANGUAGE_MODELS)


def _adapted() -> Kind:
    from metatrain.models.adapted import ROWS, row_of

    return row_of, ROWS


def _modes() -> Kind:
    from metatrain.gradient.meta_gradient import MODES, mode_of

    return mode_of, MODES


def _models() -> Kind:
    return lambda name: ModelFacts(name in _PACKED), BUILT_IN


def _inner_rules() -> Kind:
    from metatrain.gradient.inner_rules import RULES

    return rule_facts, RULES


def _inner_losses() -> Kind:
    from metatrain.meta.inner_losses import LOSSES, inner_loss

    return inner_loss, LOSSES


def _arms() -> Kind:
    from metatrain.evaluation.arms import ROWS, arm_facts

    return lambda value: arm_facts([value] if isinstance(value, str) else value), ROWS


_KINDS: dict[str, Callable[[], Kind]] = {
    "algorithm.head": _heads,
    "algorithm.adapt": _adapted,
    "algorithm.meta_gradient": _modes,
    "model.name": _models,
    "inner.rule": _inner_rules,
    "inner.loss": _inner_losses,
    "evaluation.arms": _arms,
}


class _Components:
    """The components of metatrain and of plug-ins."""

    def facts(self, setting: str, value: Any) -> Any:
        return _KINDS[setting]()[0](value)

    def names(self, setting: str) -> list[str]:
        return list(_KINDS[setting]()[1])


COMPONENTS = _Components()
