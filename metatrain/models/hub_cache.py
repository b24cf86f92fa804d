"""Location of a known model of the hub: the local hub cache, or the hub."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import constants, try_to_load_from_cache

from metatrain.errors import UserError


def cached_or_on_hub(hub_id: str, title: str, setting: str, advice: str) -> tuple[str, str]:
    """Return (path or hub id of a model, description for the log).

    title: name of the model in the log; setting: the setting that chose it; advice: how to get the model without the hub.

    Raises:
        UserError: the model is not on this machine and hub access is disabled.
    """
    cached = try_to_load_from_cache(hub_id, "model.safetensors")
    if isinstance(cached, str):
        return str(Path(cached).parent), f"{title} (from the local hub cache)"
    if constants.HF_HUB_OFFLINE:
        raise UserError(f"{setting} is not on this machine and hub access is disabled; {advice}")
    return hub_id, f"{title} (from the hub)"
