"""The kinds of examples that `metatrain finetune` learns from (`data.kind`), one class each: one label, several labels, a number."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from metatrain.checkpoints.class_balance import balance_of
from metatrain.checkpoints.finetuning import Finetuned, finetuned, open_for, write_finetuned
from metatrain.commands.finetune_adaptation import adapt_and_test
from metatrain.commands.finetune_examples import read_examples
from metatrain.commands.finetune_label_sets import SeveralLabels
from metatrain.commands.finetune_numbers import Number
from metatrain.commands.finetune_parts import Kind, Outcome, Say, columns_read
from metatrain.config.schema import FinetuneConfig
from metatrain.errors import UserError
from metatrain.meta.learner import Learner
from metatrain.tasks.labels import by_label
from metatrain.tracking.console import Display


class OneLabel:
    """Examples with one label each, or with a target text for a language model."""

    def __init__(self, config: FinetuneConfig, say: Say):
        """Read the examples. Raises: UserError: they cannot be read."""
        self._config = config
        self.examples = read_examples(config.data, config.oos_false_rejection_rate is not None, say, config.seed)
        self.balance = balance_of(config.data, self.examples.episode)

    def open(self, say: Say) -> Learner:
        return open_for(self._config, self.examples.episode.task, self.examples.is_tested, say)

    def adapt_and_test(self, learner: Learner, display: Display) -> Outcome:
        return self.outcome(learner, finetuned(learner, self.examples.episode, display, self.balance, self.examples.unlabelled), display)

    def outcome(self, learner: Learner, adaptation: Finetuned, display: Display) -> Outcome:
        """Report an adaptation to the examples, and test it."""
        examples, task = self.examples, self.examples.episode.task
        found = adapt_and_test(learner, examples, self._config.oos_false_rejection_rate, display, adaptation)

        def write(folder: Path) -> str:
            columns, descriptions = columns_read(examples.columns), by_label(self._config.data.label_descriptions)
            sets, export = found.prediction_sets, self._config.export
            return write_finetuned(folder, learner, task, found.parameters, found.threshold, found.reading, columns, sets, descriptions, export)

        labels = None if task.targets is not None else list(task.label_names)
        return Outcome(labels, found.results, found.analysis, write, task.of_images, bool(examples.columns.pair))


KINDS: dict[str, Callable[[FinetuneConfig, Say], Kind]] = {"label": OneLabel, "labels": SeveralLabels, "number": Number}


def kind_of(config: FinetuneConfig) -> Callable[[FinetuneConfig, Say], Kind]:
    """Return what reads the examples. Raises: UserError: `data.kind` is unknown."""
    if config.data.kind not in KINDS:
        raise UserError(f"data.kind={config.data.kind} is unknown; choose one of {', '.join(KINDS)}")
    return KINDS[config.data.kind]
