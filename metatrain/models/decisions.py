"""The decision of a classifier about a text, from its label scores."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from metatrain.models.finetuned_folder import NONE


class LabelModel(Protocol):
    """A finetuned model that scores labels, or writes texts and has no labels."""

    @property
    def labels(self) -> list[str] | None:
        """Label names; None: the model writes texts."""

    @property
    def threshold(self) -> float | None:
        """Highest label score below which a text is out of scope; None: every text has a label."""

    def scores(self, texts: Sequence[str]) -> Any:
        """Return the label scores (logits), [texts, labels], as a tensor or an array."""


@dataclass(frozen=True)
class Decision:
    """Labels of a text, the most probable first."""

    ranked: tuple[tuple[str, float], ...]  # (label, probability)
    out_of_scope: bool  # the model takes it for none of the labels
    unsure: bool  # the highest probability is below the threshold of the user
    prediction_set: tuple[str, ...] | None = None  # labels, the most probable first, and `none_of_these` if out of scope; None: not asked for

    @property
    def label(self) -> str | None:
        """The predicted label: `none_of_these` for a text that is out of scope, None where the highest probability is below the threshold."""
        return NONE if self.out_of_scope else None if self.unsure else self.ranked[0][0]


def decisions(model: LabelModel, texts: Sequence[str], top: int = 1, threshold: float | None = None, limits: np.ndarray | None = None) -> list[Decision]:
    """Return the decision for each text, with its `top` most probable labels; threshold: on the highest probability, None: no threshold.

    limits: of prediction sets, as `metatrain.models.prediction_sets.limits`, [labels]; None: there are no sets.

    Raises:
        UserError: the model cannot read one of the texts.
    """
    assert model.labels is not None  # callers have set models that write texts aside
    return decided(np.asarray(model.scores(texts)), model.labels, model.threshold, top, threshold, limits)


def decided(
    scores: np.ndarray,
    labels: Sequence[str],
    out_of_scope: float | None,
    top: int = 1,
    threshold: float | None = None,
    limits: np.ndarray | None = None,
) -> list[Decision]:
    """Return the decisions for label scores [texts, labels]; out_of_scope: highest score below which a text is of no label, None: there is none."""
    probabilities = softmax(scores)
    ranks = np.argsort(-probabilities, axis=1, kind="stable")  # [texts, labels]
    best = ranks[:, :top]
    unlike = scores.max(1) < (-math.inf if out_of_scope is None else out_of_scope)
    return [
        Decision(
            tuple((labels[label], value) for label, value in zip(row, values)),
            none,
            not none and threshold is not None and values[0] < threshold,
            possible,
        )
        for row, values, none, possible in zip(
            best.tolist(), np.take_along_axis(probabilities, best, 1).tolist(), unlike.tolist(), _sets(probabilities, ranks, labels, unlike, limits)
        )
    ]


def _sets(
    probabilities: np.ndarray, ranks: np.ndarray, labels: Sequence[str], unlike: np.ndarray, limits: np.ndarray | None
) -> Iterator[tuple[str, ...] | None]:
    """Yield the prediction set of each text: labels whose 1 - probability is at most their limit, and always the most probable one."""
    if limits is None:
        yield from [None] * len(probabilities)
        return
    is_in = 1 - probabilities <= limits
    for row, (order, none) in enumerate(zip(ranks, unlike.tolist())):
        is_in[row, order[0]] = True
        yield (*(labels[label] for label in order if is_in[row, label]), *((NONE,) if none else ()))


def softmax(scores: np.ndarray) -> np.ndarray:
    """Return the probabilities of label scores, [texts, labels]."""
    powers = np.exp(scores - scores.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)
