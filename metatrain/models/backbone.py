"""The module of transformers inside a model. Nothing of transformers is imported here."""

from __future__ import annotations

from typing import Any

Backbone = Any  # a module of transformers; its attributes depend on the architecture


def longest_input(backbone: Backbone) -> int | None:
    """Return the maximum number of tokens for the position embeddings of a model; None: no limit is known.

    RoBERTa and similar models count positions from the one after the padding id.
    """
    positions = getattr(backbone.config.get_text_config(), "max_position_embeddings", None)
    if positions is None or positions < 1:
        return None
    tables = [module for name, module in backbone.named_modules() if name.endswith("position_embeddings")]
    begins = [table.padding_idx + 1 for table in tables if getattr(table, "padding_idx", None) is not None]
    return int(positions) - max(begins, default=0)
