"""Arms: methods for a new task, compared on the same episodes."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.special import softmax

from metatrain.errors import UserError
from metatrain.evaluation.config import ARMS, ENCODINGS_ONLY, JOINT, EvaluationConfig
from metatrain.evaluation.full_finetune import FullFinetuned
from metatrain.evaluation.logistic_regression import logistic_regression
from metatrain.evaluation.prediction import Arm, Prediction
from metatrain.evaluation.setfit_arm import SetFit, check_setfit
from metatrain.gradient.inner_rules import HEAD
from metatrain.gradient.parameters import Parameters
from metatrain.meta.config import AlgorithmConfig
from metatrain.meta.encoder_learner import EncoderLearner
from metatrain.meta.learner import Learner
from metatrain.models.heads import IN_CONTEXT, LANGUAGE
from metatrain.plugins import check_installed
from metatrain.tasks.encoded_episode import EncodedEpisode


class FrozenFeatures:
    """Encodings of a frozen encoder, cached: a query that occurs in several episodes or arms is encoded once."""

    def __init__(self, learner: Learner):
        self.learner: Any = learner  # an EncoderLearner: `arms_of` has refused these arms of others
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
        self._features = (features or FrozenFeatures(learner)) if learner.cut is None else None

    def after(self, steps: int) -> Adapted:
        """Return the same arm with another number of inner steps."""
        return Adapted(self.learner, steps, self._features)

    def predict(self, episode: EncodedEpisode) -> Prediction:
        begin = time.perf_counter()
        parameters, _ = self.learner.adapt(episode, self.steps)
        seconds = time.perf_counter() - begin
        if self._features is None or not self._features.learner.keeps_encoder(parameters):
            probabilities = self.learner.probabilities(parameters, episode)
        else:
            probabilities = _of_logits(self._features.known(episode.query), parameters)
        if probabilities is None:
            return Prediction(self.learner.answers(parameters, episode), None, seconds, self.learner.target_loss(parameters, episode))
        return Prediction(probabilities.argmax(1), probabilities, seconds)


def _of_logits(features: np.ndarray, parameters: Parameters) -> np.ndarray:
    """Return the probabilities [queries, way] that an adapted head gives for features [queries, H]."""
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


def arms_of(config: EvaluationConfig, algorithm: AlgorithmConfig) -> list[str]:
    """Return the names of the arms to compare.

    Raises:
        UserError: an arm is unknown, or its requirements are not met.
    """
    writes = algorithm.head in LANGUAGE
    if config.arms is None:
        if writes:
            return ["meta_trained", "no_meta_training", *(() if algorithm.head == IN_CONTEXT else ("without_adaptation",))]
        names = ("logistic_regression_with_names", "names_only") if algorithm.label_names else ()
        return ["meta_trained", "no_meta_training", "logistic_regression", "prototypes", *names, *(JOINT if config.joint else ())]
    if config.arms:
        check_arms(config.arms)
    for name in config.arms:
        if writes and name in ENCODINGS_ONLY:
            raise UserError(f"evaluation.arms: {name} needs encodings, and algorithm.head={algorithm.head} has none; remove it")
        if name in JOINT and config.joint is None:
            raise UserError(f"evaluation.arms: {name} needs a run of joint training: metatrain train algorithm=multitask ..., then evaluation.joint=RUN")
        if name == "names_only" and not algorithm.label_names:
            raise UserError("evaluation.arms: names_only needs label names; set algorithm.label_names=true, or remove it")
    return list(config.arms)


def make_arms(names: Sequence[str], trained: Learner, untrained: Learner, config: EvaluationConfig, joint: Learner | None = None) -> dict[str, Arm]:
    """Return the arms with these names.

    untrained: the same learner before meta-training; joint: the learner of the run `evaluation.joint`. Both get the memory limit of `trained`.
    """
    for learner in (untrained, *((joint,) if joint else ())):
        learner.memory = trained.memory
    frozen, of_trained = FrozenFeatures(untrained), FrozenFeatures(trained)
    regression = FrozenLogisticRegression(frozen)
    meta_trained = Adapted(trained, features=of_trained)
    makers: dict[str, Callable[[], Arm]] = {
        "meta_trained": lambda: meta_trained,
        "without_adaptation": lambda: Adapted(trained, steps=0, features=of_trained),
        "shuffled_labels": lambda: ShuffledLabels(meta_trained),
        "names_only": lambda: NamesOnly(meta_trained),
        "no_meta_training": lambda: Adapted(untrained, features=frozen),
        "logistic_regression": lambda: regression,
        "logistic_regression_with_names": lambda: WithNames(regression),
        "prototypes": lambda: FrozenPrototypes(frozen),
        "full_finetune": lambda: _full_finetune(untrained, config),
        "full_finetune_of_trained": lambda: _full_finetune(trained, config),
        "setfit": lambda: SetFit(untrained),
        "setfit_with_names": lambda: WithNames(SetFit(untrained)),
        "joint": lambda: Adapted(_there(joint)),
        "joint_logistic_regression": lambda: FrozenLogisticRegression(FrozenFeatures(_there(joint))),
    }
    return {name: makers[name]() for name in names}


def _full_finetune(start: Learner, config: EvaluationConfig) -> FullFinetuned:
    assert isinstance(start, EncoderLearner)  # `arms_of` has refused it of others
    return FullFinetuned(start, config.full_finetune)


def _there(joint: Learner | None) -> Learner:
    assert joint is not None  # `arms_of` has refused the arms of joint training without one
    return joint


def check_learner(names: Sequence[str], learner: Learner) -> None:
    """Check, before anything is trained, that the learner's model supports these arms.

    Raises:
        UserError: it does not support one of them.
    """
    if any(name.startswith("setfit") for name in names):
        check_setfit(learner.model)


def check_arms(names: Sequence[str]) -> None:
    """Raises: UserError: an arm is unknown or needs a package that is not installed, or the list is empty."""
    if not names:
        raise UserError(f"evaluation.arms is empty; choose from {', '.join(ARMS)}")
    for name in names:
        if name not in ARMS:
            raise UserError(f"evaluation.arms: no arm {name!r}; choose from {', '.join(ARMS)}")
        if name.startswith("setfit"):
            check_installed(f"evaluation.arms: {name}", "setfit", "compare")
