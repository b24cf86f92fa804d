"""Kinds of prediction of a finetuned model: one label, several labels, or a number. One class each, with all that prediction needs to know.

finetuned.json holds the facts of the last two under `target`; a model without them predicts one label.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from metatrain.errors import UserError
from metatrain.models.decisions import LabelModel, decisions, softmax

TARGET = "target"  # key of the facts in finetuned.json
DEFAULT_THRESHOLD = 0.5  # of the probability of a label, where there are too few examples to choose one


class Target(Protocol):
    """Kind of prediction of a model; the scores of a model are its outputs (logits, or the number), [texts, outputs]."""

    kind: ClassVar[str]  # data.kind
    problem: ClassVar[str]  # `problem_type` in the configuration of a model of transformers

    def predictions(self, model: LabelModel, texts: Sequence[str], threshold: float | None) -> list[Any]:
        """Return the prediction for each text. threshold: of the user, on probabilities; None: the model's own."""

    def probabilities(self, model: LabelModel, texts: Sequence[str]) -> np.ndarray:
        """Return the probabilities of the labels, [texts, labels]. Raises: UserError: there are no labels."""


@dataclass(frozen=True)
class OneLabel:
    """One of several labels; the probabilities of a text add up to 1."""

    kind: ClassVar[str] = "label"
    problem: ClassVar[str] = "single_label_classification"

    def predictions(self, model: LabelModel, texts: Sequence[str], threshold: float | None) -> list[str | None]:
        return [found.label for found in decisions(model, texts, threshold=threshold)]

    def probabilities(self, model: LabelModel, texts: Sequence[str]) -> np.ndarray:
        return softmax(np.asarray(model.scores(texts)))


@dataclass(frozen=True)
class SeveralLabels:
    """Any number of labels: those whose probability is at least their threshold."""

    thresholds: tuple[float, ...]  # of each label
    separator: str | None = None  # between the labels of a text in the file of the examples; None: they were a list
    columns: tuple[str, ...] = ()  # of the labels in that file, if each had its own
    column: str = "label"  # of all labels in that file

    kind: ClassVar[str] = "labels"
    problem: ClassVar[str] = "multi_label_classification"

    def predictions(self, model: LabelModel, texts: Sequence[str], threshold: float | None) -> list[list[str]]:
        return [[label for label, _ in found] for found in self.chosen(model, self.probabilities(model, texts), threshold)]

    def probabilities(self, model: LabelModel, texts: Sequence[str]) -> np.ndarray:
        return sigmoid(np.asarray(model.scores(texts)))

    def is_predicted(self, probabilities: np.ndarray, threshold: float | None = None) -> np.ndarray:
        """Return which labels are predicted, boolean, [texts, labels]; threshold: of all labels, None: of each its own."""
        return probabilities >= (np.array(self.thresholds) if threshold is None else threshold)

    def chosen(self, model: LabelModel, probabilities: np.ndarray, threshold: float | None, top: int | None = None) -> list[list[tuple[str, float]]]:
        """Return the predicted labels of each text with their probabilities, the most probable first; top: at most this number of them."""
        assert model.labels is not None  # it has several
        found = []
        for values, chosen in zip(probabilities.tolist(), self.is_predicted(probabilities, threshold).tolist()):
            ranked = sorted((place for place, is_chosen in enumerate(chosen) if is_chosen), key=lambda place: -values[place])
            found.append([(model.labels[place], values[place]) for place in ranked[:top]])
        return found


@dataclass(frozen=True)
class Number:
    """A number within the range of the examples; ordered labels are the numbers 1, 2, ... in their order."""

    lowest: float
    highest: float
    is_whole: bool = False  # all examples have whole numbers, so that a prediction can be right
    order: tuple[str, ...] = ()  # names of ordered labels, the lowest first
    column: str = "label"  # of the numbers or labels in the file of the examples

    kind: ClassVar[str] = "number"
    problem: ClassVar[str] = "regression"

    def predictions(self, model: LabelModel, texts: Sequence[str], threshold: float | None) -> list[float]:
        if threshold is not None:
            raise UserError("this model predicts numbers, which have no probability; leave out threshold, which is for labels")
        found: list[float] = self.numbers(np.asarray(model.scores(texts))).tolist()
        return found

    def probabilities(self, model: LabelModel, texts: Sequence[str]) -> np.ndarray:
        raise UserError("this model predicts numbers, which have no probability; use predict")

    def numbers(self, scores: np.ndarray) -> np.ndarray:
        """Return the numbers, [texts], of scores [texts, 1]."""
        return np.clip(scores[:, 0].astype(np.float64), self.lowest, self.highest)

    def nearest_label(self, number: float) -> str:
        """Return the name of the ordered label that is nearest to a number."""
        return self.order[int(np.floor(number + 0.5)) - 1]


def sigmoid(scores: np.ndarray) -> np.ndarray:
    """Return the probability of each label on its own."""
    return 0.5 * (1 + np.tanh(0.5 * scores))


ONE_LABEL = OneLabel()
_KINDS: dict[str, type[SeveralLabels] | type[Number]] = {SeveralLabels.kind: SeveralLabels, Number.kind: Number}


def target_of(facts: Mapping[str, Any], file: str = "finetuned.json") -> OneLabel | SeveralLabels | Number:
    """Return what a model predicts, from the contents of its finetuned.json, or of another file. Raises: UserError: they are damaged."""
    found = facts.get(TARGET)
    if found is None:
        return ONE_LABEL
    if not isinstance(found, dict) or found.get("kind") not in _KINDS:
        raise UserError(f"{file} of the model: {TARGET} names no kind of this version of metatrain: {found}")
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in found.items() if name != "kind"}
    try:
        return _KINDS[found["kind"]](**values)
    except TypeError as error:
        raise UserError(f"{file} of the model: {TARGET} cannot be read: {error}") from error


def facts_of(target: SeveralLabels | Number) -> dict[str, Any]:
    """Return the facts from which `target_of` makes it again."""
    return {"kind": target.kind, **asdict(target)}


def check_one_label(facts: Mapping[str, Any], what: str) -> None:
    """Raises: UserError: a model predicts several labels or numbers. what: the command that needs one label, and reads one label."""
    if (kind := facts.get(TARGET, {}).get("kind")) is not None:
        raise UserError(f"{what} needs a model with one label per text, and this one has data.kind={kind}")
