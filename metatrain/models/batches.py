"""From token ids to model inputs: packed end to end where the architecture can run on that, else padded.

Shape letters: B texts, T tokens of all texts together, L longest text of a group, H hidden size, A attention
heads, D size of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

MOST_TOKENS = 8192  # of texts that are encoded together
_GROUP_FILL = 0.75  # a group of texts is closed when the next one is shorter than this share of its longest


@dataclass(frozen=True)
class PaddedGroup:
    """Texts of similar length with padding on the right: ids and attention mask of shape [texts, L]."""

    input_ids: Tensor
    attention_mask: Tensor


@dataclass(frozen=True)
class Padded:
    """The ordinary batch, in groups of similar length, longest texts first."""

    groups: tuple[PaddedGroup, ...]
    order: Tensor  # where each text of the caller is among the groups' texts, shape [B]

    def token_ids(self) -> Tensor:
        """All token ids, padding included, in one row."""
        return torch.cat([group.input_ids.flatten() for group in self.groups])

    def remap(self, rows: Tensor) -> Padded:
        """The same texts, with ids as positions in the sorted ids `rows`."""
        groups = (PaddedGroup(torch.searchsorted(rows, group.input_ids), group.attention_mask) for group in self.groups)
        return Padded(tuple(groups), self.order)


@dataclass(frozen=True)
class AttentionGroup:
    """The next texts of the packed order that are of similar length, attended to as [texts, length]."""

    tokens: int
    texts: int
    length: int
    gather: Tensor | None  # token of each cell of the [texts, length] grid, shape [texts * length]; None: full grid
    scatter: Tensor | None  # cell of each token, shape [tokens]
    mask: Tensor | None  # 0 or -inf, shape [texts, 1, 1 or length, length]; None: all attend to all


@dataclass(frozen=True)
class Packed:
    """All texts' tokens end to end, longest text first; only attention sees a padded grid."""

    input_ids: Tensor  # [1, T]
    position_ids: Tensor  # [1, T]
    groups: tuple[AttentionGroup, ...]
    starts: Tensor  # first token of each text in the caller's order, shape [B]
    lengths: Tensor  # shape [B]

    def token_ids(self) -> Tensor:
        """All token ids in one row."""
        return self.input_ids[0]

    def remap(self, rows: Tensor) -> Packed:
        """The same texts, with ids as positions in the sorted ids `rows`."""
        return Packed(torch.searchsorted(rows, self.input_ids), self.position_ids, self.groups, self.starts, self.lengths)


@dataclass(frozen=True)
class Mixed:
    """Texts and pictures of one call."""

    texts: Padded | None
    pictures: Tensor | None  # [pictures, 3, side, side]
    order: Tensor  # where each input of the caller is among the texts and then the pictures, [inputs]


TextBatch = Padded | Packed
Batch = TextBatch | Mixed


def pad(texts: Sequence[np.ndarray], padding_id: int, device: torch.device) -> Padded:
    """Right-padded batch of token ids, in groups of similar length."""
    lengths, order, groups = longest_first(texts)
    padded = []
    for group in groups:
        longest = int(lengths[order[group.start]])
        filled = np.arange(longest)[None] < lengths[order[group], None]  # [texts, longest]
        ids = np.full(filled.shape, padding_id, dtype=np.int64)
        ids[filled] = np.concatenate([texts[i] for i in order[group]])
        padded.append(PaddedGroup(torch.from_numpy(ids).to(device), torch.from_numpy(filled.astype(np.int64)).to(device)))
    return Padded(tuple(padded), torch.from_numpy(np.argsort(order)).to(device))


def pack(texts: Sequence[np.ndarray], device: torch.device, causal: bool = False) -> Packed:
    """Token ids end to end, with an attention plan that pads only within groups of similar length."""
    lengths, order, groups = longest_first(texts)
    starts = np.zeros(len(texts), dtype=np.int64)
    starts[order] = np.concatenate([[0], np.cumsum(lengths[order])[:-1]])
    ids = np.concatenate([texts[i] for i in order]).astype(np.int64)
    positions = np.concatenate([np.arange(lengths[i]) for i in order])
    return Packed(
        torch.from_numpy(ids)[None].to(device),
        torch.from_numpy(positions)[None].to(device),
        tuple(_attention_group(lengths[order[group]], device, causal) for group in groups),
        torch.from_numpy(starts).to(device),
        torch.from_numpy(lengths).to(device),
    )


def longest_first(texts: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, list[slice]]:
    """(length of each text, texts in order of falling length, slices of that order whose texts are of similar length)."""
    lengths = np.array([len(ids) for ids in texts])
    order = np.argsort(-lengths, kind="stable")
    groups, begin = [], 0
    for end in range(1, len(order) + 1):
        if end == len(order) or lengths[order[end]] < _GROUP_FILL * lengths[order[begin]]:
            groups.append(slice(begin, end))
            begin = end
    return lengths, order, groups


