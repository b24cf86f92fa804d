"""Small random language models like those of the presets, and masked language models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece
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


_OF_ENCODERS = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "initializer_range": 0.5}
_NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
# Masked language models: those that run on packed texts, and two whose texts are padded, one with narrower word embeddings.
MASKED: dict[str, dict[str, Any]] = {
    **{family: {**_OF_ENCODERS, **_NO_DROPOUT} for family in ("bert", "roberta", "mpnet")},
    "distilbert": {"dim": 16, "hidden_dim": 32, "n_layers": 2, "n_heads": 2, "initializer_range": 0.5, "dropout": 0.0, "attention_dropout": 0.0},
    "electra": {**_OF_ENCODERS, **_NO_DROPOUT, "embedding_size": 8},
    "albert": {**_OF_ENCODERS, **_NO_DROPOUT, "embedding_size": 8},
    "modernbert": {**_OF_ENCODERS, "decoder_bias": True, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3},
}


def masked_tokenizer(mask_is_last: bool = False) -> Any:
    """Return a tokenizer of whole words, whose mask is one of its first tokens or the last one."""
    more = "it was good very bad film plot wait the worth , . ?"
    words = sorted({word for text in (*TEXTS, more) for word in text.split()})
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = [*special, *words, "[MASK]"] if mask_is_last else [*special, "[MASK]", *words]
    raw = Tokenizer(WordPiece({token: number for number, token in enumerate(vocabulary)}, unk_token="[UNK]"))
    raw.normalizer, raw.pre_tokenizer = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    raw.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    of = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=raw, **of)


def save_masked(family: str, folder: Path, mask_is_last: bool) -> str:
    """Write a small random masked language model; returns the folder's name."""
    tokenizer = masked_tokenizer(mask_is_last)
    config = CONFIG_MAPPING[family](**{**MASKED[family], "vocab_size": len(tokenizer), "pad_token_id": 0, "max_position_embeddings": 160})
    torch.manual_seed(0)
    model: Any = transformers.AutoModelForMaskedLM.from_config(config)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)  # biases start at zero
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
