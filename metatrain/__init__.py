"""metatrain: meta-pre-training of language models over a distribution of NLP tasks."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from metatrain.version import __version__

if TYPE_CHECKING:
    from metatrain.api import load
    from metatrain.estimator import FewShotClassifier
    from metatrain.runs import Run, evaluate, finetune, train

__all__ = ["FewShotClassifier", "Run", "__version__", "evaluate", "finetune", "load", "train"]

_MODULES = {
    "FewShotClassifier": "metatrain.estimator",
    "Run": "metatrain.runs",
    "evaluate": "metatrain.runs",
    "finetune": "metatrain.runs",
    "load": "metatrain.api",
    "train": "metatrain.runs",
}


def __getattr__(name: str) -> Any:
    """Import a name when it is asked for: the commands should not wait for torch."""
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'metatrain' has no attribute {name!r}")
