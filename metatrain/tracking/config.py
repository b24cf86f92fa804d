"""Settings of experiment tracking."""

from __future__ import annotations

from dataclasses import dataclass, field

from metatrain.conditions import needs, when

_OF_WANDB = ("auto", "wandb", "offline")
TRACKED = needs("tracking.mode", lambda mode: mode in _OF_WANDB, "is auto, wandb or offline", "choose tracking=wandb or tracking=offline", switches=True)


@dataclass
class TrackingConfig:
    """Weights & Biases or TensorBoard, in addition to the local files, which are always complete (config group `tracking`)."""

    # Weights & Biases: auto (online if an API key is configured, offline with WANDB_MODE=offline, else off) | wandb (online) | offline; tensorboard
    # (event files in the run directory; extra tensorboard) | none.
    mode: str = "auto"
    project: str = field(default="metatrain", metadata=when(TRACKED))  # Weights & Biases project
    entity: str | None = field(default=None, metadata=when(TRACKED))  # Weights & Biases account or team; null: your default entity
    # Weights & Biases group of the run; null: one group for all runs whose settings differ only in the seed.
    group: str | None = field(default=None, metadata=when(TRACKED))
    log_model: bool = field(default=False, metadata=when(TRACKED))  # upload the trained model as a Weights & Biases artifact
