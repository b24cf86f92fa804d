"""Settings of experiment tracking."""

from __future__ import annotations

from dataclasses import dataclass, field

from metatrain.conditions import needs, when

TRACKED = needs("tracking.mode", lambda mode: mode != "none", "is not none", "choose tracking=wandb or tracking=offline", switches=True)


@dataclass
class TrackingConfig:
    """Weights & Biases, in addition to the local files, which are always complete (config group `tracking`)."""

    mode: str = "auto"  # auto (online if an API key is configured, offline with WANDB_MODE=offline, else off) | wandb (online) | offline | none
    project: str = field(default="metatrain", metadata=when(TRACKED))  # Weights & Biases project
    entity: str | None = field(default=None, metadata=when(TRACKED))  # Weights & Biases account or team; null: your default entity
    # Weights & Biases group of the run, to collect several seeds for example; null: none.
    group: str | None = field(default=None, metadata=when(TRACKED))
    log_model: bool = field(default=False, metadata=when(TRACKED))  # upload the trained model as a Weights & Biases artifact
