"""Settings of the inner loop."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class InnerConfig:
    """The inner loop (config group `inner`)."""

    # Update rule: sgd | meta_sgd | lslr | curvature | adam | adam_lslr. meta_sgd learns a rate per parameter, lslr and adam_lslr a rate per tensor
    # and step, curvature (Meta-Curvature) a preconditioner.
    rule: str = "sgd"
    # Inner loss: support (cross-entropy of the head on the support set) | leave_one_out (each support text is classified by the prototypes of the
    # others; the head is made from the encodings after the inner steps).
    loss: str = "support"
    lr: float = 0.02  # learning rate of the encoder; initial value where rates are learned; typically 0.001 to 0.1
    head_lr: float | None = None  # learning rate of the head, typically larger than inner.lr; null: the same as inner.lr
    rank: int = 8  # rank of the learned matrices; with inner.rule=curvature
    steps: int = 5  # number of inner steps in meta-training, typically 1 to 10; 0: none, for heads computed from the support set
    # In evaluation and finetuning: fit the head to the support set, with an L2 strength chosen by cross-validation. Applies where only the
    # head adapts, or with inner.loss=leave_one_out.
    fit_head: bool = False
    # In evaluation and finetuning: then train the whole encoder on the support set, for a number of updates (possibly 0) chosen by
    # cross-validation. Takes minutes instead of seconds.
    fit_encoder: bool = False
    evaluation_steps: int | None = None  # number of inner steps in validation, evaluation and finetuning; null: the same as inner.steps
