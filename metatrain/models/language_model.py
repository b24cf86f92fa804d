"""Language models: encoder-decoder (T5, BART) or decoder-only (GPT-2, Llama), called as a function of their parameters."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from metatrain.models.backbone import Backbone, longest_input
from metatrain.models.batches import common_prefix, longest_first, on_device, table
from metatrain.models.config import ModelConfig, PromptConfig
from metatrain.models.dropout import dropout, set_dropout
from metatrain.models.prompts import Prompt, check_prompt, is_plain
from metatrain.models.trial import OF_ARCHITECTURES
from metatrain.tasks.tokens import TargetEncoding, Tokens

_TRIED = 3  # number of tokens of each part in the test of the KV cache
IGNORED = -100  # label of positions without a loss


@dataclass(frozen=True)
class TargetGroup:
    """Texts of similar length and their targets, padded.

    Shapes: B texts, L longest input, D longest output, N tokens of all targets. For a decoder-only model, text and target are one input.
    """

    inputs: dict[str, Tensor]  # input_ids, attention_mask [B, L]; for an encoder-decoder decoder_input_ids [B, D]
    last: int  # number of last positions for which logits are computed: those that predict target tokens
    places: Tensor  # flat positions in [B, last] that predict the target tokens, [N]
    targets: Tensor  # target token ids, [N]
    tokens: Tensor  # number of target tokens of each text, [B]


@dataclass(frozen=True)
class TargetBatch:
    """Texts and their targets, in groups of similar length."""

    groups: tuple[TargetGroup, ...]
    order: Tensor  # position of each of the caller's texts in the groups, [texts]
    prefix: Tensor | None = None  # token ids of a common prefix, [1, P], which the inputs of the groups do not contain


@dataclass(frozen=True)
class Likelihood:
    """Log-likelihoods of targets: per text, shape [texts]."""

    loss: Tensor  # negative log-likelihood, summed over the target's tokens
    correct: Tensor  # number of target tokens that are the argmax, given the tokens before them
    tokens: Tensor  # number of target tokens


class LanguageModel(nn.Module):
    """Language model: `model(batch)` returns the likelihood of the targets, `generate` texts. Dropout is off unless a call passes a seed."""

    new_tokenizer = False  # True: the tokenizer was trained on the training tasks and is not saved yet

    def __init__(self, backbone: Backbone, tokenizer: PreTrainedTokenizerBase, config: ModelConfig, prompt: PromptConfig | None = None):
        """`prompt`: wording of what it reads; None: plain.

        Raises: UserError: a setting of the prompt makes no sense, or the tokenizer has no chat template.
        """
        super().__init__()
        self.backbone: Backbone = backbone.eval()
        self.tokenizer = tokenizer
        self.revision = config.revision
        self.max_length, self.max_target_length = config.max_length, config.max_target_length
        self.decoder_only = not backbone.config.is_encoder_decoder
        self.arguments = frozenset(inspect.signature(backbone.forward).parameters)
        self.prompt_config = prompt or PromptConfig()
        check_prompt(self.prompt_config)
        worded = not is_plain(self.prompt_config) or self.prompt_config.scoring == "channel"
        self.prompt = Prompt(self.prompt_config, tokenizer, self.decoder_only) if worded else None  # None: plain
        # Separator between a text and its target if both are one input (decoder-only); with a prompt, that is in the text.
        separator = [] if self.prompt is not None else tokenizer("\n", add_special_tokens=False)["input_ids"] or [tokenizer.eos_token_id]
        self.separator = np.array(separator, dtype=np.int64)

    @functools.cached_property
    def has_kv_cache(self) -> bool:
        """Return True if a KV cache of a prefix can be repeated for several continuations, with the same output as in one pass.

        Measured: some caches hold a recurrent state, which cannot be repeated, and some architectures return none.
        """
        if not self.decoder_only or "past_key_values" not in self.arguments:
            return False
        ids = torch.from_numpy(np.resize(self.example(), 2 * _TRIED)).to(self.device)[None]
        with torch.no_grad():
            expected = self.predicted(_TRIED, input_ids=ids, use_cache=False)[0].expand(2, -1, -1)
            try:
                cache = repeated(self._kv_cache(ids[:, :_TRIED]), 2)
                ends = ids[:, _TRIED:].expand(2, -1)
                mask = torch.ones(2, 2 * _TRIED, dtype=torch.int64, device=self.device)
                found, _ = self.predicted(_TRIED, input_ids=ends, attention_mask=mask, past_key_values=cache, use_cache=True)
            except OF_ARCHITECTURES:
                return False
        return bool(torch.allclose(found, expected, rtol=0, atol=1e-3 * float(expected.abs().max())))

    def is_bidirectional(self) -> bool:
        """Return True if the prediction after a token depends on later tokens: such a model cannot generate."""
        example = self.example()
        other = int(self.tokenizer.eos_token_id)
        pairs = torch.tensor([[example[0], example[0]], [example[0], other]], device=self.device)
        with torch.no_grad():
            first, second = self.predicted(2, input_ids=pairs, attention_mask=torch.ones_like(pairs), **self._uncached)[0][:, 0]
        return not torch.allclose(first, second, rtol=0, atol=1e-3 * float(first.abs().max()))

    @property
    def _uncached(self) -> dict[str, bool]:
        return {"use_cache": False} if "use_cache" in self.arguments else {}

    def example(self) -> np.ndarray:
        """Return a short text."""
        ids = self.tokenizer("a b c")["input_ids"]
        return np.array(ids or [self.tokenizer.eos_token_id], dtype=np.int64)

    @property
    def device(self) -> torch.device:
        return next(self.backbone.parameters()).device

    @property
    def positions(self) -> int | None:
        """Maximum number of tokens: of text and target together (decoder-only), or of each of them (encoder-decoder); None: no limit."""
        return longest_input(self.backbone)

    @property
    def longest(self) -> int | None:
        """Maximum number of tokens of a text that leaves room for its target; None: no limit."""
        if self.positions is None or not self.decoder_only:
            return self.positions
        pieces = None if self.prompt is None else self.prompt.pieces(())
        around = len(self.separator) if pieces is None else len(pieces.opening) + len(pieces.cue)
        return self.positions - around - self.max_target_length

    def tokens(self) -> Tokens:
        """Return the tokenisation of its texts and targets."""
        prompt, words = self.prompt, self.prompt_config.words
        lead, stop = ("", None) if prompt is None else (prompt.label_lead, prompt.stop)
        targets = TargetEncoding(self.tokenizer, self.max_target_length, self.decoder_only, lead, stop, words)
        return Tokens(self.tokenizer, self.max_length, targets, longest=self.longest, encode_texts=None if prompt is None else prompt.texts)

    def probe(self, tokens: int) -> np.ndarray:
        """Return a text of this number of tokens, for measurements."""
        return np.zeros(tokens, dtype=np.int64)

    def set_dropout(self, rate: float) -> None:
        set_dropout(self.backbone, rate)

    def batch(self, texts: Sequence[np.ndarray], targets: Sequence[np.ndarray], shared: int = 0) -> TargetBatch:
        """Return model inputs for token ids and their targets.

        shared: length of a common prefix of all texts, which a decoder-only model with a KV cache reads once.
        """
        shared = shared if self.has_kv_cache else 0
        inputs = [np.concatenate([text[shared:], self.separator, target]) for text, target in zip(texts, targets)] if self.decoder_only else list(texts)
        _, order, groups = longest_first(inputs)
        made = tuple(self._group([inputs[row] for row in order[group]], [targets[row] for row in order[group]], shared) for group in groups)
        return TargetBatch(made, on_device(np.argsort(order), self.device), self._prefix(texts, shared))

    def forward(self, batch: TargetBatch, seed: int | None = None) -> Likelihood:
        """Return the likelihood of the targets. With a `seed`, dropout is on: the same seed gives the same masks."""
        if seed is not None:
            with dropout(self.backbone, seed, self.device):
                return self(batch)
        parts = []
        cache = self._kv_cache(batch.prefix)
        for group in batch.groups:
            past = {} if cache is None else {"past_key_values": repeated(cache, len(group.tokens))}
            logits, _ = self.predicted(group.last, **group.inputs, **past, use_cache=cache is not None)
            texts, last, _ = logits.shape
            found = logits.flatten(0, 1).index_select(0, group.places)  # [N, vocabulary]
            losses = F.cross_entropy(found, group.targets, reduction="none")
            correct = (found.detach().argmax(-1) == group.targets).to(losses.dtype)
            # Copied to separate cells before they are summed: atomic additions of a GPU would not be reproducible.
            sums = (losses.new_zeros(texts * last).index_copy(0, group.places, each).view(texts, last).sum(1) for each in (losses, correct))
            parts.append((*sums, group.tokens))
        return Likelihood(*(torch.cat(each).index_select(0, batch.order) for each in zip(*parts)))

    def predicted(self, last: int, **inputs: Any) -> tuple[Tensor, Any]:
        """Return the logits of the `last` positions, [B, last, vocabulary], and the output of the backbone."""
        keep = {"logits_to_keep": last} if "logits_to_keep" in self.arguments else {}
        output = self.backbone(**inputs, **keep)
        return output.logits[:, -last:], output

    @torch.no_grad()
    def mean_states(self, texts: Sequence[np.ndarray]) -> Tensor:
        """Return the mean over the last hidden states of each text, [texts, hidden]: of the decoder, or of the encoder if there is one."""
        reader = self.backbone.base_model if self.decoder_only else self.backbone.get_encoder()
        _, order, groups = longest_first(texts)
        parts = []
        for group in groups:
            ids, mask = self.padded([texts[row] for row in order[group]])
            options = {"use_cache": False} if self.decoder_only and "use_cache" in self.arguments else {}
            states = reader(input_ids=ids, attention_mask=mask, **options).last_hidden_state  # [B, L, H]
            weights = mask[:, :, None].to(states.dtype)
            parts.append((states * weights).sum(1) / weights.sum(1))
        return torch.cat(parts).index_select(0, on_device(np.argsort(order), self.device))

    @torch.no_grad()
    def generate(self, texts: Sequence[np.ndarray]) -> list[str]:
        """Generate a text for each input by greedy decoding.

        A common prefix of the inputs (a support set in the prompt, for example) is read once for all.
        """
        generated: list[str] = [""] * len(texts)
        prompts = [np.concatenate([text, self.separator]) for text in texts] if self.decoder_only else list(texts)
        shared = common_prefix(prompts) if self.has_kv_cache and len(texts) > 1 else 0
        prefix = self._prefix(prompts, shared)
        cache = self._kv_cache(prefix)
        _, order, groups = longest_first(prompts)
        for group in groups:
            rows = order[group]
            ids, mask = self.padded([prompts[row][shared:] for row in rows], left=self.decoder_only)
            past = {} if cache is None else {"past_key_values": repeated(cache, len(rows))}
            if prefix is not None:
                ids, mask = (torch.cat([each.expand(len(rows), -1), more], 1) for each, more in ((prefix, ids), (torch.ones_like(prefix), mask)))
            out = self.backbone.generate(
                input_ids=ids,
                attention_mask=mask,
                do_sample=False,
                num_beams=1,
                max_new_tokens=self.max_target_length,
                pad_token_id=self._padding_id,
                eos_token_id=self.tokenizer.eos_token_id if self.prompt is None else [self.tokenizer.eos_token_id, self.prompt.stop],
                **past,
            )
            out = out[:, ids.shape[1] :] if self.decoder_only else out
            for row, text in zip(rows, self.tokenizer.batch_decode(out, skip_special_tokens=True)):
                generated[row] = text.strip()
        return generated

    def _prefix(self, texts: Sequence[np.ndarray], shared: int) -> Tensor | None:
        """Return the common prefix of all texts, [1, shared]; None: there is none."""
        return on_device(texts[0][None, :shared].astype(np.int64), self.device) if shared else None

    def _kv_cache(self, prefix: Tensor | None) -> Any:
        """Return the KV cache of a prefix; None: there is no prefix."""
        return None if prefix is None else self.predicted(1, input_ids=prefix, use_cache=True)[1].past_key_values

    @property
    def _padding_id(self) -> int:
        return self.tokenizer.pad_token_id or 0

    def _group(self, inputs: list[np.ndarray], targets: list[np.ndarray], shared: int) -> TargetGroup:
        ids, mask = self.padded(inputs)
        made = {"input_ids": ids, "attention_mask": mask}
        if shared:
            made["attention_mask"] = torch.cat([mask.new_ones(len(inputs), shared), mask], 1)
        sizes = np.array([len(target) for target in targets])
        longest = int(sizes.max())
        if self.decoder_only:
            begins = np.array([len(text) for text in inputs]) - sizes - 1  # the position before a token predicts it
            last = ids.shape[1] - int(begins.min())
            begins -= begins.min()
        else:
            begins, last = np.zeros(len(targets), dtype=np.int64), longest
            made["decoder_input_ids"] = self.decoder_inputs(targets)
        within = np.arange(longest)[None] < sizes[:, None]  # [B, D]
        places = (np.arange(len(targets))[:, None] * last + begins[:, None] + np.arange(longest))[within]
        return TargetGroup(made, last, *(on_device(each, self.device) for each in (places, np.concatenate(targets).astype(np.int64), sizes)))

    def decoder_inputs(self, targets: Sequence[np.ndarray]) -> Tensor:
        """Return the decoder inputs of an encoder-decoder for these targets, [B, D]."""
        if hasattr(self.backbone, "prepare_decoder_input_ids_from_labels"):
            return self.backbone.prepare_decoder_input_ids_from_labels(self._padded(targets, IGNORED))
        start = np.array([self.backbone.config.decoder_start_token_id], dtype=np.int64)
        return self._padded([np.concatenate([start, target[:-1]]) for target in targets], self._padding_id)

    def padded(self, texts: Sequence[np.ndarray], left: bool = False) -> tuple[Tensor, Tensor]:
        """Return token ids and attention mask, [B, L], with padding on the right or on the left."""
        ids = self._padded(texts, self._padding_id, left)
        mask = self._padded([np.ones(len(text), dtype=np.int64) for text in texts], 0, left)
        return ids, mask

    def _padded(self, rows: Sequence[np.ndarray], value: int, left: bool = False) -> Tensor:
        return on_device(table(rows, value, left), self.device)


def repeated(cache: Any, times: int) -> Any:
    """Repeat the KV cache (a `transformers.Cache`) of each input `times` times in a row, with its graph; later tokens extend only the copy."""
    found = copy.copy(cache)
    found.layers = [copy.copy(layer) for layer in cache.layers]
    found.batch_repeat_interleave(times)
    return found
