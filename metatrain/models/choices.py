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

from metatrain.models.batches import chunks, longest_first, on_device, table, tokens_alike
from metatrain.models.language_model import IGNORED, LanguageModel, repeated


@torch.no_grad()
def losses_of_choices(model: LanguageModel, texts: Sequence[np.ndarray], choices: Sequence[np.ndarray], part_tokens: int) -> Tensor:
    """Return the negative log-likelihood of every choice after every text, [texts, choices]; about `part_tokens` tokens are held at a time."""
    if not model.decoder_only:
        return _after_encoder(model, texts, choices, part_tokens)
    if not model.keeps:
        return _one_by_one(model, texts, choices, part_tokens)
    return _after_decoder(model, [np.concatenate([text, model.separator]) for text in texts], choices, part_tokens)


@dataclass(frozen=True)
class _Read:
    """KV cache of B inputs, some of which end in padding."""

    kept: Any  # a `transformers.Cache`
    mask: Tensor  # 1 where a token is, [B, tokens]
    tokens: Tensor  # of each input, [B]

    def repeated(self, times: int) -> _Read:
        """Repeat each input `times` times in a row."""
        return _Read(repeated(self.kept, times), *(each.repeat_interleave(times, 0) for each in (self.mask, self.tokens)))


def _after_decoder(model: LanguageModel, texts: Sequence[np.ndarray], choices: Sequence[np.ndarray], part_tokens: int) -> Tensor:
    # The last token of a text is read with the choices, whose first it predicts.
    alike = tokens_alike(texts)
    begin = _read(model, [texts[0][:alike]]) if alike else None
    found, rests = _nothing(model, texts, choices), [text[alike:] for text in texts]
    for rows, columns in _parts(rests, choices, part_tokens, kept=alike):
        between = [rests[row][:-1] for row in rows]
        read = begin.repeated(len(rows)) if begin else None
        if any(map(len, between)):
            read = _read(model, between, read)
        for part in columns:
            wanted = table([choices[column] for column in part], IGNORED)
            first = np.array([texts[row][-1] for row in rows]).repeat(len(part))[:, None]
            given = np.concatenate([first, np.tile(np.where(wanted == IGNORED, 0, wanted)[:, :-1], (len(rows), 1))], 1)
            mask = np.tile(wanted != IGNORED, (len(rows), 1))
            logits, _ = _go_on(model, given, mask, read.repeated(len(part)) if read else None, last=given.shape[1])
            _fill(found, rows, part, logits, np.tile(wanted, (len(rows), 1)))
    return found


def _after_encoder(model: LanguageModel, texts: Sequence[np.ndarray], choices: Sequence[np.ndarray], part_tokens: int) -> Tensor:
    found = _nothing(model, texts, choices)
    for rows, columns in _parts(texts, choices, part_tokens):
        ids, mask = model.padded([texts[row] for row in rows])
        encoded = model.backbone.get_encoder()(input_ids=ids, attention_mask=mask)
        for part in columns:
            wanted = np.tile(table([choices[column] for column in part], IGNORED), (len(rows), 1))
            hidden, seen = (each.repeat_interleave(len(part), 0) for each in (encoded.last_hidden_state, mask))
            outputs = replace(encoded, last_hidden_state=hidden)  # of the architecture's own class
            given = model.decoder_inputs([choices[column] for column in part]).repeat(len(rows), 1)
            logits, _ = model.predicted(given.shape[1], encoder_outputs=outputs, attention_mask=seen, decoder_input_ids=given, use_cache=False)
            _fill(found, rows, part, logits, wanted)
    return found


def _one_by_one(model: LanguageModel, texts: Sequence[np.ndarray], choices: Sequence[np.ndarray], part_tokens: int) -> Tensor:
    """Return the losses of a decoder without a KV cache (Mamba)."""
    pairs = [(text, choice) for text in texts for choice in choices]
    parts = chunks([np.concatenate(pair) for pair in pairs], part_tokens)
    return torch.cat([model(model.batch(*zip(*pairs[part]))).loss for part in parts]).view(len(texts), len(choices))


def _read(model: LanguageModel, texts: Sequence[np.ndarray], before: _Read | None = None) -> _Read:
    """Return the KV cache of texts, each appended to what the decoder has read before."""
    ids, filled = table(texts, 0), table([np.ones(len(text)) for text in texts], 0)
    _, read = _go_on(model, ids, filled, before, last=1)
    return read


def _go_on(model: LanguageModel, ids: np.ndarray, filled: np.ndarray, before: _Read | None, last: int) -> tuple[Tensor, _Read]:
    """Read the tokens [B, L] as well; return the logits of the last positions, and the new KV cache."""
    given, mask = on_device(ids.astype(np.int64), model.device), on_device(filled.astype(np.int64), model.device)
    position, tokens, kept = torch.arange(ids.shape[1], device=model.device)[None], mask.sum(1), None
    if before is not None:
        mask, position, tokens, kept = torch.cat([before.mask, mask], 1), before.tokens[:, None] + position, before.tokens + tokens, before.kept
    # A model without such an argument counts positions by the mask.
    positions = {"position_ids": position.expand(len(ids), -1)} if "position_ids" in model.arguments else {}
    logits, output = model.predicted(last, input_ids=given, attention_mask=mask, past_key_values=kept, use_cache=True, **positions)
    return logits, _Read(output.past_key_values, mask, tokens)


def _parts(texts: Sequence[np.ndarray], choices: Sequence[np.ndarray], part_tokens: int, kept: int = 0) -> Iterator[tuple[np.ndarray, list[range]]]:
    """Yield groups of texts of similar length, with the slice of choices to score after them.

    kept: number of tokens of each text that the KV cache already holds.
    """
    longest = kept + max(map(len, choices))
    lengths, order, groups = longest_first(texts)
    for group in groups:
        rows = order[group]
        each = int(lengths[rows[0]]) + longest
        together = max(1, part_tokens // (each * len(choices)))
        number = max(1, part_tokens // (each * together))
        columns = [range(begin, min(begin + number, len(choices))) for begin in range(0, len(choices), number)]
        for begin in range(0, len(rows), together):
            yield rows[begin : begin + together], columns


def _fill(found: Tensor, rows: np.ndarray, columns: range, logits: Tensor, wanted: np.ndarray) -> None:
    """Put the losses of logits [rows x columns, D, vocabulary] where they belong."""
    targets = on_device(wanted, logits.device)
    losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none", ignore_index=IGNORED).view(targets.shape).sum(1)
    found[on_device(rows, logits.device), columns.start : columns.stop] = losses.view(len(rows), len(columns)).to(found.dtype)


def _nothing(model: LanguageModel, texts: Sequence[np.ndarray], choices: Sequence[np.ndarray]) -> Tensor:
    return torch.zeros(len(texts), len(choices), device=model.device, dtype=next(model.parameters()).dtype)
