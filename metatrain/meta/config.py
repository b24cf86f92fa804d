"""What a user may set about the meta-learning method: the four axes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class AlgorithmConfig:
    """A meta-learning method as a choice on the axes (config group `algorithm`); the inner rule is in `inner`."""

    name: str = "maml"
    head: str = "zero"  # linear | zero | prototype
    head_scale: float = 1.0  # initial scale of prototype logits (learned)
    adapt: str = "all"  # all | head | last_layers
    last_layers: int = 2  # with adapt=last_layers: how many
    meta_gradient: str = "exact"  # exact | exact_recomputed (a step's memory, a third slower) | first_order


@dataclass
class InnerConfig:
    """The inner loop (config group `inner`)."""

    rule: str = "sgd"
    lr: float = 0.01  # of the encoder
    head_lr: float | None = None  # of the episode's head; null: the same as lr
    steps: int = 5  # inner steps in meta-training
    evaluation_steps: int | None = None  # inner steps in validation, evaluation and finetuning; null: the same as steps
