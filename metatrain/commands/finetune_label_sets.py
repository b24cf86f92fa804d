"""`metatrain finetune data.kind=labels`: several labels per text, by sigmoid heads on the frozen encoder."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metatrain.checkpoints.finetuning import open_frozen, write_frozen
from metatrain.commands.finetune_examples import label_texts_of
from metatrain.commands.finetune_parts import Outcome, Say, Tested, columns_read, task_of
from metatrain.commands.label_set_scores import analysis_of, key_numbers, say_scores
from metatrain.config.schema import FinetuneConfig
from metatrain.errors import UserError
from metatrain.evaluation.held_out_head import encoded
from metatrain.evaluation.label_sets import label_scores, most_frequent_sets, set_scores
from metatrain.meta.label_fit import LabelFit, fit_labels, num_fits
from metatrain.meta.learner import Learner
from metatrain.meta.thresholds import choose_thresholds, held_out_sets
from metatrain.models import targets
from metatrain.models.targets import DEFAULT_THRESHOLD, sigmoid
from metatrain.paths import local_path
from metatrain.tasks.files import Columns, Table
from metatrain.tasks.label_names import meaningful_names
from metatrain.tasks.label_sets import LabelForm, LabelSet, as_matrix, read_label_sets
from metatrain.tasks.labels import clean_label
from metatrain.tasks.splits import few
from metatrain.tasks.texts import subset
from metatrain.tracking.console import Display


class SeveralLabels:
    """Examples with any number of labels each."""

    def __init__(self, config: FinetuneConfig, say: Say):
        """Read the examples.

        Raises:
            UserError: a file cannot be read, no example has a label, or a label of the test has no example.
        """
        self._config, data = config, config.data
        self._form = LabelForm(data.label, data.label_separator, tuple(data.label_columns))
        self._form.check()
        self._train, sets, self._columns = self._read("data.train", data.train, Columns(data.text, pair=data.pair), say, needs_separator=True)
        self._names = [clean_label(name) for name in self._form.columns] or sorted({label for labels in sets for label in labels})
        if not self._names:
            raise UserError(f"{self._train.source}: no example has a label")
        self._targets = as_matrix(sets, self._names)
        if unused := [name for name, number in zip(self._names, self._targets.sum(0)) if not number]:
            raise UserError(f"{self._train.source}: no example has the label {unused[0]!r}; leave it out of data.label_columns, or add examples")
        self._tested: Tested | None = None
        if data.test is not None:
            self._test, test_sets, _ = self._read("data.test", data.test, self._columns, say)
            self._check_known(test_sets)
            self._tested = Tested.of(self._train, self._test, say)
            self._test_targets = as_matrix([test_sets[row] for row in self._tested.rows], self._names)

    def _read(self, setting: str, name: str, columns: Columns, say: Say, needs_separator: bool = False) -> tuple[Table, list[LabelSet], Columns]:
        guessed = {"text": "data.text"} if self._config.data.text == "text" else {}
        table, sets, columns = read_label_sets(local_path(name), setting, columns, self._form, guessed, needs_separator)
        for note in table.notes:
            say(note)
        return table, sets, columns

    def _check_known(self, sets: Sequence[LabelSet]) -> None:
        """Raises: UserError: a test text has a label that no example has."""
        known = set(self._names)
        for row, labels in enumerate(sets):
            if unknown := labels - known:
                place = self._test.places([row])[row]
                raise UserError(f"{place}: label {min(unknown)!r} is not in the training examples; their labels are {few(self._names)}")

    def open(self, say: Say) -> Learner:
        texts = label_texts_of(self._config.data, self._names)
        self._task = task_of(self._train, self._names, texts)
        return open_frozen(self._config, self._task, say)

    def adapt_and_test(self, learner: Learner, display: Display) -> Outcome:
        begin = time.perf_counter()
        features = encoded(learner, self._train.texts, display)
        fit = self._fit(learner, features, display)
        seconds = time.perf_counter() - begin
        number, none = len(features), int((~self._targets.any(1)).sum())
        display.say(
            f"fitted sigmoid heads to {number} examples with {len(self._names)} labels ({self._targets.sum() / number:.2f} per text, "
            f"{none} texts with none) in {seconds:.1f} s (inverse L2 strength {fit.strength:g})"
        )
        if fit.names is not None:
            display.say(f"label names are {'used' if fit.names else 'not used'} as examples: the lower log loss on held-out examples")
        results: dict[str, Any] = {"examples": number, "steps": 0, "seconds": round(seconds, 3), "inverse_l2_strength": fit.strength, "names": fit.names}
        target, found, by_label = self._judged(fit, display)
        results.update(found)
        analysis: dict[str, Any] = {"class_scores": by_label, "key_numbers": []}
        if found["cross_validation"] is not None:
            analysis["key_numbers"] = key_numbers("cross-validated", found["cross_validation"])
        if self._tested is not None:
            results["test"], more = self._test_scores(learner, fit, target, display)
            analysis = {**more, "key_numbers": analysis["key_numbers"] + more["key_numbers"]}

        def write(folder: Path) -> str:
            return write_frozen(folder, learner, fit.weight, fit.bias, self._names, target, columns_read(self._columns))

        return Outcome(self._names, results, analysis, write, of_pairs=bool(self._columns.pair))

    def _fit(self, learner: Learner, features: np.ndarray, display: Display) -> LabelFit:
        encodings, method = learner.encodings, learner.algorithm
        assert encodings is not None  # `open_frozen` has looked
        names = encodings.features(learner.model.tokens().names(self._task.read_names)).cpu() if method.label_names else None
        is_name = np.array(meaningful_names(tuple(self._task.read_names)))
        display.start("fitting heads", num_fits(names is not None and bool(is_name.any())), brief=True)
        weight = method.label_names_weight
        fit = fit_labels(torch.from_numpy(features), self._targets, names, is_name, weight, self._config.seed, display.advance)
        display.stop()
        return fit

    def _judged(self, fit: LabelFit, display: Display) -> tuple[targets.SeveralLabels, dict[str, Any], list[dict[str, Any]]]:
        """Choose the thresholds and report the scores on held-out examples; return what the model predicts, results, and scores by label."""
        form = self._form
        if fit.held_out is None:
            display.say(f"one example: no threshold is chosen, each is {DEFAULT_THRESHOLD}, and there is no cross-validation")
            target = targets.SeveralLabels((DEFAULT_THRESHOLD,) * len(self._names), form.separator, form.columns, form.column)
            return target, {"thresholds": dict(zip(self._names, target.thresholds)), "cross_validation": None}, []
        probabilities = sigmoid(fit.held_out)
        chosen = choose_thresholds(probabilities, self._targets, fit.fold_of, DEFAULT_THRESHOLD)
        num_own, num_default = int(chosen.is_own.sum()), int(chosen.is_default.sum())
        num_shared = len(self._names) - num_own - num_default
        parts = [f"{num_own} labels have their own"]
        if num_shared:
            parts.append(f"{num_shared} with few examples share one")
        if num_default:
            parts.append(f"{num_default} have {DEFAULT_THRESHOLD}, since no threshold beats predicting the label for every text")
        display.say(f"thresholds with the highest F1 on held-out examples: {', '.join(parts)}")
        predicted = held_out_sets(probabilities, self._targets, fit.fold_of, DEFAULT_THRESHOLD)
        scores = set_scores(predicted, self._targets)
        say_scores("cross-validated", scores, display)
        target = targets.SeveralLabels(tuple(chosen.values.tolist()), form.separator, form.columns, form.column)
        results = {"thresholds": dict(zip(self._names, target.thresholds)), "cross_validation": scores}
        return target, results, label_scores(predicted, self._targets, self._names)

    def _test_scores(self, learner: Learner, fit: LabelFit, target: targets.SeveralLabels, display: Display) -> tuple[dict[str, Any], dict[str, Any]]:
        """Report the scores on the test examples; return `test` of results.json, and analysis.json."""
        assert self._tested is not None  # the caller has looked
        texts = list(subset(self._test.texts, self._tested.rows))
        probabilities = sigmoid(encoded(learner, texts, display) @ fit.weight.double().numpy().T + fit.bias.double().numpy())
        predicted, labels = target.is_predicted(probabilities), self._test_targets
        scores = set_scores(predicted, labels)
        say_scores(self._tested.kind, scores, display)
        beside = {
            "threshold_one_half": set_scores(probabilities >= DEFAULT_THRESHOLD, labels),
            "most_frequent_label": set_scores(most_frequent_sets(self._targets, len(labels)), labels),
        }
        for name, what in (("threshold_one_half", "with threshold 0.5 for each label"), ("most_frequent_label", "always predicting the most frequent label")):
            say_scores(f"{what}, {self._tested.kind}", beside[name], display)
        analysis = analysis_of(self._tested.kind, scores, self._test, self._tested.rows, predicted, labels, self._names)
        return {**scores, **beside, **self._tested.facts}, analysis
