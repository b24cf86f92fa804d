"""Long texts in overlapping windows, whose encodings are averaged (`model.long_texts=windows`), instead of a cut. Needs no torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from metatrain.errors import UserError
from metatrain.tasks.task import Task
from metatrain.tasks.texts import PAIR
from metatrain.tasks.tokens import Tokens

CUT, WINDOWS = "cut", "windows"
MOST_TOKENS = 8192  # of a text; the rest is cut
_OVERLAP = 0.25  # of neighbouring windows, at least
_PAIR = f"model.long_texts={WINDOWS} is for single texts, and these are pairs; leave it out"


def check_cut(long_texts: str) -> None:
    """Raises: UserError: a model that is to be meta-trained would read long texts in windows."""
    if long_texts != CUT:
        raise UserError(f"model.long_texts={long_texts} is for metatrain finetune and evaluate; meta-training cuts long texts, so leave it out")


@dataclass(frozen=True)
class Windows:
    """Splits token ids into windows, each with the special tokens and the prefix of a whole text."""

    first: int  # special tokens and tokens of the prefix at the beginning
    last: int  # special tokens at the end
    max_length: int  # tokens of a window, special tokens and prefix included

    @classmethod
    def of(cls, tokenizer: Any, max_length: int, prefix: str) -> Windows:
        """Return the windows for a tokenizer. Raises: UserError: there is no room in them."""
        special = set(tokenizer.all_special_ids)
        ids = tokenizer(f"{prefix}a")["input_ids"]
        last = next((number for number, each in enumerate(reversed(ids)) if each not in special), 0)
        without = tokenizer(prefix)["input_ids"] if prefix else ids
        first = len(without) - last if prefix else next((number for number, each in enumerate(ids) if each not in special), 0)
        found = cls(first, last, max_length)
        if found.room < 2:
            raise UserError(f"model.max_length={max_length} leaves no room for windows beside {first + last} tokens of prefix and special tokens")
        return found

    @property
    def room(self) -> int:
        """Tokens of a window without the prefix and special tokens."""
        return self.max_length - self.first - self.last

    def split(self, texts: Sequence[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray]:
        """Return the windows of all texts, and the place of its text for each, [windows]; a text that is not too long is one window.

        Windows of a text are equally long and evenly spaced.
        """
        found: list[np.ndarray] = []
        places: list[int] = []
        for place, ids in enumerate(texts):
            parts = self._of(ids) if len(ids) > self.max_length else [ids]
            found += parts
            places += [place] * len(parts)
        return found, np.array(places, dtype=np.int64)

    def _of(self, ids: np.ndarray) -> list[np.ndarray]:
        begin, end = ids[: self.first], ids[len(ids) - self.last :]
        content = ids[self.first : len(ids) - self.last]
        number = 1 + math.ceil((len(content) - self.room) / (self.room - math.floor(self.room * _OVERLAP)))
        starts = np.linspace(0, len(content) - self.room, number).round().astype(int)
        return [np.concatenate([begin, content[start : start + self.room], end]) for start in starts]


def check_single(texts: Iterable[str]) -> None:
    """Raises: UserError: one of the texts is a pair, which is not read in windows."""
    if any(PAIR in text for text in texts):
        raise UserError(_PAIR)


class LongTokens(Tokens):
    """Tokenisation of single texts up to `MOST_TOKENS`."""

    def check(self, tasks: Iterable[Task]) -> None:
        """Raises: UserError: as for texts that are cut, or a task is of pairs."""
        tasks = list(tasks)
        super().check(tasks)
        check_single(text for task in tasks for text in task.texts)

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return the token ids of texts. Raises: UserError: one is a pair."""
        check_single(texts)
        return super().encode(texts)
