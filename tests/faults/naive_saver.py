"""Checkpoints as they are often written: in place, one file after another, and the highest number is believed.

The negative control: what the faults of these tests do to it, they must not do to ours.
"""

import json
from pathlib import Path

import safetensors.torch

from metatrain.run import checkpoint
from metatrain.run.failpoints import failpoint


def save(folder: Path, step: int, tensors, state) -> Path:
    final = folder / f"step-{step:08d}"
    failpoint("save.begin")
    final.mkdir(parents=True, exist_ok=True)
    for name in checkpoint.TENSOR_FILES:
        safetensors.torch.save_file({key: value.detach().contiguous() for key, value in tensors[name].items()}, final / f"{name}.safetensors")
        failpoint("save.file", final / f"{name}.safetensors")
    (final / "state.json").write_text(json.dumps(state))
    failpoint("save.file", final / "state.json")
    failpoint("save.done")
    return final


def load(path: Path) -> checkpoint.Checkpoint:
    state = json.loads((path / "state.json").read_text())
    return checkpoint.Checkpoint({name: safetensors.torch.load_file(path / f"{name}.safetensors") for name in checkpoint.TENSOR_FILES}, state, path)


def load_newest(folder: Path):
    found = checkpoint.steps(folder)
    return (load(found[-1]) if found else None), []


def install() -> None:
    checkpoint.save, checkpoint.load, checkpoint.load_newest = save, load, load_newest
    checkpoint.prune = lambda folder, keep, best: None
