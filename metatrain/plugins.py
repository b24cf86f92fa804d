"""Plug-ins: components that other packages announce by entry points; and packages that the extras install.

A setting names an entry point of an installed package, never a module.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from typing import Any

from metatrain.errors import UserError

# Groups of entry points.
HEADS, INNER_RULES, INNER_LOSSES, SOURCES = "metatrain.heads", "metatrain.inner_rules", "metatrain.inner_losses", "metatrain.sources"
ADAPTED, MODES, ARMS, SELF_SUPERVISED = "metatrain.adapted", "metatrain.meta_gradients", "metatrain.arms", "metatrain.self_supervised"
OUTER_LOSSES, OUTER_OPTIMIZERS, SCHEDULES = "metatrain.outer_losses", "metatrain.outer_optimizers", "metatrain.schedules"
SAMPLERS, METRICS, PROMPTS = "metatrain.samplers", "metatrain.metrics", "metatrain.prompts"


@dataclass(frozen=True)
class Kind:
    """A kind of plug-in."""

    name: str
    setting: str  # that chooses a plug-in of this kind by its name
    template: str  # module of `metatrain.templates` that shows one
    example: str  # object of that module that the entry point names


KINDS = {
    HEADS: Kind("head", "algorithm.head", "head", "ShrunkenPrototypes"),
    INNER_RULES: Kind("inner rule", "inner.rule", "inner_rule", "DecayingSGD"),
    INNER_LOSSES: Kind("inner loss", "inner.loss", "inner_loss", "SmoothedLosses"),
    ADAPTED: Kind("adapted parameters", "algorithm.adapt", "adapted", "biases"),
    MODES: Kind("meta-gradient", "algorithm.meta_gradient", "meta_gradient", "no_curvature"),
    OUTER_LOSSES: Kind("outer loss", "algorithm.contrastive", "outer_loss", "prototype_nce"),
    OUTER_OPTIMIZERS: Kind("outer optimizer", "outer.optimizer", "outer_optimizer", "nesterov"),
    SCHEDULES: Kind("schedule", "outer.schedule", "schedule", "square_root"),
    SAMPLERS: Kind("sampler", "tasks.sampling.by", "sampler", "intermediate"),
    PROMPTS: Kind("prompt", "prompt", "prompt", "question"),
    METRICS: Kind("metric", "evaluation.metrics", "metric", "worst_class"),
    ARMS: Kind("arm", "evaluation.arms", "arm", "nearest_length"),
    SOURCES: Kind("task source", "tasks.path", "source", "Numbered"),
    SELF_SUPERVISED: Kind("self-supervised task", "tasks.self_supervised", "self_supervised", "lengths"),
}


def check_installed(what: str, module: str, extra: str) -> None:
    """Raises: UserError: `what` needs the module of an extra that is not installed. The module is not imported, so that the check is quick."""
    if find_spec(module) is None:
        raise UserError(f"{what} needs {module}, which is not installed; run: pip install 'metatrain-nlp[{extra}]'")


def names(group: str) -> list[str]:
    """Return the sorted names of the entry points of a group."""
    return sorted(entry_points(group=group).names)


def installed() -> Iterator[tuple[str, str, str]]:
    """Yield (kind, name, package) of every plug-in."""
    for group, kind in KINDS.items():
        for entry in sorted(entry_points(group=group), key=lambda entry: entry.name):
            yield kind.name, entry.name, _package(entry)


def of_setting(setting: str) -> list[str]:
    """Return the names of the plug-ins that a setting can choose."""
    return [name for group, kind in KINDS.items() if kind.setting == setting for name in names(group)]


def groups_with(name: str) -> list[str]:
    """Return the groups in which a package announces this name."""
    return [group for group in KINDS if name in names(group)]


def load(group: str, name: str) -> Any | None:
    """Load what a package announces under this name; None: no package does.

    Raises:
        UserError: several packages announce it, or it cannot be imported.
    """
    found = tuple(entry_points(group=group, name=name))
    if not found:
        return None
    if len(found) > 1:
        raise UserError(f"{name} of {group} is registered by several packages ({', '.join(map(_package, found))}); uninstall all but one")
    try:
        return found[0].load()
    except (ImportError, AttributeError) as error:
        raise UserError(f"{name} of {group} ({found[0].value}) cannot be imported: {error}") from error


def find(group: str, name: str, built_in: Mapping[str, Any], unknown: str, others: Iterable[str] = ()) -> Any:
    """Return the component `name`: one of `built_in`, or what a package announces in `group`.

    unknown: beginning of the message if there is none; the names to choose from follow, with `others` after those of `built_in`.

    Raises:
        UserError: there is none, or `load` raises it.
    """
    found = built_in.get(name) or load(group, name)
    if found is None:
        raise UserError(f"{unknown} {', '.join((*built_in, *others, *names(group)))}")
    return found


def _package(entry: EntryPoint) -> str:
    return str(entry.dist.name if entry.dist else entry.value)
