"""LoRA matrices as an adapter of `peft`: adapter_config.json and adapter_model.safetensors, without the weights of the base model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from metatrain.errors import UserError
from metatrain.models.backbone import Backbone
from metatrain.models.config import ModelConfig
from metatrain.models.folders import ADAPTER
from metatrain.models.located import located
from metatrain.models.scratch import PREFIX

WEIGHTS = "adapter_model.safetensors"
_OURS, _THEIRS = ".default.", "base_model.model."  # name of the adapter in ours; what peft's names begin with


def base_of(config: ModelConfig) -> str | None:
    """Return the directory or hub id of the base model that others load; None: it has random weights."""
    if config.name == "tiny" or config.name.startswith(PREFIX):
        return None
    path, _ = located(config)
    return str(Path(path).resolve()) if Path(path).is_dir() else path


def save_adapter(folder: Path, backbone: Backbone, base: str, rank: int) -> None:
    """Write the LoRA matrices of a model for `PeftModel.from_pretrained`; base: what their weights are added to."""
    import peft

    found = {name: value for name, value in backbone.named_parameters() if ".lora_" in name}
    modules = sorted({name.partition(".lora_")[0].rpartition(".")[2] for name in found})
    kind = "SEQ_2_SEQ_LM" if backbone.config.is_encoder_decoder else "CAUSAL_LM" if hasattr(backbone, "lm_head") else "FEATURE_EXTRACTION"
    folder.mkdir(parents=True, exist_ok=True)
    settings: dict[str, Any] = {"r": rank, "lora_alpha": rank, "target_modules": modules, "task_type": kind, "inference_mode": True}
    peft.LoraConfig(base_model_name_or_path=base, **settings).save_pretrained(str(folder))
    tensors = {_THEIRS + name.replace(_OURS, "."): value.detach().contiguous() for name, value in found.items()}
    safetensors.torch.save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


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
