"""Finetuned language models: saved in the format of transformers, and loaded for prediction."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from metatrain.errors import UserError
from metatrain.models.adapters import folded
from metatrain.models.batches import chunks
from metatrain.models.choices import losses_of_choices
from metatrain.models.config import ModelConfig
from metatrain.models.finetuned_folder import TASK
from metatrain.models.language_loading import load_language_model
from metatrain.models.language_model import LanguageModel
from metatrain.models.pretrained import save_tokenizer
from metatrain.tasks.task import plain_name

_PART_TOKENS = 4096


def save_language_model(folder: Path, model: LanguageModel, labels: Sequence[str] | None, context: np.ndarray | None = None) -> str:
    """Write a finetuned language model. Returns who loads it.

    labels: label names to choose from, None: free text; context: token ids of a prompt before every text, if there is one.
    """
    folded(model.backbone).save_pretrained(folder)
    save_tokenizer(model.tokenizer, folder)
    task = {
        **{"format": 1, "labels": labels, "max_length": model.max_length, "max_target_length": model.max_target_length},
        "context": [] if context is None else context.tolist(),
    }
    (folder / TASK).write_text(json.dumps(task, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return "transformers"


class TextGenerator:
    """A finetuned language model directory, loaded for prediction."""

    threshold: float | None = None  # as of a classifier: there is none
    of_images = False

    def __init__(self, folder: Path, device: torch.device):
        """Raises: UserError: the directory cannot be read."""
        try:
            task = json.loads((folder / TASK).read_text(encoding="utf-8"))
            settings = ModelConfig(name=str(folder), max_length=task["max_length"], max_target_length=task["max_target_length"])
            self.labels: list[str] | None = task["labels"]
            self._context = np.array(task.get("context", []), dtype=np.int64)
        except (ValueError, KeyError) as error:
            raise UserError(f"{folder / TASK} cannot be read: {error}") from error
        model, _ = load_language_model(settings, second_order=False, dtype=torch.float32, texts=())
        self._model: LanguageModel = model.to(device).eval()
        self._tokens = model.tokens()

    def answers(self, texts: Sequence[str]) -> list[str]:
        """Return the text that the model generates for each input."""
        ids = after_context(self._model, self._context, self._tokens.encode(texts))
        return [answer for part in chunks(ids, _PART_TOKENS) for answer in self._model.generate(ids[part])]

    def scores(self, texts: Sequence[str]) -> Tensor:
        """Return the log-likelihoods of the labels, [texts, labels]."""
        assert self.labels is not None and self._tokens.encode_targets is not None
        choices = self._tokens.encode_targets([plain_name(label) for label in self.labels])
        ids = after_context(self._model, self._context, self._tokens.encode(texts))
        return -losses_of_choices(self._model, ids, choices, _PART_TOKENS).cpu()


def after_context(model: LanguageModel, context: np.ndarray, texts: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
    """Return the token ids of each text with the context before it.

    Raises: UserError: they exceed the positions of the model.
    """
    if not len(context) or not len(texts):
        return texts
    longest, room = len(context) + max(map(len, texts)), len(model.separator) + model.max_target_length
    if model.positions and longest + room > model.positions:
        raise UserError(
            f"a support set and a query have {longest} tokens, plus {room} for the target, but the model has {model.positions} positions; "
            "use fewer examples (episode.shots, evaluation.shots), or lower model.max_length"
        )
    return [np.concatenate([context, text]) for text in texts]
