"""`metatrain finetune data.kind=number`: numbers or ordered labels, by ridge regression on the frozen encoder."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metatrain.checkpoints.finetuning import open_frozen, write_frozen
from metatrain.commands.finetune_parts import Outcome, Say, Tested, columns_read, read_table, task_of
from metatrain.commands.number_report import analysis_of, key_numbers, numbers_of, say_scores
from metatrain.config.schema import FinetuneConfig
from metatrain.errors import UserError
from metatrain.evaluation.held_out_head import encoded
from metatrain.evaluation.number_scores import number_scores
from metatrain.meta.learner import Learner
from metatrain.meta.number_fit import NumberFit, fit_numbers
from metatrain.models import targets
from metatrain.tasks.labels import clean_label
from metatrain.tasks.texts import is_image, subset
from metatrain.tracking.console import Display

_NAMES = ["number"]  # of the output of the model


class Number:
    """Examples with a number each."""

    def __init__(self, config: FinetuneConfig, say: Say):
        """Read the examples.

        Raises:
            UserError: a file cannot be read, a label is no number, or all are equal.
        """
        self._config, data = config, config.data
        order = tuple(map(clean_label, data.order))
        if len(set(order)) < len(order) or len(order) == 1:
            raise UserError(f"data.order=[{','.join(data.order)}] must name two or more different labels, the lowest first")
        self._train, self._columns = read_table(data, "data.train", data.train, say)
        if is_image(self._train.texts[0]):
            raise UserError(f"data.train={data.train} is a folder of images; data.kind=number reads texts")
        self._numbers = numbers_of(self._train, order, "data.order", say)
        if np.ptp(self._numbers) == 0:
            raise UserError(f"{self._train.source}: all examples have the number {self._train.labels[0]}; give at least two different numbers")
        is_whole = bool(order) or bool((self._numbers == np.round(self._numbers)).all())
        self._target = targets.Number(float(self._numbers.min()), float(self._numbers.max()), is_whole, order, self._columns.label or data.label)
        self._tested: Tested | None = None
        if data.test is not None:
            self._test, _ = read_table(data, "data.test", data.test, say, self._columns)
            test_numbers = numbers_of(self._test, order, "data.order", say)
            self._tested = Tested.of(self._train, self._test, say)
            self._test_numbers = test_numbers[self._tested.rows]

    def open(self, say: Say) -> Learner:
        return open_frozen(self._config, task_of(self._train, _NAMES), say)

    def adapt_and_test(self, learner: Learner, display: Display) -> Outcome:
        begin = time.perf_counter()
        features = encoded(learner, self._train.texts, display)
        fit = fit_numbers(features, self._numbers, self._config.seed)
        seconds, number = time.perf_counter() - begin, len(features)
        display.say(
            f"fitted ridge regression to {number} examples with numbers from {self._target.lowest:g} to {self._target.highest:g} "
            f"in {seconds:.1f} s (L2 strength {fit.strength:g})"
        )
        median = float(np.median(self._numbers))
        results: dict[str, Any] = {"examples": number, "steps": 0, "seconds": round(seconds, 3), "l2_strength": fit.strength, "median": median}
        if self._target.order:
            results["order"] = list(self._target.order)
        analysis: dict[str, Any] = {"key_numbers": []}
        results["cross_validation"] = None
        if fit.held_out is not None:
            predicted = self._target.numbers(fit.held_out[:, None])
            results["cross_validation"] = scores = number_scores(predicted, self._numbers, self._target.is_whole)
            say_scores("cross-validated", scores, display)
            analysis["key_numbers"] = key_numbers("cross-validated", scores)
        if self._tested is not None:
            results["test"], more = self._test_scores(learner, fit, median, display)
            analysis = {**more, "key_numbers": analysis["key_numbers"] + more["key_numbers"]}

        def write(folder: Path) -> str:
            weight, bias = torch.from_numpy(fit.weight)[None].float(), torch.tensor([fit.bias], dtype=torch.float32)
            return write_frozen(folder, learner, weight, bias, _NAMES, self._target, columns_read(self._columns))

        return Outcome(None, results, analysis, write, of_pairs=bool(self._columns.pair))

    def _test_scores(self, learner: Learner, fit: NumberFit, median: float, display: Display) -> tuple[dict[str, Any], dict[str, Any]]:
        """Report the scores on the test examples; return `test` of results.json, and analysis.json."""
        assert self._tested is not None  # the caller has looked
        texts = list(subset(self._test.texts, self._tested.rows))
        predicted, kind = self._target.numbers(encoded(learner, texts, display) @ fit.weight[:, None] + fit.bias), self._tested.kind
        scores = number_scores(predicted, self._test_numbers, self._target.is_whole)
        say_scores(kind, scores, display)
        beside = float(np.abs(median - self._test_numbers).mean())
        display.say(f"always predicting the median of the examples ({median:g}), {kind} mean absolute error: {beside:.3f}")
        analysis = analysis_of(kind, scores, self._test, self._tested.rows, predicted, self._test_numbers, self._target)
        return {**scores, "median_error": beside, **self._tested.facts}, analysis
