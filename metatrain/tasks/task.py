"""A task: a data set seen as a mapping from text to label, held in memory."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field, replace

import numpy as np

MASK = "\ufffc"  # stands for a masked word in a text; the tokenizer's own mask takes its place
_NOT_A_WORD = re.compile(r"\W+")


def text_key(text: str) -> bytes:
    """Hash of the text without case, punctuation and spacing: equal keys count as the same text."""
    return hashlib.blake2b(_NOT_A_WORD.sub(" ", text.casefold()).strip().encode(), digest_size=16).digest()


@dataclass(frozen=True, eq=False)
class Task:
    """Labelled texts of one task, without repeated texts.

    `labels[i]` is the index into `label_names` of text i (shape [rows]).
    `support_pool` / `query_pool` say which rows may be drawn for either set (boolean, shape [rows]);
    most tasks allow every row in both, a task with fixed support rows does not.
    """

    name: str
    texts: tuple[str, ...]
    labels: np.ndarray
    label_names: tuple[str, ...]
    support_pool: np.ndarray
    query_pool: np.ndarray
    way: int | None = None  # classes of an episode where the settings leave it open; None: all

    def rows_of_class(self, label: int, pool: np.ndarray) -> np.ndarray:
        """Row numbers of one class within a pool, in file order."""
        return np.flatnonzero((self.labels == label) & pool)

    def keys(self) -> set[bytes]:
        return {text_key(text) for text in self.texts}

    def without(self, keys: set[bytes]) -> Task:
        """The same task without the texts that have these keys."""
        keep = np.array([text_key(text) not in keys for text in self.texts], dtype=bool)
        return replace(
            self,
            texts=tuple(text for text, kept in zip(self.texts, keep) if kept),
            labels=self.labels[keep],
            support_pool=self.support_pool[keep],
            query_pool=self.query_pool[keep],
        )


@dataclass(frozen=True)
class TaskDistribution:
    """The meta-train, meta-validation and meta-test tasks of one run, and what loading them had to say."""

    name: str
    meta_train: tuple[Task, ...] = ()
    meta_validation: tuple[Task, ...] = ()
    meta_test: tuple[Task, ...] = ()
    notes: tuple[str, ...] = field(default=())
    weights: tuple[float, ...] | None = None  # how often each meta-train task is drawn; they add up to 1; None: all as often

    def split(self, name: str) -> tuple[Task, ...]:
        """The tasks of `meta_train`, `meta_validation` or `meta_test`."""
        return {"meta_train": self.meta_train, "meta_validation": self.meta_validation, "meta_test": self.meta_test}[name]
