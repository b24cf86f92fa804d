"""Arms: ways of getting a model for a new task, compared on the same episodes."""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
from sklearn.linear_model import LogisticRegression

from metatrain.errors import UserError
from metatrain.evaluation.config import ARMS
from metatrain.meta.learner import Learner
from metatrain.meta.text_losses import EpisodeTexts


class Arm(Protocol):
    """One way of getting a model."""

    def predict(self, episode: EpisodeTexts) -> tuple[np.ndarray, float]:
        """Predicted labels of the queries, shape [queries], and the seconds that adaptation took."""


class Adapted:
    """A learner's inner loop on the support set."""

    def __init__(self, learner: Learner):
        self.learner = learner

    def predict(self, episode: EpisodeTexts) -> tuple[np.ndarray, float]:
        begin = time.perf_counter()
        parameters, _ = self.learner.adapt(episode.support, episode.support_labels, episode.names)
        seconds = time.perf_counter() - begin
        return self.learner.logits(parameters, episode.query).argmax(1).cpu().numpy(), seconds


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
        return self.arm.predict(replace(episode, support_labels=episode.support_labels[order]))


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


def make_arms(names: Sequence[str], trained: Learner, untrained: Learner) -> dict[str, Arm]:
    """The arms of `evaluation.arms`; `untrained` is the same learner before meta-training, and gets its limit on memory.

    Raises:
        UserError: there is no such arm.
    """
    untrained.memory = trained.memory
    frozen = FrozenFeatures(untrained)
    makers = {
        "meta_trained": lambda: Adapted(trained),
        "no_meta_training": lambda: Adapted(untrained),
        "logistic_regression": lambda: FrozenLogisticRegression(frozen),
        "prototypes": lambda: FrozenPrototypes(frozen),
    }
    check_arms(names)
    return {name: makers[name]() for name in names}


def check_arms(names: Sequence[str]) -> None:
    """Raises: UserError: an arm is unknown, or there is none."""
    if not names:
        raise UserError(f"evaluation.arms is empty; choose from {', '.join(ARMS)}")
    for name in names:
        if name not in ARMS:
            raise UserError(f"evaluation.arms: no arm {name!r}; choose from {', '.join(ARMS)}")
