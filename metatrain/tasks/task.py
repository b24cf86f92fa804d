"""A task: a data set seen as a mapping from text to label, or from text to text, held in memory."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from metatrain.tasks.keys import first_row_key, near_key, row_key
from metatrain.tasks.texts import is_image, subset

_RULE = "keys-2:"  # prefix of a fingerprint; those computed from `first_row_key` have none


def plain_name(label: str) -> str:
    """Return a label name with spaces for underscores: `book_flight` becomes "book flight"."""
    return label.replace("_", " ")


def numbered(label_sets: np.ndarray) -> np.ndarray:
    """Return the number of each label set among the different ones, [rows]; label_sets: boolean, [rows, labels]."""
    return np.unique(np.packbits(label_sets, axis=1), axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Task:
    """Texts of one task with their labels or target texts, without repeated texts.

    `labels[i]` is the index into `label_names` of text i (shape [rows]). A text-to-text task has `targets`, one for each text, and a
    single class, so that K shots are K texts. A multi-label task has `label_sets`, where `labels[i]` is instead the number of the set of text i
    among the different sets.
    `support_pool` and `query_pool` mark the rows that may be sampled into support sets and query sets (boolean, [rows]): in most tasks
    every row, in a task with a fixed support set different rows.
    """

    name: str
    texts: Sequence[str]
    labels: np.ndarray
    label_names: tuple[str, ...]
    support_pool: np.ndarray
    query_pool: np.ndarray
    way: int | None = None  # number of classes per episode if episode.way is null; None: all
    targets: Sequence[str] | None = None
    score: str | None = None  # text-to-text tasks: name of the score that compares a generated text with its target
    source: str = ""  # name of its source (tasks.sources); empty: tasks.path
    label_texts: tuple[str, ...] | None = None  # texts of the labels for methods that read label names; None: the names
    label_sets: np.ndarray | None = None  # of a multi-label task: which labels each text has, boolean, [rows, labels]

    @property
    def is_labelled(self) -> bool:
        """True if the task has labels from the data: it is neither self-supervised nor text-to-text."""
        return self.way is None and self.targets is None

    @property
    def main_score(self) -> str:
        """Key of the score of its predictions: that of its generated texts, `micro_f1` with several labels per text, or else `accuracy`."""
        return self.score or self.loop_score

    @property
    def loop_score(self) -> str:
        """Key of the score that meta-updates record of its queries: `micro_f1` with several labels per text, or else `accuracy`."""
        return "accuracy" if self.label_sets is None else "micro_f1"

    @property
    def read_names(self) -> tuple[str, ...]:
        """Texts of the labels for methods that read label names."""
        return self.label_names if self.label_texts is None else self.label_texts

    @property
    def of_images(self) -> bool:
        """True if the rows are images."""
        return len(self.texts) > 0 and is_image(self.texts[0])

    @functools.cached_property
    def support_rows(self) -> list[np.ndarray]:
        """Rows of each class from which support examples are sampled, in file order; a row with several labels is of several classes."""
        return self._rows(self.support_pool)

    @functools.cached_property
    def query_rows(self) -> list[np.ndarray]:
        """Rows of each class from which queries are sampled, in file order."""
        if np.array_equal(self.support_pool, self.query_pool):
            return self.support_rows
        return self._rows(self.query_pool)

    def _rows(self, pool: np.ndarray) -> list[np.ndarray]:
        return [np.flatnonzero(self.has_label(label) & pool) for label in range(len(self.label_names))]

    def has_label(self, label: int) -> np.ndarray:
        """Return which rows have a label, boolean, [rows]."""
        return np.asarray(self.labels == label) if self.label_sets is None else self.label_sets[:, label]

    @property
    def sizes(self) -> np.ndarray:
        """Number of rows of each class; in a multi-label task, the rows without any label come last."""
        if self.label_sets is None:
            return np.bincount(self.labels)
        return np.append(self.label_sets.sum(0), self.has_no_label.sum())

    @functools.cached_property
    def has_no_label(self) -> np.ndarray:
        """Rows of a multi-label task without any label, boolean, [rows]; none in other tasks."""
        return np.zeros(len(self.texts), dtype=bool) if self.label_sets is None else np.logical_not(self.label_sets.any(1))

    def labels_of(self, row: int) -> str:
        """Return the label names of a row as text."""
        if self.label_sets is None:
            return self.label_names[self.labels[row]]
        return ", ".join(self.label_names[label] for label in np.flatnonzero(self.label_sets[row])) or "no label"

    @functools.cached_property
    def keys(self) -> np.ndarray:
        """Hash of each row, [rows]; rows with equal hashes are duplicates."""
        return self.hashes(row_key)

    @functools.cached_property
    def near_keys(self) -> np.ndarray:
        """Hash of the words of each row, [rows]; rows with equal hashes are near-duplicates."""
        return self.hashes(near_key)

    def hashes(self, key: Callable[[str, str | None], int]) -> np.ndarray:
        """Return `key` of the text and target of each row (None: no target), [rows]."""
        targets = itertools.repeat(None) if self.targets is None else self.targets
        return np.fromiter(map(key, self.texts, targets), dtype=np.uint64, count=len(self.texts))

    def without(self, keys: np.ndarray) -> Task:
        """Return the task without the rows whose `keys` are in this array."""
        return self.subset(~np.isin(self.keys, keys))

    def subset(self, keep: np.ndarray) -> Task:
        """Return the task with only the rows for which `keep` (boolean, shape [rows]) is true."""
        if keep.all():
            return self
        places = np.flatnonzero(keep)
        return replace(
            self,
            texts=subset(self.texts, places),
            targets=None if self.targets is None else subset(self.targets, places),
            labels=self.labels[keep],
            label_sets=None if self.label_sets is None else self.label_sets[keep],
            support_pool=self.support_pool[keep],
            query_pool=self.query_pool[keep],
        )


@dataclass(frozen=True)
class TaskDistribution:
    """The meta-train, meta-validation and meta-test tasks of one run, with notes from loading them."""

    name: str
    meta_train: tuple[Task, ...] = ()
    meta_validation: tuple[Task, ...] = ()
    meta_test: tuple[Task, ...] = ()
    notes: tuple[str, ...] = field(default=())
    weights: tuple[float, ...] | None = None  # sampling probabilities of the meta-training tasks; None: uniform

    def training_texts(self) -> Iterator[str]:
        """Yield every text, target and label name of the meta-training tasks."""
        for task in self.meta_train:
            yield from (text for text in task.texts if not is_image(text))
            yield from task.read_names if task.targets is None else task.targets

    def fingerprint(self) -> str:
        """Return a hash of the rows, labels and pools of the labelled and text-to-text tasks; it determines their episodes."""
        return _RULE + self._digest(lambda task: task.keys)

    def has_fingerprint(self, found: str) -> bool:
        """Return True if this distribution has a fingerprint, possibly one of an earlier version."""
        return found == (self.fingerprint() if found.startswith(_RULE) else self._digest(lambda task: task.hashes(first_row_key)))

    def _digest(self, keys: Callable[[Task], np.ndarray]) -> str:
        digest = hashlib.sha256()
        for name in ("meta_train", "meta_validation", "meta_test"):
            for task in self.split(name):
                if task.way is None:
                    digest.update(json.dumps([name, task.name, task.label_names, len(task.texts)]).encode())
                    sets = () if task.label_sets is None else (np.packbits(task.label_sets),)
                    for values in (keys(task), task.labels, np.packbits(task.support_pool), np.packbits(task.query_pool), *sets):
                        digest.update(np.ascontiguousarray(values).data)
        return digest.hexdigest()

    def split(self, name: str) -> tuple[Task, ...]:
        """Return the tasks of `meta_train`, `meta_validation` or `meta_test`."""
        return {"meta_train": self.meta_train, "meta_validation": self.meta_validation, "meta_test": self.meta_test}[name]
