"""The directory of a finetuned model, read without its weights (and without torch)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from metatrain.errors import UserError
from metatrain.models.folders import is_model, model_folder
from metatrain.paths import local_path

FINETUNED = "finetuned.json"  # facts of a classifier
TASK = "task.json"  # of a language model: labels, lengths and context that prediction needs in addition to the model
DESCRIPTIONS = "label_descriptions"  # key of finetuned.json: label descriptions that replace labels of files
PROMPT = "prompt"  # key of finetuned.json: the template around the texts of a masked language model
NONE = "none_of_these"  # prediction for out-of-scope texts


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


def read_facts(folder: Path) -> dict[str, Any]:
    """Return what `metatrain.models.export.save_finetuned` wrote besides the weights: `none_of_these`, `columns`, `prediction_sets`, `target`,
    `label_descriptions`, `labels`, `encoder`, `prompt` and `head`, if present.

    Raises:
        UserError: it cannot be read.
    """
    path = folder / FINETUNED
    return read_object(path) if path.is_file() else {}


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object of a file.

    Raises:
        UserError: the file cannot be read, or holds no JSON object.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("no object of settings")
        return found
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
