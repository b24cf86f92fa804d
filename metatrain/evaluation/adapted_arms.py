"""The arm of a learner that adapts to the support set, and arms that see another support set: shuffled labels, label names."""

from __future__ import annotations

import time
import zlib
from dataclasses import replace

import numpy as np
import torch
from scipy.special import softmax

from metatrain.evaluation.frozen_arms import FrozenFeatures
from metatrain.evaluation.prediction import Arm, Prediction
from metatrain.gradient.inner_rules import HEAD
from metatrain.gradient.parameters import Parameters
from metatrain.meta.functional import FunctionalClassifier
from metatrain.meta.label_set_fit import THRESHOLDS
from metatrain.meta.learner import Learner
from metatrain.models.targets import DEFAULT_THRESHOLD, sigmoid
from metatrain.tasks.encoded_episode import EncodedEpisode


class Adapted:
    """The inner loop of a learner on the support set, with its own or another number of steps.

    The meta-parameters of the learner must not change, because the output of the layers that never adapt is cached. If no layer adapts, the cache has
    encodings; `features`: those of other arms with the same encoder.
    """

    def __init__(self, learner: Learner, steps: int | None = None, features: FrozenFeatures | None = None):
        self.steps = steps
        self._encodings, self._features = learner.encodings, None
        if self._encodings is not None:
            classifier = self._encodings.functional
            if classifier.first_adapted_layer is None:
                self._features = features or FrozenFeatures(self._encodings)
                classifier = classifier.with_cache(self._features.cache, learner.initial)
            learner = learner.with_functional(classifier.caching(learner.initial))
        self.learner = learner

    def after(self, steps: int) -> Adapted:
        """Return the same arm with another number of inner steps."""
        return Adapted(self.learner, steps, self._features)

    def predict(self, episode: EncodedEpisode) -> Prediction:
        encoding = self._seconds_to_encode(episode)
        begin = time.perf_counter()
        parameters, _ = self.learner.adapt(episode, self.steps)
        return self.prediction(parameters, episode, time.perf_counter() - begin + encoding)

    def _seconds_to_encode(self, episode: EncodedEpisode) -> float:
        """Fill the cache with the support set, and return the time that this takes at the mean speed; 0 without a cache."""
        classifier = self.learner.functional
        if not isinstance(classifier, FunctionalClassifier) or classifier.cache is None:
            return 0.0
        texts = classifier.read(episode.without_queries()).support
        classifier.cache.of(texts)
        return classifier.cache.seconds_of(texts)

    def prediction(self, parameters: Parameters, episode: EncodedEpisode, seconds: float = 0.0) -> Prediction:
        """Return the prediction of adapted parameters for the queries of an episode; seconds: adaptation time."""
        if self._features is None or self._encodings is None or not self._encodings.keeps_encoder(parameters):
            probabilities = self.learner.probabilities(parameters, episode)
        else:
            probabilities = _of_features(self.learner, self._features.known(episode.query), parameters, episode.is_multi_label)
        if probabilities is None:
            return Prediction(self.learner.predictions(parameters, episode), None, seconds, self.learner.target_loss(parameters, episode))
        if episode.is_multi_label:
            thresholds = parameters[THRESHOLDS].double().cpu().numpy() if THRESHOLDS in parameters else DEFAULT_THRESHOLD
            return Prediction(probabilities >= thresholds, probabilities, seconds)
        return Prediction(probabilities.argmax(1), probabilities, seconds)


def _of_features(learner: Learner, features: np.ndarray, parameters: Parameters, is_multi_label: bool) -> np.ndarray:
    """Return the probabilities [queries, way] that an adapted head gives for features [queries, H]."""
    functional = learner.functional
    assert isinstance(functional, FunctionalClassifier)  # only encoders have features
    if not functional.head_facts.is_linear:
        own = next(iter(parameters.values()))
        with torch.no_grad():
            return functional.logits_of(parameters, torch.from_numpy(features).to(own.device, own.dtype)).double().softmax(1).cpu().numpy()
    weight, bias = (parameters[HEAD + name].double().cpu().numpy() for name in ("weight", "bias"))
    logits = features @ weight.T + bias
    return sigmoid(logits) if is_multi_label else softmax(logits, axis=1)


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


class WithUnlabelled:
    """An arm that also learns from the episode's texts without labels."""

    def __init__(self, arm: Arm):
        self.arm = arm

    def predict(self, episode: EncodedEpisode) -> Prediction:
        return self.arm.predict(replace(episode, reads_unlabelled=True))
