"""A finetuned model in Python: a classifier of texts or images, or a language model."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metatrain.errors import UserError
from metatrain.inputs import listed_images, listed_texts
from metatrain.models.decisions import decisions
from metatrain.models.finetuned import load_finetuned
from metatrain.models.finetuned_folder import read_facts
from metatrain.models.generation import TextGenerator
from metatrain.models.prediction_sets import limits
from metatrain.models.targets import Number, OneLabel


class FinetunedModel:
    """A model that `metatrain finetune` has written; `labels` are its label names, None for one that writes texts or predicts numbers."""

    def __init__(self, folder: Path, device: torch.device):
        """Load the model directory `folder`.

        Raises:
            UserError: it cannot be read.
        """
        self._model = load_finetuned(folder, device)
        self._calibration = read_facts(folder).get("prediction_sets")
        self.labels: list[str] | None = None if isinstance(self._model.target, Number) else self._model.labels

    def predict(self, texts: Iterable[Any], threshold: float | None = None) -> list[Any]:
        """Return the prediction for each text: its label, the list of its labels (data.kind=labels), its number, or the text that a model writes.

        A label is `none_of_these` for a text that the model takes for out of scope. Texts are strings, or tuples of two for a model of text
        pairs; an image model takes paths of image files. threshold: below this probability there is no label (None); of several labels, each has to
        reach it, instead of its own threshold.

        Raises:
            UserError: it is one text instead of several, one of them cannot be read, or `threshold` is given for a model without labels.
        """
        read = self._read(texts)
        if isinstance(self._model, TextGenerator) and self.labels is None:
            if threshold is not None:
                raise UserError("this model writes texts, which have no probability; leave out threshold, which is for classifiers")
            return list(self._model.answers(read)) if read else []
        if threshold is not None and not 0 < threshold <= 1:
            raise UserError(f"threshold={threshold} must be above 0 and at most 1")
        return self._model.target.predictions(self._model, read, threshold) if read else []

    def probabilities(self, texts: Iterable[Any]) -> np.ndarray:
        """Return the label probabilities, [texts, labels].

        Raises:
            UserError: the model writes texts or predicts numbers, or as in `predict`.
        """
        if isinstance(self._model, TextGenerator) and self.labels is None:
            raise UserError("this model writes texts, which have no probability of a label; use predict")
        read = self._read(texts)
        return self._model.target.probabilities(self._model, read) if read else np.zeros((0, len(self.labels or [])))

    def prediction_sets(self, texts: Iterable[Any], coverage: float = 0.9) -> list[tuple[str, ...]]:
        """Return the prediction set of each text: labels among which its own is with the probability `coverage`, the most probable first.

        Raises:
            UserError: the model predicts no single label, or was finetuned on too few examples for this coverage, or as in `predict`.
        """
        if self.labels is None or not isinstance(self._model.target, OneLabel):
            raise UserError("prediction sets are for models that predict one label per text; use predict")
        highest, read = limits("the model", self._calibration, self.labels, coverage), self._read(texts)
        return [found.prediction_set or () for found in decisions(self._model, read, limits=highest)] if read else []

    def _read(self, texts: Iterable[Any]) -> list[str]:
        return listed_images(texts) if self._model.of_images else listed_texts(texts)
