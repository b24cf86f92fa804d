"""Arms: models and baselines that are compared on the same episodes, each with a row that states what it needs and where it is a default.

To add an arm, add a class with `predict` and its row in `ROWS`; another package announces a row (`ArmRow`) in the entry-point group
`metatrain.arms`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from metatrain import plugins
from metatrain.evaluation.adapted_arms import Adapted, NamesOnly, ShuffledLabels, WithNames, WithUnlabelled
from metatrain.evaluation.config import EvaluationConfig, LoraConfig, check_lora, check_unlabelled
from metatrain.evaluation.frozen_arms import FrozenFeatures, FrozenLogisticRegression, FrozenNearestNeighbour, FrozenPrototypes
from metatrain.evaluation.full_finetune import FullFinetuned, check_full_finetune
from metatrain.evaluation.language_arms import CALIBRATED, Prompted, check_calibrated, check_calibrated_examples, check_reads_examples
from metatrain.evaluation.prediction import Arm
from metatrain.evaluation.setfit_arm import SetFit, check_setfit
from metatrain.meta.language_learner import LanguageLearner
from metatrain.meta.learner import EncodingLearner, Learner


@dataclass(frozen=True)
class Learners:
    """Learners and settings that arms are built from."""

    trained: Learner
    untrained: Learner  # the same learner before meta-training
    config: EvaluationConfig
    joint: Learner | None = None  # the learner of joint training that `evaluation.joint` names
    leave_one_out: Callable[[], Learner] | None = None  # builds the learner before meta-training that adapts by the method `leave_one_out`
    lora: Callable[[LoraConfig], Learner] | None = None  # builds the language model before meta-training that adapts by LoRA

    @cached_property
    def features(self) -> FrozenFeatures:
        """Encodings before meta-training, shared by all arms that use them."""
        return FrozenFeatures(self.untrained if isinstance(self.untrained, LanguageLearner) else _encodings(self.untrained))

    @cached_property
    def meta_trained(self) -> Adapted:
        """The meta-trained learner's inner loop."""
        return Adapted(self.trained)

    @property
    def jointly_trained(self) -> Learner:
        assert self.joint is not None  # `chosen_arms` refuses the arms of joint training without one
        return self.joint

    @property
    def adapted_by_leave_one_out(self) -> Adapted:
        """The inner loop of `algorithm=leave_one_out` before meta-training, by the plan of the meta-trained learner."""
        assert self.leave_one_out is not None  # every command brings it
        return Adapted(self.leave_one_out().with_plan(self.untrained.plan))

    @property
    def adapted_by_lora(self) -> Adapted:
        """LoRA finetuning of the language model before meta-training."""
        assert self.lora is not None  # every command brings it
        return Adapted(self.lora(self.config.lora).with_plan(self.untrained.plan))

    def full_finetuned(self, start: Learner) -> FullFinetuned:
        return FullFinetuned(_encodings(start), self.config.full_finetune)


def _encodings(learner: Learner) -> EncodingLearner:
    assert learner.encodings is not None  # `chosen_arms` refuses arms that need encodings for language models
    return learner.encodings


# Comparisons in which an arm is a default (`evaluation.arms=null`): of encoders; of encoders whose method reads label names; with a run of joint
# training; of language models; of language models with an inner loop; of a language model without meta-training.
ENCODERS, LABEL_NAMES, JOINT, LANGUAGE_MODELS, INNER_LOOP = "encoders", "label names", "joint training", "language models", "inner loop"
UNTRAINED_LANGUAGE_MODEL = "language model without meta-training"


@dataclass(frozen=True)
class ArmRow:
    """An arm: how it is made, what it needs, and where it is a default."""

    description: str  # one line, for `metatrain ls arms`
    make: Callable[[Learners], Arm]
    default_in: tuple[str, ...] = ()  # comparisons in which it is a default
    needs_encodings: bool = True  # whether it needs encodings, which language models do not have
    needs_language_model: bool = False  # whether it needs a language model
    needs_labels: bool = False  # whether it cannot predict the targets of a text-to-text task
    reads_label_sets: bool = False  # whether it predicts several labels per text
    needs_label_names: bool = False  # whether it needs a method that reads label names
    encodes_names: bool = False  # whether it encodes label names as texts, which have no mask for algorithm.head=mlm
    needs_unlabelled: bool = False  # whether it reads texts without labels, and so needs a method that fits a head
    needs_joint: bool = False  # whether it needs a run of joint training (evaluation.joint)
    reads_pairs: bool = True  # whether it reads text pairs
    is_diagnostic: bool = False  # whether it shows what the meta-trained model uses, and is no baseline
    package: tuple[str, str] | None = None  # a module that it needs, and the extra that installs it
    check_config: Callable[[EvaluationConfig], None] | None = None  # raises UserError if its settings make no sense
    check_model: Callable[[Any], None] | None = None  # raises UserError if it cannot use this model
    reads: tuple[str, ...] | None = None  # settings of `evaluation` that only some arms read (joint, full_finetune); None: all


