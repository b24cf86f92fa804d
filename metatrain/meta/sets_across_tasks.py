"""Prediction sets for support sets that are too small to calibrate their own: calibrated on episodes of other tasks (Fisch et al. 2021).

A label is in the prediction set of a text if its score 1 - p(label | text) is at most a limit (`models/prediction_sets.py`). For each level (coverage)
the limit is a function of the numbers of classes and of examples per class,

    logit(limit) = intercept + shots log(examples per class) + way log(classes).

The slopes are those of a ridge regression of the episodes' own quantiles of their queries' scores. The intercept makes the coverage exact (hierarchical
conformal prediction: Dunn, Wasserman and Ramdas 2023, section 4; Lee, Barber and Willett 2023): with n tasks, each task counts 1 / (n + 1), equally
divided among its queries, and so does the new task, as if its score were infinite; the intercept is the smallest whose residuals have the weight of the
level. If the new task, its size and its text are exchangeable with those of the calibration, its label is in the set with at least that probability, on
average over tasks. The two slopes are fitted to the same episodes, which the statement neglects.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from metatrain.meta.head_fit import Fit, best_temperature
from metatrain.meta.learner import Learner
from metatrain.meta.temperature import LearnedTemperature, LimitOfScores, SetsAcrossTasks, TemperatureCase, log_sizes
from metatrain.models.decisions import softmax
from metatrain.models.prediction_sets import FEWEST
from metatrain.tasks.encoded_episode import EncodedEpisode

LEVELS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
RIDGE = 1.0  # of the slopes, relative to the squared residual of one episode
_NEAREST = 1e-6  # distance of a score from 0 and 1, so that its logit is finite
_EXACT = 1e-9


@dataclass(frozen=True)
class ScoredCase:
    """The scores 1 - p(label | text) of the queries of one episode."""

    task: str
    way: int
    shots: float  # mean number of examples per class
    scores: np.ndarray  # [queries]

    @property
    def logits(self) -> np.ndarray:
        """The scores on the real line, [queries]."""
        scores = np.clip(self.scores, _NEAREST, 1 - _NEAREST)
        return np.log(scores / (1 - scores))


def with_sets(learned: LearnedTemperature, cases: Sequence[TemperatureCase]) -> LearnedTemperature:
    """Return temperatures learned from these episodes, with prediction sets calibrated on the same episodes."""
    made, fitted = ([scored(case, learned) for case in cases if case.is_fitted == is_fitted] for is_fitted in (False, True))
    return replace(learned, made_sets=calibrated(made), fitted_sets=calibrated(fitted))


def described_sets(learned: LearnedTemperature) -> list[str]:
    """Return lines that say for which coverage prediction sets of fewer than `FEWEST` examples were calibrated."""
    lines = []
    for which, sets in (("heads computed from the examples", learned.made_sets), ("fitted heads", learned.fitted_sets)):
        if sets is not None:
            until = f"for coverage up to {sets.limits[-1].level:g}" if sets.limits else "too few for any coverage"
            lines.append(f"prediction sets of {which}, fewer than {FEWEST} examples: calibrated on {sets.tasks} tasks, {until}")
    return lines


def scored(case: TemperatureCase, learned: LearnedTemperature) -> ScoredCase:
    """Return the scores of the queries of an episode."""
    return ScoredCase(case.task, case.way, case.shots, 1 - probabilities_of(case, learned)[np.arange(len(case.labels)), case.labels])


def probabilities_of(case: TemperatureCase, learned: LearnedTemperature) -> np.ndarray:
    """Return the probabilities of the queries of an episode, [queries, way], under the temperature that finetuning chooses for its head (`fit_head`)."""
    which = learned.fitted if case.is_fitted else learned.made
    temperature = 1.0 if which is None else which.at(case.way, case.shots)
    if case.is_fitted:
        temperature = best_temperature(torch.from_numpy(case.held_out), torch.from_numpy(case.held_out_labels), usual=temperature)
    return softmax(case.logits / temperature)


def calibrated(cases: Sequence[ScoredCase]) -> SetsAcrossTasks | None:
    """Return the limits of each level that the number of tasks allows; None: there are no episodes."""
    if not cases:
        return None
    sizes = np.array([log_sizes(case.way, case.shots) for case in cases])
    tasks = sorted({case.task for case in cases})
    centred = sizes - sizes.mean(0)
    quantiles = np.array([np.quantile(case.logits, LEVELS, method="inverted_cdf") for case in cases])  # [cases, levels]
    found = []
    for level, own in zip(LEVELS, quantiles.T):
        slopes = np.linalg.solve(centred.T @ centred + RIDGE * np.eye(2), centred.T @ (own - own.mean()))
        residuals = [case.logits - place for case, place in zip(cases, sizes @ slopes)]
        of_tasks = [np.concatenate([each for each, case in zip(residuals, cases) if case.task == task]) for task in tasks]
        intercept = quantile_over_tasks(of_tasks, level)
        if math.isfinite(intercept):
            found.append(LimitOfScores(level, intercept, float(slopes[0]), float(slopes[1])))
    return SetsAcrossTasks(len(tasks), max(case.way for case in cases), found)


def quantile_over_tasks(values: Sequence[np.ndarray], level: float) -> float:
    """Return the smallest value at or below which lies the weight `level`, where each of n tasks has 1 / (n + 1), equally divided among its values.

    The task to come has as much, at infinity; so the quantile is infinite if level > n / (n + 1).
    """
    together = np.concatenate(values)
    weights = np.concatenate([np.full(len(each), 1 / len(each)) for each in values])
    order = np.argsort(together, kind="stable")
    place = int(np.searchsorted(np.cumsum(weights[order]), level * (len(values) + 1) - _EXACT))
    return math.inf if place == len(together) else float(together[order[place]])


def facts_for(learner: Learner, episode: EncodedEpisode, fit: Fit | None) -> dict[str, Any] | None:
    """Return the calibration on other tasks for the head that a learner has adapted to an episode, as of `facts_of`; None: there is none for it.

    fit: of the head; None: it was not fitted.
    """
    learned = learner.temperature
    if learned is None or (learner.made_temperature(episode) is None if fit is None else not fit.is_learned):
        return None
    sets = learned.fitted_sets if fit is not None and fit.folds else learned.made_sets
    return None if sets is None else facts_of(sets, len(episode.names), len(episode.support) / len(episode.names))


def facts_of(sets: SetsAcrossTasks, way: int, shots: float) -> dict[str, Any] | None:
    """Return what prediction sets of a task need, to be written as JSON: number of calibration tasks, levels and limits.

    None: the task has more classes than those of the calibration.
    """
    if way > sets.most_classes:
        return None
    return {"tasks": sets.tasks, "levels": [each.level for each in sets.limits], "limits": [round(each.at(way, shots), 6) for each in sets.limits]}
