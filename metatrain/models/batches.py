"""Model inputs from token ids: packed sequences if the architecture supports them, else padded batches.

Shape letters: B texts, T tokens of all texts together, L longest text of a group, H hidden size, A attention
heads, D size of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

MOST_TOKENS = 8192  # of texts that are encoded together
_GROUP_FILL = 0.75  # a group of texts is closed when the next one is shorter than this share of its longest
_ALIKE = 256  # tokens of texts of the greatest length, from which on attending to them without padding pays


@dataclass(frozen=True)
class PaddedGroup:
    """Texts of similar length with padding on the right: ids and attention mask of shape [texts, L]."""

    input_ids: Tensor
    attention_mask: Tensor


@dataclass(frozen=True)
class Padded:
    """Padded batch, in groups of similar length, longest texts first."""

    groups: tuple[PaddedGroup, ...]
    order: Tensor  # where each text of the caller is among the groups' texts, shape [B]


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
    """Packed batch: the tokens of all texts concatenated, longest text first; only attention uses a padded grid."""

    input_ids: Tensor  # [1, T]
    position_ids: Tensor  # [1, T]
    groups: tuple[AttentionGroup, ...]
    starts: Tensor  # first token of each text in the caller's order, shape [B]
    lengths: Tensor  # shape [B]


@dataclass(frozen=True)
class Mixed:
    """Texts and images of one call."""

    texts: Padded | None
    images: Tensor | None  # [images, 3, side, side]
    order: Tensor  # where each input of the caller is among the texts and then the images, [inputs]


class Cells(NamedTuple):
    """The same number of texts for each of several episodes, padded to one length: the batch of one call vectorised over episodes (`torch.vmap`)."""

    ids: Tensor  # [E, B, L]
    lengths: Tensor  # [E, B]
    mask: Tensor  # what is added to attention's scores, [E, B, 1, 1 or L, L]


TextBatch = Padded | Packed
Batch = TextBatch | Mixed


def on_device(values: np.ndarray, device: torch.device) -> Tensor:
    """The values as a tensor there; a GPU is not waited for."""
    found = torch.from_numpy(values)
    return found.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else found.to(device)


def pad(texts: Sequence[np.ndarray], padding_id: int, device: torch.device, one_length: bool = False) -> Padded:
    """Right-padded batch of token ids, in groups of similar length, or of `one_length`, which have no padding."""
    lengths, order, groups = longest_first(texts, 1.0 if one_length else _GROUP_FILL)
    padded = []
    for group in groups:
        longest = int(lengths[order[group.start]])
        filled = np.arange(longest)[None] < lengths[order[group], None]  # [texts, longest]
        ids = np.full(filled.shape, padding_id, dtype=np.int64)
        ids[filled] = np.concatenate([texts[i] for i in order[group]])
        padded.append(PaddedGroup(on_device(ids, device), on_device(filled.astype(np.int64), device)))
    return Padded(tuple(padded), on_device(np.argsort(order), device))


def pack(texts: Sequence[np.ndarray], device: torch.device, causal: bool = False) -> Packed:
    """Token ids end to end, with an attention plan that pads only within groups of similar length."""
    lengths, order, groups = longest_first(texts)
    groups = _longest_apart(lengths[order], groups)
    starts = np.zeros(len(texts), dtype=np.int64)
    starts[order] = np.concatenate([[0], np.cumsum(lengths[order])[:-1]])
    ids = np.concatenate([texts[i] for i in order]).astype(np.int64)
    positions = np.concatenate([np.arange(lengths[i]) for i in order])
    return Packed(
        on_device(ids, device)[None],
        on_device(positions, device)[None],
        tuple(_attention_group(lengths[order[group]], device, causal) for group in groups),
        on_device(starts, device),
        on_device(lengths, device),
    )


def cells(episodes: Sequence[Sequence[np.ndarray]], device: torch.device, causal: bool = False, length: int = 0) -> Cells:
    """The texts of episodes that have as many each, in cells of at least this length."""
    lengths = np.array([[len(ids) for ids in texts] for texts in episodes])  # [E, B]
    filled = np.arange(max(length, lengths.max())) < lengths[:, :, None]  # [E, B, L]
    ids = np.zeros(filled.shape, dtype=np.int64)  # any padding id works: padding is masked in attention and excluded from pooling
    ids[filled] = np.concatenate([ids for texts in episodes for ids in texts])
    return Cells(on_device(ids, device), on_device(lengths, device), _mask(filled, causal, device))


def packed_cells(ids: Tensor, lengths: Tensor, mask: Tensor) -> Packed:
    """The batch of one episode, from its share of `Cells`."""
    texts, length = ids.shape
    group = AttentionGroup(texts * length, texts, length, None, None, mask)
    cell = torch.arange(texts * length, device=ids.device)
    return Packed(ids.reshape(1, -1), (cell % length)[None], (group,), cell[::length], lengths)


def longest_first(texts: Sequence[np.ndarray], fill: float = _GROUP_FILL) -> tuple[np.ndarray, np.ndarray, list[slice]]:
    """(length of each text, texts in order of falling length, slices of that order whose texts have at least the share `fill` of the longest one's length)."""
    lengths = np.array([len(ids) for ids in texts])
    order = np.argsort(-lengths, kind="stable")
    groups, begin = [], 0
    for end in range(1, len(order) + 1):
        if end == len(order) or lengths[order[end]] < fill * lengths[order[begin]]:
            groups.append(slice(begin, end))
            begin = end
    return lengths, order, groups


def _longest_apart(lengths: np.ndarray, groups: list[slice]) -> list[slice]:
    """The groups of texts of falling length, with those of the greatest length, where they are many, in one of their own, which needs no padding.

    Many texts are as long as the longest where they are cut at the most tokens that the model takes.
    """
    first, alike = groups[0], int((lengths == lengths[0]).sum())
    if alike == first.stop or alike * lengths[0] < _ALIKE:
        return groups
    return [slice(0, alike), slice(alike, first.stop), *groups[1:]]


def table(rows: Sequence[np.ndarray], filling: int, left: bool = False) -> np.ndarray:
    """Return rows of different lengths as a table, padded on the right or on the left."""
    longest = max(map(len, rows))
    found = np.full((len(rows), longest), filling, dtype=np.int64)
    for number, row in enumerate(rows):
        found[number, longest - len(row) if left else 0 :][: len(row)] = row
    return found


def tokens_alike(texts: Sequence[np.ndarray]) -> int:
    """Return the length of the longest common prefix that leaves each text at least one more token."""
    shortest = min(map(len, texts)) - 1
    begins = np.stack([text[:shortest] for text in texts])
    return int(np.logical_and.accumulate((begins == begins[:1]).all(0)).sum())


def _attention_group(lengths: np.ndarray, device: torch.device, causal: bool) -> AttentionGroup:
    texts, longest, tokens = len(lengths), int(lengths[0]), int(lengths.sum())
    full = tokens == texts * longest
    filled = np.arange(longest)[None] < lengths[:, None]  # [texts, longest]
    gather = np.zeros((texts, longest), dtype=np.int64)
    gather[filled] = np.arange(tokens)
    return AttentionGroup(
        tokens,
        texts,
        longest,
        None if full else on_device(gather.ravel(), device),
        None if full else on_device(np.flatnonzero(filled.ravel()), device),
        None if full and not causal else _mask(filled, causal, device),
    )


def _mask(filled: np.ndarray, causal: bool, device: torch.device) -> Tensor:
    """Return the additive attention mask for cells [..., texts, length], some of which are filled: 0 or -inf, [..., texts, 1, 1 or length, length]."""
    seen = filled[..., None, None, :]
    seen = seen & np.tri(filled.shape[-1], dtype=bool) if causal else seen
    return on_device(np.where(seen, np.float32(0), np.float32(-np.inf)), device)


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
    fused: bool = False,
    **__: Any,
) -> tuple[Tensor, None]:
    """Attention for `Packed` inputs, in transformers' attention interface; twice differentiable unless `fused`.

    query has shape [1, A, T, D]; key and value have too, or fewer heads (grouped-query attention); position_bias: what is added to each
    group's scores, [1, A, L, L]. Returns ([1, T, A, D], None). Written out, because the fused kernel has no second derivative.
    """
    _, heads, tokens, size = query.shape
    sizes = [group.tokens for group in groups]
    parts = [x.squeeze(0).transpose(0, 1).reshape(tokens, -1).split(sizes) for x in (query, key, value)]
    outputs = []
    for number, (group, q, k, v) in enumerate(zip(groups, *parts)):
        bias = None if position_bias is None else position_bias[number]
        mixed = _mixed(_grid(q, group, size), k, v, group, scaling, dropout, bias, fused).transpose(1, 2)
        mixed = mixed.reshape(group.texts * group.length, heads * size)
        outputs.append(mixed if group.scatter is None else mixed.index_select(0, group.scatter))
    return torch.cat(outputs).view(1, tokens, heads, size), None


