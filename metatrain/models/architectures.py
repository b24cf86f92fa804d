"""Architectures that run on packed texts, layer by layer: one class per family.

A packed batch has no row per text, so a backbone's own `forward` cannot be used: it would create masks and positions for padded texts.
These classes call the modules of the backbone in the same order. Attention is `packed_attention`; layers pass its `groups` through.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from metatrain.models.backbone import Backbone
from metatrain.models.batches import Packed, first_token_attention, packed_attention

ATTENTION = "metatrain_packed"  # name of `packed_attention` in transformers' `AttentionInterface`
AttentionInterface.register(ATTENTION, packed_attention)


class Architecture:
    """A backbone whose layers take hidden states, with attention through transformers' interface.

    Shapes: hidden states [T, H], of all tokens of a batch.
    """

    stack = "encoder.layer"  # attribute path of the layers in the backbone
    counts_from_padding = False  # True: the first position is the one after the padding id
    causal = False  # True: a token attends only to itself and earlier tokens
    registered = True  # True: attention goes through transformers' interface

    def __init__(self, backbone: Backbone):
        self.backbone = backbone
        if self.registered:
            backbone.set_attn_implementation(ATTENTION)
        backbone.get_input_embeddings().padding_idx = None  # no padding is used, so every row of the embeddings can have a gradient

    @property
    def layers(self) -> nn.ModuleList:
        return self.backbone.get_submodule(self.stack)

    @property
    def first_position(self) -> int:
        """Return the position of a text's first token."""
        return self.backbone.embeddings.padding_idx + 1 if self.counts_from_padding else 0

    def positions(self, batch: Packed) -> Tensor:
        """Return the position of each token, [1, T]; with `counts_from_padding`, padding tokens within a text do not count."""
        if not self.counts_from_padding:
            return batch.position_ids
        padding = self.backbone.embeddings.padding_idx
        is_padding = (batch.input_ids == padding).long()
        seen = is_padding.cumsum(1)  # padding tokens so far, in all texts
        begin = torch.arange(seen.shape[1], device=seen.device)[None] - batch.position_ids  # first token of each token's text
        seen_in_text = seen - (seen - is_padding).gather(1, begin)
        return torch.where(is_padding.bool(), padding, batch.position_ids + self.first_position - seen_in_text)

    def embed(self, batch: Packed) -> Tensor:
        """Return the hidden states before the first layer."""
        raise NotImplementedError

    def shared(self, batch: Packed, hidden: Tensor) -> dict[str, Any]:
        """Return the arguments of every layer besides hidden states."""
        return {"groups": batch.groups}

    def run(self, layer: Backbone, hidden: Tensor, shared: dict[str, Any]) -> Tensor:
        """Return the hidden states after a layer."""
        return layer(hidden[None], **shared).squeeze(0)

    def first_tokens(self, layer: Backbone, hidden: Tensor, batch: Packed, shared: dict[str, Any]) -> Tensor:
        """Return the output of a layer for the first token of each text, [B, H], in the caller's order."""
        return self.run(layer, hidden, shared).index_select(0, batch.starts)

    def finish(self, hidden: Tensor) -> Tensor:
        """Apply what follows the last layer."""
        return hidden


class Bert(Architecture):
    """BERT and architectures like it."""

    def embed(self, batch: Packed) -> Tensor:
        types = torch.zeros_like(batch.input_ids)
        hidden = self.backbone.embeddings(input_ids=batch.input_ids, token_type_ids=types, position_ids=self.positions(batch))
        if hasattr(self.backbone, "embeddings_project"):  # ELECTRA's narrower embeddings
            hidden = self.backbone.embeddings_project(hidden)
        return hidden.squeeze(0)

    def first_tokens(self, layer: Backbone, hidden: Tensor, batch: Packed, shared: dict[str, Any]) -> Tensor:
        # The layer needs only the keys and values of other tokens.
        mixer = layer.attention.self
        order = batch.starts.argsort()  # packed order
        first = hidden.index_select(0, batch.starts[order])
        dropout = mixer.dropout.p if mixer.training else 0.0
        mixed = first_token_attention(mixer.query(first), mixer.key(hidden), mixer.value(hidden), mixer.num_attention_heads, mixer.scaling, dropout, **shared)
        return layer.feed_forward_chunk(layer.attention.output(mixed, first)).index_select(0, order.argsort())


class Roberta(Bert):
    """RoBERTa and architectures like it."""

    counts_from_padding = True


