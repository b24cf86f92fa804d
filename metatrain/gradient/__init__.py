"""The meta-gradient of any `nn.Module`: `from metatrain.gradient import InnerLoop`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metatrain.gradient.inner_loop import InnerLoop
    from metatrain.gradient.inner_rules import InnerRule
    from metatrain.gradient.meta_gradient import MetaGradient, Method

__all__ = ["InnerLoop", "InnerRule", "MetaGradient", "Method"]


def __getattr__(name: str) -> Any:
    """Import a public name on first use: the settings of the inner loop, next to this file, are read without torch."""
    if name not in __all__:
        raise AttributeError(f"module 'metatrain.gradient' has no attribute {name!r}")
    from metatrain.gradient import inner_loop

    return getattr(inner_loop, name)