ROWS: dict[str, ArmRow] = {
    "meta_trained": ArmRow(
        "the meta-trained model, adapted to the support set",
        lambda learners: learners.meta_trained,
        (ENCODERS, LANGUAGE_MODELS),
        needs_encodings=False,
        reads_label_sets=True,
        reads=(),
    ),
    "meta_trained_with_unlabelled": ArmRow(
        "the meta-trained model, adapted to the support set and to texts without labels",
        lambda learners: WithUnlabelled(learners.meta_trained),
        needs_labels=True,
        needs_unlabelled=True,
        check_config=check_unlabelled,
        reads=("unlabelled",),
    ),
    "no_meta_training": ArmRow(
        "the same method before meta-training",
        lambda learners: Adapted(learners.untrained, features=None if learners.untrained.encodings is None else learners.features),
        (ENCODERS, LANGUAGE_MODELS),
        needs_encodings=False,
        reads_label_sets=True,
        reads=(),
    ),
    "without_adaptation": ArmRow(
        "the meta-trained model without inner steps",
        lambda learners: learners.meta_trained.after(0),
        (INNER_LOOP,),
        needs_encodings=False,
        is_diagnostic=True,
        reads_label_sets=True,
        reads=(),
    ),
    "shuffled_labels": ArmRow(
        "the meta-trained model, adapted to shuffled support labels",
        lambda learners: ShuffledLabels(learners.meta_trained),
        needs_encodings=False,
        is_diagnostic=True,
        reads_label_sets=True,
        reads=(),
    ),
    "leave_one_out": ArmRow(
        "the encoder before meta-training, adapted by algorithm=leave_one_out",
        lambda learners: learners.adapted_by_leave_one_out,
        encodes_names=True,
        reads=(),
    ),
    "logistic_regression": ArmRow(
        "logistic regression on the encodings before meta-training, or the mean hidden states of a language model",
        lambda learners: FrozenLogisticRegression(learners.features),
        (ENCODERS, UNTRAINED_LANGUAGE_MODEL),
        needs_encodings=False,
        needs_labels=True,
        reads_label_sets=True,
        reads=(),
    ),
    "prototypes": ArmRow(
        "nearest class mean of the encodings before meta-training, or the mean hidden states of a language model",
        lambda learners: FrozenPrototypes(learners.features),
        (ENCODERS,),
        needs_encodings=False,
        needs_labels=True,
        reads=(),
    ),
    "nearest_neighbour": ArmRow(
        "label of the nearest support text, by the encodings before meta-training", lambda learners: FrozenNearestNeighbour(learners.features), reads=()
    ),
    "logistic_regression_with_names": ArmRow(
        "logistic regression, with label names as further examples",
        lambda learners: WithNames(FrozenLogisticRegression(learners.features)),
        (LABEL_NAMES,),
        encodes_names=True,
        reads=(),
    ),
    "names_only": ArmRow(
        "the meta-trained model, adapted to the label names only",
        lambda learners: NamesOnly(learners.meta_trained),
        (LABEL_NAMES,),
        needs_label_names=True,
        is_diagnostic=True,
        reads=(),
    ),
    "full_finetune": ArmRow(
        "full finetuning of the encoder before meta-training",
        lambda learners: learners.full_finetuned(learners.untrained),
        check_config=check_full_finetune,
        reads=("full_finetune",),
    ),
    "full_finetune_of_trained": ArmRow(
        "full finetuning of the meta-trained encoder",
        lambda learners: learners.full_finetuned(learners.trained),
        check_config=check_full_finetune,
        reads=("full_finetune",),
    ),
    "setfit": ArmRow(
        "SetFit (Tunstall et al. 2022), by its authors' package",
        lambda learners: SetFit(learners.untrained),
        reads_pairs=False,
        package=("setfit", "compare"),
        check_model=check_setfit,
        reads=(),
    ),
    "setfit_with_names": ArmRow(
        "SetFit, with label names as further examples",
        lambda learners: WithNames(SetFit(learners.untrained)),
        reads_pairs=False,
        package=("setfit", "compare"),
        check_model=check_setfit,
        reads=(),
    ),
    "zero_shot": ArmRow(
        "the language model before meta-training, without examples",
        lambda learners: Prompted(learners.untrained, reads_support=False),
        (UNTRAINED_LANGUAGE_MODEL,),
        needs_encodings=False,
        needs_language_model=True,
        reads=(),
    ),
    "zero_shot_calibrated": ArmRow(
        "the same with contextual calibration (Zhao et al. 2021)",
        lambda learners: Prompted(learners.untrained, reads_support=False, scoring=CALIBRATED),
        (UNTRAINED_LANGUAGE_MODEL,),
        needs_encodings=False,
        needs_labels=True,
        needs_language_model=True,
        check_model=check_calibrated,
        reads=(),
    ),
    "in_context": ArmRow(
        "the language model before meta-training, with the support set in its prompt",
        lambda learners: Prompted(learners.untrained, reads_support=True),
        (UNTRAINED_LANGUAGE_MODEL,),
        needs_encodings=False,
        needs_language_model=True,
        check_model=check_reads_examples,
        reads=(),
    ),
    "in_context_calibrated": ArmRow(
        "the same with contextual calibration (Zhao et al. 2021)",
        lambda learners: Prompted(learners.untrained, reads_support=True, scoring=CALIBRATED),
        (UNTRAINED_LANGUAGE_MODEL,),
        needs_encodings=False,
        needs_labels=True,
        needs_language_model=True,
        check_model=check_calibrated_examples,
        reads=(),
    ),
    "lora": ArmRow(
        "LoRA finetuning of the language model before meta-training (Hu et al. 2022)",
        lambda learners: learners.adapted_by_lora,
        needs_encodings=False,
        needs_language_model=True,
        package=("peft", "peft"),
        check_config=check_lora,
        reads=("lora",),
    ),
    "joint": ArmRow("joint training, with its own head", lambda learners: Adapted(learners.jointly_trained), (JOINT,), needs_joint=True, reads=("joint",)),
    "joint_logistic_regression": ArmRow(
        "logistic regression on the encodings of joint training",
        lambda learners: FrozenLogisticRegression(FrozenFeatures(_encodings(learners.jointly_trained))),
        (JOINT,),
        needs_joint=True,
        reads=("joint",),
    ),
}


