"""State of the outer loop: with the tensors of a checkpoint, everything that the next meta-update depends on."""

from __future__ import annotations

from dataclasses import dataclass, field

from metatrain.tasks.sampler import SamplerState
from metatrain.training.update_policy import UpdatePolicy


@dataclass
class TrainState:
    """Progress of the outer loop, in the plain values of a checkpoint's state.json."""

    step: int = 0  # number of meta-updates done
    validated: int = 0  # last step with a validation
    best_step: int | None = None
    best_score: float | None = None
    without_new_best: int = 0  # number of validations since the best
    metrics_bytes: int = 0  # length of metrics.jsonl
    sampler: SamplerState | None = None
    policy: UpdatePolicy = field(default_factory=UpdatePolicy)
    part_tokens: int | None = None  # tokens that are encoded at a time, after memory has run out with more; None: it has not
    tasks: str | None = None  # fingerprint of the tasks
