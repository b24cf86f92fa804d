"""What a user may set about tracking."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class TrackingConfig:
    """Weights & Biases beside the local record, which is always complete (config group `tracking`)."""

    mode: str = "auto"  # auto: online if a key is configured, else off | wandb | offline | none
    project: str = "metatrain"
    entity: str | None = None
    group: str | None = None
