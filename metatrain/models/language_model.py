"""A language model that writes: an encoder-decoder (T5, BART) or a decoder alone (GPT-2, Llama), called as a function of its parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from metatrain.models.batches import longest_first
from metatrain.models.config import ModelConfig
from metatrain.models.dropout import dropout, set_dropout
from metatrain.models.pretrained import Backbone
from metatrain.tasks.tokens import TargetEncoding, Tokens

_IGNORED = -100  # in place of a wanted token: none is wanted here


@dataclass(frozen=True)
class Written:
    """Texts and what is to be written after them, padded, in groups of similar length.

    Shapes: B texts of a group, L its longest input, D its longest output. For a decoder alone, text and target are one input.
    """

    groups: tuple[dict[str, Tensor], ...]  # input_ids, attention_mask [B, L]; for an encoder-decoder decoder_input_ids [B, D]
    wanted: tuple[Tensor, ...]  # the token after each, [B, D] or [B, L]
    order: Tensor  # where each text of the caller is among the groups' texts, [texts]


@dataclass(frozen=True)
class Likelihood:
    """How likely targets are: of each text, shape [texts]."""

    loss: Tensor  # negative log-likelihood, summed over the target's tokens
    right: Tensor  # tokens of the target that are the likeliest, after those before it
    tokens: Tensor  # of the target


class LanguageModel(nn.Module):
    """`model(batch)` says how likely the batch's targets are; `write` answers texts. Dropout is off but where a call asks for it."""

    new_tokenizer = False  # whether its tokenizer was made from the training tasks, and is nowhere yet

    def __init__(self, backbone: Backbone, tokenizer: PreTrainedTokenizerBase, config: ModelConfig):
        super().__init__()
        self.backbone: Backbone = backbone.eval()
        self.tokenizer = tokenizer
        self.max_length, self.max_target_length = config.max_length, config.max_target_length
        self.decoder_alone = not backbone.config.is_encoder_decoder
        # Between a text and its target, where both are one input.
        self.separator = np.array(tokenizer("\n", add_special_tokens=False)["input_ids"] or [tokenizer.eos_token_id], dtype=np.int64)

    @property
    def device(self) -> torch.device:
        return next(self.backbone.parameters()).device

    @property
    def positions(self) -> int | None:
        """The most tokens that a decoder alone can read and write; None: there is no limit."""
        return getattr(self.backbone.config, "max_position_embeddings", None) if self.decoder_alone else None

    def tokens(self) -> Tokens:
        """What makes token ids of texts and targets for it."""
        return Tokens(self.tokenizer, self.max_length, TargetEncoding(self.tokenizer, self.max_target_length, self.decoder_alone))

    def probe(self, tokens: int) -> np.ndarray:
        """A text of so many tokens, to measure with."""
        return np.zeros(tokens, dtype=np.int64)

    def set_dropout(self, rate: float) -> None:
        set_dropout(self.backbone, rate)

    def batch(self, texts: Sequence[np.ndarray], targets: Sequence[np.ndarray]) -> Written:
        """Model inputs for token ids and what is to be written after them."""
        if self.decoder_alone:
            inputs = [np.concatenate([text, self.separator, target]) for text, target in zip(texts, targets)]
            wanted = [np.concatenate([np.full(len(text) + len(self.separator), _IGNORED), target]) for text, target in zip(texts, targets)]
        else:
            inputs, wanted = list(texts), list(targets)
        _, order, groups = longest_first(inputs)
        made, answers = [], []
        for group in groups:
            rows = order[group]
            answer = self._padded([wanted[row] for row in rows], _IGNORED)
            made.append(self._group([inputs[row] for row in rows], answer))
            answers.append(answer[:, 1:] if self.decoder_alone else answer)
        return Written(tuple(made), tuple(answers), torch.from_numpy(np.argsort(order)).to(self.device))

    def forward(self, batch: Written, seed: int | None = None) -> Likelihood:
        """How likely the targets are. With a `seed`, dropout is on: the same seed, the same masks."""
        if seed is not None:
            with dropout(self.backbone, seed, self.device):
                return self(batch)
        parts = []
        for inputs, wanted in zip(batch.groups, batch.wanted):
            logits = self.backbone(**inputs, use_cache=False).logits
            logits = logits[:, :-1] if self.decoder_alone else logits
            there = wanted != _IGNORED  # [B, D]
            # Only where a token is wanted: the vocabulary is by far the widest dimension.
            found, truth = logits[there], wanted[there]
            text = torch.arange(len(wanted), device=wanted.device)[:, None].expand_as(wanted)[there]
            losses = F.cross_entropy(found, truth, reduction="none")
            zeros = losses.new_zeros(len(wanted))
            right = zeros.index_add(0, text, (found.detach().argmax(-1) == truth).to(losses.dtype))
            parts.append((zeros.index_add(0, text, losses), right, there.sum(1)))
        return Likelihood(*(torch.cat(each).index_select(0, batch.order) for each in zip(*parts)))

    def write(self, texts: Sequence[np.ndarray]) -> list[str]:
        """What the model writes after each text, always taking the likeliest token."""
        answers: list[str] = [""] * len(texts)
        begun = [np.concatenate([text, self.separator]) for text in texts] if self.decoder_alone else list(texts)
        _, order, groups = longest_first(begun)
        for group in groups:
            rows = order[group]
            ids, mask = self._ids([begun[row] for row in rows], left=self.decoder_alone)
            out = self.backbone.generate(
                input_ids=ids,
                attention_mask=mask,
                do_sample=False,
                num_beams=1,
                max_new_tokens=self.max_target_length,
                pad_token_id=self._padding_id,
                eos_token_id=self.tokenizer.eos_token_id,
            )
            out = out[:, ids.shape[1] :] if self.decoder_alone else out
            for row, text in zip(rows, self.tokenizer.batch_decode(out, skip_special_tokens=True)):
                answers[row] = text.strip()
        return answers

    @property
    def _padding_id(self) -> int:
        return self.tokenizer.pad_token_id or 0

    def _group(self, inputs: list[np.ndarray], answer: Tensor) -> dict[str, Tensor]:
        ids, mask = self._ids(inputs)
        group = {"input_ids": ids, "attention_mask": mask}
        if not self.decoder_alone:
            group["decoder_input_ids"] = self.backbone.prepare_decoder_input_ids_from_labels(answer.clone())
        return group

    def _ids(self, texts: list[np.ndarray], left: bool = False) -> tuple[Tensor, Tensor]:
        ids = self._padded(texts, self._padding_id, left)
        mask = self._padded([np.ones(len(text), dtype=np.int64) for text in texts], 0, left)
        return ids, mask

    def _padded(self, rows: list[np.ndarray], value: int, left: bool = False) -> Tensor:
        longest = max(map(len, rows))
        table = np.full((len(rows), longest), value, dtype=np.int64)
        for number, row in enumerate(rows):
            table[number, longest - len(row) if left else 0 :][: len(row)] = row
        return torch.from_numpy(table).to(self.device)