class DistilBert(Architecture):
    stack = "transformer.layer"

    def embed(self, batch: Packed) -> Tensor:
        return self.backbone.embeddings(batch.input_ids, position_ids=batch.position_ids).squeeze(0)


class MPNet(Architecture):
    """MPNet: relative positions and its own attention, implemented here."""

    registered = False
    counts_from_padding = True

    def embed(self, batch: Packed) -> Tensor:
        return self.backbone.embeddings(batch.input_ids, position_ids=self.positions(batch)).squeeze(0)

    def shared(self, batch: Packed, hidden: Tensor) -> dict[str, Any]:
        bias = [self.backbone.encoder.compute_position_bias(hidden[None, : group.length]) for group in batch.groups]
        return {"groups": batch.groups, "position_bias": bias}

    def run(self, layer: Backbone, hidden: Tensor, shared: dict[str, Any]) -> Tensor:
        mixer = layer.attention.attn
        size = mixer.attention_head_size
        query, key, value = (module(hidden).view(1, -1, mixer.num_attention_heads, size).transpose(1, 2) for module in (mixer.q, mixer.k, mixer.v))
        dropout = mixer.dropout.p if mixer.training else 0.0
        mixed, _ = packed_attention(mixer, query, key, value, None, size**-0.5, dropout, **shared)
        attended = layer.attention.LayerNorm(layer.attention.dropout(mixer.o(mixed.flatten(2).squeeze(0))) + hidden)
        return layer.output(layer.intermediate(attended), attended)


class GPT2(Architecture):
    stack = "h"
    causal = True

    def embed(self, batch: Packed) -> Tensor:
        return self.backbone.drop(self.backbone.wte(batch.input_ids) + self.backbone.wpe(batch.position_ids)).squeeze(0)

    def finish(self, hidden: Tensor) -> Tensor:
        return self.backbone.ln_f(hidden)


class Llama(Architecture):
    """Llama and architectures like it: rotary positions, causal attention, grouped-query attention."""

    stack = "layers"
    causal = True

    def embed(self, batch: Packed) -> Tensor:
        return self.backbone.embed_tokens(batch.input_ids).squeeze(0)

    def shared(self, batch: Packed, hidden: Tensor) -> dict[str, Any]:
        return {"groups": batch.groups, "position_embeddings": self.backbone.rotary_emb(hidden[None], position_ids=batch.position_ids)}

    def finish(self, hidden: Tensor) -> Tensor:
        return self.backbone.norm(hidden)


class T5(Architecture):
    """T5's encoder. All layers share the relative positions of the first."""

    stack = "encoder.block"

    def embed(self, batch: Packed) -> Tensor:
        return self.backbone.encoder.dropout(self.backbone.encoder.embed_tokens(batch.input_ids)).squeeze(0)

    def shared(self, batch: Packed, hidden: Tensor) -> dict[str, Any]:
        positions = self.backbone.encoder.block[0].layer[0].SelfAttention
        return {"groups": batch.groups, "position_bias": [positions.compute_bias(group.length, group.length) for group in batch.groups]}

    def run(self, layer: Backbone, hidden: Tensor, shared: dict[str, Any]) -> Tensor:
        return layer(hidden[None], **shared)[0].squeeze(0)

    def finish(self, hidden: Tensor) -> Tensor:
        return self.backbone.encoder.dropout(self.backbone.encoder.final_layer_norm(hidden))


# By `model_type` of the backbone's configuration.
_FAMILIES: dict[str, type[Architecture]] = {
    **dict.fromkeys(("bert", "electra"), Bert),
    **dict.fromkeys(("roberta", "xlm-roberta", "camembert", "data2vec-text"), Roberta),
    "distilbert": DistilBert,
    "mpnet": MPNet,
    "gpt2": GPT2,
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3"), Llama),
    **dict.fromkeys(("t5", "mt5"), T5),
}


def architecture_of(backbone: Backbone, max_length: int) -> Architecture | None:
    """Return the architecture of a backbone; None if it cannot run on packed texts of up to `max_length` tokens."""
    family = _FAMILIES.get(backbone.config.model_type)
    window = getattr(backbone.config, "sliding_window", None)  # sliding-window attention, which packed attention does not support
    is_decoder = getattr(backbone.config, "is_decoder", False)  # BERT as a decoder is causal
    return None if family is None or is_decoder or (window is not None and window < max_length) else family(backbone)
