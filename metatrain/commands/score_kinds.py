"""The kinds of models that `metatrain score` scores, one class each: one label, several labels, a number."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from rich.table import Table as Printed

from metatrain.commands import label_set_scores, number_report
from metatrain.commands.finetune_parts import described
from metatrain.config.schema import ScoreConfig
from metatrain.errors import UserError
from metatrain.evaluation.classification import calibration, class_scores, confident_errors, confused, summary
from metatrain.evaluation.held_out import interval
from metatrain.evaluation.label_sets import label_scores, set_scores
from metatrain.evaluation.number_scores import number_scores
from metatrain.models import targets
from metatrain.models.decisions import decisions
from metatrain.models.export import Classifier
from metatrain.models.finetuned_folder import DESCRIPTIONS, NONE
from metatrain.models.generation import TextGenerator
from metatrain.models.prediction_sets import limits
from metatrain.paths import local_path
from metatrain.tasks.files import Columns, Table
from metatrain.tasks.label_sets import LabelForm, as_matrix, read_label_sets
from metatrain.tasks.labelled import read_labelled
from metatrain.tracking.console import Display

_AT_A_TIME = 500  # texts, after which progress is shown
_MOST_CLASSES = 20  # in the printed table: those with the lowest F1

Facts = Mapping[str, Any]  # contents of finetuned.json
Model = Classifier | TextGenerator


@dataclass(frozen=True)
class Scored:
    """Predictions for labelled texts."""

    table: Table
    names: Sequence[str]  # of the labels, and of out of scope if the model detects it
    labels: np.ndarray  # positions in `names`, [texts]
    predicted: np.ndarray  # [texts]
    confidence: np.ndarray  # probability of the predicted label, NaN where that is out of scope, [texts]
    sets: Sequence[Sequence[str]] | None = None  # prediction set of each text; None: not asked for


class Scores(Protocol):
    """Labelled texts, and how predictions for them are scored."""

    source: str  # the file or folder

    def of(self, model: Model, display: Display) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the contents of results.json and of analysis.json, from which the page is made. Raises: UserError: a label is not one of the model's."""

    def say(self, results: dict[str, Any], display: Display) -> None:
        """Print the scores."""


class OneLabel:
    """Texts with one label each."""

    def __init__(self, config: ScoreConfig, facts: Facts, display: Display):
        """Read the texts. Raises: UserError: the file or folder cannot be read."""
        self._table = described(_read(config, facts.get("columns", {}), display), facts.get(DESCRIPTIONS, {}))
        self.source = self._table.source
        self._config, self._calibration = config, facts.get("prediction_sets")

    def of(self, model: Model, display: Display) -> tuple[dict[str, Any], dict[str, Any]]:
        stated, highest = self._config.coverage, None
        if stated is not None:
            assert model.labels is not None  # `start` has refused a model that writes texts
            highest = limits(f"model={self._config.model.path}", self._calibration, model.labels, stated)
        scored = _predicted(model, self._table, display, highest)
        results, analysis = _results(scored)
        return {**results, **_coverage(scored, stated)}, analysis

    def say(self, results: dict[str, Any], display: Display) -> None:
        _say(results, display)
        if (sets := results.get("prediction_sets")) is not None:
            low, high = sets["ci95"]
            display.say(
                f"prediction sets, coverage stated {sets['stated']:g}, measured {sets['coverage']:.3f}, 95% interval [{low:.3f}, {high:.3f}]: "
                f"{sets['mean_size']:.2f} labels on average, {sets['of_one_label']:.1%} have one"
            )


class SeveralLabels:
    """Texts with several labels each, in the form of the model's examples."""

    def __init__(self, config: ScoreConfig, facts: Facts, display: Display):
        """Read the texts. Raises: UserError: the file cannot be read."""
        target, columns = targets.target_of(facts), facts.get("columns", {})
        assert isinstance(target, targets.SeveralLabels)  # `scores_of` has looked
        self._target = target
        form = LabelForm(target.column if config.label == "label" else config.label, target.separator, target.columns)
        read = Columns(config.column or columns.get("text", "text"), pair=config.pair or columns.get("pair"))
        self._table, self._sets, _ = read_label_sets(local_path(config.data), "data", read, form, {} if config.column else {"text": "column"})
        self.source = self._table.source
        for note in self._table.notes:
            display.say(note)

    def of(self, model: Model, display: Display) -> tuple[dict[str, Any], dict[str, Any]]:
        names = model.labels
        assert names is not None  # `start` has refused a model that writes texts
        for row, own in enumerate(self._sets):
            if unknown := own - set(names):
                raise UserError(f"{self._table.places([row])[row]}: label {min(unknown)!r} is not a label of the model; its labels are {', '.join(names)}")
        probabilities = np.concatenate(_in_parts(lambda texts: self._target.probabilities(model, texts), self._table, display))
        predicted, labels = self._target.is_predicted(probabilities), as_matrix(self._sets, names)
        scores = set_scores(predicted, labels)
        analysis = label_set_scores.analysis_of("", scores, self._table, np.arange(len(labels)), predicted, labels, names)
        results = {"labels": names, "test": scores, "classes": label_scores(predicted, labels, names), "errors": analysis["mistakes"][0]["examples"]}
        return results, analysis

    def say(self, results: dict[str, Any], display: Display) -> None:
        label_set_scores.say_scores("all labels", results["test"], display)
        display.table(_class_table(results["classes"], "Labels", "label"))


