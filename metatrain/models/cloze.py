"""Masked language model as an encoder: a text is encoded by what the model predicts its mask from (`algorithm.head=mlm`).

A template (`prompt.text`) puts each text into a sentence with a mask. The encoding h is the hidden state at the mask after the transform of the
model's own prediction head, so that its logit of word v is h . E[v] + b[v], with its output embeddings E (most often the word embeddings) and
biases b: PET (Schick and Schuetze 2021), LM-BFF (Gao et al. 2021).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModelForMaskedLM, PretrainedConfig, PreTrainedTokenizerBase

from metatrain.errors import UserError
from metatrain.models import tiny
from metatrain.models.backbone import Backbone
from metatrain.models.batches import Packed
from metatrain.models.config import ModelConfig, PromptConfig
from metatrain.models.encoder import Encoder, load_encoder
from metatrain.models.windows import CUT
from metatrain.tasks.task import Task, plain_name
from metatrain.tasks.texts import PAIR
from metatrain.tasks.tokens import TextEncoding, Tokens

POOLING = "mask"  # `pooling` of such an encoder
_TEXT, _MASK, _SECOND = "{text}", "{mask}", "{text_pair}"
_SLOT = re.compile(r"(\{text\}|\{mask\}|\{text_pair\})")
_CUT_AGAIN = 5  # a text that is cut within a word may get more tokens than were left
_EXAMPLES = 3  # labels named in a message


def check_template(template: str) -> None:
    """Raises: UserError: `prompt.text` has not exactly one text and one mask, or has label names."""
    for place, most in ((_TEXT, 1), (_MASK, 1)):
        if template.count(place) != most:
            raise UserError(
                f"prompt.text={template!r} must have {place} once, because algorithm.head=mlm predicts the word at the mask; "
                "for example 'prompt.text=\"{text} It was {mask}.\"'"
            )
    if template.count(_SECOND) > 1:
        raise UserError(f"prompt.text={template!r} must have {_SECOND} at most once")
    if "{labels}" in template:
        raise UserError(f"prompt.text={template!r}: {{labels}} is for language models that generate; remove it")


@dataclass(frozen=True)
class ClozeEncoding(TextEncoding):
    """Tokenisation of a text inside a template, with special tokens. Only the text is truncated, of a pair the longer one."""

    template: str = ""

    def __call__(self, tokenizer: Any, text: str, max_length: int) -> list[int]:
        """Return the token ids, at most `max_length`; exactly one of them is the mask.

        Raises:
            UserError: the template leaves no room for a text, or has a second text and this is a single one.
        """
        mask, unknown = tokenizer.mask_token, tokenizer.unk_token or ""
        texts = [part.replace(mask, unknown) for part in text.split(PAIR)]  # a mask in the text is not the one to predict
        if (_SECOND in self.template) and len(texts) == 1:
            raise UserError(f"prompt.text={self.template!r} has {_SECOND}, and {text[:40]!r} is a single text; remove it from prompt.text")
        ids = self._filled(tokenizer, texts)
        for _ in range(_CUT_AGAIN):
            if len(ids) <= max_length:
                return ids
            texts = self._cut(tokenizer, texts, len(ids) - max_length)
            ids = self._filled(tokenizer, texts)
        if len(ids) <= max_length:
            return ids
        raise UserError(f"model.max_length={max_length} leaves no room for a text in prompt.text={self.template!r}; set a larger model.max_length")

    def _filled(self, tokenizer: Any, texts: Sequence[str]) -> list[int]:
        both = len(texts) == 1 or _SECOND in self.template
        first = texts[0] if both else f" {tokenizer.sep_token or ''} ".join(texts)
        slots: dict[str, str] = {_TEXT: first, _MASK: tokenizer.mask_token, _SECOND: texts[-1]}
        ids: list[int] = tokenizer("".join(slots.get(part, part) for part in _SLOT.split(self.template)))["input_ids"]
        return ids

    def _cut(self, tokenizer: Any, texts: list[str], tokens: int) -> list[str]:
        """Return the texts with this number of tokens fewer, taken from the ends of the longer ones."""
        ends = [[end for _, end in tokenizer(each, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]] for each in texts]
        left = [len(each) for each in ends]
        for _ in range(tokens):
            longest = max(range(len(left)), key=left.__getitem__)
            left[longest] = max(1, left[longest] - 1)
        return [text[: end[number - 1]] if end else "" for text, end, number in zip(texts, ends, left)]


class ClozeTokens(Tokens):
    """Tokenisation of texts in a template, and of label names as the words that are predicted."""

    def __init__(self, tokenizer: Any, max_length: int, longest: int | None, prompt: PromptConfig):
        super().__init__(tokenizer, max_length, longest=longest, encode_texts=ClozeEncoding("", "", prompt.text))
        self.words = prompt.words
        self._lead = " " if prompt.text.partition(_MASK)[0].endswith(" ") else ""  # a space belongs to the word after it

    def check(self, tasks: Iterable[Task]) -> None:
        """Raises: UserError: a task has images, or label names that are no words of the model."""
        tasks = list(tasks)
        super().check(tasks)
        for task in tasks:
            if task.is_labelled:
                self.names(task.read_names)

    def notes(self, tasks: Iterable[Task]) -> tuple[str, ...]:
        """Return warnings: many texts are truncated, label words are several tokens."""
        tasks = list(tasks)
        names = list(dict.fromkeys(name for task in tasks if task.is_labelled for name in task.read_names))
        several = [name for name in names if len(self._word(name)) > 1]
        if not several:
            return super().notes(tasks)
        shown = ", ".join(map(repr, several[:_EXAMPLES])) + ", ..." * (len(several) > _EXAMPLES)
        many = f"{len(several)} of {len(names)} label names are several tokens, whose logits are averaged"
        return (*super().notes(tasks), f"{many} ({shown}); prompt.words={{LABEL: WORD}} sets other words")

    def names(self, names: Sequence[str]) -> list[np.ndarray]:
        """Return the token ids of the label words, each [tokens].

        Raises:
            UserError: a word is not in the vocabulary, or two labels have the same.
        """
        found = [self._word(name) for name in names]
        labels: dict[bytes, str] = {}
        for name, ids in zip(names, found):
            other = labels.setdefault(ids.tobytes(), name)
            if other != name:
                raise UserError(f"labels {other!r} and {name!r} have the same label word for this model; set words that differ: prompt.words={{{name}: WORD}}")
        return found

    def _word(self, name: str) -> np.ndarray:
        if name not in self._names:
            word = self.words.get(name, plain_name(name))
            ids = self.tokenizer(self._lead + word, add_special_tokens=False)["input_ids"]
            if not ids or self.tokenizer.unk_token_id in ids:
                raise UserError(f"label {name!r}: the label word {word!r} is not in the vocabulary of the model; set prompt.words={{{name}: WORD}}")
            self._names[name] = np.array(ids, dtype=np.int64)
        return self._names[name]


class _OutputEmbeddings(nn.Module):
    """The last layer of the prediction head, which only holds its parameters: its input, the encoding, passes through."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, states: Tensor) -> Tensor:
        return states


