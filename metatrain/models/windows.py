"""Long texts in overlapping windows, whose encodings are averaged (`model.long_texts=windows`), instead of a cut."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

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


class Windows:
    """Splits token ids into windows, each with the special tokens and the prefix of a whole text."""

    def __init__(self, tokenizer: Any, max_length: int, prefix: str):
        """max_length: of a window, special tokens and prefix included."""
        special = set(tokenizer.all_special_ids)
        ids = tokenizer(f"{prefix}a")["input_ids"]
        self.last = next((number for number, each in enumerate(reversed(ids)) if each not in special), 0)  # special tokens at the end
        without = tokenizer(prefix)["input_ids"] if prefix else ids
        self.first = len(without) - self.last if prefix else next((number for number, each in enumerate(ids) if each not in special), 0)
        self.max_length, self.room = max_length, max_length - self.first - self.last
        if self.room < 2:
            raise UserError(f"model.max_length={max_length} leaves no room for windows beside {self.first + self.last} tokens of prefix and special tokens")

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


def averaged(encodings: Tensor, places: Tensor, texts: int) -> Tensor:
    """Return the mean encoding of the windows of each text, [texts, H]; encodings: [windows, H]; places: of its text for each window."""
    sums = encodings.new_zeros(texts, encodings.shape[1]).index_add(0, places, encodings)
    return sums / torch.bincount(places, minlength=texts).to(encodings.dtype)[:, None]


class LongTokens(Tokens):
    """Tokenisation of single texts up to `MOST_TOKENS`."""

    def check(self, tasks: Iterable[Task]) -> None:
        """Raises: UserError: as for texts that are cut, or a task is of pairs."""
        tasks = list(tasks)
        super().check(tasks)
        if any(PAIR in text for task in tasks for text in task.texts):
            raise UserError(_PAIR)

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return the token ids of texts. Raises: UserError: one is a pair."""
        if any(PAIR in text for text in texts):
            raise UserError(_PAIR)
        return super().encode(texts)
