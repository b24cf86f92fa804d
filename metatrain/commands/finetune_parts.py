"""Parts that the kinds of examples of `metatrain finetune` share: the interface of a kind, its outcome, the test examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from metatrain.config.schema import DataConfig
from metatrain.meta.learner import Learner
from metatrain.paths import local_path
from metatrain.tasks.audit import seen_rows
from metatrain.tasks.files import Columns, Table
from metatrain.tasks.labelled import read_labelled
from metatrain.tasks.labels import by_label
from metatrain.tasks.task import Task
from metatrain.tracking.console import Display

Say = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """Result of finetuning."""

    labels: list[str] | None  # label names; None: the model writes texts or numbers
    results: dict[str, Any]  # contents of results.json
    analysis: dict[str, Any]  # contents of analysis.json
    write: Callable[[Path], str]  # writes the model directory; returns which library loads it
    of_images: bool = False
    of_pairs: bool = False


class Kind(Protocol):
    """Examples of one kind, and how a model learns from them."""

    def open(self, say: Say) -> Learner:
        """Open the checkpoint for these examples. Raises: UserError: it cannot be opened, or cannot learn from them."""

    def adapt_and_test(self, learner: Learner, display: Display) -> Outcome:
        """Learn from the examples, and test if there are test examples."""


@dataclass(frozen=True)
class Tested:
    """The test examples that training does not have, or all if it has all of them."""

    rows: np.ndarray  # of the test file
    is_held_out: bool
    num_seen: int  # number of test texts that also occur in training

    @classmethod
    def of(cls, training: Table, test: Table, say: Say) -> Tested:
        """Compare the texts of two files, and report those that are in both."""
        is_seen, warnings = seen_rows(training, test)
        for warning in warnings:
            say(warning)
        return cls(np.arange(len(is_seen)) if is_seen.all() else np.flatnonzero(~is_seen), not is_seen.all(), int(is_seen.sum()))

    @property
    def facts(self) -> dict[str, Any]:
        """Contents of `test` in results.json."""
        return {"held_out": self.is_held_out, "also_in_training": self.num_seen}

    @property
    def kind(self) -> str:
        """Kind of prediction that the scores measure."""
        return "held-out" if self.is_held_out else "training"


def read_table(data: DataConfig, setting: str, name: str, say: Say, columns: Columns | None = None) -> tuple[Table, Columns]:
    """Read a file, or a folder of images or texts; return its rows and the columns that were read.

    columns: those of the training file, to be read again; None: those of the settings.
    """
    wanted = Columns(data.text, data.label, pair=data.pair, target=data.target)
    guessed = [key for key, value in (("text", data.text), ("label", data.label)) if value == key]  # the defaults
    table, columns = read_labelled(local_path(name), setting, columns or wanted, {key: f"data.{key}" for key in guessed})
    for note in table.notes:
        say(note)
    return table, columns


def described(table: Table, descriptions: Mapping[Any, str]) -> Table:
    """Return a table with some labels replaced by their descriptions; labels with the same description are merged."""
    names = by_label(descriptions)
    return replace(table, labels=[names.get(label, label) for label in table.labels]) if names else table


def task_of(table: Table, names: Sequence[str], label_texts: tuple[str, ...] | None = None) -> Task:
    """Return the texts as a task, for checks of the model; its labels are not read."""
    everywhere = np.ones(len(table.texts), dtype=bool)
    return Task("task", table.texts, np.zeros(len(table.texts), np.int64), tuple(names), everywhere, everywhere, label_texts=label_texts)


def columns_read(columns: Columns) -> dict[str, str]:
    """Return the columns of the texts, as a finetuned model has them."""
    return {"text": columns.text, **({"pair": columns.pair} if columns.pair else {})}
