"""Small random models of every family that transformers maps to a text encoder or decoder."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from metatrain.models import scratch

TEXTS = ["a dull film", "a wonderful plot that never lets go", "the brakes are bad", "fast", "cold soup and a long wait", "we came back twice"]
_VOCABULARY = 320
_MOST_PARAMETERS = 1_000_000

# Sizes by the names that configurations have for them; larger values are lowered to these.
_SIZES: dict[int, str] = {
    _VOCABULARY: "vocab_size",
    64: "max_position_embeddings n_positions n_ctx max_seq_len max_sequence_length",
    32: "intermediate_size moe_intermediate_size shared_expert_intermediate_size ffn_dim d_ff hidden_dim d_inner n_inner encoder_ffn_dim decoder_ffn_dim "
    "pooler_hidden_size dim_ff ffn_hidden_size feed_forward_size inner_dim mamba_d_ssm",
    16: "hidden_size d_model dim n_embd n_embed emb_dim embedding_size model_dim word_embed_proj_dim d_embed input_embedding_size output_embedding_size "
    "attention_hidden_size lru_width entity_emb_size",
    8: "head_dim attention_head_size d_kv d_head kv_channels qk_rope_head_dim v_head_dim qk_nope_head_dim linear_key_head_dim linear_value_head_dim "
    "mamba_d_head mamba_head_dim head_size q_lora_rank kv_lora_rank rotary_dim index_head_dim entity_vocab_size",
    4: "num_experts num_local_experts n_routed_experts moe_num_experts state_size ssm_state_size mamba_d_state attention_window_size",
    2: "num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers num_encoder_layers num_decoder_layers num_attention_heads n_head n_heads "
    "num_heads encoder_attention_heads decoder_attention_heads num_encoder_attention_heads num_decoder_attention_heads num_key_value_heads "
    "num_experts_per_tok moe_topk moe_k mamba_n_heads mamba_num_heads linear_num_key_heads linear_num_value_heads mamba_n_groups n_groups index_n_heads",
}
_SIZE = {name: size for size, names in _SIZES.items() for name in names.split()}
_BY_LAYER = ("layer_types", "mlp_layer_types", "model_type", "transformers_version", "per_layer_config")

# What a family needs beside these.
_OWN: dict[str, dict[str, Any]] = {
    "codegen": {"n_head": 4, "rotary_dim": 4},
    "deepseek_v2": {"n_group": 1, "topk_group": 1, "num_experts_per_tok": 2},
    "esm": {"vocab_size": _VOCABULARY},
    "fsmt": {"src_vocab_size": _VOCABULARY, "tgt_vocab_size": _VOCABULARY},
    "funnel": {"architectures": ["FunnelModel"], "block_sizes": [1, 1], "block_repeats": [1, 1], "d_head": 8, "num_decoder_layers": 1},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 8},
    "gptj": {"rotary_dim": 4},
    "layoutlmv3": {"coordinate_size": 3, "shape_size": 2},
    "lilt": {"hidden_size": 24, "channel_shrink_ratio": 2},
    "longformer": {"attention_window": [4, 4]},
    "led": {"attention_window": [4, 4]},
    "mamba2": {"num_heads": 4, "head_dim": 8, "expand": 2, "n_groups": 1},
    "perceiver": {"num_latents": 8, "d_latents": 16, "num_self_attends_per_block": 1, "num_self_attention_heads": 2, "num_cross_attention_heads": 2},
    "reformer": {"axial_pos_embds": False, "attn_layers": ["local", "local"], "local_attn_chunk_length": 4},
    "roc_bert": {"pronunciation_vocab_size": 20, "shape_vocab_size": 20, "pronunciation_embed_dim": 8, "shape_embed_dim": 8},
    "xlnet": {"d_model": 16, "n_head": 2, "d_head": 8},
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
}


@functools.cache
def words() -> transformers.PreTrainedTokenizerBase:
    """A byte-level tokenizer of the texts."""
    return scratch.train_tokenizer(TEXTS, 300, ends=True)


def encoders() -> list[str]:
    """Names of the families that encode texts, or have a head on what they make of one."""
    names = (
        *modeling_auto.MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES,
        *modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        *modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    )
    return sorted(set(names) & set(modeling_auto.MODEL_MAPPING_NAMES))


def language_models() -> list[str]:
    """Names of the families that write texts."""
    return sorted({*modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES})


def save_small(family: str, folder: Path, writes: bool) -> str:
    """Write a small random model with a tokenizer; returns the folder's name.

    Raises: whatever a configuration says of sizes that do not fit, or ValueError: there is no such small model.
    """
    config = _small(family)
    auto: Any = transformers.AutoModel
    if writes:
        auto = transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
    with torch.device("meta"):
        size = sum(parameter.numel() for parameter in auto.from_config(config).parameters())
    if size > _MOST_PARAMETERS:
        raise ValueError(f"{size} parameters are not small")
    torch.manual_seed(0)
    auto.from_config(config).save_pretrained(folder)
    words().save_pretrained(folder)
    return str(folder)


def _small(family: str) -> Any:
    kind = CONFIG_MAPPING[family]
    settings = _lowered(kind().to_dict())
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1, "decoder_start_token_id": 0}
    return kind(**{**settings, **ids, **_OWN.get(family, {})})


def _lowered(settings: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            value = _lowered(value)
        elif type(value) is int and value > _SIZE.get(name, value):
            value = _SIZE[name]
        if name not in _BY_LAYER:
            found[name] = value
    return found
