"""Opening a finetuned model directory for prediction."""

from __future__ import annotations

from pathlib import Path

import torch

from metatrain.models.export import Classifier
from metatrain.models.finetuned_folder import TASK
from metatrain.models.generation import TextGenerator


def load_finetuned(folder: Path, device: torch.device) -> Classifier | TextGenerator:
    """Load a classifier or a language model.

    Raises:
        UserError: the directory is not a finetuned model, or cannot be read.
    """
    return TextGenerator(folder, device) if (folder / TASK).is_file() else Classifier(folder, device)
