"""What a user may set about tracking."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class TrackingConfig:
    """Weights & Biases beside the local record, which is always complete (config group `tracking`)."""

    mode: str = "auto"  # auto: online if a key is configured, offline with WANDB_MODE=offline, else off | wandb | offline | none
    project: str = "metatrain"  # of Weights & Biases
    entity: str | None = None  # the account or team; null: your own
    group: str | None = None  # of runs that belong together, seeds say
    log_model: bool = False  # send the trained model too, as an artifact of Weights & Biases
