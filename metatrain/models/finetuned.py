"""Opening a finetuned model directory for prediction, and the decision of a classifier about a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from metatrain.errors import UserError
from metatrain.models.export import FINETUNED, NONE, Classifier, is_none
from metatrain.models.folders import is_model, model_folder
from metatrain.models.generation import TASK, TextGenerator
from metatrain.paths import local_path


def finetuned_folder(path: Path) -> Path:
    """Return the model directory of a finetuned model, or of the run that has written it.

    Raises:
        UserError: there is no model.
    """
    folder = model_folder(local_path(str(path)))
    if not is_model(folder):
        raise UserError(f"model={path}: not a model directory (no config.json); give the output of `metatrain finetune`")
    return folder


def is_finetuned(folder: Path) -> bool:
    """Return True if `metatrain finetune` has written this model directory."""
    return any((folder / name).is_file() for name in (FINETUNED, TASK))


def load_finetuned(folder: Path, device: torch.device) -> Classifier | TextGenerator:
    """Load a classifier or a language model.

    Raises:
        UserError: the directory is not a finetuned model, or cannot be read.
    """
    return TextGenerator(folder, device) if (folder / TASK).is_file() else Classifier(folder, device)


@dataclass(frozen=True)
class Decision:
    """Labels of a text, the most probable first."""

    ranked: tuple[tuple[str, float], ...]  # (label, probability)
    out_of_scope: bool  # the model takes it for none of the labels
    unsure: bool  # the highest probability is below the threshold of the user

    @property
    def label(self) -> str | None:
        """The predicted label: `none_of_these` for a text that is out of scope, None where the highest probability is below the threshold."""
        return NONE if self.out_of_scope else None if self.unsure else self.ranked[0][0]


def decisions(model: Classifier | TextGenerator, texts: Sequence[str], top: int = 1, threshold: float | None = None) -> list[Decision]:
    """Return the decision for each text, with its `top` most probable labels; threshold: on the highest probability, None: no threshold.

    Raises:
        UserError: the model cannot read one of the texts.
    """
    assert model.labels is not None  # callers have set models that write texts aside
    scores = model.scores(texts)
    best = scores.softmax(1).topk(min(top, scores.shape[1]), dim=1)
    return [
        Decision(
            tuple((model.labels[label], probability) for label, probability in zip(labels, probabilities)),
            unlike,
            not unlike and threshold is not None and probabilities[0] < threshold,
        )
        for labels, probabilities, unlike in zip(best.indices.tolist(), best.values.tolist(), is_none(scores, model.threshold).tolist())
    ]
