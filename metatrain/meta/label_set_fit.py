"""Fit sigmoid heads, and thresholds, to the support set of an episode with several labels per text (`inner.fit_head`)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from metatrain.gradient.inner_rules import HEAD
from metatrain.gradient.parameters import Parameters
from metatrain.meta.functional import FunctionalClassifier
from metatrain.meta.label_fit import fit_labels
from metatrain.meta.learner import Learner
from metatrain.meta.thresholds import fitted_thresholds
from metatrain.tasks.encoded_episode import EncodedEpisode
from metatrain.tasks.label_names import meaningful_names

THRESHOLDS = HEAD + "thresholds"  # of the probabilities of the labels, [way]; parameters without it: DEFAULT_THRESHOLD


def fit_label_sets(learner: Learner, classifier: FunctionalClassifier, episode: EncodedEpisode) -> tuple[Parameters, float]:
    """Return all parameters with sigmoid heads (`label_fit.fit_labels`) and thresholds fitted to the support set, and its mean loss.

    The strength of the regularisation, whether label names are examples, and the thresholds are chosen by cross-validation on the support set. The
    encoder stays as it was meta-trained.
    """
    features = classifier.features(learner.initial, episode.support).cpu()
    targets = np.asarray(episode.support_labels) == 1
    reads = learner.algorithm.label_names and episode.reads_names
    names = classifier.features(learner.initial, episode.name_tokens).cpu() if reads else None
    is_name = np.array(meaningful_names(tuple(episode.name_texts or episode.names)))
    found = fit_labels(features, targets, names, is_name, learner.algorithm.label_names_weight, episode.seed, lambda: None)
    logits = F.linear(features.float(), found.weight, found.bias)
    loss = float(F.binary_cross_entropy_with_logits(logits, torch.from_numpy(targets).float()))
    some = next(iter(learner.parameters.values()))
    head = {"weight": found.weight, "bias": found.bias, "thresholds": torch.from_numpy(fitted_thresholds(found, targets))}
    return {**learner.parameters, **{HEAD + name: value.to(some.device, some.dtype) for name, value in head.items()}}, loss
