"""Loading tokenizers and models that others have trained, from the hub or a directory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

from metatrain.errors import UserError
from metatrain.models.config import ModelConfig

# From the settings of a model: the auto class that loads it, and options of that class.
Choice = Callable[[PretrainedConfig], tuple[Any, dict[str, Any]]]


def check_remote_code(config: ModelConfig) -> None:
    """Raises: UserError: code from the hub is to run, and nothing says which."""
    if config.trust_remote_code and not _is_commit(config.revision):
        raise UserError("model.trust_remote_code=true needs model.revision set to a 40-digit commit")


def from_pretrained(path: str, config: ModelConfig, choose: Choice, attention: str, dtype: torch.dtype) -> tuple[PreTrainedTokenizerBase, nn.Module]:
    """The tokenizer and the model of a hub id or a directory.

    Raises:
        UserError: it does not exist, or cannot be read as what `choose` says.
    """
    options = {"revision": config.revision, "trust_remote_code": config.trust_remote_code}
    if Path(path).is_dir():
        options.pop("revision")
    try:
        settings = AutoConfig.from_pretrained(path, **options)
        tokenizer = AutoTokenizer.from_pretrained(path, **options)
        auto, more = choose(settings)
        # The checkpoint's own dtype would be taken otherwise, and an inner loop in bf16 is noise.
        model = auto.from_pretrained(path, dtype=dtype, attn_implementation=attention, **more, **options)
        if tokenizer.pad_token is None:  # GPT-2 and the like have none; which one it is does not matter, since it is masked
            tokenizer.pad_token = tokenizer.eos_token
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"model.name={config.name} cannot be loaded: {reason}") from error
    return tokenizer, model


def _is_commit(revision: str | None) -> bool:
    return revision is not None and len(revision) == 40 and all(c in "0123456789abcdef" for c in revision)
