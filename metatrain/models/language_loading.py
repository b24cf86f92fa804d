"""Loading of language models: pretrained, or with random weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, PretrainedConfig, PreTrainedTokenizerBase

from metatrain.errors import UserError
from metatrain.models import scratch
from metatrain.models.config import ENCODERS, ModelConfig, PromptConfig, ScratchConfig
from metatrain.models.language_model import LanguageModel
from metatrain.models.located import located
from metatrain.models.pretrained import attention_for, attention_in_log, load_backbone, load_settings, load_tokenizer, name_in_log
from metatrain.models.trial import check_runs
from metatrain.models.vocabulary import fit_vocabulary

_TINY = ScratchConfig(layers=1, hidden=32, heads=2, vocabulary=1000)
DECODER_ONLY, ENCODER_DECODER = "decoder-only", "encoder-decoder"
_MAX_POSITIONS = 2048  # number of positions of a randomly initialised decoder


def load_language_model(
    config: ModelConfig, second_order: bool, dtype: torch.dtype, texts: Iterable[str], decoder_only: bool = False, prompt: PromptConfig | None = None
) -> tuple[LanguageModel, list[str]]:
    """Load `config.name`; return the model and lines for the log.

    texts: texts of the training tasks, from which a randomly initialised model learns its tokenizer. decoder_only: whether
    `model.name=tiny` is decoder-only. prompt: wording of what the model reads; None: plain.

    Raises:
        UserError: the model does not exist, cannot be read, cannot generate text, or the settings do not fit it.
    """
    if dtype == torch.bfloat16:
        raise UserError("hardware.precision=bf16 is not supported for language models; set hardware.precision=float32")
    for key in ("max_length", "max_target_length"):
        if getattr(config, key) < 2:
            raise UserError(f"model.{key}={getattr(config, key)} must be 2 or more")
    attention = attention_for(second_order)
    if config.name == "tiny":
        config = replace(config, name=f"{scratch.PREFIX}{'gpt2' if decoder_only else 't5'}", scratch=_TINY)
    is_new = config.name.startswith(scratch.PREFIX)
    left_out: list[str] = []
    source = ""
    if is_new:
        tokenizer, backbone = _from_scratch(config, attention, texts)
    elif config.name in ENCODERS:
        raise UserError(f"model.name={config.name} does not generate text; choose a language model (model=smollm2, model=t5_small or model=scratch_t5)")
    else:
        path, source = located(config)
        backbone, tokenizer = load_backbone(path, config, _auto, attention, dtype), load_tokenizer(path, config)
        tokenizer, left_out = fit_vocabulary(config, tokenizer, backbone)
    if tokenizer.eos_token_id is None:
        raise UserError(f"model.name={config.name}: its tokenizer has no end-of-text token to mark the end of a target; choose another model")
    backbone = backbone.to(dtype)
    backbone.generation_config.max_length = None  # only model.max_target_length ends generation
    model = LanguageModel(backbone, tokenizer, config, prompt)
    if not is_new:
        _check_generates(config, model, second_order)
    model.new_tokenizer = is_new and config.tokenizer is None
    if not model.decoder_only and model.positions and config.max_target_length > model.positions:
        raise UserError(
            f"model.max_target_length={config.max_target_length}: {config.name} has positions for {model.positions} tokens; "
            f"set model.max_target_length={model.positions}"
        )
    if model.longest is not None and config.max_length > model.longest:
        most = f"; set model.max_length={model.longest}" if model.longest > 1 else ", fewer than model.max_target_length needs; lower model.max_target_length"
        what = "texts and their targets" if model.decoder_only else "texts"
        raise UserError(f"model.max_length={config.max_length}: {config.name} has positions for {model.positions} tokens of {what}{most}")
    size = sum(parameter.numel() for parameter in model.parameters())
    kind = "decoder-only" if model.decoder_only else "an encoder-decoder"
    return model, [
        f"model: {source or name_in_log(config)}, {kind}, {size / 1e6:.1f}M parameters, vocabulary of {len(tokenizer):,} tokens",
        attention_in_log(backbone, second_order),
        *left_out,
    ]


def _check_generates(config: ModelConfig, model: LanguageModel, second_order: bool) -> None:
    """Raises: UserError: the architecture cannot generate text, or cannot be trained to."""
    what, text = f"model.name={config.name}: {model.backbone.config.model_type}", model.example()
    shorter = text[:-1] if len(text) > 1 else text  # so that one of the two is padded
    check_runs(what, model, lambda: model(model.batch([text, shorter], [text, text])).loss, second_order)
    if model.decoder_only and model.is_bidirectional():
        raise UserError(f"{what} is bidirectional, so it cannot generate text; choose a decoder-only model (GPT-2, Llama) or an encoder-decoder (T5)")


def _from_scratch(config: ModelConfig, attention: str | None, texts: Iterable[str]) -> tuple[PreTrainedTokenizerBase, Any]:
    name = config.name[len(scratch.PREFIX) :]
    scratch.check_scratch(name, config.scratch)
    tokenizer = scratch.scratch_tokenizer(config, texts, scratch.ends_texts(name))
    return tokenizer, scratch.backbone(name, config.scratch, tokenizer, _MAX_POSITIONS, attention)


def _auto(settings: PretrainedConfig) -> tuple[Any, dict[str, Any]]:
    return (AutoModelForSeq2SeqLM if settings.is_encoder_decoder else AutoModelForCausalLM), {}


def language_model_kind(config: ModelConfig) -> str | None:
    """Return whether the weights of `model.name` are those of a decoder-only model or an encoder-decoder that generates text; None: of neither.

    Raises:
        UserError: there is no such model.
    """
    if config.name in ("minilm", "tiny") or config.name.startswith(scratch.PREFIX):
        return None
    path, _ = located(config)
    settings = load_settings(path, config)
    names = settings.architectures or ()
    if settings.is_encoder_decoder:
        return ENCODER_DECODER if any(name.endswith(("ForConditionalGeneration", "WithLMHeadModel")) for name in names) else None
    return DECODER_ONLY if any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in names) else None
