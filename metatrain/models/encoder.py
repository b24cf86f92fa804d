"""A text encoder: any `AutoModel` backbone plus pooling, called as a function of its parameters."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForTextEncoding, PretrainedConfig, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING

from metatrain.errors import UserError
from metatrain.models import tiny
from metatrain.models.architectures import architecture_of
from metatrain.models.backbone import Backbone, longest_input
from metatrain.models.batches import Packed, Padded, TextBatch, Windowed, averaged, on_device, pack, pad
from metatrain.models.config import ModelConfig
from metatrain.models.dropout import dropout, set_dropout
from metatrain.models.located import located
from metatrain.models.pretrained import attention_for, attention_in_log, load_backbone, load_tokenizer, name_in_log
from metatrain.models.sentence_pipeline import read_pipeline
from metatrain.models.trial import check_runs, reads_padding
from metatrain.models.vocabulary import fit_vocabulary
from metatrain.models.windows import CUT, MOST_TOKENS, WINDOWS, LongTokens, Windows
from metatrain.tasks.tokens import Tokens

POOLINGS = ("mean", "first", "cls", "last")
_FIRST_TOKEN = ("first", "cls")
POOLER_ARCHITECTURES = ("bert",)  # first-token pooling goes through the model's own pooler, as its classifier does

# Classes that take `add_pooling_layer`; an unused pooler would be a parameter without a gradient.
_OPTIONAL_POOLERS = ("bert", "roberta", "xlm-roberta", "mpnet", "camembert", "albert", "data2vec-text", "ernie")


class Encoder(nn.Module):
    """Text encoder: `encoder(batch)` has shape [texts, hidden]. Dropout is off unless a call passes a seed."""

    new_tokenizer = False  # the tokenizer is never trained here
    poolings: tuple[str, ...] = POOLINGS  # those that `model.pooling` may choose
    if_lost = ""  # what to do about a checkpoint without weights that are used

    def __init__(self, backbone: Backbone, tokenizer: PreTrainedTokenizerBase, config: ModelConfig):
        super().__init__()
        self.backbone: Backbone = backbone.eval()
        self.tokenizer = tokenizer
        self.pooling = config.pooling
        self.normalize = config.normalize
        self.prefix = config.prefix
        self.max_length = config.max_length
        self.windows = Windows.of(tokenizer, config.max_length, config.prefix) if config.long_texts == WINDOWS else None  # None: long texts are cut
        self.longest = longest_input(backbone)
        self.uses_pooler = _uses_pooler(config, backbone.config.model_type)
        self.half_products = False  # matrix products in bf16; parameters keep their dtype
        self.architecture = architecture_of(self.reader, config.max_length)  # None: batches are padded
        self.reads_padding = False  # True: only texts of equal length are batched
        # Keys and values of earlier tokens are not needed, and some architectures update theirs in place.
        self._options = {"use_cache": False} if "use_cache" in inspect.signature(backbone.forward).parameters else {}

    @classmethod
    def auto(cls, config: ModelConfig, settings: PretrainedConfig) -> tuple[Any, dict[str, Any]]:
        """Return the auto class of transformers that loads the backbone, and options of that class."""
        return _auto(config, settings)

    @classmethod
    def from_scratch(cls, config: ModelConfig, vocabulary: int) -> Backbone:
        """Return the backbone of `model=tiny` for a vocabulary of this number of tokens."""
        return tiny.backbone(vocabulary, pooler=_uses_pooler(config, "bert"))

    @property
    def described(self) -> str:
        """Description of the encoding of a text, for the log."""
        return f"{self.pooling} pooling{', normalised' if self.normalize else ''}"

    @property
    def reader(self) -> Backbone:
        """The module that reads token ids: the backbone, without a prediction head."""
        return self.backbone

    @functools.cached_property
    def hidden_size(self) -> int:
        """Dimension of the encodings; measured with a forward pass if configurations have no common name for it."""
        if self.architecture is not None:
            return self.backbone.config.hidden_size
        with torch.no_grad():
            return self(self.batch(self.example())).shape[1]

    @property
    def device(self) -> torch.device:
        return next(self.backbone.parameters()).device

    @property
    def fixed_ids(self) -> int:
        """Number of leading token ids that are used other than by their embedding: those up to the padding id, if there is one."""
        return self._padding_id + 1 if self.architecture is None else self.architecture.first_position

    @property
    def _padding_id(self) -> int:
        return self.tokenizer.pad_token_id or 0

    @property
    def word_embeddings(self) -> str:
        """Name of the word embedding among the encoder's parameters."""
        weight = self.backbone.get_input_embeddings().weight
        return next(name for name, parameter in self.named_parameters() if parameter is weight)

    def batch(self, texts: Sequence[np.ndarray]) -> TextBatch:
        """Return model inputs for token ids."""
        if self.windows is None or max(map(len, texts)) <= self.max_length:
            return self._batch(texts)
        windows, places = self.windows.split(texts)
        return Windowed(self._batch(windows), on_device(places, self.device), len(texts))

    def _batch(self, texts: Sequence[np.ndarray]) -> Padded | Packed:
        if self.architecture is None:
            return pad(texts, self._padding_id, self.device, self.reads_padding)
        return pack(texts, self.device, self.architecture.causal)

    @property
    def layers(self) -> int:
        """Number of layers between which `forward` can be split; 0: this architecture cannot be split, or long texts are read in windows."""
        return 0 if self.architecture is None or self.windows is not None else len(self.architecture.layers)

    def forward(
        self, batch: TextBatch, hidden: Tensor | None = None, start: int = 0, stop: int | None = None, seed: int | None = None, fused: bool = False
    ) -> Tensor:
        """Return encodings of shape [B, H].

        An encoder with `layers` can run in two parts: with `stop`, it returns the hidden states [T, H] before that layer; with these as
        `hidden` and the same number as `start`, it continues from there to the encodings.
        With a `seed`, dropout is on: the same seed gives the same masks. `fused`: packed texts use a fused attention kernel, which has no
        second derivative.
        """
        if seed is not None:
            with dropout(self.backbone, seed, self.device):
                return self.forward(batch, hidden, start, stop, fused=fused)
        if isinstance(batch, Windowed):
            encodings = averaged(self.forward(batch.windows, fused=fused), batch.places, batch.texts)
            return F.normalize(encodings, dim=-1) if self.normalize else encodings
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half_products):
            encodings = self._padded(batch) if isinstance(batch, Padded) else self._packed(batch, hidden, start, stop, fused)
        if self.half_products:
            encodings = encodings.float()
        return F.normalize(encodings, dim=-1) if self.normalize and stop is None else encodings

    def probe(self, tokens: int) -> np.ndarray:
        """Return a text with this number of tokens, for measurements."""
        return np.zeros(tokens, dtype=np.int64)

    def example(self) -> list[np.ndarray]:
        """Return two short texts."""
        return [np.array(self.tokenizer("a")["input_ids"])] * 2

    def trial(self) -> list[np.ndarray]:
        """Return two short texts of different length, for a trial run."""
        return [np.array(self.tokenizer(text)["input_ids"]) for text in ("a b c d", "a b c")]

    def set_dropout(self, rate: float) -> None:
        set_dropout(self.backbone, rate)

    def tokens(self) -> Tokens:
        """Return the tokenisation of its texts."""
        if self.windows is not None:
            return LongTokens(self.tokenizer, MOST_TOKENS, prefix=self.prefix)
        return Tokens(self.tokenizer, self.max_length, longest=self.longest, prefix=self.prefix)

    def _packed(self, batch: Packed, hidden: Tensor | None, start: int, stop: int | None, fused: bool) -> Tensor:
        model = self.architecture
        assert model is not None  # `batch` packs texts only then
        if hidden is None:
            hidden = model.embed(batch)
        shared, layers = {**model.shared(batch, hidden), "fused": fused}, model.layers[start:stop]
        first_alone = stop is None and self.pooling in _FIRST_TOKEN and len(layers) > 0
        for layer in layers[:-1] if first_alone else layers:
            hidden = model.run(layer, hidden, shared)  # [T, H]
        if stop is not None:
            return hidden
        if first_alone:
            encodings = model.finish(model.first_tokens(layers[-1], hidden, batch, shared))
        else:
            encodings = self._pooled(model.finish(hidden), batch)
        return self.backbone.pooler(encodings[:, None]) if self.uses_pooler else encodings

    def _pooled(self, hidden: Tensor, batch: Packed) -> Tensor:
        """Return the encodings [B, H] of hidden states [T, H]."""
        if self.pooling != "mean":
            return hidden.index_select(0, batch.starts if self.pooling in _FIRST_TOKEN else batch.starts + batch.lengths - 1)
        token = torch.arange(hidden.shape[0], device=hidden.device)[None]
        begin, length = batch.starts[:, None], batch.lengths[:, None]
        weights = ((token >= begin) & (token < begin + length)).to(hidden.dtype) / length  # [B, T]
        return weights @ hidden

    def _padded(self, batch: Padded) -> Tensor:
        parts = [self.encode_padded(group.input_ids, group.attention_mask) for group in batch.groups]
        return torch.cat(parts).index_select(0, batch.order)

    def encode_padded(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the encodings of texts, not normalised, [texts, H], by the backbone's own `forward`; both inputs are [texts, L]."""
        outputs = self.backbone(input_ids=input_ids, attention_mask=attention_mask, **self._options)
        hidden = outputs.last_hidden_state  # [texts, L, H]
        if self.pooling == "mean":
            weights = attention_mask.to(hidden.dtype)[:, :, None]
            return (hidden * weights).sum(1) / weights.sum(1)
        if self.pooling == "last":
            last = (attention_mask.sum(1) - 1)[:, None, None].expand(-1, 1, hidden.shape[2])
            return hidden.gather(1, last).squeeze(1)
        return outputs.pooler_output if self.uses_pooler else hidden[:, 0]


Make = Callable[[Backbone, PreTrainedTokenizerBase, ModelConfig], Encoder]


def load_encoder(
    config: ModelConfig, second_order: bool, dtype: torch.dtype = torch.float32, make: Make = Encoder, kind: type[Encoder] = Encoder
) -> tuple[Encoder, list[str]]:
    """Load `config.name`; return the encoder and lines for the log.

    make: makes an encoder of the class `kind`. dtype: dtype of the parameters; bfloat16 means float32 parameters with matrix products in bf16,
    because inner steps that are rounded to bf16 make no progress.

    Raises:
        UserError: the model does not exist, cannot be read, or the settings do not fit it.
    """
    if config.pooling not in kind.poolings:
        raise UserError(f"model.pooling={config.pooling} is unknown; choose one of {', '.join(POOLINGS)}")
    if config.long_texts not in (CUT, WINDOWS):
        raise UserError(f"model.long_texts={config.long_texts} is unknown; choose {CUT} or {WINDOWS}")
    if config.max_length < 3:
        raise UserError(f"model.max_length={config.max_length} must be 3 or more: two special tokens and one token of text")
    tokenizer: PreTrainedTokenizerBase
    backbone: Backbone
    notes: list[str] = []
    half_products = dtype == torch.bfloat16
    dtype = torch.float32 if half_products else dtype
    if config.name == "tiny":
        tokenizer = tiny.tokenizer()
        backbone = kind.from_scratch(config, len(tokenizer)).to(dtype)
        source = "a from-scratch 2-layer BERT"
    else:
        path, source = located(config)
        backbone = load_backbone(path, config, partial(kind.auto, config), attention_for(second_order), dtype, kind.if_lost)
        tokenizer = load_tokenizer(path, config)
        tokenizer, left_out = fit_vocabulary(config, tokenizer, backbone)
        notes += left_out
        notes += [] if source or config.pooling not in POOLINGS else _pooling_warning(config, backbone.config.model_type)
        source = source or name_in_log(config)
    encoder = make(backbone, tokenizer, config)
    if config.prefix and encoder.uses_pooler:
        raise UserError(f"model.prefix={config.prefix!r}: a classifier of transformers (model.pooling=first) has no prefix; set model.pooling=cls")
    if encoder.longest and config.max_length > encoder.longest:
        raise UserError(
            f"model.max_length={config.max_length}: {config.name} has positions for {encoder.longest} tokens; set model.max_length={encoder.longest}"
        )
    if encoder.architecture is None:
        trial = encoder.trial()  # one of them padded
        check_runs(f"model.name={config.name}: {backbone.config.model_type}", encoder, lambda: encoder(encoder.batch(trial)), second_order)
        encoder.reads_padding = reads_padding(lambda texts: encoder(encoder.batch(texts)), trial)
    if config.pooling in _FIRST_TOKEN and not _first_token_sees_others(encoder):
        raise UserError(f"model.pooling={config.pooling}: in {config.name} the first token attends to no other, so encodings are equal; choose last or mean")
    encoder.half_products = half_products
    size = sum(parameter.numel() for parameter in encoder.parameters())
    notes.append(f"model: {source}, {size / 1e6:.1f}M parameters, {encoder.described}")
    if encoder.windows is not None:
        notes.append(f"long texts: overlapping windows of {config.max_length} tokens, encodings averaged")
    if encoder.architecture is not None:
        notes.append("attention: packed sequences without padding, twice differentiable")
    else:
        together = (
            "texts of one length are encoded together, since this architecture reads padding"
            if encoder.reads_padding
            else "texts are padded in groups of similar length"
        )
        notes.append(f"{attention_in_log(backbone, second_order)}; {together}")
    return encoder, notes


def _auto(config: ModelConfig, settings: PretrainedConfig) -> tuple[Any, dict[str, Any]]:
    pooler = {"add_pooling_layer": _uses_pooler(config, settings.model_type)} if settings.model_type in _OPTIONAL_POOLERS else {}
    # T5 and similar models: only the encoder, saved as a model without a decoder.
    if settings.is_encoder_decoder and type(settings) not in MODEL_FOR_TEXT_ENCODING_MAPPING:
        raise UserError(
            f"model.name={config.name}: the encoder of {settings.model_type} cannot be loaded without its decoder; choose an encoder, "
            "or use it as a language model (algorithm.head=lm)"
        )
    encoder = settings.is_encoder_decoder or any(name.endswith("EncoderModel") for name in settings.architectures or ())
    return (AutoModelForTextEncoding if encoder else AutoModel), pooler


def _pooling_warning(config: ModelConfig, architecture: str) -> list[str]:
    """Return a warning if the pooling of a sentence-transformers pipeline differs from the settings."""
    pipeline = read_pipeline(config.name, config.revision)
    pooling = "cls" if config.pooling == "first" and not _uses_pooler(config, architecture) else config.pooling
    differs = pipeline is not None and pipeline.prefix not in ("", config.prefix)
    if pipeline is None or (pipeline.unknown is None and not differs and (pipeline.pooling, pipeline.normalize) == (pooling, config.normalize)):
        return []
    here = f"model.pooling={config.pooling} and model.normalize={str(config.normalize).lower()}" + f", and model.prefix={config.prefix!r}" * differs
    return [f"warning: {config.name} is a sentence-transformers pipeline {pipeline.described}, and is used with {here}"]


@torch.no_grad()
def _first_token_sees_others(encoder: Encoder) -> bool:
    """Return True if the output at the first token depends on later tokens; in a causal model it does not."""
    first, special = encoder.example()[0][0], set(encoder.tokenizer.all_special_ids)
    others = [number for number in range(encoder.tokenizer.vocab_size) if number != first and number not in special][:2]
    one, two = (encoder(encoder.batch([np.array([first, other])])) for other in others)
    return not torch.equal(one, two)


def _uses_pooler(config: ModelConfig, architecture: str) -> bool:
    return config.pooling == "first" and not config.normalize and architecture in POOLER_ARCHITECTURES
