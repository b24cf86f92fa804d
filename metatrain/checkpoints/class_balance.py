"""Unbalanced classes in finetuning: class weights of the fit (`data.class_weights`), and class priors of the texts to predict (`data.priors`).

A classifier whose examples have the class shares s(y) and that predicts p(y | x) has, for texts with the shares q(y), the predictions
q(y | x) proportional to p(y | x) q(y) / s(y): Bayes' rule under prior shift (Saerens, Latinne and Decaestecker 2002). log q(y) / s(y) is a constant per
class, which is added to the bias of the head, so that every program that reads the model applies it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from metatrain.checkpoints.adaptation import check_fits_head
from metatrain.config.schema import DataConfig
from metatrain.errors import UserError
from metatrain.gradient.inner_rules import HEAD
from metatrain.gradient.parameters import Parameters
from metatrain.meta.head_fit import Fit
from metatrain.meta.learner import Learner
from metatrain.tasks.episodes import Episode
from metatrain.tasks.labels import as_text, clean_label
from metatrain.tasks.splits import few

BALANCED, OBSERVED, UNIFORM = "balanced", "observed", "uniform"
_SUM = 0.01  # largest difference of the sum of shares from 1


@dataclass(frozen=True)
class ClassBalance:
    """Class weights and class priors of a task."""

    weights: np.ndarray | None = None  # of the losses of the fit, [classes], mean 1 over the examples; None: all 1
    priors: np.ndarray | None = None  # shares of the classes among the texts to predict, [classes]; None: as the classifier has learned them
    shares: np.ndarray | None = None  # of the classes among the examples, [classes]

    def shift(self, fit: Fit) -> np.ndarray | None:
        """Return what is added to the logits of the classes, [classes]; None: nothing.

        The learned prior of a head that was fitted by (weighted) cross-entropy is the (weighted) shares of the examples; that of class prototypes
        (L2 strength infinite) is uniform.
        """
        if self.priors is None:
            return None
        assert self.shares is not None  # `balance_of` gives both
        learned = self.shares if self.weights is None else self.shares * self.weights
        if math.isinf(fit.l2) and not fit.updates:
            learned = np.full(len(self.priors), 1 / len(self.priors))
        return np.log(self.priors / learned)

    def applied(self, parameters: Parameters, fit: Fit) -> tuple[Parameters, Fit]:
        """Return adapted parameters and the choices made, with the shift in the bias of the head and in the logits of held-out examples."""
        shift = self.shift(fit)
        if shift is None:
            return parameters, fit
        bias = parameters[HEAD + "bias"]
        found = torch.from_numpy(shift)
        held_out = None if fit.held_out is None else fit.held_out + found.to(fit.held_out.dtype)
        return {**parameters, HEAD + "bias": bias + found.to(bias)}, replace(fit, held_out=held_out)


def accuracy_for_priors(balance: ClassBalance, fit: Fit, labels: np.ndarray, say: Callable[[str], None]) -> dict[str, Any]:
    """Report the cross-validated accuracy for texts with the class priors, if there are any; return contents of results.json; labels: [examples].

    Each held-out example counts as its class is more frequent among the texts than among the examples.
    """
    if balance.priors is None or balance.shares is None or fit.held_out is None:
        return {}
    logits = fit.held_out[: len(labels)]
    judged = (~logits.isnan().any(1)).numpy()
    weights = (balance.priors / balance.shares)[labels[judged]]
    found = float(np.average(logits.argmax(1).numpy()[judged] == labels[judged], weights=weights))
    say(f"cross-validated accuracy for texts with these class priors: {found:.3f}")
    return {"cross_validation_for_priors": found}


def balance_of(data: DataConfig, episode: Episode) -> ClassBalance:
    """Return the class weights and priors of the examples, as the settings say.

    Raises:
        UserError: a setting is neither a known word nor a number for each label.
    """
    if data.priors is None and data.class_weights is None:
        return ClassBalance()
    names = [episode.task.label_names[label] for label in episode.classes]
    counts = np.bincount(episode.support_labels, minlength=len(names))
    return ClassBalance(_weights(data.class_weights, names, counts), _priors(data.priors, names, counts), counts / counts.sum())


def check_balance(data: DataConfig, learner: Learner) -> None:
    """Raises: UserError: class weights or priors are given, and the learner fits no head."""
    given = [key for key, value in (("data.priors", data.priors), ("data.class_weights", data.class_weights)) if value is not None]
    if given:
        check_fits_head(given[0], learner)


def described(balance: ClassBalance, episode: Episode) -> list[str]:
    """Return lines for the console about the class weights and priors in use."""
    names = [episode.task.label_names[label] for label in episode.classes]
    said = []
    if balance.weights is not None:
        said.append(f"class weights: {listed(names, balance.weights)} (mean 1 over the examples)")
    if balance.priors is not None and balance.shares is not None:
        said.append(f"class priors: {listed(names, balance.priors)}; among the examples: {listed(names, balance.shares)}")
    return said


def results_of(balance: ClassBalance, episode: Episode) -> dict[str, Any]:
    """Return contents of results.json: class weights and priors by label."""
    names = [episode.task.label_names[label] for label in episode.classes]
    given = {"class_weights": balance.weights, "priors": balance.priors}
    return {key: dict(zip(names, values.tolist())) for key, values in given.items() if values is not None}


def _weights(setting: Any, names: Sequence[str], counts: np.ndarray) -> np.ndarray | None:
    if setting is None:
        return None
    weights = 1 / counts if setting == BALANCED else _by_label("data.class_weights", setting, names, BALANCED, "weight")
    return weights * counts.sum() / (weights * counts).sum()


def _priors(setting: Any, names: Sequence[str], counts: np.ndarray) -> np.ndarray | None:
    if setting is None:
        return None
    if setting == OBSERVED:
        return counts / counts.sum()
    if setting == UNIFORM:
        return np.full(len(names), 1 / len(names))
    shares = _by_label("data.priors", setting, names, f"{OBSERVED} or {UNIFORM}", "share")
    if abs(shares.sum() - 1) > _SUM:
        raise UserError(f"data.priors: the shares sum to {shares.sum():g}; they must sum to 1")
    return shares / shares.sum()


def _by_label(key: str, setting: Any, names: Sequence[str], words: str, what: str) -> np.ndarray:
    """Return a positive number for each label, [classes]. Raises: UserError: the setting is no such mapping."""
    if not isinstance(setting, Mapping):
        raise UserError(f"{key}={setting} is unknown; choose {words}, or give a {what} for each label: {key}={{{names[0]}: 0.5, ...}}")
    given = {clean_label(as_text(label)): value for label, value in setting.items()}
    if unknown := given.keys() - set(names):
        raise UserError(f"{key}: no example has the label {min(unknown)!r}; there are {few(names)}")
    if missing := [name for name in names if name not in given]:
        raise UserError(f"{key}: the label {missing[0]!r} has no {what}; give one for each of the {len(names)} labels")
    for label, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise UserError(f"{key}: the {what} of {label!r} is {value!r}; it must be a number above 0")
    return np.array([float(given[name]) for name in names])


def listed(names: Sequence[str], values: np.ndarray) -> str:
    """Return the names with their values, [names], the first five if there are more."""
    shown = [f"{name} {value:.3g}" for name, value in zip(names, values)]
    return ", ".join(shown) if len(shown) <= 5 else f"{', '.join(shown[:5])}, ... ({len(shown)} labels)"
