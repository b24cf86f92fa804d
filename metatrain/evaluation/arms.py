"""Arms: ways of getting a model for a new task, compared on the same episodes."""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from sklearn.linear_model import LogisticRegression

from metatrain.errors import UserError
from metatrain.evaluation.config import ARMS, ENCODINGS_ONLY, EvaluationConfig
from metatrain.meta.config import AlgorithmConfig
from metatrain.meta.episode_texts import EpisodeTexts
from metatrain.meta.learner import Learner
from metatrain.models.heads import IN_CONTEXT, LANGUAGE


class Arm(Protocol):
    """One way of getting a model."""

    def predict(self, episode: EpisodeTexts) -> tuple[np.ndarray, float]:
        """Predicted labels of the queries, shape [queries], and the seconds that adaptation took."""


class Adapted:
    """A learner's inner loop on the support set, of its own number of steps or of another."""

    def __init__(self, learner: Learner, steps: int | None = None):
        self.learner, self.steps = learner, steps

    def predict(self, episode: EpisodeTexts) -> tuple[np.ndarray, float]:
        begin = time.perf_counter()
        parameters, _ = self.learner.adapt(episode, self.steps)
        seconds = time.perf_counter() - begin
        return self.learner.answers(parameters, episode), seconds


class ShuffledLabels:
    """Another arm, whose support labels are shuffled.

    A model that learns from the support set falls to chance; one that has memorised what the training tasks have in common
    does not (Yin et al. 2020).
    """

    def __init__(self, arm: Arm):
        self.arm = arm

    def predict(self, episode: EpisodeTexts) -> tuple[np.ndarray, float]:
        seed = zlib.crc32(b"".join(ids.tobytes() for ids in episode.support))  # an order for each support set, the same every time
        order = np.random.default_rng(seed).permutation(len(episode.support_labels))
        return self.arm.predict(episode.with_support_in_order(order))


class FrozenFeatures:
    """Vectors of an encoder that does not change: a query that many episodes, or several arms, ask for is encoded once."""

    def __init__(self, learner: Learner):
        self.learner = learner
        self._known: dict[bytes, np.ndarray] = {}

    def new(self, texts: Sequence[np.ndarray]) -> np.ndarray:
        """Vectors [texts, H], computed now."""
        return self.learner.features(texts).double().cpu().numpy()

    def known(self, texts: Sequence[np.ndarray]) -> np.ndarray:
        """Vectors [texts, H], computed at most once for each text."""
        missing = list({text.tobytes(): text for text in texts if text.tobytes() not in self._known}.values())
        if missing:
            self._known.update({text.tobytes(): vector for text, vector in zip(missing, self.new(missing))})
        return np.stack([self._known[text.tobytes()] for text in texts])


class _Frozen:
    """A classifier of frozen vectors."""

    def __init__(self, features: FrozenFeatures):
        self.features = features

    def predict(self, episode: EpisodeTexts) -> tuple[np.ndarray, float]:
        begin = time.perf_counter()
        classify = self.fit(self.features.new(episode.support), np.asarray(episode.support_labels))
        seconds = time.perf_counter() - begin
        return classify(self.features.known(episode.query)), seconds

    def fit(self, features: np.ndarray, labels: np.ndarray):
        """A function from features [queries, H] to labels [queries]."""
        raise NotImplementedError


class FrozenLogisticRegression(_Frozen):
    """Logistic regression (scikit-learn's defaults) on frozen vectors."""

    def fit(self, features: np.ndarray, labels: np.ndarray):
        return LogisticRegression(max_iter=1000).fit(features, labels).predict


class FrozenPrototypes(_Frozen):
    """The class whose mean vector is nearest in squared Euclidean distance (Snell et al. 2017)."""

    def fit(self, features: np.ndarray, labels: np.ndarray):
        means = np.stack([features[labels == label].mean(0) for label in range(labels.max() + 1)])
        return lambda queries: ((queries[:, None] - means) ** 2).sum(-1).argmin(1)


def arms_of(config: EvaluationConfig, algorithm: AlgorithmConfig) -> list[str]:
    """Names of the arms that are compared.

    Raises:
        UserError: one is unknown or is made of encodings that a language model has not, or there is none.
    """
    writes = algorithm.head in LANGUAGE
    if config.arms is None:
        others = () if algorithm.head == IN_CONTEXT else ("without_adaptation",) if writes else ENCODINGS_ONLY
        return ["meta_trained", "no_meta_training", *others]
    check_arms(config.arms)
    for name in config.arms:
        if writes and name in ENCODINGS_ONLY:
            raise UserError(f"evaluation.arms: {name} is made of encodings, and algorithm.head={algorithm.head} has none; leave it out")
    return list(config.arms)


def make_arms(names: Sequence[str], trained: Learner, untrained: Learner) -> dict[str, Arm]:
    """The arms of `evaluation.arms`; `untrained` is the same learner before meta-training, and gets its limit on memory."""
    untrained.memory = trained.memory
    frozen = FrozenFeatures(untrained)
    makers = {
        "meta_trained": lambda: Adapted(trained),
        "without_adaptation": lambda: Adapted(trained, steps=0),
        "no_meta_training": lambda: Adapted(untrained),
        "logistic_regression": lambda: FrozenLogisticRegression(frozen),
        "prototypes": lambda: FrozenPrototypes(frozen),
    }
    return {name: makers[name]() for name in names}


def check_arms(names: Sequence[str]) -> None:
    """Raises: UserError: an arm is unknown, or there is none."""
    if not names:
        raise UserError(f"evaluation.arms is empty; choose from {', '.join(ARMS)}")
    for name in names:
        if name not in ARMS:
            raise UserError(f"evaluation.arms: no arm {name!r}; choose from {', '.join(ARMS)}")
