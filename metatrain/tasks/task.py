"""A task: a data set seen as a mapping from text to label, or from text to text, held in memory."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

MASK = "\ufffc"  # stands for a masked word in a text; the tokenizer's own mask takes its place
PAIR = "\x1e"  # stands between the two texts of a pair; the tokenizer's own separator takes its place
_NOT_A_WORD = re.compile(r"\W+")


def plain(text: str) -> str:
    """A user's text without the two characters that mean something here."""
    return text.replace(MASK, " ").replace(PAIR, " ")


def text_key(text: str) -> bytes:
    """Hash of the text without case, punctuation and spacing: equal keys count as the same text."""
    return hashlib.blake2b(_NOT_A_WORD.sub(" ", text.casefold()).strip().encode(), digest_size=16).digest()


def row_key(text: str, target: str | None) -> bytes:
    """`text_key` of a text and its target, if it has one: one sentence may go into two languages."""
    return text_key(text if target is None else f"{text}\n{target}")


@dataclass(frozen=True, eq=False)
class Task:
    """Texts of one task with their labels or target texts, without repeated texts.

    `labels[i]` is the index into `label_names` of text i (shape [rows]). A text-to-text task has `targets`, one for each text, and a
    single class, so that K shots are K texts.
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
    targets: tuple[str, ...] | None = None
    score: str | None = None  # of a text-to-text task: how an answer is compared with its target, by name

    def rows_of_class(self, label: int, pool: np.ndarray) -> np.ndarray:
        """Row numbers of one class within a pool, in file order."""
        return np.flatnonzero((self.labels == label) & pool)

    def key(self, row: int) -> bytes:
        """Rows of one key count as the same row."""
        return row_key(self.texts[row], None if self.targets is None else self.targets[row])

    def keys(self) -> set[bytes]:
        return {self.key(row) for row in range(len(self.texts))}

    def without(self, keys: set[bytes]) -> Task:
        """The same task without the rows that have these keys."""
        return self.subset(np.array([self.key(row) not in keys for row in range(len(self.texts))], dtype=bool))

    def subset(self, keep: np.ndarray) -> Task:
        """The same task with the rows alone for which `keep` (boolean, shape [rows]) is true."""
        if keep.all():
            return self
        return replace(
            self,
            texts=tuple(itertools.compress(self.texts, keep)),
            targets=None if self.targets is None else tuple(itertools.compress(self.targets, keep)),
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

    def training_texts(self) -> Iterator[str]:
        """Every text, target and label name of the meta-train tasks."""
        for task in self.meta_train:
            yield from task.texts
            yield from task.label_names if task.targets is None else task.targets

    def split(self, name: str) -> tuple[Task, ...]:
        """The tasks of `meta_train`, `meta_validation` or `meta_test`."""
        return {"meta_train": self.meta_train, "meta_validation": self.meta_validation, "meta_test": self.meta_test}[name]
