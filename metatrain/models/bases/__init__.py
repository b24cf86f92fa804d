"""Meta-trained models in the package, each stored as its difference to a public model (`checkpoint=everyday`).

A base is a folder here: `adaptation.json`, the settings with which it was meta-trained and adapts, and `difference.safetensors`. The
difference of a matrix is stored as two factors of low rank, that of a vector as it is, all in half precision. Word embeddings are those of
the public model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from metatrain.errors import UserError

NAMES = ("everyday",)
FOLDER = Path(__file__).parent
SETTINGS, DIFFERENCE = "adaptation.json", "difference.safetensors"
_LEFT, _RIGHT = ".left", ".right"


def read_base(name: str, folder: Path = FOLDER) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return (settings, difference to the public model by parameter name) of a base.

    `settings["base"]` is the name of that model, `settings["learned"]` are the other meta-parameters.

    Raises:
        UserError: its files are missing or are not the original ones, or name no public model.
    """
    path = folder / name
    try:
        settings, tensors = json.loads((path / SETTINGS).read_text(encoding="utf-8")), (path / DIFFERENCE).read_bytes()
    except (OSError, ValueError) as error:
        raise UserError(f"checkpoint={name}: {path} cannot be read ({error}); reinstall metatrain-nlp") from error
    if hashlib.sha256(tensors).hexdigest() != settings.pop("sha256", None):
        raise UserError(f"checkpoint={name}: {path / DIFFERENCE} is not the original file; reinstall metatrain-nlp")
    if not settings.get("base"):
        raise UserError(f"checkpoint={name}: {path / SETTINGS} names no public model; reinstall metatrain-nlp")
    return settings, expanded(safetensors.torch.load(tensors))


def write_base(folder: Path, settings: dict[str, Any], difference: Mapping[str, Tensor], rank: int) -> None:
    """Write a base from the difference of its parameters to those of the public model; `rank`: of the factors of matrices."""
    tensors = safetensors.torch.save(compressed(difference, rank))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / DIFFERENCE).write_bytes(tensors)
    facts = {**settings, "sha256": hashlib.sha256(tensors).hexdigest()}
    (folder / SETTINGS).write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def compressed(difference: Mapping[str, Tensor], rank: int) -> dict[str, Tensor]:
    """Return factors of the best approximation of this rank (Eckart and Young 1936) for matrices that they make smaller, else the tensor, in half precision."""
    found: dict[str, Tensor] = {}
    for name, value in difference.items():
        if value.dim() == 2 and rank * sum(value.shape) < value.numel():
            left, sizes, right = torch.linalg.svd(value.double(), full_matrices=False)
            roots = sizes[:rank].sqrt()
            found[name + _LEFT], found[name + _RIGHT] = left[:, :rank] * roots, roots[:, None] * right[:rank]
        else:
            found[name] = value
    return {name: value.to(torch.float16).contiguous() for name, value in found.items()}


def expanded(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the difference of each parameter, in float32, from what `compressed` returned."""
    found = {name: value.float() for name, value in tensors.items() if not name.endswith((_LEFT, _RIGHT))}
    for name, left in tensors.items():
        if name.endswith(_LEFT):
            parameter = name.removesuffix(_LEFT)
            found[parameter] = left.float() @ tensors[parameter + _RIGHT].float()
    return found