class Number:
    """Texts with a number each."""

    def __init__(self, config: ScoreConfig, facts: Facts, display: Display):
        """Read the texts. Raises: UserError: the file or folder cannot be read, or a label is no number."""
        target = targets.target_of(facts)
        assert isinstance(target, targets.Number)  # `scores_of` has looked
        self._target, self._table = target, _read(config, facts.get("columns", {}), display, target.column)
        self.source = self._table.source
        self._numbers = number_report.numbers_of(self._table, target.order, "the data.order of metatrain finetune", display.say)

    def of(self, model: Model, display: Display) -> tuple[dict[str, Any], dict[str, Any]]:
        predicted = np.array([each for part in _in_parts(lambda texts: self._target.predictions(model, texts, None), self._table, display) for each in part])
        scores = number_scores(predicted, self._numbers, self._target.is_whole)
        analysis = number_report.analysis_of("", scores, self._table, np.arange(len(predicted)), predicted, self._numbers, self._target)
        return {"labels": list(self._target.order) or None, "test": scores, "errors": analysis["mistakes"][0]["examples"]}, analysis

    def say(self, results: dict[str, Any], display: Display) -> None:
        number_report.say_scores("", results["test"], display)


_KINDS: dict[str, Callable[[ScoreConfig, Facts, Display], Scores]] = {"label": OneLabel, "labels": SeveralLabels, "number": Number}


def scores_of(config: ScoreConfig, facts: Facts, display: Display) -> Scores:
    """Read the labelled texts for a model of any kind. Raises: UserError: they cannot be read, or the model has no prediction sets to score."""
    kind = targets.target_of(facts).kind
    if config.coverage is not None and kind != "label":
        raise UserError(f"coverage={config.coverage}: prediction sets are for models that predict one label per text; leave it out")
    return _KINDS[kind](config, facts, display)


def _in_parts(predict: Callable[[list[str]], Any], table: Table, display: Display) -> list[Any]:
    """Return what `predict` returns for the texts of a table, some hundred texts at a time."""
    display.start("predicting", len(table.texts), brief=True)
    found = []
    for begin in range(0, len(table.texts), _AT_A_TIME):
        part = list(table.texts[begin : begin + _AT_A_TIME])
        found.append(predict(part))
        display.advance(by=len(part))
    display.stop()
    return found


def _read(config: ScoreConfig, columns: Mapping[str, str], display: Display, label: str = "label") -> Table:
    """Read the texts; label: column of the labels if the settings name none. Raises: UserError: the file or folder cannot be read."""
    named = Columns(config.column or columns.get("text", "text"), label if config.label == "label" else config.label, pair=config.pair or columns.get("pair"))
    guessed = {**({} if config.column else {"text": "column"}), **({"label": "label"} if config.label == "label" else {})}
    table, _ = read_labelled(local_path(config.data), "data", named, guessed)
    for note in table.notes:
        display.say(note)
    return table


def _predicted(model: Classifier | TextGenerator, table: Table, display: Display, limits: np.ndarray | None) -> Scored:
    """Return the predictions, as `metatrain predict` makes them; limits: of prediction sets, [labels]; None: there are no sets."""
    assert model.labels is not None  # `start` has refused a model that writes texts
    names = [*model.labels, *([] if model.threshold is None else [NONE])]
    labels = _positions(table, model.labels, model.threshold is not None, display)
    predicted, confidence = np.zeros(len(labels), dtype=np.int64), np.full(len(labels), np.nan)
    number = {name: place for place, name in enumerate(names)}
    sets = []
    found = (each for part in _in_parts(lambda texts: decisions(model, texts, limits=limits), table, display) for each in part)
    for row, each in enumerate(found):
        assert each.label is not None  # there is no threshold of the user
        predicted[row] = number[each.label]
        confidence[row] = np.nan if each.out_of_scope else each.ranked[0][1]
        sets.append(each.prediction_set or ())
    return Scored(table, names, labels, predicted, confidence, None if limits is None else sets)


