"""`model.name=scratch:t5` and `scratch:gpt2`: small language models with random weights, without a download.

Their tokenizer is trained on the texts of the training tasks, and saved in the run directory.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from metatrain.errors import UserError
from metatrain.models.config import ModelConfig, ScratchConfig

PREFIX = "scratch:"
_PAD, _END, _UNKNOWN, _MASK, _SEPARATOR = "<pad>", "</s>", "<unk>", "<mask>", "<sep>"
_SPECIAL = (_PAD, _END, _UNKNOWN, _MASK, _SEPARATOR)


def check_scratch(name: str, config: ScratchConfig) -> None:
    """Raises: UserError: there is no such language model, or a size is out of range."""
    if name not in _BACKBONES:
        raise UserError(f"model.name={PREFIX}{name} is unknown; choose {' or '.join(PREFIX + each for each in _BACKBONES)}")
    check_size(config)


def check_size(config: ScratchConfig) -> None:
    """Raises: UserError: a size is out of range."""
    for key in ("layers", "hidden", "heads"):
        if getattr(config, key) < 1:
            raise UserError(f"model.scratch.{key}={getattr(config, key)} must be 1 or more")
    if config.hidden % config.heads:
        raise UserError(f"model.scratch.hidden={config.hidden} must be a multiple of model.scratch.heads={config.heads}")
    if config.vocabulary < 300:
        raise UserError(f"model.scratch.vocabulary={config.vocabulary} must be 300 or more: each of the 256 bytes is a token")


def train_tokenizer(texts: Iterable[str], vocabulary: int, ends: bool) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer (Sennrich et al. 2016; Radford et al. 2019) on these texts; `ends`: append the end-of-text token."""
    raw = Tokenizer(models.BPE(unk_token=_UNKNOWN))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    raw.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=list(_SPECIAL), initial_alphabet=alphabet, show_progress=False))
    if ends:
        special = [(_END, raw.token_to_id(_END)), (_SEPARATOR, raw.token_to_id(_SEPARATOR))]
        raw.post_processor = processors.TemplateProcessing(single=f"$A {_END}", pair=f"$A {_SEPARATOR} $B {_END}", special_tokens=special)
    made = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token=_PAD, eos_token=_END, unk_token=_UNKNOWN, mask_token=_MASK, sep_token=_SEPARATOR, clean_up_tokenization_spaces=False
    )
    with tempfile.TemporaryDirectory() as folder:  # saved and loaded once, so that it is later saved with the same bytes
        made.save_pretrained(folder)
        return PreTrainedTokenizerFast.from_pretrained(folder)


def scratch_tokenizer(config: ModelConfig, texts: Iterable[str], ends: bool) -> PreTrainedTokenizerBase:
    """Return the tokenizer of `model.tokenizer`, or one trained on these texts."""
    if config.tokenizer is not None:
        return AutoTokenizer.from_pretrained(config.tokenizer)
    return train_tokenizer(texts, config.scratch.vocabulary, ends)


def ends_texts(name: str) -> bool:
    """Return True if texts of the architecture end with a special token."""
    return name == "t5"


def backbone(name: str, config: ScratchConfig, tokenizer: PreTrainedTokenizerBase, positions: int, attention: str | None) -> PreTrainedModel:
    """Return a randomly initialised model; weights depend on the global seed. positions: maximum input length of a decoder-only model."""
    return _BACKBONES[name](config, tokenizer, positions, attention)


def _t5(config: ScratchConfig, tokenizer: PreTrainedTokenizerBase, positions: int, attention: str | None) -> T5ForConditionalGeneration:
    return T5ForConditionalGeneration(
        T5Config(  # type: ignore[call-arg]  # accepts the arguments of every configuration
            vocab_size=len(tokenizer),
            d_model=config.hidden,
            d_kv=config.hidden // config.heads,
            d_ff=4 * config.hidden,
            num_layers=config.layers,
            num_heads=config.heads,
            dropout_rate=0.0,
            feed_forward_proj="gated-gelu",
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            decoder_start_token_id=tokenizer.pad_token_id,
            attn_implementation=attention,
        )
    )


def _gpt2(config: ScratchConfig, tokenizer: PreTrainedTokenizerBase, positions: int, attention: str | None) -> GPT2LMHeadModel:
    return GPT2LMHeadModel(
        GPT2Config(  # type: ignore[call-arg]
            vocab_size=len(tokenizer),
            n_positions=positions,
            n_embd=config.hidden,
            n_layer=config.layers,
            n_head=config.heads,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=tokenizer.eos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            attn_implementation=attention,
        )
    )


_BACKBONES = {"t5": _t5, "gpt2": _gpt2}
