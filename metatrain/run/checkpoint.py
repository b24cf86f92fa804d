"""Checkpoints: directories that are written atomically and verified byte by byte when read.

`step-00001234/` holds safetensors and JSON files and, written last, MANIFEST.json with the size and sha256 of each.
It is written under a temporary name, flushed to the disk, and renamed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from metatrain.errors import RestartableError, UserError, is_disk_full
from metatrain.run.atomic import clear_away, flush, move_into_place, remove, unfinished
from metatrain.run.failpoints import failpoint
from metatrain.run.hints import resume_command

FORMAT = 1
TENSOR_FILES = ("model", "optimizer", "rng")
MANIFEST = "MANIFEST.json"
_STATE = "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """Contents of a checkpoint."""

    tensors: dict[str, dict[str, Tensor]]  # by file: model, optimizer, rng
    state: dict[str, Any]
    path: Path


class BrokenCheckpoint(Exception):
    """A checkpoint directory is incomplete or was changed after it was written."""


def save(folder: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> Path:
    """Write `folder/step-XXXXXXXX`, replacing one of the same step only once the new one is complete.

    Raises:
        RestartableError: the disk is full; earlier checkpoints are unchanged.
    """
    final = folder / f"step-{step:08d}"
    try:
        failpoint("save.begin")
        temporary = unfinished(folder)
        try:
            _write(temporary, tensors, state)
            move_into_place(temporary, final)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)  # after an error; otherwise it has been renamed
    except (OSError, safetensors.SafetensorError) as error:
        if is_disk_full(error):
            raise RestartableError(f"no space for the checkpoint of step {step}: {error}; free some space, then: {resume_command(folder.parent)}") from error
        raise
    failpoint("save.done")
    return final


def _write(temporary: Path, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> None:
    for name in TENSOR_FILES:
        plain = {key: value.detach().contiguous() for key, value in tensors[name].items()}
        safetensors.torch.save_file(plain, temporary / f"{name}.safetensors")
        failpoint("save.file", temporary / f"{name}.safetensors")
    (temporary / _STATE).write_text(_written({"format": FORMAT, **state}))
    failpoint("save.file", temporary / _STATE)
    names = [f"{name}.safetensors" for name in TENSOR_FILES] + [_STATE]
    manifest = {"format": FORMAT, "files": {name: _digest(temporary / name) for name in names}}
    (temporary / MANIFEST).write_text(_written(manifest))
    failpoint("save.manifest", temporary / MANIFEST)
    for name in (*names, MANIFEST):
        flush(temporary / name)
    flush(temporary)
    failpoint("save.flushed")


def load(path: Path) -> Checkpoint:
    """Read a checkpoint after verifying every file against the manifest.

    Raises:
        BrokenCheckpoint: a file is missing or has changed, or the format is newer.
    """
    _verify(path)
    try:
        state = json.loads((path / _STATE).read_text())
        tensors = {name: safetensors.torch.load_file(path / f"{name}.safetensors") for name in TENSOR_FILES}
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise BrokenCheckpoint(f"{path} cannot be read: {error}") from error
    return Checkpoint(tensors, state, path)


def _verify(path: Path) -> None:
    """Raises: BrokenCheckpoint: a file is missing or has changed, or the format is newer."""
    try:
        text = (path / MANIFEST).read_text()
        manifest = json.loads(text)
        if manifest["format"] != FORMAT:
            raise BrokenCheckpoint(f"{path} has format {manifest['format']}, this version reads {FORMAT}")
        expected = {f"{name}.safetensors" for name in TENSOR_FILES} | {_STATE}
        if set(manifest["files"]) != expected or text != _written(manifest):
            raise BrokenCheckpoint(f"{path}/{MANIFEST} does not list the files of a checkpoint")
        for name, recorded in manifest["files"].items():
            if (path / name).is_symlink() or _digest(path / name) != recorded:
                raise BrokenCheckpoint(f"{path / name} is corrupted (size or checksum mismatch)")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BrokenCheckpoint(f"{path} cannot be read: {error}") from error


def steps(folder: Path) -> list[Path]:
    """Return the checkpoint directories, oldest first, without temporary and broken ones."""
    return sorted(path for path in folder.glob("step-*") if path.is_dir() and path.name[5:].isdigit())


def load_newest(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """Return the newest checkpoint that verifies, and a warning for each broken one, which is renamed."""
    warnings: list[str] = []
    for path in reversed(steps(folder)):
        try:
            return load(path), warnings
        except BrokenCheckpoint as error:
            aside = path.with_name(f".broken-{path.name}-{uuid.uuid4().hex[:6]}")
            path.rename(aside)
            warnings.append(f"{error}; renamed to {aside.name}; trying the previous checkpoint")
    return None, warnings


def newest_state(folder: Path) -> dict[str, Any]:
    """Return the unverified state of the newest checkpoint, empty if there is none that can be read."""
    try:
        return json.loads((steps(folder)[-1] / _STATE).read_text(encoding="utf-8"))
    except (IndexError, OSError, ValueError):
        return {}


def load_for_use(folder: Path, step: int) -> Checkpoint:
    """Read a checkpoint that must exist.

    Raises:
        UserError: it is missing or broken.
    """
    try:
        return load(folder / f"step-{step:08d}")
    except BrokenCheckpoint as error:
        raise UserError(f"unreadable checkpoint: {error}") from error


def copy_parameters(found: Checkpoint, parameters: Mapping[str, Tensor]) -> None:
    """Copy the meta-parameters of a checkpoint into `parameters`, in place.

    Raises:
        UserError: the checkpoint is of a different model.
    """
    saved = found.tensors["model"]
    for name in sorted(saved.keys() | parameters.keys()):
        here, there = parameters.get(name), saved.get(name)
        if here is None or there is None or here.shape != there.shape:
            shapes = ["no such parameter" if value is None else f"shape {list(value.shape)}" for value in (there, here)]
            raise UserError(
                f"{found.path} is a checkpoint of a different model: {name} has {shapes[0]} there and {shapes[1]} here; use the settings of the run"
            )
    with torch.no_grad():
        for name, value in parameters.items():
            value.copy_(saved[name])


def prune(folder: Path, keep: int, best: int | None) -> None:
    """Remove all checkpoints but the newest `keep` and the best, and leftovers of interrupted saves.

    Raises:
        BrokenCheckpoint: the newest does not verify; nothing is removed.
    """
    found = steps(folder)
    if found:
        _verify(found[-1])
    for path in found[: -max(1, keep)]:
        if best is None or path.name != f"step-{best:08d}":
            remove(path)
    clear_away(folder)


def _written(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=1, sort_keys=True) + "\n"


def _digest(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"size": os.fstat(file.fileno()).st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
