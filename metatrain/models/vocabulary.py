"""Tokens of a tokenizer, and their embeddings in a model."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from metatrain.errors import UserError
from metatrain.models.backbone import Backbone
from metatrain.models.config import ModelConfig

_SHOWN = 3  # maximum number of tokens named in a note


def fit_vocabulary(config: ModelConfig, tokenizer: PreTrainedTokenizerBase, backbone: Backbone) -> tuple[PreTrainedTokenizerBase, list[str]]:
    """Return the tokenizer without added tokens for which the model has no embedding, and a note that names them.

    Texts with such a token are then tokenised as ordinary text.

    Raises:
        UserError: the model has no embedding table, or one that is smaller than the tokenizer's own vocabulary.
    """
    rows = num_embeddings(backbone)
    if rows is None:
        raise UserError(f"model.name={config.name}: {backbone.config.model_type} has no table of token embeddings; choose another model")
    if tokenizer.vocab_size > rows:
        has = f"its tokenizer has {tokenizer.vocab_size:,} tokens and the model {rows:,} embeddings"
        raise UserError(f"model.name={config.name}: {has}; use the tokenizer that belongs to the model")
    lost = [token for token, number in tokenizer.get_added_vocab().items() if number >= rows]
    if not lost:
        return tokenizer, []
    named = ", ".join(sorted(lost)[:_SHOWN]) + (" ..." if len(lost) > _SHOWN else "")
    if not tokenizer.is_fast:
        raise UserError(
            f"model.name={config.name}: the model has no embedding for {len(lost)} tokens of its tokenizer ({named}); "
            "save it after model.resize_token_embeddings(len(tokenizer))"
        )
    fitted = _without(tokenizer, set(lost))
    if fitted.pad_token is None:
        fitted.pad_token = fitted.eos_token or fitted.unk_token
    return fitted, [f"{len(lost)} tokens of the tokenizer have no embedding in the model and are tokenised as ordinary text: {named}"]


def num_embeddings(backbone: Backbone) -> int | None:
    """Return the number of rows of the embedding table; None: the model has no table."""
    try:
        table: Any = backbone.get_input_embeddings()
    except NotImplementedError:
        return None
    return table.weight.shape[0] if hasattr(table, "weight") else None  # Perceiver returns a parameter


def _without(tokenizer: PreTrainedTokenizerBase, tokens: set[str]) -> PreTrainedTokenizerBase:
    """Return the tokenizer, loaded from files without these added tokens."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        for path in Path(folder).glob("*.json"):
            path.write_text(json.dumps(_removed(json.loads(path.read_text(encoding="utf-8")), tokens), ensure_ascii=False), encoding="utf-8")
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


def _removed(value: Any, tokens: set[str]) -> Any:
    """Return a JSON value without entries that are one of these tokens, as a string or as an object with `content`."""
    if isinstance(value, dict):
        return {key: _removed(each, tokens) for key, each in value.items() if key not in tokens and not _is_one(each, tokens)}
    if isinstance(value, list):
        return [_removed(each, tokens) for each in value if not _is_one(each, tokens)]
    return value


def _is_one(value: Any, tokens: set[str]) -> bool:
    found = value.get("content") if isinstance(value, dict) else value
    return isinstance(found, str) and found in tokens
