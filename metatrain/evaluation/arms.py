"""Arms: models and baselines that are compared on the same episodes, each with a row that states what it needs and where it is a default.

To add an arm, add a class with `predict` and its row in `ROWS`; another package announces a row (`ArmRow`) in the entry-point group
`metatrain.arms`.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from scipy.special import softmax

from metatrain import plugins
from metatrain.errors import UserError
from metatrain.evaluation.config import EvaluationConfig, LoraConfig, check_lora
from metatrain.evaluation.full_finetune import FullFinetuned, check_full_finetune
from metatrain.evaluation.language_arms import CALIBRATED, Prompted, check_calibrated, check_calibrated_examples, check_reads_examples
from metatrain.evaluation.logistic_regression import logistic_regression
from metatrain.evaluation.prediction import Arm, Prediction
from metatrain.evaluation.setfit_arm import SetFit, check_setfit
from metatrain.gradient.inner_rules import HEAD
from metatrain.gradient.parameters import Parameters
from metatrain.meta.functional import FunctionalClassifier
from metatrain.meta.language_learner import LanguageLearner
from metatrain.meta.learner import EncodingLearner, Learner
from metatrain.tasks.encoded_episode import EncodedEpisode


class Features(Protocol):
    """A learner that gives encodings of texts."""

    def features(self, texts: Sequence[np.ndarray]) -> torch.Tensor:
        """Return encodings [texts, H] under the meta-parameters."""


class FrozenFeatures:
    """Encodings of a frozen encoder, cached: a query that occurs in several episodes or arms is encoded once."""

    def __init__(self, learner: Features):
        self.learner = learner
        self._known: dict[bytes, np.ndarray] = {}

    def new(self, texts: Sequence[np.ndarray]) -> np.ndarray:
        """Return encodings [texts, H], computed without the cache.

        Raises: UserError: they are not finite.
        """
        found = self.learner.features(texts).double().cpu().numpy()
        if not np.isfinite(found).all():
            raise UserError("the text encodings of the model are not finite; its weights are broken")
        return found

    def known(self, texts: Sequence[np.ndarray]) -> np.ndarray:
        """Return encodings [texts, H] from the cache, computed at most once for each text."""
        missing = list({text.tobytes(): text for text in texts if text.tobytes() not in self._known}.values())
        if missing:
            self._known.update({text.tobytes(): vector for text, vector in zip(missing, self.new(missing))})
        return np.stack([self._known[text.tobytes()] for text in texts])


class Adapted:
    """The inner loop of a learner on the support set, with its own or another number of steps.

    The meta-parameters of the learner must not change: if its encoder does not adapt, query encodings are cached, in `features` if other
    arms use the same encoder.
    """

    def __init__(self, learner: Learner, steps: int | None = None, features: FrozenFeatures | None = None):
        self.learner, self.steps = learner, steps
        encodings = learner.encodings if learner.functional.first_adapted_layer is None else None
        self._encodings = encodings
        self._features = None if encodings is None else features or FrozenFeatures(encodings)

    def after(self, steps: int) -> Adapted:
        """Return the same arm with another number of inner steps."""
        return Adapted(self.learner, steps, self._features)

    def predict(self, episode: EncodedEpisode) -> Prediction:
        begin = time.perf_counter()
        parameters, _ = self.learner.adapt(episode, self.steps)
        return self.prediction(parameters, episode, time.perf_counter() - begin)

    def prediction(self, parameters: Parameters, episode: EncodedEpisode, seconds: float = 0.0) -> Prediction:
        """Return the prediction of adapted parameters for the queries of an episode; seconds: adaptation time."""
        if self._features is None or self._encodings is None or not self._encodings.keeps_encoder(parameters):
            probabilities = self.learner.probabilities(parameters, episode)
        else:
            probabilities = _of_features(self.learner, self._features.known(episode.query), parameters)
        if probabilities is None:
            return Prediction(self.learner.predictions(parameters, episode), None, seconds, self.learner.target_loss(parameters, episode))
        return Prediction(probabilities.argmax(1), probabilities, seconds)


def _of_features(learner: Learner, features: np.ndarray, parameters: Parameters) -> np.ndarray:
    """Return the probabilities [queries, way] that an adapted head gives for features [queries, H]."""
    functional = learner.functional
    assert isinstance(functional, FunctionalClassifier)  # only encoders have features
    if not functional.head_facts.is_linear:
        own = next(iter(parameters.values()))
        with torch.no_grad():
            return functional.logits_of(parameters, torch.from_numpy(features).to(own.device, own.dtype)).double().softmax(1).cpu().numpy()
    weight, bias = (parameters[HEAD + name].double().cpu().numpy() for name in ("weight", "bias"))
    return softmax(features @ weight.T + bias, axis=1)


class ShuffledLabels:
    """An arm with shuffled support labels; label names stay with their classes.

    The accuracy of a model that learns from the support set falls to chance, or to what the label names reveal; that of a model that has
    memorised the training tasks does not (Yin et al. 2020).
    """

    def __init__(self, arm: Arm):
        self.arm = arm

    def predict(self, episode: EncodedEpisode) -> Prediction:
        seed = zlib.crc32(b"".join(ids.tobytes() for ids in episode.support))  # one reproducible order for each support set
        order = np.random.default_rng(seed).permutation(len(episode.support_labels))
        return self.arm.predict(episode.with_permuted_labels(order))


class NamesOnly:
    """An arm whose support set consists of the label names only, even of names without meaning."""

    def __init__(self, arm: Arm):
        self.arm = arm

    def predict(self, episode: EncodedEpisode) -> Prediction:
        return self.arm.predict(replace(episode, support=episode.name_tokens, support_labels=np.arange(len(episode.names)), reads_names=False))


class WithNames:
    """An arm with the label names as further support examples."""

    def __init__(self, arm: Arm):
        self.arm = arm

    def predict(self, episode: EncodedEpisode) -> Prediction:
        return self.arm.predict(episode.with_names())


Probabilities = Callable[[np.ndarray], np.ndarray]  # of the labels, [queries, way], from features [queries, H]


class _Frozen:
    """A classifier on frozen encodings."""

    def __init__(self, features: FrozenFeatures):
        self.features = features

    def predict(self, episode: EncodedEpisode) -> Prediction:
        begin = time.perf_counter()
        classify = self.fit(self.features.new(episode.support), np.asarray(episode.support_labels))
        seconds = time.perf_counter() - begin
        probabilities = classify(self.features.known(episode.query))
        return Prediction(probabilities.argmax(1), probabilities, seconds)

    def fit(self, features: np.ndarray, labels: np.ndarray) -> Probabilities:
        """Fit to features [support, H] and labels [support], and return the predictor."""
        raise NotImplementedError


class FrozenLogisticRegression(_Frozen):
    """Logistic regression on frozen encodings, with L2 strength chosen on the support set."""

    def fit(self, features: np.ndarray, labels: np.ndarray) -> Probabilities:
        return logistic_regression(features, labels).predict_proba


class FrozenPrototypes(_Frozen):
    """Nearest class mean in squared Euclidean distance, on frozen encodings (Snell et al. 2017)."""

    def fit(self, features: np.ndarray, labels: np.ndarray) -> Probabilities:
        means = np.stack([features[labels == label].mean(0) for label in range(labels.max() + 1)])

        return lambda queries: softmax(-((queries[:, None] - means) ** 2).sum(-1), axis=1)


class FrozenNearestNeighbour(_Frozen):
    """Label of the nearest support text in Euclidean distance, on frozen encodings (Cover and Hart 1967); the first of several at the same distance."""

    def predict(self, episode: EncodedEpisode) -> Prediction:
        begin = time.perf_counter()
        support = self.features.new(episode.support)
        seconds = time.perf_counter() - begin
        nearest = np.square(self.features.known(episode.query)[:, None] - support).sum(-1).argmin(1)
        return Prediction(np.asarray(episode.support_labels)[nearest], None, seconds)


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
    needs_label_names: bool = False  # whether it needs a method that reads label names
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
        reads=(),
    ),
    "no_meta_training": ArmRow(
        "the same method before meta-training",
        lambda learners: Adapted(learners.untrained, features=None if learners.untrained.encodings is None else learners.features),
        (ENCODERS, LANGUAGE_MODELS),
        needs_encodings=False,
        reads=(),
    ),
    "without_adaptation": ArmRow(
        "the meta-trained model without inner steps",
        lambda learners: learners.meta_trained.after(0),
        (INNER_LOOP,),
        needs_encodings=False,
        is_diagnostic=True,
        reads=(),
    ),
    "shuffled_labels": ArmRow(
        "the meta-trained model, adapted to shuffled support labels",
        lambda learners: ShuffledLabels(learners.meta_trained),
        needs_encodings=False,
        is_diagnostic=True,
        reads=(),
    ),
    "leave_one_out": ArmRow(
        "the encoder before meta-training, adapted by algorithm=leave_one_out", lambda learners: learners.adapted_by_leave_one_out, reads=()
    ),
    "logistic_regression": ArmRow(
        "logistic regression on the encodings before meta-training, or the mean hidden states of a language model",
        lambda learners: FrozenLogisticRegression(learners.features),
        (ENCODERS, UNTRAINED_LANGUAGE_MODEL),
        needs_encodings=False,
        needs_labels=True,
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
