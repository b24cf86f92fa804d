"""Model inputs from token ids: packed sequences if the architecture supports them, else padded batches.

Shape letters: B texts, T tokens of all texts together, L longest text of a group, H hidden size, A attention
heads, D size of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

MAX_TOKENS = 8192  # maximum number of tokens encoded at a time
_GROUP_FILL = 0.75  # a group ends at the first text shorter than this fraction of its longest one
_LONGEST, _ONE_LENGTH = 256, 1024  # numbers of tokens from which texts of maximum length, and of any one length, are faster in a group without padding


@dataclass(frozen=True)
class PaddedGroup:
    """Texts of similar length with padding on the right: ids and attention mask of shape [texts, L]."""

    input_ids: Tensor
    attention_mask: Tensor


@dataclass(frozen=True)
class Padded:
    """Padded batch, in groups of similar length, longest texts first."""

    groups: tuple[PaddedGroup, ...]
    order: Tensor  # position of each of the caller's texts in the groups, [B]


@dataclass(frozen=True)
class AttentionGroup:
    """Consecutive texts of similar length in the packed order; attention runs on a grid [texts, length]."""

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
    order: Tensor  # position of each of the caller's inputs in the texts followed by the images, [inputs]


@dataclass(frozen=True)
class Windowed:
    """Windows of long texts."""

    windows: Padded | Packed
    places: Tensor  # place of its text for each window, [windows]
    texts: int  # number of texts


def averaged(encodings: Tensor, places: Tensor, texts: int) -> Tensor:
    """Return the mean encoding of the windows of each text, [texts, H]; encodings: [windows, H]; places: of its text for each window."""
    sums = encodings.new_zeros(texts, encodings.shape[1]).index_add(0, places, encodings)
    return sums / torch.bincount(places, minlength=texts).to(encodings.dtype)[:, None]


class Cells(NamedTuple):
    """The same number of texts for each of several episodes, padded to one length: the batch of one call vectorised over episodes (`torch.vmap`)."""

    ids: Tensor  # [E, B, L]
    lengths: Tensor  # [E, B]
    mask: Tensor  # additive attention mask, [E, B, 1, 1 or L, L]


TextBatch = Padded | Packed | Windowed
Batch = TextBatch | Mixed


def on_device(values: np.ndarray, device: torch.device) -> Tensor:
    """Return the values as a tensor on a device; copies to a GPU are asynchronous."""
    found = torch.from_numpy(values)
    return found.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else found.to(device)


def pad(texts: Sequence[np.ndarray], padding_id: int, device: torch.device, one_length: bool = False) -> Padded:
    """Return a right-padded batch of token ids, in groups of similar length; with `one_length`, of equal length, without padding."""
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
    """Return the token ids of all texts concatenated, with attention groups that are padded only to the longest text of the group."""
    lengths, order, groups = longest_first(texts)
    groups = _separate_full(lengths[order], groups)
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
    """Return the texts of episodes with equal numbers of texts, padded to the longest text, or to `length` if that is longer."""
    lengths = np.array([[len(ids) for ids in texts] for texts in episodes])  # [E, B]
    filled = np.arange(max(length, lengths.max())) < lengths[:, :, None]  # [E, B, L]
    ids = np.zeros(filled.shape, dtype=np.int64)  # any padding id works: padding is masked in attention and excluded from pooling
    ids[filled] = np.concatenate([ids for texts in episodes for ids in texts])
    return Cells(on_device(ids, device), on_device(lengths, device), _mask(filled, causal, device))


def packed_cells(ids: Tensor, lengths: Tensor, mask: Tensor) -> Packed:
    """Return the batch of one episode, from its slice of `Cells`."""
    texts, length = ids.shape
    group = AttentionGroup(texts * length, texts, length, None, None, mask)
    cell = torch.arange(texts * length, device=ids.device)
    return Packed(ids.reshape(1, -1), (cell % length)[None], (group,), cell[::length], lengths)


def longest_first(texts: Sequence[np.ndarray], fill: float = _GROUP_FILL) -> tuple[np.ndarray, np.ndarray, list[slice]]:
    """Return (length of each text, order by decreasing length, slices of that order in which no text is shorter than `fill` times the longest)."""
    lengths = np.array([len(ids) for ids in texts])
    order = np.argsort(-lengths, kind="stable")
    groups, begin = [], 0
    for end in range(1, len(order) + 1):
        if end == len(order) or lengths[order[end]] < fill * lengths[order[begin]]:
            groups.append(slice(begin, end))
            begin = end
    return lengths, order, groups


def _separate_full(lengths: np.ndarray, groups: list[slice]) -> list[slice]:
    """Return the groups with texts of one length, if there are many, in a separate group, which needs no padding.

    Many have the maximum length if texts are truncated, and many have any one length if a batch is part of many texts sorted by length.
    """
    found = []
    for group in groups:
        changes = group.start + 1 + np.flatnonzero(np.diff(lengths[group]))
        begin = group.start
        for start, stop in pairwise([group.start, *changes.tolist(), group.stop]):
            if (stop - start) * lengths[start] >= (_ONE_LENGTH if start else _LONGEST):
                found += [slice(begin, start), slice(start, stop)]
                begin = stop
        found.append(slice(begin, group.stop))
    return [group for group in found if group.start < group.stop]


def table(rows: Sequence[np.ndarray], filling: int, left: bool = False) -> np.ndarray:
    """Return rows of different lengths as a table, padded on the right or on the left."""
    longest = max(map(len, rows))
    found = np.full((len(rows), longest), filling, dtype=np.int64)
    for number, row in enumerate(rows):
        found[number, longest - len(row) if left else 0 :][: len(row)] = row
    return found


def common_prefix(texts: Sequence[np.ndarray]) -> int:
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

    query has shape [1, A, T, D]; key and value have too, or fewer heads (grouped-query attention); position_bias: bias added to
    the scores of each group, [1, A, L, L]. Returns ([1, T, A, D], None). Written out, because the fused kernel has no second derivative.
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
        scores.add_(more)  # in place: the derivatives of the product do not need its result
    shares = F.dropout(F.softmax(scores, dim=-1), dropout, training=dropout > 0)
    return torch.matmul(shares, value)


def chunks(texts: Sequence[np.ndarray], max_tokens: int = MAX_TOKENS) -> list[slice]:
    """Split texts into consecutive slices of at most this number of tokens, or of one text."""
    slices, begin, tokens = [], 0, 0
    for end, ids in enumerate(texts):
        if end > begin and tokens + len(ids) > max_tokens:
            slices.append(slice(begin, end))
            begin, tokens = end, 0
        tokens += len(ids)
    return [*slices, slice(begin, len(texts))] if len(texts) else []
