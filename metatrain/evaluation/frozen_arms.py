"""Arms on the encodings of a frozen encoder: logistic regression, prototypes, the nearest neighbour."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from scipy.special import softmax

from metatrain.errors import UserError
from metatrain.evaluation.logistic_regression import logistic_regression
from metatrain.evaluation.prediction import Prediction
from metatrain.meta.label_fit import fit_labels
from metatrain.meta.output_cache import OutputCache
from metatrain.meta.thresholds import fitted_thresholds
from metatrain.models.targets import sigmoid
from metatrain.tasks.encoded_episode import EncodedEpisode


class Features(Protocol):
    """A learner that gives encodings of texts."""

    def features(self, texts: Sequence[np.ndarray]) -> torch.Tensor:
        """Return encodings [texts, H] under the meta-parameters."""


class FrozenFeatures:
    """Encodings of a frozen encoder: a text that occurs in several episodes or arms is encoded once."""

    def __init__(self, learner: Features):
        self.learner = learner
        self.cache = OutputCache(self._encode)

    def _encode(self, texts: Sequence[np.ndarray], on_progress: Callable[[int], None]) -> Sequence[torch.Tensor]:
        found = self.learner.features(texts)
        if not found.isfinite().all():
            raise UserError("the text encodings of the model are not finite; its weights are broken")
        return found.unbind()

    def known(self, texts: Sequence[np.ndarray]) -> np.ndarray:
        """Return encodings [texts, H], float64.

        Raises: UserError: they are not finite.
        """
        return torch.stack(self.cache.of(texts)).double().cpu().numpy()


Probabilities = Callable[[np.ndarray], np.ndarray]  # of the labels, [queries, way], from features [queries, H]


class _Frozen:
    """A classifier on frozen encodings."""

    def __init__(self, features: FrozenFeatures):
        self.features = features

    def predict(self, episode: EncodedEpisode) -> Prediction:
        support = self.features.known(episode.support)
        begin = time.perf_counter()
        classify = self.fit(support, np.asarray(episode.support_labels))
        seconds = time.perf_counter() - begin + self.features.cache.seconds_of(episode.support)
        probabilities = classify(self.features.known(episode.query))
        return Prediction(probabilities.argmax(1), probabilities, seconds)

    def fit(self, features: np.ndarray, labels: np.ndarray) -> Probabilities:
        """Fit to features [support, H] and labels [support], and return the predictor."""
        raise NotImplementedError


class FrozenLogisticRegression(_Frozen):
    """Logistic regression on frozen encodings, with L2 strength chosen on the support set.

    With several labels per text, one regression for each label against the rest, with thresholds chosen by the same cross-validation.
    """

    def predict(self, episode: EncodedEpisode) -> Prediction:
        if not episode.is_multi_label:
            return super().predict(episode)
        support = torch.from_numpy(self.features.known(episode.support))
        begin = time.perf_counter()
        targets = np.asarray(episode.support_labels) == 1
        no_names = np.zeros(targets.shape[1], dtype=bool)
        found = fit_labels(support, targets, None, no_names, 1, episode.seed, lambda: None)
        thresholds = fitted_thresholds(found, targets)
        seconds = time.perf_counter() - begin + self.features.cache.seconds_of(episode.support)
        logits = self.features.known(episode.query) @ found.weight.double().numpy().T + found.bias.double().numpy()
        probabilities = sigmoid(logits)
        return Prediction(probabilities >= thresholds, probabilities, seconds)

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
        support = self.features.known(episode.support)
        seconds = self.features.cache.seconds_of(episode.support)
        nearest = np.square(self.features.known(episode.query)[:, None] - support).sum(-1).argmin(1)
        return Prediction(np.asarray(episode.support_labels)[nearest], None, seconds)
