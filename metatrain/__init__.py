"""metatrain: meta-pre-training of language models over a distribution of NLP tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from metatrain.version import __version__

if TYPE_CHECKING:
    from metatrain.api import load

__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    """`metatrain.load` is imported when it is asked for: the commands should not wait for torch."""
    if name == "load":
        from metatrain.api import load

        return load
    raise AttributeError(f"module 'metatrain' has no attribute {name!r}")
