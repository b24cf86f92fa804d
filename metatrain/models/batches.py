"""From token ids to model inputs: packed end to end where the architecture is known, else padded.

Shape letters: B texts, T tokens of all texts together, L longest text of a group, H hidden size, A attention
heads, D size of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_GROUP_FILL = 0.75  # a group of texts is closed when the next one is shorter than this share of its longest


@dataclass(frozen=True)
class Padded:
    """The ordinary batch: ids and attention mask of shape [B, L]."""

    input_ids: Tensor
    attention_mask: Tensor

    def remap(self, rows: Tensor) -> Padded:
        """The same texts, with ids as positions in the sorted ids `rows`."""
        return Padded(torch.searchsorted(rows, self.input_ids), self.attention_mask)


@dataclass(frozen=True)
class AttentionGroup:
    """The next texts of the packed order that are of similar length, attended to as [texts, length]."""

    tokens: int
    texts: int
    length: int
    gather: Tensor | None  # token of each cell of the [texts, length] grid, shape [texts * length]; None: full grid
    scatter: Tensor | None  # cell of each token, shape [tokens]
    mask: Tensor | None  # 0 or -inf, shape [texts, 1, 1, length]


@dataclass(frozen=True)
class Packed:
    """All texts' tokens end to end, longest text first; only attention sees a padded grid."""

    input_ids: Tensor  # [1, T]
    position_ids: Tensor  # [1, T]
    groups: tuple[AttentionGroup, ...]
    starts: Tensor  # first token of each text in the caller's order, shape [B]
    lengths: Tensor  # shape [B]

    def remap(self, rows: Tensor) -> Packed:
        """The same texts, with ids as positions in the sorted ids `rows`."""
        return Packed(torch.searchsorted(rows, self.input_ids), self.position_ids, self.groups, self.starts, self.lengths)


Batch = Padded | Packed


def pad(texts: Sequence[np.ndarray], padding_id: int, device: torch.device) -> Padded:
    """Right-padded batch of token ids."""
    longest = max(len(ids) for ids in texts)
    ids = np.full((len(texts), longest), padding_id, dtype=np.int64)
    mask = np.zeros((len(texts), longest), dtype=np.int64)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = text
        mask[row, : len(text)] = 1
    return Padded(torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device))


def pack(texts: Sequence[np.ndarray], device: torch.device) -> Packed:
    """Token ids end to end, with an attention plan that pads only within groups of similar length."""
    lengths = np.array([len(ids) for ids in texts])
    order = np.argsort(-lengths, kind="stable")
    starts = np.zeros(len(texts), dtype=np.int64)
    starts[order] = np.concatenate([[0], np.cumsum(lengths[order])[:-1]])
    groups, begin = [], 0
    for end in range(1, len(order) + 1):
        if end == len(order) or lengths[order[end]] < _GROUP_FILL * lengths[order[begin]]:
            groups.append(_group(lengths[order[begin:end]], device))
            begin = end
    ids = np.concatenate([texts[i] for i in order]).astype(np.int64)
    positions = np.concatenate([np.arange(lengths[i]) for i in order])
    return Packed(
        torch.from_numpy(ids)[None].to(device),
        torch.from_numpy(positions)[None].to(device),
        tuple(groups),
        torch.from_numpy(starts).to(device),
        torch.from_numpy(lengths).to(device),
    )


def _group(lengths: np.ndarray, device: torch.device) -> AttentionGroup:
    texts, longest, tokens = len(lengths), int(lengths[0]), int(lengths.sum())
    if tokens == texts * longest:
        return AttentionGroup(tokens, texts, longest, None, None, None)
    filled = np.arange(longest)[None] < lengths[:, None]  # [texts, longest]
    gather = np.zeros((texts, longest), dtype=np.int64)
    gather[filled] = np.arange(tokens)
    mask = torch.zeros(texts, 1, 1, longest).masked_fill(torch.from_numpy(~filled)[:, None, None, :], float("-inf"))
    return AttentionGroup(
        tokens,
        texts,
        longest,
        torch.from_numpy(gather.ravel()).to(device),
        torch.from_numpy(np.flatnonzero(filled.ravel())).to(device),
        mask.to(device),
    )


def packed_attention(module, query, key, value, attention_mask, scaling=None, dropout=0.0, groups=(), **_):
    """Attention for `Packed` inputs, in transformers' attention interface; twice differentiable.

    query, key, value have shape [1, A, T, D]; returns ([1, T, A, D], None). Written out rather than through the
    fused kernel, because that one has no second derivative.
    """
    _, heads, tokens, size = query.shape
    sizes = [group.tokens for group in groups]
    parts = [x[0].transpose(0, 1).reshape(tokens, heads * size).split(sizes) for x in (query, key, value)]
    outputs = []
    for group, q, k, v in zip(groups, *parts):
        mixed = _mixed(_grid(q, group, heads), k, v, group, scaling, dropout).transpose(1, 2)
        mixed = mixed.reshape(group.texts * group.length, heads * size)
        outputs.append(mixed if group.scatter is None else mixed.index_select(0, group.scatter))
    return torch.cat(outputs).view(1, tokens, heads, size), None


def first_token_attention(query: Tensor, key: Tensor, value: Tensor, heads: int, scaling: float, dropout: float, groups) -> Tensor:
    """Attention of each text's first token alone: query [B, A * D] in packed order; key, value [T, A * D]; returns [B, A * D]."""
    outputs = []
    sizes = [group.tokens for group in groups]
    for group, q, k, v in zip(groups, query.split([group.texts for group in groups]), key.split(sizes), value.split(sizes)):
        q = q.view(group.texts, 1, heads, -1).transpose(1, 2)
        outputs.append(_mixed(q, k, v, group, scaling, dropout).reshape(group.texts, -1))
    return torch.cat(outputs)


def _grid(x: Tensor, group: AttentionGroup, heads: int) -> Tensor:
    """A group's tokens [tokens, A * D] as cells, shape [texts, A, length, D]."""
    x = x if group.gather is None else x.index_select(0, group.gather)
    return x.view(group.texts, group.length, heads, -1).transpose(1, 2)


def _mixed(query: Tensor, key: Tensor, value: Tensor, group: AttentionGroup, scaling: float, dropout: float) -> Tensor:
    """Values mixed for queries [texts, A, queries, D], in the same shape."""
    heads = query.shape[1]
    scores = torch.matmul(query * scaling, _grid(key, group, heads).transpose(-1, -2))
    if group.mask is not None:
        scores = scores + group.mask.to(scores.dtype)
    shares = F.dropout(F.softmax(scores, dim=-1), dropout, training=dropout > 0)
    return torch.matmul(shares, _grid(value, group, heads))


def chunks(texts: Sequence[np.ndarray], most_tokens: int = 8192) -> list[slice]:
    """Cut a long list of texts into consecutive slices of bounded padded size, for prediction."""
    slices, begin, longest = [], 0, 0
    for end, ids in enumerate(texts):
        longest = max(longest, len(ids))
        if end > begin and longest * (end + 1 - begin) > most_tokens:
            slices.append(slice(begin, end))
            begin, longest = end, len(ids)
    slices.append(slice(begin, len(texts)))
    return slices
