"""Relative paths in the settings of a run, which are relative to the directory where it was started."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from metatrain.paths import local_path

_PATHS = ("path", "tokenizer", "joint")  # last parts of setting keys that may be a path; model.name may be one too
_BUILT_IN = ("minilm", "mpnet", "smollm2", "tiny")  # names of models that are never interpreted as a path


def located(config: Any, directory: Path, keep: Collection[str] = (), key: str = "") -> Any:
    """Return the settings with relative paths that exist below `directory` made absolute, unless it is the working directory.

    keep: keys that stay unchanged. Hub ids and the like stay unchanged too, because no such file exists.
    """
    if is_dataclass(config) and not isinstance(config, type):
        inside = {each.name: located(getattr(config, each.name), directory, keep, f"{key}.{each.name}".lstrip(".")) for each in fields(config)}
        return replace(config, **inside)
    if isinstance(config, dict):
        return {name: located(each, directory, keep, f"{key}.{name}") for name, each in config.items()}
    may_be_path = key not in keep and (key.rpartition(".")[2] in _PATHS or (key == "model.name" and config not in _BUILT_IN))
    if (
        not may_be_path
        or not isinstance(config, str)
        or not config
        or directory == Path.cwd()
        or local_path(config).is_absolute()
        or not (directory / config).exists()
    ):
        return config
    return str(directory / config)