def _lm_head(backbone: Backbone, states: Tensor) -> Tensor:
    return backbone.lm_head(states)


def _distilbert(backbone: Backbone, states: Tensor) -> Tensor:
    return backbone.vocab_layer_norm(backbone.activation(backbone.vocab_transform(states)))


# The transform of the prediction head, from hidden states [B, H] to encodings, by `model_type`: for architectures that run on packed texts.
_TRANSFORMS: dict[str, Callable[[Backbone, Tensor], Tensor]] = {
    "bert": lambda backbone, states: backbone.cls(states),
    "distilbert": _distilbert,
    "electra": lambda backbone, states: backbone.generator_predictions(states),
    **dict.fromkeys(("roberta", "xlm-roberta", "camembert", "data2vec-text", "mpnet"), _lm_head),
}


class ClozeEncoder(Encoder):
    """Masked language model whose encoding of a text is the transformed hidden state at the mask of the template, [texts, E].

    `outputs` names its output embeddings, [vocabulary, E], and biases, [vocabulary], among its parameters.
    """

    poolings = (POOLING,)
    if_lost = "; algorithm.head=mlm needs a masked language model with its prediction head, such as model.name=google-bert/bert-base-uncased"

    def __init__(self, backbone: Backbone, tokenizer: PreTrainedTokenizerBase, config: ModelConfig, prompt: PromptConfig):
        """Raises: UserError: the tokenizer has no mask, or the model does not compute its predictions from the hidden state at the mask."""
        check_template(prompt.text)
        what = f"model.name={config.name}"
        if tokenizer.mask_token_id is None or not tokenizer.is_fast:
            raise UserError(f"{what}: its tokenizer has no mask token, or is none of the library tokenizers; choose a masked language model such as BERT")
        linear = backbone.get_output_embeddings()
        if not isinstance(linear, nn.Linear):
            raise UserError(f"{what}: {backbone.config.model_type} predicts masked words without output embeddings; choose a model such as BERT or RoBERTa")
        trial = torch.tensor([ClozeEncoding("", "", prompt.text)(tokenizer, "a", config.max_length)])
        with torch.no_grad():
            logits = backbone.eval()(input_ids=trial, attention_mask=torch.ones_like(trial)).logits
            expected = logits[trial == tokenizer.mask_token_id]  # [1, vocabulary]
        backbone.set_output_embeddings(_OutputEmbeddings(linear))
        super().__init__(backbone, tokenizer, config)
        self.prompt = prompt
        self.mask: int = tokenizer.mask_token_id
        self.mask_is_last = self.mask == max(tokenizer.get_vocab().values())
        with torch.no_grad():
            encoding = self(self.batch([trial[0].numpy()]))
            same_size = encoding.shape[1] == linear.weight.shape[1]
            agrees = same_size and torch.allclose(linear(encoding), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
        if not agrees:
            kind = backbone.config.model_type
            raise UserError(f"{what}: {kind} computes the logits of a masked word in another way; choose a model such as BERT or RoBERTa")

    @classmethod
    def auto(cls, config: ModelConfig, settings: PretrainedConfig) -> tuple[Any, dict[str, Any]]:
        return AutoModelForMaskedLM, {}

    @classmethod
    def from_scratch(cls, config: ModelConfig, vocabulary: int) -> Backbone:
        return tiny.masked_language_model(vocabulary)

    @property
    def described(self) -> str:
        return f"predicts the mask of {self.prompt.text!r}"

    @property
    def reader(self) -> Backbone:
        return self.backbone.base_model

    @cached_property
    def hidden_size(self) -> int:
        """Dimension of the encodings, which are the input of the output embeddings."""
        return int(self.backbone.get_output_embeddings().weight.shape[1])

    @cached_property
    def outputs(self) -> tuple[str, str | None]:
        """Names of the output embeddings and of their biases among the encoder's parameters; None: there are no biases."""
        last = self.backbone.get_output_embeddings()
        names = {id(parameter): name for name, parameter in self.named_parameters()}
        return names[id(last.weight)], None if last.bias is None else names[id(last.bias)]

    @property
    def fixed_ids(self) -> int:
        # Where the mask is the last of the vocabulary, it is the largest id of every text, whatever rows of the word embeddings are used.
        return super().fixed_ids if self.mask_is_last else max(super().fixed_ids, self.mask + 1)

    def tokens(self) -> Tokens:
        return ClozeTokens(self.tokenizer, self.max_length, self.longest, self.prompt)

    def trial(self) -> list[np.ndarray]:
        return self.tokens().encode(["a b c d", "a b c"])

    def example(self) -> list[np.ndarray]:
        return self.tokens().encode(["a", "a"])

    def probe(self, tokens: int) -> np.ndarray:
        return np.where(np.arange(tokens) == 0, self.mask, 0)

    def encode_padded(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        if self.architecture is None:
            states = self.backbone(input_ids=input_ids, attention_mask=attention_mask, **self._options).logits  # [texts, L, E]
            return self._at_mask(states, input_ids)
        hidden = self.reader(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return self._transformed(self._at_mask(hidden, input_ids))

    def _pooled(self, hidden: Tensor, batch: Packed) -> Tensor:
        token = torch.arange(hidden.shape[0], device=hidden.device)[None]
        begin, length = batch.starts[:, None], batch.lengths[:, None]
        within = (token >= begin) & (token < begin + length) & self._is_mask(batch.input_ids)  # [B, T]
        return self._transformed(within.to(hidden.dtype) @ hidden)

    def _at_mask(self, states: Tensor, input_ids: Tensor) -> Tensor:
        return (states * self._is_mask(input_ids).to(states.dtype)[:, :, None]).sum(1)

    def _is_mask(self, input_ids: Tensor) -> Tensor:
        return input_ids == (input_ids.max() if self.mask_is_last else self.mask)

    def _transformed(self, states: Tensor) -> Tensor:
        return _TRANSFORMS[self.backbone.config.model_type](self.backbone, states)


def load_cloze_encoder(config: ModelConfig, prompt: PromptConfig, second_order: bool, dtype: torch.dtype = torch.float32) -> tuple[ClozeEncoder, list[str]]:
    """Load the masked language model `config.name`; return the encoder and lines for the log. Pooling, normalisation and prefix have no effect.

    Raises:
        UserError: as `load_encoder`, the template makes no sense, or the model has no head that predicts masked words.
    """
    check_template(prompt.text)
    settings = replace(config, pooling=POOLING, normalize=False, prefix="", long_texts=CUT)
    encoder, notes = load_encoder(settings, second_order, dtype, partial(ClozeEncoder, prompt=prompt), ClozeEncoder)
    assert isinstance(encoder, ClozeEncoder)
    return encoder, notes
