"""Settings of the inner loop."""

from __future__ import annotations

from dataclasses import dataclass, field

from metatrain.conditions import Condition, Place, Unread, chosen, needs, when


def more_steps(place: Place) -> str:
    """Return the remedy where nothing is adapted in inner steps."""
    is_preset = place.trains and place.value("algorithm.name") != "maml"
    return "choose algorithm=maml or another method with inner steps" if is_preset else "set inner.steps to 1 or more"


def _no_steps(place: Place) -> Unread | None:
    if place.value("inner.steps") or place.value("inner.evaluation_steps"):
        return None
    return Unread(f"algorithm={place.value('algorithm.name')} makes no inner steps (inner.steps=0)", more_steps(place))


def _no_training_steps(place: Place) -> Unread | None:
    if place.value("inner.steps"):
        return None
    because = f"algorithm={place.value('algorithm.name')} makes no inner steps in meta-training (inner.steps=0)"
    return Unread(because, more_steps(place))


def _no_encoder(place: Place) -> Unread | None:
    row = place.facts("algorithm.adapt")
    if place.facts("algorithm.head").is_language_model or row.model_adapts or (row.head_adapts and place.value("inner.head_lr") is None):
        return None
    remedy = "set inner.head_lr, or choose another algorithm.adapt"
    return Unread(f"{place.given('algorithm.adapt')} adapts only the head, at {place.given('inner.head_lr')}", remedy)


def _no_head(place: Place) -> Unread | None:
    if place.facts("algorithm.head").is_language_model:
        return Unread(f"{place.given('algorithm.head')} has no classification head", "set inner.lr")
    if place.facts("algorithm.head").reads_word_embeddings:
        return Unread(f"{place.given('algorithm.head')} has no tensors of its own: its rows are word embeddings", "set inner.lr")
    if place.facts("inner.loss").head_after:
        return Unread(f"{place.given('inner.loss')} makes the head after the inner steps", "set inner.lr")
    if place.facts("algorithm.adapt").head_adapts:
        return None
    return Unread(f"{place.given('algorithm.adapt')} does not adapt the head", "set inner.lr")


INNER_STEPS = Condition(_no_steps, lambda place: "the inner loop makes steps")
TRAINING_STEPS = Condition(_no_training_steps, lambda place: "inner.steps is above 0")
ENCODER_ADAPTS = Condition(_no_encoder, lambda place: "more than the head adapts, or inner.head_lr is null", ("algorithm.adapt",))
FIT_HEAD = needs("inner.fit_head", bool, "is true", "set inner.fit_head=true")
HEAD_ADAPTS = Condition(_no_head, lambda place: "a head adapts", ("algorithm.adapt",))


@dataclass
class InnerConfig:
    """The inner loop (config group `inner`)."""

    # Update rule: sgd | meta_sgd | lslr | curvature | adam | adam_lslr | alfa. meta_sgd learns a rate per parameter, lslr and adam_lslr a rate per
    # tensor and step, curvature (Meta-Curvature) a preconditioner, alfa a network that generates rate and weight decay per tensor and step.
    rule: str = field(default="sgd", metadata=when(INNER_STEPS))
    # Inner loss: support (cross-entropy of the head on the support set) | leave_one_out (each support text is classified by the prototypes of the
    # others; the head is made from the encodings after the inner steps).
    loss: str = field(default="support", metadata=when(INNER_STEPS))
    # Learning rate of the encoder; initial value where rates are learned; typically 0.001 to 0.1.
    lr: float = field(default=0.02, metadata=when(INNER_STEPS, chosen(".rule"), ENCODER_ADAPTS))
    # Learning rate of the head, typically larger than inner.lr; null: the same as inner.lr.
    head_lr: float | None = field(default=None, metadata=when(INNER_STEPS, chosen(".rule"), HEAD_ADAPTS))
    rank: int = field(default=8, metadata=when(chosen(".rule")))  # rank of the learned matrices
    steps: int = 5  # number of inner steps in meta-training, typically 1 to 10; 0: none, for heads computed from the support set
    # In evaluation and finetuning: fit the head to the support set, with an L2 strength chosen by cross-validation. Applies where only the
    # head adapts, or with inner.loss=leave_one_out.
    fit_head: bool = False
    # In evaluation and finetuning: then train the whole encoder on the support set, for a number of updates (possibly 0) chosen by
    # cross-validation. Takes minutes instead of seconds.
    fit_encoder: bool = field(default=False, metadata=when(FIT_HEAD))
    evaluation_steps: int | None = None  # number of inner steps in validation, evaluation and finetuning; null: the same as inner.steps