def first_token_attention(
    query: Tensor, key: Tensor, value: Tensor, heads: int, scaling: float, dropout: float, groups: Sequence[AttentionGroup], fused: bool = False
) -> Tensor:
    """Return the attention output of only the first token of each text: query [B, A * D] in packed order; key, value [T, A * D]; returns [B, A * D]."""
    outputs = []
    sizes = [group.tokens for group in groups]
    for group, q, k, v in zip(groups, query.split([group.texts for group in groups]), key.split(sizes), value.split(sizes)):
        q = q.view(group.texts, 1, heads, -1).transpose(1, 2)
        outputs.append(_mixed(q, k, v, group, scaling, dropout, None, fused).reshape(group.texts, -1))
    return torch.cat(outputs)


def _grid(x: Tensor, group: AttentionGroup, size: int) -> Tensor:
    """A group's tokens [tokens, A * D] as cells, shape [texts, A, length, D]."""
    x = x if group.gather is None else x.index_select(0, group.gather)
    return x.view(group.texts, group.length, -1, size).transpose(1, 2)


def _mixed(query: Tensor, key: Tensor, value: Tensor, group: AttentionGroup, scaling: float, dropout: float, bias: Tensor | None, fused: bool) -> Tensor:
    """Return the attention output for queries [texts, A, queries, D], in the same shape."""
    heads, size = query.shape[1], query.shape[3]
    key, value = _grid(key, group, size), _grid(value, group, size)
    if (sharing := heads // key.shape[1]) > 1:
        key, value = key.repeat_interleave(sharing, 1), value.repeat_interleave(sharing, 1)
    added = [each.to(query.dtype) for each in (bias, group.mask) if each is not None]
    if fused:
        mask = added[0] + added[1] if len(added) == 2 else added[0] if added else None
        return F.scaled_dot_product_attention(query, key, value, mask, dropout, scale=scaling)
    scores = torch.matmul(query * scaling, key.transpose(-1, -2))
    for more in added:
        scores.add_(more)  # the product's derivatives do not need it
    shares = F.dropout(F.softmax(scores, dim=-1), dropout, training=dropout > 0)
    return torch.matmul(shares, value)


def chunks(texts: Sequence[np.ndarray], most_tokens: int = MOST_TOKENS) -> list[slice]:
    """Cut a list of texts into consecutive slices of at most this number of tokens, or of one text."""
    slices, begin, tokens = [], 0, 0
    for end, ids in enumerate(texts):
        if end > begin and tokens + len(ids) > most_tokens:
            slices.append(slice(begin, end))
            begin, tokens = end, 0
        tokens += len(ids)
    return [*slices, slice(begin, len(texts))] if len(texts) else []
