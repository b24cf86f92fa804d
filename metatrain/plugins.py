"""Other packages: heads, inner rules and sources of tasks that they announce by entry points, and those that the extras install.

A setting only ever chooses among what is installed: it names an entry point, never a module.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Any

from metatrain.errors import UserError

HEADS, INNER_RULES, SOURCES = "metatrain.heads", "metatrain.inner_rules", "metatrain.sources"  # groups of entry points


def check_installed(what: str, module: str, extra: str) -> None:
    """Raises: UserError: the module of an extra is not installed; `what` needs it. To be asked before work begins, without importing it."""
    if find_spec(module) is None:
        raise UserError(f"{what} needs {module}, which is not installed; run: pip install 'metatrain-nlp[{extra}]'")


def names(group: str) -> list[str]:
    """What there is in a group."""
    return sorted(entry_points(group=group).names)


def load(group: str, name: str) -> Any | None:
    """What a package has announced under this name; None: nothing.

    Raises:
        UserError: two packages have, or what is announced cannot be imported.
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
