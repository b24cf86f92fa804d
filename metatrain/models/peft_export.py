"""LoRA matrices as an adapter of `peft`: adapter_config.json and adapter_model.safetensors, without the weights of the base model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from metatrain.errors import UserError
from metatrain.models.backbone import Backbone
from metatrain.models.config import ModelConfig
from metatrain.models.finetuned_folder import read_object
from metatrain.models.folders import ADAPTER
from metatrain.models.language_model import LanguageModel
from metatrain.models.located import located
from metatrain.models.pretrained import commit_or_revision
from metatrain.models.scratch import PREFIX
from metatrain.plugins import check_installed

WEIGHTS = "adapter_model.safetensors"
_OURS, _THEIRS = ".default.", "base_model.model."  # name of the adapter in ours; what peft's names begin with


@dataclass(frozen=True)
class Base:
    """The model whose weights an adapter is added to."""

    name: str  # directory or hub id
    revision: str | None  # commit of a hub model; None: its default branch, or a directory


def base_of(config: ModelConfig) -> Base | None:
    """Return the base model that others load; None: it has random weights."""
    if config.name == "tiny" or config.name.startswith(PREFIX):
        return None
    path, _ = located(config)
    return _base(path, config.revision)


def loaded_from(model: LanguageModel) -> Base | None:
    """Return what the weights of a model were loaded from; None: it had random weights."""
    name = str(model.backbone.name_or_path)
    return _base(name, model.revision) if name else None


def _base(name: str, revision: str | None) -> Base:
    """Return a directory as an absolute path, so that it is found from anywhere, and a hub id with the commit that is in the local cache."""
    return Base(str(Path(name).resolve()), None) if Path(name).is_dir() else Base(name, commit_or_revision(name, revision))


def save_adapter(folder: Path, backbone: Backbone, base: Base) -> None:
    """Write the LoRA matrices of a model for `PeftModel.from_pretrained`; base: what their weights are added to."""
    import peft

    found = {name: value for name, value in backbone.named_parameters() if ".lora_" in name}
    rank = next(len(value) for name, value in found.items() if ".lora_A." in name)
    modules = sorted({name.partition(".lora_")[0].rpartition(".")[2] for name in found})
    kind = "SEQ_2_SEQ_LM" if backbone.config.is_encoder_decoder else "CAUSAL_LM" if hasattr(backbone, "lm_head") else "FEATURE_EXTRACTION"
    folder.mkdir(parents=True, exist_ok=True)
    settings: dict[str, Any] = {"r": rank, "lora_alpha": rank, "target_modules": modules, "task_type": kind, "inference_mode": True}
    peft.LoraConfig(base_model_name_or_path=base.name, revision=base.revision, **settings).save_pretrained(str(folder))
    tensors = {_THEIRS + name.replace(_OURS, "."): value.detach().contiguous() for name, value in found.items()}
    safetensors.torch.save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def read_base(folder: Path) -> Base | None:
    """Return the model whose weights an adapter is added to; None: the directory has no adapter.

    Raises:
        UserError: its settings cannot be read, or the directory is missing.
    """
    if not (folder / ADAPTER).is_file():
        return None
    settings = read_object(folder / ADAPTER)
    base, revision = settings.get("base_model_name_or_path"), settings.get("revision")
    if not isinstance(base, str) or not base:
        raise UserError(f"{folder / ADAPTER} names no base model (base_model_name_or_path)")
    if Path(base).is_absolute() and not Path(base).is_dir():
        raise UserError(f"{folder} is a LoRA adapter, and its base model {base} does not exist; change base_model_name_or_path in {folder / ADAPTER}")
    return Base(base, revision)


def with_adapter(backbone: Backbone, folder: Path) -> Backbone:
    """Return the base model with the weights of an adapter added to its own.

    Raises:
        UserError: `peft` is not installed, or the adapter cannot be read or does not fit the model.
    """
    check_installed(f"model={folder}: a LoRA adapter", "peft", "peft")
    import peft

    try:
        adapted = peft.PeftModel.from_pretrained(backbone, str(folder), torch_device=str(backbone.device)).merge_and_unload()
    except (OSError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{folder}: the adapter cannot be added to its base model: {reason}; use the model it was trained on") from error
    return adapted.requires_grad_(False)


def read_adapter(folder: Path) -> dict[str, Tensor]:
    """Return the LoRA matrices of a directory that `save_adapter` wrote, by their names in the model; none: it has no adapter.

    Raises:
        UserError: they cannot be read.
    """
    if not (folder / ADAPTER).is_file():
        return {}
    try:
        found = safetensors.torch.load_file(folder / WEIGHTS)
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"{folder / WEIGHTS} cannot be read: {error}") from error
    return {name.removeprefix(_THEIRS).replace(".weight", ".default.weight"): value for name, value in found.items()}