def _coverage(scored: Scored, stated: float | None) -> dict[str, Any]:
    """Return the share of in-scope texts whose prediction set contains their label, and the sizes of these sets, as contents of results.json."""
    if scored.sets is None:
        return {}
    in_scope = [(scored.names[label], found) for label, found in zip(scored.labels, scored.sets) if label < len(scored.names) and scored.names[label] != NONE]
    if not in_scope:
        return {}
    covered, sizes = sum(label in found for label, found in in_scope), [len(found) for _, found in in_scope]
    found = {"stated": stated, "examples": len(sizes), "coverage": covered / len(sizes), "ci95": interval(covered, len(sizes))}
    return {"prediction_sets": {**found, "mean_size": sum(sizes) / len(sizes), "of_one_label": sizes.count(1) / len(sizes)}}


def _positions(table: Table, labels: Sequence[str], detects: bool, display: Display) -> np.ndarray:
    """The labels of the rows as positions, [texts]; one that the model does not know is out of scope, the position after the last label.

    detects: whether the model detects out-of-scope texts.

    Raises:
        UserError: a row has a label that the model does not know, and the model does not detect out-of-scope texts.
    """
    known = {name: place for place, name in enumerate(labels)}
    unknown = dict.fromkeys(label for label in table.labels if label not in known)
    if unknown and not detects:
        row = next(row for row, label in enumerate(table.labels) if label not in known)
        raise UserError(f"{table.places([row])[row]}: label {table.labels[row]!r} is not a label of the model; its labels are {', '.join(labels)}")
    if unknown:
        rows = sum(label in unknown for label in table.labels)
        display.say(f"{rows} rows have labels that the model does not know ({', '.join(map(repr, list(unknown)[:5]))}); they count as out of scope")
    return np.array([known.get(label, len(labels)) for label in table.labels])


def _results(scored: Scored) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the contents of results.json and of analysis.json, from which the page is made."""
    predicted, labels, table = scored.predicted, scored.labels, scored.table
    by_class, cells = class_scores(predicted, labels, scored.names), confused(predicted, labels, scored.names)
    judged = ~np.isnan(scored.confidence)
    calibrated = calibration(scored.confidence[judged], (predicted == labels)[judged]) if judged.any() else None
    errors = confident_errors(predicted, labels, scored.names, scored.confidence, table.texts)
    places = table.places({each["row"] for each in errors})
    errors = [{"place": places[each.pop("row")], **each} for each in errors]
    test = summary(predicted, labels, by_class)
    if calibrated is not None:
        test |= {key: calibrated[key] for key in ("mean_confidence", "calibration_error")}
    bins = [] if calibrated is None else calibrated["bins"]
    results = {
        **{"labels": list(scored.names), "test": test},
        **{"classes": by_class, "confusion": cells, "calibration": bins, "errors": errors},
    }
    mistakes = {"task": Path(table.source).name, "labels": list(scored.names), "pairs": cells, "examples": errors}
    return results, {"mistakes": [mistakes], "class_scores": by_class, "reliability": bins}


def _say(results: dict[str, Any], display: Display) -> None:
    """Print the scores: a line each, and a row for each class."""
    test, classes = results["test"], results["classes"]
    low, high = test["ci95"]
    display.say(
        f"accuracy: {test['accuracy']:.3f}, 95% interval [{low:.3f}, {high:.3f}] (balanced {test['balanced_accuracy']:.3f}, "
        f"macro F1 {test['macro_f1']:.3f}) on {test['examples']} examples"
    )
    if "calibration_error" in test:
        display.say(f"mean confidence of the predictions: {test['mean_confidence']:.3f} (calibration error {test['calibration_error']:.3f})")
    display.table(_class_table(classes, "Classes", "class"))
    wrong = [cell for cell in results["confusion"] if cell[0] != cell[1]][:3]
    if wrong:
        display.say(f"most often confused: {'; '.join(f'{label} predicted as {answer} ({count})' for label, answer, count in wrong)}")


def _class_table(classes: Sequence[dict[str, Any]], title: str, name: str) -> Printed:
    """Return precision, recall and F1 of the classes with the lowest F1, as a table."""
    left_out = f", lowest {_MOST_CLASSES} of {len(classes)} F1" if len(classes) > _MOST_CLASSES else ""
    table = Printed(title=f"{title}{left_out}", title_justify="left")
    for column in (name, "precision", "recall", "F1", "examples"):
        table.add_column(column, justify="left" if column == name else "right")
    for each in classes[:_MOST_CLASSES]:
        scores = ("-" if each[key] is None else f"{each[key]:.3f}" for key in ("precision", "recall", "f1"))
        table.add_row(each["label"], *scores, str(each["examples"]))
    return table
