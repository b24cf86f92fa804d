"""Which folders hold models, and where in them."""

from __future__ import annotations

import json
from pathlib import Path

from metatrain.errors import UserError

MODULES = "modules.json"  # of a sentence-transformers pipeline


def is_model(folder: Path) -> bool:
    """Whether a folder holds a model: of transformers, or a sentence-transformers pipeline."""
    return any((folder / name).is_file() for name in ("config.json", MODULES))


def model_folder(folder: Path) -> Path:
    """The folder itself, or its `model` if it is that of a run."""
    return folder / "model" if is_model(folder / "model") and not is_model(folder) else folder


def folder_of_transformer(name: str) -> str:
    """Where the transformer of a model is: a folder within that of a pipeline, or else `name`, a folder or a hub id, itself.

    Raises:
        UserError: the list of the pipeline's modules cannot be read.
    """
    listed = Path(name).expanduser() / MODULES
    if not listed.is_file():
        return name
    try:
        modules = json.loads(listed.read_text(encoding="utf-8"))
        first: str = modules[0]["path"] if modules else ""
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"{listed} cannot be read: {error}") from error
    return str(listed.parent / first) if first else name
