"""Folders that contain models."""

from __future__ import annotations

import json
import os
from pathlib import Path

from metatrain.errors import UserError
from metatrain.paths import local_path

MODULES = "modules.json"  # list of the modules of a sentence-transformers pipeline
ADAPTER = "adapter_config.json"  # settings of an adapter of peft


def is_model(folder: Path) -> bool:
    """Return True if a folder contains a transformers model, an adapter of one, or a sentence-transformers pipeline."""
    return any((folder / name).is_file() for name in ("config.json", ADAPTER, MODULES))


def model_folder(folder: Path) -> Path:
    """Return the folder, or its subfolder `model` if it is a run directory."""
    return folder / "model" if is_model(folder / "model") and not is_model(folder) else folder


def listed_modules(path: Path) -> list[tuple[str, str]]:
    """Return (kind, folder inside the pipeline) of each module of a pipeline, in order.

    The kind is the name of a class of sentence-transformers, or the full path of a class of another package, which is not supported.

    Raises:
        UserError: the list cannot be read, or names a folder outside the pipeline.
    """
    try:
        modules = [(_kind(str(each["type"])), str(each["path"])) for each in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"{path} is not a valid list of sentence-transformers modules: {error}") from error
    for _, folder in modules:
        if Path(folder).is_absolute() or ".." in Path(folder).parts:
            raise UserError(f"{path} refers to a directory outside its own: {folder}")
    return modules


def _kind(path_of_class: str) -> str:
    return path_of_class.rsplit(".", 1)[-1] if path_of_class.startswith("sentence_transformers.") else path_of_class


def folder_of_transformer(name: str) -> str:
    """Return the location of a model's transformer: a subfolder of a pipeline, or else `name`, a folder or a hub id.

    Raises:
        UserError: the list of the pipeline's modules cannot be read.
    """
    path = local_path(name) / MODULES
    places = dict(listed_modules(path)) if path.is_file() else {}
    return str(path.parent / places["Transformer"]) if places.get("Transformer") else name


def models_folder() -> Path:
    """Return the folder of models that scripts/data/ makes: that of METATRAIN_MODELS, or `metatrain/models` in the user's cache."""
    base = os.environ.get("METATRAIN_MODELS")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "metatrain"
    return Path(base) if base else cache / "models"
