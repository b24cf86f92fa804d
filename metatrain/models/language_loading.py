"""From `model.name` to a language model: trained by others, or with random weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, PretrainedConfig, PreTrainedTokenizerBase

from metatrain.errors import UserError
from metatrain.models import scratch
from metatrain.models.config import ModelConfig, ScratchConfig
from metatrain.models.language_model import LanguageModel
from metatrain.models.pretrained import attention_for, attention_in_log, check_vocabulary, load_backbone, load_tokenizer, name_in_log

_TINY = ScratchConfig(layers=1, hidden=32, heads=2, vocabulary=1000)
_LONGEST_CONTEXT = 2048  # positions of a decoder with random weights


def load_language_model(
    config: ModelConfig, second_order: bool, dtype: torch.dtype, texts: Iterable[str], decoder_alone: bool = False
) -> tuple[LanguageModel, list[str]]:
    """Load `config.name` and say in a line each what was decided on the way.

    texts: of the training tasks, to learn a vocabulary from where the model brings none. decoder_alone: what `tiny` has to be.

    Raises:
        UserError: the model does not exist, cannot be read, writes no texts, or the settings do not fit it.
    """
    if dtype == torch.bfloat16:
        raise UserError("hardware.precision=bf16 is for encoders for now; choose hardware.precision=float32")
    for key in ("max_length", "max_target_length"):
        if getattr(config, key) < 2:
            raise UserError(f"model.{key}={getattr(config, key)} must be 2 or more")
    attention = attention_for(second_order)
    if config.name == "tiny":
        config = replace(config, name=f"{scratch.PREFIX}{'gpt2' if decoder_alone else 't5'}", scratch=_TINY)
    is_new = config.name.startswith(scratch.PREFIX)
    if is_new:
        tokenizer, backbone = _from_scratch(config, attention, texts)
    elif config.name == "minilm":
        raise UserError(f"model.name={config.name} writes no texts; choose a language model (model=t5_small, model=scratch_t5 or model=scratch_gpt2)")
    else:
        backbone, tokenizer = load_backbone(config.name, config, _auto, attention, dtype), load_tokenizer(config.name, config)
        check_vocabulary(config, tokenizer, backbone)
    if tokenizer.eos_token_id is None:
        raise UserError(f"model.name={config.name}: its tokenizer has no end-of-text token, so it cannot say where a target ends; choose another model")
    backbone = backbone.to(dtype)
    backbone.generation_config.max_length = None  # what is written ends by model.max_target_length alone
    model = LanguageModel(backbone, tokenizer, config)
    model.new_tokenizer = is_new and config.tokenizer is None
    longest, wanted = model.positions, config.max_length + len(model.separator) + config.max_target_length
    if longest and wanted > longest:
        raise UserError(f"model.max_length={config.max_length}: a text and its target have up to {wanted} tokens, and {config.name} reads {longest}; lower it")
    size = sum(parameter.numel() for parameter in model.parameters())
    kind = "a decoder alone" if model.decoder_alone else "an encoder-decoder"
    return model, [
        f"model: {name_in_log(config)}, {kind}, {size / 1e6:.1f}M parameters, {len(tokenizer):,} pieces",
        attention_in_log(backbone, second_order),
    ]


def _from_scratch(config: ModelConfig, attention: str | None, texts: Iterable[str]) -> tuple[PreTrainedTokenizerBase, Any]:
    name = config.name[len(scratch.PREFIX) :]
    scratch.check_scratch(name, config.scratch)
    tokenizer = scratch.scratch_tokenizer(config, texts, scratch.ends_texts(name))
    return tokenizer, scratch.backbone(name, config.scratch, tokenizer, _LONGEST_CONTEXT, attention)


def _auto(settings: PretrainedConfig) -> tuple[Any, dict[str, Any]]:
    return (AutoModelForSeq2SeqLM if settings.is_encoder_decoder else AutoModelForCausalLM), {}
