"""Settings of experiment tracking."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class TrackingConfig:
    """Weights & Biases, in addition to the local files, which are always complete (config group `tracking`)."""

    mode: str = "auto"  # auto (online if an API key is configured, offline with WANDB_MODE=offline, else off) | wandb (online) | offline | none
    project: str = "metatrain"  # Weights & Biases project
    entity: str | None = None  # Weights & Biases account or team; null: your default entity
    group: str | None = None  # Weights & Biases group of the run, to collect several seeds for example; null: none
    log_model: bool = False  # upload the trained model as a Weights & Biases artifact
