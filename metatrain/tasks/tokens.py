"""Token ids of a task's texts, made once per task and kept as one flat array."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from metatrain.tasks.task import Task


class TokenTable:
    """Token ids of many texts: text i is `ids[offsets[i]:offsets[i + 1]]`, special tokens included."""

    def __init__(self, tokenizer, texts: Sequence[str], max_length: int):
        encoded = tokenizer(list(texts), truncation=True, max_length=max_length)["input_ids"] if len(texts) else []
        self.offsets = np.cumsum([0] + [len(ids) for ids in encoded])
        self.ids = np.array([token for ids in encoded for token in ids], dtype=np.int32)

    def rows(self, rows: Sequence[int]) -> list[np.ndarray]:
        """The token ids of some texts, each of shape [tokens]."""
        return [self.ids[self.offsets[row] : self.offsets[row + 1]] for row in rows]


class Tokens:
    """Tokenises each task the first time it is asked for and keeps the result."""

    def __init__(self, tokenizer, max_length: int):
        self.tokenizer = tokenizer
        self.max_length = max_length
        self._tables: dict[int, tuple[Task, TokenTable]] = {}

    def of(self, task: Task, rows: Sequence[int]) -> list[np.ndarray]:
        if id(task) not in self._tables:  # the task is kept beside its table, so its id stays its own
            self._tables[id(task)] = (task, TokenTable(self.tokenizer, task.texts, self.max_length))
        return self._tables[id(task)][1].rows(rows)

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Token ids of texts that belong to no task."""
        table = TokenTable(self.tokenizer, texts, self.max_length)
        return table.rows(range(len(texts)))
