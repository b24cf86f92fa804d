"""The components that settings choose by name, and the facts that decide which other settings are read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

from metatrain.checkpoints.building import BUILT_IN
from metatrain.evaluation.arms import ROWS, arm_facts
from metatrain.gradient.config import InnerConfig
from metatrain.gradient.inner_rules import RULES, make_inner_rule, reads
from metatrain.gradient.meta_gradient import MODES, mode_of
from metatrain.meta.inner_losses import LOSSES, inner_loss
from metatrain.models import adapted, heads


@dataclass(frozen=True)
class RuleFacts:
    """Properties of an inner rule."""

    reads: tuple[str, ...] | None  # settings of `inner` that it reads; None: all
    learns: bool  # has meta-parameters


def rule_facts(name: str) -> RuleFacts:
    """Return the properties of `inner.rule=NAME`.

    Raises:
        UserError: there is no such rule.
    """
    rule = make_inner_rule(InnerConfig(rule=name))
    return RuleFacts(reads(rule), bool(rule.learned({"layer.weight": torch.zeros(1, 1), "layer.bias": torch.zeros(1)})))


@dataclass(frozen=True)
class ModelFacts:
    """Properties of a model that follow from its name."""

    is_packed: bool  # known to run on texts end to end, without padding


# By setting: from a name to the facts of the component, and the names of the built-in components.
_KINDS: dict[str, tuple[Callable[[Any], Any], Iterable[str]]] = {
    "algorithm.head": (heads.head_facts, (*heads.RULES, *heads.LANGUAGE_MODELS)),
    "algorithm.adapt": (adapted.row_of, adapted.ROWS),
    "algorithm.meta_gradient": (mode_of, MODES),
    "model.name": (lambda name: ModelFacts(name in BUILT_IN), BUILT_IN),
    "inner.rule": (rule_facts, RULES),
    "inner.loss": (inner_loss, LOSSES),
    "evaluation.arms": (lambda value: arm_facts([value] if isinstance(value, str) else value), ROWS),
}


class _Components:
    """The components of metatrain and of plug-ins."""

    def facts(self, setting: str, value: Any) -> Any:
        return _KINDS[setting][0](value)

    def names(self, setting: str) -> list[str]:
        return list(_KINDS[setting][1])


COMPONENTS = _Components()
