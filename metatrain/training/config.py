"""Settings of the outer loop and of validation."""

from __future__ import annotations

from dataclasses import dataclass, field

from metatrain.conditions import Condition, Place, Unread, needs, when
from metatrain.gradient.config import TRAINING_STEPS


def _no_parameters_of_head(place: Place) -> Unread | None:
    learns = place.facts("algorithm.head").learns
    return None if learns else Unread(f"{place.given('algorithm.head')} has no meta-parameters", "set outer.lr, or choose another head")


def _no_parameters_of_rule(place: Place) -> Unread | None:
    learns = place.facts("inner.rule").learns
    return None if learns else Unread(f"{place.given('inner.rule')} has no meta-parameters", "choose an inner rule that learns, such as lslr")


def _encoder_is_frozen(place: Place) -> Unread | None:
    if place.value("algorithm.train") == "all" or place.facts("algorithm.adapt").model_adapts:
        return None
    return Unread("algorithm.train=adapted trains no parameter of the model", "set algorithm.train=all")


VALIDATION = needs("validation.every", bool, "is above 0", "set validation.every to 1 or more", switches=True)


@dataclass
class OuterConfig:
    """The outer loop (config group `outer`)."""

    optimizer: str = "adamw"  # outer optimiser: adamw | the name of a plug-in
    lr: float = 4e-5  # peak learning rate of the outer optimiser after warm-up, typically 1e-5 to 1e-3
    # Peak learning rate of the head's meta-parameters; null: the same as outer.lr.
    head_lr: float | None = field(default=None, metadata=when(Condition(_no_parameters_of_head, lambda place: "the head has meta-parameters")))
    # Peak learning rate of the inner rule's meta-parameters (learned rates, matrices); null: the same as outer.lr.
    rule_lr: float | None = field(
        default=None, metadata=when(TRAINING_STEPS, Condition(_no_parameters_of_rule, lambda place: "the inner rule has meta-parameters", ("inner.rule",)))
    )
    steps: int = 100  # number of meta-updates (outer steps)
    meta_batch: int = 4  # number of episodes per meta-update
    # Learning-rate schedule after warm-up: constant | linear | cosine (the last two decay to 0) | the name of a plug-in.
    schedule: str = "cosine"
    warmup: int = 10  # number of meta-updates of linear warm-up; 0: none
    clip: float | None = 1.0  # clip the mean meta-gradient to this norm; null: no clipping
    # What to do with a non-finite meta-gradient, which is never applied: stop (the run) | skip (the meta-update; three in a row stop the run).
    nonfinite: str = "stop"
    spike: float | None = None  # skip a meta-update whose gradient norm exceeds this multiple of the median of the last 20; null: never skip
    # Weight interpolation (WiSE-FT) with weight w: the saved model is (1 - w) * initial + w * trained weights of the encoder; above 0, at most 1.
    # Below 1, the model keeps more of its pretrained knowledge.
    weight_interpolation: float = field(
        default=1.0, metadata=when(Condition(_encoder_is_frozen, lambda place: "the outer loop trains parameters of the model"))
    )
    weight_decay: float = 0.01  # weight decay of matrices; biases, layer norms and the inner rule's meta-parameters have none


@dataclass
class ValidationConfig:
    """Meta-validation during training: selects the best checkpoint and can stop the run early (config node `validation`)."""

    every: int = 25  # number of meta-updates between validations; 0: no validation, no learned temperature, no calibrated sets; the last parameters are used
    # Number of episodes per meta-validation task. At the end, the temperature of the probabilities is learned from 8 times this number, over all tasks,
    # and prediction sets for fewer than 20 examples are calibrated on them.
    episodes: int = field(default=8, metadata=when(VALIDATION))
    # Query examples per class, fewer if a class has fewer; null: every row that is not in the support set.
    queries: int | None = field(default=25, metadata=when(VALIDATION))
    # Score that selects the best checkpoint: accuracy | balanced_accuracy. With several labels per text they are micro F1 and macro F1.
    score: str = field(default="accuracy", metadata=when(VALIDATION))
    # Early stopping: stop after this number of validations without a new best; null: never.
    patience: int | None = field(default=None, metadata=when(VALIDATION))
