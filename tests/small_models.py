"""Small random language models like those of the presets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from metatrain.models import scratch

TEXTS = ["a dull film", "a wonderful plot that never lets go", "the brakes are bad", "fast", "cold soup and a long wait", "we came back twice"]
VOCABULARY = 320
_OF_DECODERS = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}
_OF_PRESETS: dict[str, dict[str, Any]] = {
    "llama": {**_OF_DECODERS, "tie_word_embeddings": True},
    "qwen3": {**_OF_DECODERS, "tie_word_embeddings": True},
    "gemma3_text": {**_OF_DECODERS, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]},
    "t5": {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
}


def save_preset(family: str, folder: Path) -> str:
    """Write a small random language model like those of the presets, with positions for longer prompts; returns the folder's name."""
    ids = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1, "decoder_start_token_id": 0, "max_position_embeddings": 512}
    config = CONFIG_MAPPING[family](**{**_OF_PRESETS[family], **ids})
    torch.manual_seed(0)
    auto: Any = transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
    auto.from_config(config).save_pretrained(folder)
    scratch.train_tokenizer(TEXTS, 300, ends=True).save_pretrained(folder)
    return str(folder)
