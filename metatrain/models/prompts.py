"""Prompts of a language model: token ids around texts and labels, by `prompt.*`.

A prompt is opening, text, between, label, stop, joint, text, between, label, stop, joint, ..., text, cue. Texts and labels are tokenised on their own
and the wording between them too; a space before a text or label belongs to it, as in tokenizers that read " word" as one token.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jinja2 import TemplateError

from metatrain.errors import UserError
from metatrain.models.config import PromptConfig
from metatrain.tasks.tokens import TextEncoding

SCORINGS = ("sum", "mean", "pmi", "calibrated", "channel")
_TEXT, _LABEL, _QUERY = "\ufdd3", "\ufdd4", "\ufdd5"  # noncharacters that stand for contents in a rendered chat
_LABELS = "{labels}"


def is_plain(config: PromptConfig) -> bool:
    """Return True if texts and targets are read as they are, with a newline between them."""
    return replace(config, words={}, scoring="sum") == PromptConfig()


def check_prompt(config: PromptConfig) -> None:
    """Raises: UserError: a value makes no sense."""
    if config.scoring not in SCORINGS:
        raise UserError(f"prompt.scoring={config.scoring} is unknown; choose one of {', '.join(SCORINGS)}")
    for key, place in (("text", "{text}"), ("label", "{label}")):
        if getattr(config, key).count(place) != 1:
            raise UserError(f"prompt.{key}={getattr(config, key)!r} must have {place} once")
    if config.chat and config.scoring == "channel":
        raise UserError("prompt.scoring=channel reads the label first, and a chat template begins with the text; choose prompt=plain or prompt=labelled")
    if not config.chat and not config.separator and not _before(config.label, "{label}"):
        raise UserError("prompt.separator is empty and prompt.label has no words before {label}: nothing separates a text from its label; set prompt.separator")


@dataclass(frozen=True)
class Pieces:
    """Token ids between the texts and labels of a task."""

    opening: np.ndarray  # before the first text
    between: np.ndarray  # between a text and its label
    joint: np.ndarray  # between the stop token of an example and the next text
    cue: np.ndarray  # after the query


class Prompt:
    """Wording of a task for one tokenizer. With `prompt.scoring=channel`, labels come first and texts are the targets."""

    def __init__(self, config: PromptConfig, tokenizer: Any, decoder_only: bool):
        """Raises: UserError: a setting makes no sense, or the tokenizer has no chat template."""
        check_prompt(config)
        self.config, self.tokenizer, self.decoder_only = config, tokenizer, decoder_only
        if config.chat and not getattr(tokenizer, "chat_template", None):
            raise UserError("prompt.chat=true: the tokenizer of this model has no chat template; choose prompt=labelled")
        special = list(tokenizer("")["input_ids"])
        self._begin = special[:1] if special[:1] == [tokenizer.bos_token_id] else []
        self._closing = [] if decoder_only else special[len(self._begin) :]
        after = self._rendered(())[2] if config.chat else self._ending
        ids = self._ids(after) or [tokenizer.eos_token_id]
        self.stop: int = ids[0] if decoder_only else tokenizer.eos_token_id  # last token of every target
        self._after_stop = ids[1:]  # unless in a chat
        self.pieces = functools.lru_cache(1024)(self._pieces)

    @property
    def is_channel(self) -> bool:
        """Return True if the model predicts texts from labels."""
        return self.config.scoring == "channel"

    @property
    def texts(self) -> TextEncoding:
        """Return the tokenisation of texts."""
        return TextEncoding(self._lead(self.config.text, "{text}"), self.config.pair)

    @property
    def label_lead(self) -> str:
        """Return what a label begins with: a space, or nothing."""
        return self._lead(self.config.label, "{label}")

    def _pieces(self, names: tuple[str, ...]) -> Pieces:
        """Return the token ids for a task with these label names, as they are read; none: a text-to-text task."""
        if self.config.chat:
            opening, chat_between, joint, cue = (self._ids(part) for part in self._rendered(names))
            return _pieces(opening, chat_between, joint[1:], cue)
        config = self.config
        intro = _worded(config.instruction, names)
        text, label = _worded(config.text, names), config.label
        first, second = ((label, "{label}"), (text, "{text}")) if self.is_channel else ((text, "{text}"), (label, "{label}"))
        before, after = _before(*first).rstrip(" "), _after(*first)
        between = self._ids(after + config.separator + _before(*second).rstrip(" "))
        begin = [*self._begin, *self._ids(intro + (config.end or "\n") if intro else ""), *self._ids(before)]
        return _pieces(begin, between, [*self._after_stop, *self._ids(before)], [*between, *self._closing])

    @property
    def _ending(self) -> str:
        """Return what follows a target."""
        config = self.config
        last = (config.text, "{text}") if self.is_channel else (config.label, "{label}")
        return _worded(_after(*last), ()) + config.end

    def _rendered(self, names: tuple[str, ...]) -> tuple[str, str, str, str]:
        """Return what the chat template puts before a text, between a text and its label, between a label and the next text, and after the query."""
        before, rest = self._chat(names).split(_TEXT)
        between, rest = rest.split(_LABEL)
        after, cue = rest.split(_QUERY)
        return before.rstrip(" "), between.rstrip(" "), after.rstrip(" "), (cue + _before(self.config.label, "{label}")).rstrip(" ")

    def _chat(self, names: tuple[str, ...]) -> str:
        """Return an example and a query in the chat template, with noncharacters for the contents."""
        config = self.config
        text, label = (_worded(config.text, names).replace("{text}", each) for each in (_TEXT, _QUERY)), config.label.replace("{label}", _LABEL)
        first, second = text
        turns = [{"role": "user", "content": first}, {"role": "assistant", "content": label}, {"role": "user", "content": second}]
        instruction = _worded(config.instruction, names)
        options: dict[str, Any] = {"tokenize": False, "add_generation_prompt": True, "enable_thinking": False}
        try:
            found = self.tokenizer.apply_chat_template([*([{"role": "system", "content": instruction}] if instruction else []), *turns], **options)
        except TemplateError:  # a template without system messages
            turns[0]["content"] = f"{instruction}\n\n{first}"
            try:
                found = self.tokenizer.apply_chat_template(turns, **options)
            except TemplateError as error:
                raise UserError(f"prompt.chat=true: the chat template of this model cannot be used: {error}; choose prompt=labelled") from error
        if any(found.count(each) != 1 for each in (_TEXT, _LABEL, _QUERY)):
            raise UserError("prompt.chat=true: the chat template of this model leaves turns out; choose prompt=labelled")
        return str(found)

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []

    def _lead(self, template: str, place: str) -> str:
        return " " if _before(template, place).endswith(" ") else ""


def _pieces(*parts: Sequence[int]) -> Pieces:
    return Pieces(*(np.array(part, dtype=np.int64) for part in parts))


def _before(template: str, place: str) -> str:
    return template.partition(place)[0]


def _after(template: str, place: str) -> str:
    return template.partition(place)[2]


def _worded(template: str, names: Sequence[str]) -> str:
    """Return a template with the label names in place of {labels}; without names, its lines with {labels} are left out."""
    if names:
        return template.replace(_LABELS, ", ".join(names))
    return "\n".join(line for line in template.split("\n") if _LABELS not in line)
