"""Finetuned language models: saved in the format of transformers, and loaded for prediction."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from metatrain.errors import UserError
from metatrain.models.adapters import folded
from metatrain.models.batches import chunks
from metatrain.models.config import ModelConfig, PromptConfig
from metatrain.models.finetuned_folder import TASK
from metatrain.models.language_loading import load_language_model
from metatrain.models.language_model import LanguageModel
from metatrain.models.peft_export import Base, read_base, save_adapter, with_adapter
from metatrain.models.pretrained import save_tokenizer
from metatrain.models.reading import Reading, pieces_of
from metatrain.models.scoring import label_scores
from metatrain.models.targets import ONE_LABEL

_PART_TOKENS = 4096


def save_language_model(
    folder: Path, model: LanguageModel, labels: Sequence[str] | None, reading: Reading | None = None, adapter_of: Base | None = None
) -> str:
    """Write a finetuned language model. Returns who loads it.

    labels: label names to choose from, None: free text; reading: what is read around every text; None: nothing; adapter_of: as of `save_finetuned`.
    """
    if adapter_of is None:
        folded(model.backbone).save_pretrained(folder)
    else:
        save_adapter(folder, model.backbone, adapter_of)
    save_tokenizer(model.tokenizer, folder)
    task = {
        **{"format": 1, "labels": labels, "max_length": model.max_length, "max_target_length": model.max_target_length},
        "context": [] if reading is None else reading.context.tolist(),
        **({} if model.prompt_config == PromptConfig() else {"prompt": asdict(model.prompt_config)}),
    }
    (folder / TASK).write_text(json.dumps(task, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return "transformers" if adapter_of is None else "peft"


class TextGenerator:
    """A finetuned language model directory, loaded for prediction."""

    threshold: float | None = None  # as of a classifier: there is none
    target = ONE_LABEL
    of_images = False

    def __init__(self, folder: Path, device: torch.device):
        """Raises: UserError: the directory cannot be read."""
        base = read_base(folder)
        try:
            task = json.loads((folder / TASK).read_text(encoding="utf-8"))
            own = {"name": str(folder)} if base is None else {"name": base.name, "revision": base.revision}
            settings = ModelConfig(**own, max_length=task["max_length"], max_target_length=task["max_target_length"])
            self.labels: list[str] | None = task["labels"]
            context = np.array(task.get("context", []), dtype=np.int64)
            prompt = PromptConfig(**task.get("prompt", {}))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{folder / TASK} cannot be read: {error}") from error
        model, _ = load_language_model(settings, second_order=False, dtype=torch.float32, texts=(), prompt=prompt)
        if base is not None:
            model.backbone = with_adapter(model.backbone, folder)
        self._model: LanguageModel = model.to(device).eval()
        self._tokens = model.tokens()
        pieces = pieces_of(model, self.labels or ())
        self._reading = Reading(pieces.opening, context if len(context) else pieces.opening, pieces.cue)

    def answers(self, texts: Sequence[str]) -> list[str]:
        """Return the text that the model generates for each input."""
        ids = self._reading.of(self._model, self._tokens.encode(texts))
        return [answer for part in chunks(ids, _PART_TOKENS) for answer in self._model.generate(ids[part])]

    def scores(self, texts: Sequence[str]) -> Tensor:
        """Return the scores of the labels (`prompt.scoring`), [texts, labels]; their softmax are the probabilities."""
        assert self.labels is not None and self._tokens.encode_targets is not None
        choices = self._tokens.encode_targets.names(self.labels)
        return label_scores(self._model, self._reading, self._tokens.encode(texts), choices, _PART_TOKENS).cpu()
