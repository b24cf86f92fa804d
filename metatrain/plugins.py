"""Plug-ins: heads, inner rules and task sources that other packages register as entry points; packages of optional extras.

A setting names an entry point of an installed package, never a module.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Any

from metatrain.errors import UserError

HEADS, INNER_RULES, SOURCES = "metatrain.heads", "metatrain.inner_rules", "metatrain.sources"  # groups of entry points


def check_installed(what: str, module: str, extra: str) -> None:
    """Raises: UserError: the module of an extra, needed by `what`, is not installed. Called before work begins; does not import the module."""
    if find_spec(module) is None:
        raise UserError(f"{what} needs {module}, which is not installed; run: pip install 'metatrain-nlp[{extra}]'")


def names(group: str) -> list[str]:
    """Return the sorted names of the entry points of a group."""
    return sorted(entry_points(group=group).names)


def load(group: str, name: str) -> Any | None:
    """Return the object registered under this name, or None.

    Raises:
        UserError: several packages register the name, or the object cannot be imported.
    """
    found = tuple(entry_points(group=group, name=name))
    if not found:
        return None
    if len(found) > 1:
        packages = ", ".join(str(entry.dist.name if entry.dist else entry.value) for entry in found)
        raise UserError(f"{name} of {group} is registered by several packages ({packages}); uninstall all but one")
    try:
        return found[0].load()
    except (ImportError, AttributeError) as error:
        raise UserError(f"{name} of {group} ({found[0].value}) cannot be imported: {error}") from error