def _attention_group(lengths: np.ndarray, device: torch.device, causal: bool) -> AttentionGroup:
    texts, longest, tokens = len(lengths), int(lengths[0]), int(lengths.sum())
    full = tokens == texts * longest
    filled = np.arange(longest)[None] < lengths[:, None]  # [texts, longest]
    gather = np.zeros((texts, longest), dtype=np.int64)
    gather[filled] = np.arange(tokens)
    seen = filled[:, None, None, :] & np.tri(longest, dtype=bool) if causal else filled[:, None, None, :]
    mask = torch.zeros(seen.shape).masked_fill(torch.from_numpy(~seen), float("-inf")).to(device)
    return AttentionGroup(
        tokens,
        texts,
        longest,
        None if full else torch.from_numpy(gather.ravel()).to(device),
        None if full else torch.from_numpy(np.flatnonzero(filled.ravel())).to(device),
        None if full and not causal else mask,
    )


def packed_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    scaling: float = 1.0,
    dropout: float = 0.0,
    groups: Sequence[AttentionGroup] = (),
    position_bias: Sequence[Tensor] | None = None,
    **__: Any,
) -> tuple[Tensor, None]:
    """Attention for `Packed` inputs, in transformers' attention interface; twice differentiable.

    query has shape [1, A, T, D]; key and value have too, or with fewer heads that share; position_bias: what is added to each
    group's scores, [1, A, L, L]. Returns ([1, T, A, D], None). Written out rather than through the fused kernel, because that
    one has no second derivative.
    """
    _, heads, tokens, size = query.shape
    sizes = [group.tokens for group in groups]
    parts = [x[0].transpose(0, 1).reshape(tokens, -1).split(sizes) for x in (query, key, value)]
    outputs = []
    for number, (group, q, k, v) in enumerate(zip(groups, *parts)):
        bias = None if position_bias is None else position_bias[number]
        mixed = _mixed(_grid(q, group, size), k, v, group, scaling, dropout, bias).transpose(1, 2)
        mixed = mixed.reshape(group.texts * group.length, heads * size)
        outputs.append(mixed if group.scatter is None else mixed.index_select(0, group.scatter))
    return torch.cat(outputs).view(1, tokens, heads, size), None


def first_token_attention(query: Tensor, key: Tensor, value: Tensor, heads: int, scaling: float, dropout: float, groups: Sequence[AttentionGroup]) -> Tensor:
    """Attention of each text's first token alone: query [B, A * D] in packed order; key, value [T, A * D]; returns [B, A * D]."""
    outputs = []
    sizes = [group.tokens for group in groups]
    for group, q, k, v in zip(groups, query.split([group.texts for group in groups]), key.split(sizes), value.split(sizes)):
        q = q.view(group.texts, 1, heads, -1).transpose(1, 2)
        outputs.append(_mixed(q, k, v, group, scaling, dropout, None).reshape(group.texts, -1))
    return torch.cat(outputs)


def _grid(x: Tensor, group: AttentionGroup, size: int) -> Tensor:
    """A group's tokens [tokens, A * D] as cells, shape [texts, A, length, D]."""
    x = x if group.gather is None else x.index_select(0, group.gather)
    return x.view(group.texts, group.length, -1, size).transpose(1, 2)


def _mixed(query: Tensor, key: Tensor, value: Tensor, group: AttentionGroup, scaling: float, dropout: float, bias: Tensor | None) -> Tensor:
    """Values mixed for queries [texts, A, queries, D], in the same shape."""
    heads, size = query.shape[1], query.shape[3]
    key, value = _grid(key, group, size), _grid(value, group, size)
    if (sharing := heads // key.shape[1]) > 1:
        key, value = key.repeat_interleave(sharing, 1), value.repeat_interleave(sharing, 1)
    scores = torch.matmul(query * scaling, key.transpose(-1, -2))
    for more in (bias, group.mask):
        if more is not None:
            scores = scores + more.to(scores.dtype)
    shares = F.dropout(F.softmax(scores, dim=-1), dropout, training=dropout > 0)
    return torch.matmul(shares, value)


def chunks(texts: Sequence[np.ndarray], most_tokens: int = MOST_TOKENS) -> list[slice]:
    """Cut a list of texts into consecutive slices of at most so many tokens, or of one text."""
    slices, begin, tokens = [], 0, 0
    for end, ids in enumerate(texts):
        if end > begin and tokens + len(ids) > most_tokens:
            slices.append(slice(begin, end))
            begin, tokens = end, 0
        tokens += len(ids)
    return [*slices, slice(begin, len(texts))] if len(texts) else []
