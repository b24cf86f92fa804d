"""Presentation of the predictions of `metatrain predict`: one class for each kind of model. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from metatrain.errors import UserError
from metatrain.models.decisions import Decision, LabelModel, decisions
from metatrain.models.targets import Number, SeveralLabels, Target

SET = "prediction_set"  # column of the labels of a prediction set

Row = tuple[dict[str, Any], str | None]  # columns of the output, and why there is no label, if there is none


class FinetunedModel(LabelModel, Protocol):
    """A model that `metatrain finetune` has written."""

    @property
    def target(self) -> Target:
        """Kind of prediction of the model."""


class Answers(Protocol):
    """The predictions of a model, as lines and as columns."""

    separator: str | None  # between several labels of a text, in formats without lists; None: there is none

    def shown(self, text: str) -> str:
        """Return the prediction for a text, as lines."""

    def rows(self, texts: Sequence[str]) -> list[Row]:
        """Return the predictions for texts. Raises: UserError: the model cannot read one of them."""

    def empty(self) -> dict[str, Any]:
        """Return the columns of a row without a prediction."""


class Written:
    """Texts that a language model writes."""

    separator: str | None = None

    def __init__(self, model: Any, top: int | None, threshold: float | None):
        """Raises: UserError: `top` or `threshold` is set."""
        if top is not None or threshold is not None:
            raise UserError("this model writes texts, which have no probability; leave out top and threshold, which are for classifiers")
        self._model = model

    def shown(self, text: str) -> str:
        found: str = self._model.answers([text])[0]
        return found

    def rows(self, texts: Sequence[str]) -> list[Row]:
        return [({"answer": answer}, None) for answer in self._model.answers(texts)]

    def empty(self) -> dict[str, Any]:
        return {"answer": None}


class OneLabel:
    """The most probable labels; top: number of labels per row, None: one, and all for a single text; threshold: below this probability, no label.

    limits: of prediction sets, [labels]; None: there are no sets.
    """

    separator: str | None = None

    def __init__(self, model: LabelModel, top: int | None, threshold: float | None, limits: np.ndarray | None):
        """Raises: UserError: the model has fewer labels than `top`."""
        assert model.labels is not None  # `answers_of` has looked
        _check_top(top, model.labels)
        self._model, self._labels, self._top, self._threshold, self._limits = model, model.labels, top, threshold, limits

    def shown(self, text: str) -> str:
        (found,) = decisions(self._model, [text], self._top or len(self._labels), self._threshold, self._limits)
        label, value = found.ranked[0]
        possible = "" if found.prediction_set is None else f"\nprediction set: {', '.join(found.prediction_set)}"
        if found.out_of_scope:  # and no probability of a label, which could be taken for its own
            return f"{found.label}\n(the most likely label is {label}, with probability {value:.4f} among the labels){possible}"
        if found.unsure:
            return f"no label: {self._doubt(found)}{possible}"
        return "\n".join(f"{label}\t{value:.4f}" for label, value in found.ranked) + possible

    def rows(self, texts: Sequence[str]) -> list[Row]:
        found = decisions(self._model, texts, self._top or 1, self._threshold, self._limits)
        return [(self._columns(each), self._doubt(each) if each.unsure else None) for each in found]

    def _columns(self, found: Decision) -> dict[str, Any]:
        if found.out_of_scope:  # the probabilities are among the labels
            return {**self.empty(), "label": found.label, **self._set(found)}
        best, *others = [(label, round(probability, 6)) for label, probability in found.ranked]
        columns = {"label": found.label, "probability": best[1]}
        for place, (label, probability) in enumerate(others, start=2):
            columns |= {f"label_{place}": label, f"probability_{place}": probability}
        return {**columns, **self._set(found)}

    def _set(self, found: Decision) -> dict[str, Any]:
        return {} if found.prediction_set is None else {SET: list(found.prediction_set)}

    def empty(self) -> dict[str, Any]:
        further = [f"{name}_{place}" for place in range(2, (self._top or 1) + 1) for name in ("label", "probability")]
        return dict.fromkeys(["label", "probability", *further, *([] if self._limits is None else [SET])])

    def _doubt(self, found: Decision) -> str:
        label, probability = found.ranked[0]
        return f"below threshold={self._threshold}: the most likely label is {label}, with probability {probability:.4f}"


class LabelSets:
    """All labels whose probability is at least their threshold, and the probability of each label.

    top: at most this number of labels, the most probable; threshold: of all labels, None: of each label its own.
    """

    def __init__(self, model: LabelModel, target: SeveralLabels, top: int | None, threshold: float | None):
        """Raises: UserError: the model has fewer labels than `top`."""
        assert model.labels is not None  # it has several
        _check_top(top, model.labels)
        self._model, self._target, self._labels, self._top, self._threshold = model, target, model.labels, top, threshold
        self.separator = target.separator

    def shown(self, text: str) -> str:
        (values,) = probabilities = self._target.probabilities(self._model, [text])
        chosen = {label for label, _ in self._target.chosen(self._model, probabilities, self._threshold, self._top)[0]}
        order = np.argsort(-values, kind="stable").tolist()
        return "\n".join(f"{self._labels[place]}\t{values[place]:.4f}\t{'yes' if self._labels[place] in chosen else 'no'}" for place in order)

    def rows(self, texts: Sequence[str]) -> list[Row]:
        probabilities = self._target.probabilities(self._model, texts)
        chosen = self._target.chosen(self._model, probabilities, self._threshold, self._top)
        return [(self._columns([label for label, _ in labels], values), None) for labels, values in zip(chosen, probabilities.tolist())]

    def _columns(self, labels: list[str], values: Sequence[float]) -> dict[str, Any]:
        return {"labels": labels, **{f"probability_{label}": round(value, 6) for label, value in zip(self._labels, values)}}

    def empty(self) -> dict[str, Any]:
        return dict.fromkeys(["labels", *(f"probability_{label}" for label in self._labels)])


class Numbers:
    """Numbers, and the nearest label where the numbers stand for ordered labels."""

    separator: str | None = None

    def __init__(self, model: LabelModel, target: Number, top: int | None, threshold: float | None):
        """Raises: UserError: `top` or `threshold` is set."""
        if top is not None or threshold is not None:
            raise UserError("this model predicts numbers, which have no probability; leave out top and threshold, which are for labels")
        self._model, self._target = model, target

    def shown(self, text: str) -> str:
        return "\t".join(str(value) for value in self.rows([text])[0][0].values())

    def rows(self, texts: Sequence[str]) -> list[Row]:
        found = self._target.predictions(self._model, texts, None)
        return [({**({"label": self._target.nearest_label(each)} if self._target.order else {}), "number": round(each, 4)}, None) for each in found]

    def empty(self) -> dict[str, Any]:
        return dict.fromkeys(["label", "number"] if self._target.order else ["number"])


def answers_of(model: FinetunedModel, top: int | None, threshold: float | None, limits: np.ndarray | None = None) -> Answers:
    """Return the predictions of a model. Raises: UserError: `top` or `threshold` is not for this model.

    limits: of prediction sets, [labels]; None: there are no sets, as for models that predict other than one label.
    """
    if model.labels is None:
        return Written(model, top, threshold)
    if isinstance(model.target, SeveralLabels):
        return LabelSets(model, model.target, top, threshold)
    if isinstance(model.target, Number):
        return Numbers(model, model.target, top, threshold)
    return OneLabel(model, top, threshold, limits)


def _check_top(top: int | None, labels: Sequence[str]) -> None:
    """Raises: UserError: there are fewer labels than `top`."""
    if top is not None and top > len(labels):
        raise UserError(f"top={top}: the model has {len(labels)} labels: {', '.join(labels)}")