def names_of_arms() -> tuple[str, ...]:
    """The names of all arms, those of plug-ins last."""
    return (*ROWS, *plugins.names(plugins.ARMS))


def row_of(name: str) -> ArmRow:
    """Return the row of an arm.

    Raises:
        UserError: there is no such arm.
    """
    found: ArmRow = plugins.find(plugins.ARMS, name, ROWS, f"evaluation.arms: no arm {name!r}; choose from")
    return found


@dataclass(frozen=True)
class ArmFacts:
    """Properties of the arms of an evaluation."""

    reads: tuple[str, ...] | None  # settings of `evaluation` that any of them reads; None: all


def arm_facts(names: Sequence[str] | None) -> ArmFacts:
    """Return the properties of `evaluation.arms=NAMES`; None: the defaults.

    Raises:
        UserError: there is no such arm.
    """
    read = [row.reads for row in ([row for row in ROWS.values() if row.default_in] if names is None else map(row_of, names))]
    return ArmFacts(None if None in read else tuple(name for each in read for name in each or ()))


def make_arms(names: Sequence[str], learners: Learners) -> dict[str, Arm]:
    """Return the arms with these names; all learners get the execution plan of the meta-trained one."""
    plan = replace(learners.trained.plan, cuda_graphs=None)
    joint = learners.joint.with_plan(plan) if learners.joint else None
    learners = replace(learners, untrained=learners.untrained.with_plan(plan), joint=joint)
    return {name: row_of(name).make(learners) for name in names}


def is_diagnostic(name: str) -> bool:
    """Return True if an arm is a diagnostic of what the meta-trained model uses, and no baseline."""
    row: ArmRow | None = ROWS.get(name) or plugins.load(plugins.ARMS, name)  # results of an earlier run may have an arm that is not installed
    return row is not None and row.is_diagnostic
