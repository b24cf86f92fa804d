"""Log-likelihoods of several choices after a text, with shared inputs encoded once.

A common prefix of the texts (a support set in the prompt, for example) is encoded once for all of them, and each text once for all of its
choices: a decoder's KV cache or an encoder's output is reused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from metatrain.models.batches import chunks, common_prefix, longest_first, on_device, table
from metatrain.models.language_model import IGNORED, LanguageModel, repeated


@torch.no_grad()
def losses_of_choices(model: LanguageModel, texts: Sequence[np.ndarray], choices: Sequence[np.ndarray], part_tokens: int) -> Tensor:
    """Return the negative log-likelihood of every choice after every text, [texts, choices]; about `part_tokens` tokens are held at a time."""
    if not model.decoder_only:
        return _after_encoder(model, texts, choices, part_tokens)
    if not model.has_kv_cache:
        return _without_cache(model, texts, choices, part_tokens)
    return _after_decoder(model, [np.concatenate([text, model.separator]) for text in texts], choices, part_tokens)


@dataclass(frozen=True)
class _Cache:
    """KV cache of B inputs, some of which end in padding."""

    past: Any  # a `transformers.Cache`
    mask: Tensor  # attention mask, [B, tokens]
    tokens: Tensor  # number of tokens of each input, [B]

    def repeated(self, times: int) -> _Cache:
        """Repeat each input `times` times in a row."""
        return _Cache(repeated(self.past, times), *(each.repeat_interleave(times, 0) for each in (self.mask, self.tokens)))


def _after_decoder(model: LanguageModel, texts: Sequence[np.ndarray], choices: Sequence[np.ndarray], part_tokens: int) -> Tensor:
    # The last token of a text is read together with each choice, because it predicts the first token of the choice.
    shared = common_prefix(texts)
    prefix = _cached(model, [texts[0][:shared]]) if shared else None
    found, rests = _zeros(model, texts, choices), [text[shared:] for text in texts]
    for rows, columns in _parts(rests, choices, part_tokens, cached=shared):
        middle = [rests[row][:-1] for row in rows]
        cache = prefix.repeated(len(rows)) if prefix else None
        if any(map(len, middle)):
            cache = _cached(model, middle, cache)
        for part in columns:
            targets = table([choices[column] for column in part], IGNORED)
            first = np.array([texts[row][-1] for row in rows]).repeat(len(part))[:, None]
            inputs = np.concatenate([first, np.tile(np.where(targets == IGNORED, 0, targets)[:, :-1], (len(rows), 1))], 1)
            mask = np.tile(targets != IGNORED, (len(rows), 1))
            logits, _ = _extended(model, inputs, mask, cache.repeated(len(part)) if cache else None, last=inputs.shape[1])
            _fill(found, rows, part, logits, np.tile(targets, (len(rows), 1)))
    return found


def _after_encoder(model: LanguageModel, texts: Sequence[np.ndarray], choices: Sequence[np.ndarray], part_tokens: int) -> Tensor:
    found = _zeros(model, texts, choices)
    for rows, columns in _parts(texts, choices, part_tokens):
        ids, mask = model.padded([texts[row] for row in rows])
        encoded = model.backbone.get_encoder()(input_ids=ids, attention_mask=mask)
        for part in columns:
            targets = np.tile(table([choices[column] for column in part], IGNORED), (len(rows), 1))
            hidden, seen = (each.repeat_interleave(len(part), 0) for each in (encoded.last_hidden_state, mask))
            outputs = replace(encoded, last_hidden_state=hidden)  # an instance of the architecture's own class
            inputs = model.decoder_inputs([choices[column] for column in part]).repeat(len(rows), 1)
            logits, _ = model.predicted(inputs.shape[1], encoder_outputs=outputs, attention_mask=seen, decoder_input_ids=inputs, use_cache=False)
            _fill(found, rows, part, logits, targets)
    return found


def _without_cache(model: LanguageModel, texts: Sequence[np.ndarray], choices: Sequence[np.ndarray], part_tokens: int) -> Tensor:
    """Return the losses of a decoder without a KV cache (Mamba)."""
    pairs = [(text, choice) for text in texts for choice in choices]
    parts = chunks([np.concatenate(pair) for pair in pairs], part_tokens)
    return torch.cat([model(model.batch(*zip(*pairs[part]))).loss for part in parts]).view(len(texts), len(choices))


def _cached(model: LanguageModel, texts: Sequence[np.ndarray], cache: _Cache | None = None) -> _Cache:
    """Return the KV cache extended by a text for each input; cache: None: a new one."""
    ids, filled = table(texts, 0), table([np.ones(len(text)) for text in texts], 0)
    _, extended = _extended(model, ids, filled, cache, last=1)
    return extended


def _extended(model: LanguageModel, ids: np.ndarray, filled: np.ndarray, cache: _Cache | None, last: int) -> tuple[Tensor, _Cache]:
    """Return the logits of the last positions of tokens [B, L] after the cached ones, and the extended KV cache."""
    inputs, mask = on_device(ids.astype(np.int64), model.device), on_device(filled.astype(np.int64), model.device)
    position, tokens, past = torch.arange(ids.shape[1], device=model.device)[None], mask.sum(1), None
    if cache is not None:
        mask, position, tokens, past = torch.cat([cache.mask, mask], 1), cache.tokens[:, None] + position, cache.tokens + tokens, cache.past
    # A model without such an argument counts positions by the mask.
    positions = {"position_ids": position.expand(len(ids), -1)} if "position_ids" in model.arguments else {}
    logits, output = model.predicted(last, input_ids=inputs, attention_mask=mask, past_key_values=past, use_cache=True, **positions)
    return logits, _Cache(output.past_key_values, mask, tokens)


def _parts(texts: Sequence[np.ndarray], choices: Sequence[np.ndarray], part_tokens: int, cached: int = 0) -> Iterator[tuple[np.ndarray, list[range]]]:
    """Yield groups of texts of similar length, with the slice of choices to score after them.

    cached: number of tokens of each text that the KV cache already holds.
    """
    longest = cached + max(map(len, choices))
    lengths, order, groups = longest_first(texts)
    for group in groups:
        rows = order[group]
        each = int(lengths[rows[0]]) + longest
        num_texts = max(1, part_tokens // (each * len(choices)))
        number = max(1, part_tokens // (each * num_texts))
        columns = [range(begin, min(begin + number, len(choices))) for begin in range(0, len(choices), number)]
        for begin in range(0, len(rows), num_texts):
            yield rows[begin : begin + num_texts], columns


def _fill(found: Tensor, rows: np.ndarray, columns: range, logits: Tensor, targets: np.ndarray) -> None:
    """Write the losses of logits [rows x columns, D, vocabulary] into `found`, in place."""
    labels = on_device(targets, logits.device)
    losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none", ignore_index=IGNORED).view(labels.shape).sum(1)
    found[on_device(rows, logits.device), columns.start : columns.stop] = losses.view(len(rows), len(columns)).to(found.dtype)


def _zeros(model: LanguageModel, texts: Sequence[np.ndarray], choices: Sequence[np.ndarray]) -> Tensor:
    return torch.zeros(len(texts), len(choices), device=model.device, dtype=next(model.parameters()).dtype)
