"""Scores, intervals and verdicts for episodes nested in few tasks and for few training seeds.

Random-effects model: the difference of two methods in an episode is  mean + task + seed + residual,  each with its own distribution.
`python scripts/benchmark/verdicts.py` simulates it and counts false verdicts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import stdtr, stdtrit

LEVEL = 0.05  # probability of a false verdict
FEWEST_TASKS = 3  # minimum number of tasks for a claim about other tasks
THESE_TASKS, TASKS_LIKE_THESE = "these tasks, not others", "tasks like these"
SCORES = ("accuracy", "balanced_accuracy")


def accuracy(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Return the fraction of correct predictions."""
    return float(np.mean(predicted == labels))


def balanced_accuracy(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean recall of the classes that occur; always predicting one class scores 1/classes."""
    return float(np.mean([np.mean(predicted[labels == label] == label) for label in np.unique(labels)]))


def log_loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean of -log p of the correct label, in nats; p of 0 or NaN counts as the machine epsilon of float64.

    probabilities: [predictions, way]; labels: [predictions], or with several labels per text [predictions, way]: 1 for those that a text has, each with a
    probability of its own, and the mean is over texts and labels.
    """
    if labels.ndim == 2:
        probabilities, labels = np.stack([1 - probabilities, probabilities], axis=-1).reshape(-1, 2), (labels == 1).astype(np.int64).reshape(-1)
    of_correct = np.nan_to_num(probabilities[np.arange(len(labels)), labels].astype(np.float64))
    return float(-np.log(np.clip(of_correct, np.finfo(np.float64).eps, 1.0)).mean())


def calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = 15) -> float:
    """Return the expected calibration error (Guo et al. 2017, eq. 3): mean |confidence - accuracy| over bins of equal width.

    confidence: probabilities of the predicted labels, [predictions]; correct: whether they are correct, boolean, [predictions].
    """
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(place, weights=confidence - correct, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


def mean_over_tasks(values: Iterable[Sequence[float] | np.ndarray]) -> float:
    """Return the mean of the tasks' means; values[t]: scores of the episodes of task t."""
    return float(np.mean([np.mean(scores) for scores in values]))


@dataclass(frozen=True)
class Source:
    """A variance component of a mean (tasks, episodes of a task, training seeds)."""

    variance: float
    df: int  # degrees of freedom of the estimated variance; 0: it cannot be estimated


@dataclass(frozen=True)
class Estimate:
    """A mean over tasks, its variance components, and the tasks that it is a claim about."""

    mean: float
    sources: tuple[Source, ...]
    about: str  # THESE_TASKS | TASKS_LIKE_THESE

    @property
    def half_width(self) -> float:
        """Half-width of the 95% interval; infinite if a variance cannot be estimated."""
        if any(source.df == 0 for source in self.sources):
            return float("inf")
        return float(half_widths(*self._arrays))

    @property
    def interval(self) -> tuple[float, float]:
        """95% interval of a difference of scores, clipped to [-1, 1]."""
        return max(self.mean - self.half_width, -1.0), min(self.mean + self.half_width, 1.0)

    @property
    def p(self) -> float:
        """Two-sided p-value for a mean of zero."""
        if any(source.df == 0 for source in self.sources):
            return 1.0
        return float(p_values(np.asarray(self.mean), *self._arrays))

    @property
    def _arrays(self) -> tuple[np.ndarray, np.ndarray]:
        return np.array([source.variance for source in self.sources]), np.array([source.df for source in self.sources])


def estimate(values: Sequence[np.ndarray]) -> Estimate:
    """Return the mean over tasks of scores or paired differences; values[t]: [seeds, episodes] of task t, or [episodes].

    With three or more tasks, the tasks are the sample, and the claim is about tasks like these: a t interval over task means, which includes
    the variance between episodes. Two tasks say almost nothing about others, so with one or two tasks, their episodes are the sample and the
    claim is about these tasks. Several training seeds are a further variance component.
    """
    tasks = [np.atleast_2d(scores) for scores in values]
    by_episode = [scores.mean(0) for scores in tasks]
    means = np.array([scores.mean() for scores in by_episode])
    if len(tasks) >= FEWEST_TASKS:
        sources, about = [_source(means)], TASKS_LIKE_THESE
    else:
        sources, about = [_source(scores, 1 / len(tasks)) for scores in by_episode], THESE_TASKS
    if len(tasks[0]) > 1:
        sources.append(_source(by_seed(tasks)))
    return Estimate(float(means.mean()), tuple(sources), about)


def difference_of_seeds(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> Estimate:
    """Return the mean difference between two methods with different seeds or numbers of seeds; [t]: [seeds, episodes] of task t.

    Tasks and episodes are paired. The seeds of each method are a variance component; a single seed adds none, because its variance is unknown.
    """
    found = estimate([mine.mean(0) - other.mean(0) for mine, other in zip(ours, theirs)])
    return replace(found, sources=(*found.sources, *(_source(by_seed(values)) for values in (ours, theirs) if len(values[0]) > 1)))


def by_seed(values: Sequence[np.ndarray]) -> np.ndarray:
    """Return the mean over tasks for each seed, [seeds]; values[t]: [seeds, episodes] of task t."""
    return np.mean([scores.mean(1) for scores in values], axis=0)


def _source(sample: np.ndarray, weight: float = 1.0) -> Source:
    """Return the variance component of the mean of a sample; weight: of this mean in the overall mean."""
    if len(sample) < 2:
        return Source(0.0, 0)
    return Source(float(weight**2 * np.var(sample, ddof=1) / len(sample)), len(sample) - 1)


@dataclass(frozen=True)
class Components:
    """Variance components of the scores of one method; None: there is a single seed or task, so it cannot be estimated."""

    seeds: float | None
    tasks: float | None
    episodes: float  # with a single seed, including the residual


def variance_components(values: Sequence[np.ndarray]) -> Components:
    """Return the ANOVA estimates of the variances due to training seed, task, and episode, negative ones as 0; values[t]: [seeds, episodes] of task t.

    The model is  y_ste = mean + seed_s + task_t + (seed x task)_st + episode_e(t) + residual_ste : seeds are crossed with tasks, and episodes are
    nested in tasks and the same for all seeds (Searle, Casella and McCulloch 1992, section 4.7: equate mean squares with their expectations).

    Raises:
        ValueError: the tasks have different numbers of episodes, or a single one.
    """
    y = np.stack([np.atleast_2d(scores) for scores in values], axis=1)  # [seeds, tasks, episodes]
    number, tasks, episodes = y.shape
    if episodes < 2:
        raise ValueError("variance components need two or more episodes for each task")
    of_seed, of_task, of_cell, of_episode = y.mean((1, 2)), y.mean((0, 2)), y.mean(2), y.mean(0)
    nested = number * np.square(of_episode - of_task[:, None]).sum() / (tasks * (episodes - 1))  # S episode + residual
    between = number * episodes * of_task.var(ddof=1) if tasks > 1 else None
    if number == 1:
        return Components(None, None if between is None else max(0.0, float(between - nested) / episodes), float(nested))
    inside = y - of_cell[..., None] - of_episode + of_task[:, None]
    residual = np.square(inside).sum() / (tasks * (number - 1) * (episodes - 1))
    episode = max(0.0, float(nested - residual) / number)
    over = tasks * episodes * of_seed.var(ddof=1)
    if between is None:  # the seed and its interaction with the only task are one
        return Components(max(0.0, float(over - residual) / episodes), None, episode)
    interaction = of_cell - of_seed[:, None] - of_task + y.mean()
    crossed = episodes * np.square(interaction).sum() / ((number - 1) * (tasks - 1))  # E seed x task + residual
    task = max(0.0, float(between - crossed - nested + residual) / (number * episodes))
    return Components(max(0.0, float(over - crossed) / (tasks * episodes)), task, episode)


def half_widths(variances: np.ndarray, df: np.ndarray, level: float | np.ndarray = LEVEL) -> np.ndarray:
    """Return half-widths of intervals of means with several variance components: the squared t half-widths of the components add up.

    With one component this is Student's interval, with several the method of variance estimates recovery (Zou and Donner 2008).
    Satterthwaite's approximation gives false verdicts in up to one of eight cases if a component has only one or two degrees of freedom.
    variances, df: [sources, ...]; further dimensions are independent means.
    """
    return np.sqrt((variances * stdtrit(df, level / 2) ** 2).sum(0))


def p_values(means: np.ndarray, variances: np.ndarray, df: np.ndarray) -> np.ndarray:
    """Return two-sided p-values for means of zero: the level at which `half_widths` equals |mean|; at least 1e-15 with several components."""
    if len(df) == 1:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.where(means == 0, 1.0, 2 * stdtr(df[0], -np.abs(means) / np.sqrt(variances[0]))))
    low, high = np.full(np.shape(means), -15.0), np.zeros(np.shape(means))  # log10 p
    for _ in range(50):
        middle = (low + high) / 2
        reaches = half_widths(variances, df, 10**middle) >= np.abs(means)
        low, high = np.where(reaches, middle, low), np.where(reaches, high, middle)
    return np.asarray(np.where(means == 0, 1.0, 10**high))


def holm(p: Sequence[float]) -> list[float]:
    """Return p-values adjusted by Holm (1979): the probability of any false verdict among the comparisons is at most 5%."""
    order = np.argsort(p, kind="stable")
    factors = len(p) - np.arange(len(p))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(factors * np.asarray(p)[order]))
    return [float(value) for value in adjusted]


def verdict(difference: float, p: float) -> str:
    """Return the verdict on a difference, given its p-value adjusted for the other comparisons of the table."""
    return "not distinguishable" if not p < LEVEL else "better" if difference > 0 else "worse"


def half_width(scores: np.ndarray) -> float:
    """Return the half-width of the 95% interval of one task's mean over its episodes; 0 for one episode."""
    return estimate([scores]).half_width if len(scores) > 1 else 0.0
