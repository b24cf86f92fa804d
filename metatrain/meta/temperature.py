"""The temperature of probabilities, learned across tasks as a function of the numbers of classes and of examples per class.

A support set that is too small to hold examples out cannot choose the temperature T of its probabilities softmax(z / T) (Guo et al. 2017, section 4.2).
The queries of episodes of other tasks can:

    log T = intercept + shots log(examples per class) + way log(classes).

The coefficients minimise the sum over episodes of the mean log loss of their queries + RIDGE / 2 |w|^2, where w are the mean of log T over the episodes
and the two slopes. So T = 1 without evidence, and a slope is 0 where all episodes have the same number. T changes no prediction.

A head that is fitted to examples (`head_fit.py`) is more confident than one that is computed from them, so each has coefficients of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

COOLEST, HOTTEST = 0.25, 4.0  # temperatures
RIDGE = 0.1
MOST_SHOTS = 8  # examples per class from which T does not change with their number


def log_sizes(way: int, shots: float) -> tuple[float, float]:
    """Return the logarithms of the mean number of examples per class, from 1 to `MOST_SHOTS`, and of the number of classes."""
    return math.log(min(max(shots, 1.0), MOST_SHOTS)), math.log(way)


@dataclass
class LogTemperature:
    """Coefficients of log T."""

    intercept: float
    shots: float  # per log(examples per class)
    way: float  # per log(classes)

    def at(self, way: int, shots: float) -> float:
        """Return T for a number of classes and a mean number of examples per class."""
        log_shots, log_way = log_sizes(way, shots)
        log = self.intercept + self.shots * log_shots + self.way * log_way
        return math.exp(min(max(log, math.log(COOLEST)), math.log(HOTTEST)))

    def __str__(self) -> str:
        return f"log T = {self.intercept:.2f} {_signed(self.way)} log(classes) {_signed(self.shots)} log(examples per class)"


@dataclass
class LimitOfScores:
    """Coefficients of the logit of the highest score in a prediction set (`sets_across_tasks.py`)."""

    level: float  # coverage
    intercept: float
    shots: float  # per log(examples per class)
    way: float  # per log(classes)

    def at(self, way: int, shots: float) -> float:
        """Return the limit for a number of classes and a mean number of examples per class."""
        log_shots, log_way = log_sizes(way, shots)
        return 1 / (1 + math.exp(-(self.intercept + self.shots * log_shots + self.way * log_way)))


@dataclass
class SetsAcrossTasks:
    """Prediction sets calibrated on episodes of other tasks."""

    tasks: int  # number of these
    most_classes: int  # of their episodes
    limits: list[LimitOfScores]  # by level, ascending; those that the number of tasks allows


@dataclass
class LearnedTemperature:
    """Temperatures learned across tasks, and the prediction sets of heads that have them; None: there were no such episodes."""

    made: LogTemperature | None  # of heads that are not fitted: with one example per class, or by methods that fit none
    fitted: LogTemperature | None  # of fitted heads, before cross-validation chooses a temperature: the median of its prior
    step: int | None = None  # meta-update whose parameters they were learned with; None: these are not of a run
    made_sets: SetsAcrossTasks | None = None
    fitted_sets: SetsAcrossTasks | None = None


@dataclass(frozen=True)
class TemperatureCase:
    """The queries of one episode."""

    way: int
    shots: float  # mean number of examples per class
    is_fitted: bool  # whether the head was fitted to the examples
    logits: np.ndarray  # before any temperature, float64, [queries, way]
    labels: np.ndarray  # [queries]
    task: str = ""
    held_out: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))  # logits of examples under heads that have not seen them, as above, [held out, way]
    held_out_labels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # [held out]

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> TemperatureCase:
        """Return the episode of these attributes, arrays as lists."""
        given: dict[str, Any] = {key: np.array(value) if isinstance(value, list) else value for key, value in facts.items()}
        return cls(**given)

    def loss(self, temperature: float) -> float:
        """Return the mean log loss of the queries at a temperature, in nats."""
        from scipy.special import log_softmax

        return -float(log_softmax(self.logits / temperature, axis=1)[np.arange(len(self.labels)), self.labels].mean())


def learned_temperature(cases: Sequence[TemperatureCase], step: int | None = None) -> LearnedTemperature:
    """Return the temperatures learned from these episodes; step: as of `LearnedTemperature`."""
    made, fitted = ([case for case in cases if case.is_fitted == is_fitted] for is_fitted in (False, True))
    return LearnedTemperature(fit_log_temperature(made), fit_log_temperature(fitted), step)


def described(learned: LearnedTemperature, cases: Sequence[TemperatureCase]) -> list[str]:
    """Return lines that say what was learned from these episodes, and by how much it changes their log loss."""
    lines = []
    for which, found, is_fitted in (("heads computed from the examples", learned.made, False), ("fitted heads", learned.fitted, True)):
        mine = [case for case in cases if case.is_fitted == is_fitted]
        if found is not None and mine:
            before, after = (
                float(np.mean([case.loss(at) for case, at in zip(mine, each)]))
                for each in ([1.0] * len(mine), [found.at(case.way, case.shots) for case in mine])
            )
            lines.append(f"temperature of {which}, learned from {len(mine)} validation episodes: {found} (log loss {before:.3f} without, {after:.3f} with)")
    return lines


def fit_log_temperature(cases: Sequence[TemperatureCase]) -> LogTemperature | None:
    """Return the coefficients with the lowest regularised log loss; None: there are no episodes."""
    from scipy.optimize import minimize

    if not cases:
        return None
    inputs = np.array([log_sizes(case.way, case.shots) for case in cases])
    means = inputs.mean(0)
    design = np.column_stack([np.ones(len(cases)), inputs - means])

    def objective(weights: np.ndarray) -> float:
        return sum(case.loss(math.exp(log)) for case, log in zip(cases, design @ weights)) + RIDGE / 2 * float(weights @ weights)

    level, shots, way = (float(value) for value in minimize(objective, np.zeros(3), method="BFGS").x)
    return LogTemperature(level - shots * float(means[0]) - way * float(means[1]), shots, way)


def _signed(value: float) -> str:
    return f"{'-' if value < 0 else '+'} {abs(value):.2f}"
