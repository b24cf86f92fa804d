"""Scores, and what can be claimed from them: episodes nested in few tasks, models trained with few seeds.

The model: the difference of two methods in an episode is  mean + task + seed + what is left,  each drawn from a distribution of its own.
`python scripts/benchmark/verdicts.py` simulates it and counts false verdicts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import stdtr, stdtrit

LEVEL = 0.05  # of a false verdict
FEWEST_TASKS = 3  # that say something about others
THESE_TASKS, TASKS_LIKE_THESE = "these tasks, not others", "tasks like these"
SCORES = ("accuracy", "balanced_accuracy")


def accuracy(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Share of right answers."""
    return float(np.mean(predicted == labels))


def balanced_accuracy(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the classes that occur of the share of right answers: always answering one class scores 1/classes."""
    return float(np.mean([np.mean(predicted[labels == label] == label) for label in np.unique(labels)]))


def log_loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean of -log p of the right label, in nats; a probability of 0, or none at all, counts as the least that a float64 adds to 1.

    probabilities: [answers, way]; labels: [answers].
    """
    of_right = np.nan_to_num(probabilities[np.arange(len(labels)), labels].astype(np.float64))
    return float(-np.log(np.clip(of_right, np.finfo(np.float64).eps, 1.0)).mean())


def calibration_error(confidence: np.ndarray, right: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error (Guo et al. 2017, eq. 3): how far confidence is from accuracy, in bins of equal width.

    confidence: probabilities of the answers given, shape [answers]; right: whether they were, boolean, shape [answers].
    """
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(place, weights=confidence - right, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


def mean_over_tasks(values: Iterable[Sequence[float] | np.ndarray]) -> float:
    """Mean of the tasks' means; values[t] are the scores of task t's episodes."""
    return float(np.mean([np.mean(scores) for scores in values]))


@dataclass(frozen=True)
class Source:
    """A source of chance in a mean (tasks, episodes of a task, training seeds): the variance that it gives the mean."""

    variance: float
    df: int  # degrees of freedom of that variance; 0: nothing tells it


@dataclass(frozen=True)
class Estimate:
    """A mean over tasks, what chance there is in it, and which tasks it is a claim about."""

    mean: float
    sources: tuple[Source, ...]
    about: str  # THESE_TASKS | TASKS_LIKE_THESE

    @property
    def half_width(self) -> float:
        """Half of the 95% interval; infinite where nothing tells how far chance goes."""
        if any(source.df == 0 for source in self.sources):
            return float("inf")
        return float(half_widths(*self._arrays))

    @property
    def interval(self) -> tuple[float, float]:
        """95% interval of a difference of scores, which lies between -1 and 1."""
        return max(self.mean - self.half_width, -1.0), min(self.mean + self.half_width, 1.0)

    @property
    def p(self) -> float:
        """Two-sided p of a mean of zero."""
        if any(source.df == 0 for source in self.sources):
            return 1.0
        return float(p_values(np.asarray(self.mean), *self._arrays))

    @property
    def _arrays(self) -> tuple[np.ndarray, np.ndarray]:
        return np.array([source.variance for source in self.sources]), np.array([source.df for source in self.sources])


def estimate(values: Sequence[np.ndarray]) -> Estimate:
    """The mean over tasks of scores, or of paired differences of scores; values[t]: [seeds, episodes] of task t, or [episodes].

    From three tasks on they are a sample of tasks, and the claim is about tasks like these: a t interval over the tasks' means, in which
    the episodes' chance is contained. Two tasks say next to nothing of others, so with one or two the claim is about these tasks, and
    their episodes are the sample. Training seeds, where there are several, are a source of their own.
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
    """The mean difference between two methods that were trained with other seeds, or numbers of seeds; [t]: [seeds, episodes] of task t.

    Tasks and episodes are paired, and the seeds of each method are a source of their own; one seed tells nothing of its spread and is none.
    """
    found = estimate([mine.mean(0) - other.mean(0) for mine, other in zip(ours, theirs)])
    return replace(found, sources=(*found.sources, *(_source(by_seed(values)) for values in (ours, theirs) if len(values[0]) > 1)))


def by_seed(values: Sequence[np.ndarray]) -> np.ndarray:
    """Mean over tasks for each seed, [seeds]; values[t]: [seeds, episodes] of task t."""
    return np.mean([scores.mean(1) for scores in values], axis=0)


def _source(sample: np.ndarray, weight: float = 1.0) -> Source:
    """Of the mean of a sample, which has this weight in the whole."""
    if len(sample) < 2:
        return Source(0.0, 0)
    return Source(float(weight**2 * np.var(sample, ddof=1) / len(sample)), len(sample) - 1)


def half_widths(variances: np.ndarray, df: np.ndarray, level: float | np.ndarray = LEVEL) -> np.ndarray:
    """Half of intervals of means with several sources of chance: the squares of the sources' own t half-widths add up.

    That is Student's interval where there is one source, and the method of variance estimates recovery (Zou and Donner 2008) where there
    are more: Satterthwaite's single number of degrees of freedom is wrong in up to one of eight cases where one source has one or two.
    variances, df: [sources, ...], of which the rest of the shape may stand for many means.
    """
    return np.sqrt((variances * stdtrit(df, level / 2) ** 2).sum(0))


def p_values(means: np.ndarray, variances: np.ndarray, df: np.ndarray) -> np.ndarray:
    """Two-sided p of means of zero: the level at which `half_widths` is just as far as the mean; at least 1e-15 with several sources."""
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
    """p of several comparisons, adjusted so that there is a false verdict among them in 5% of cases at most (Holm 1979)."""
    order = np.argsort(p, kind="stable")
    factors = len(p) - np.arange(len(p))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(factors * np.asarray(p)[order]))
    return [float(value) for value in adjusted]


def verdict(difference: float, p: float) -> str:
    """Return the verdict on a difference, given its p adjusted for the other comparisons of the table."""
    return "not distinguishable" if not p < LEVEL else "better" if difference > 0 else "worse"


def half_width(scores: np.ndarray) -> float:
    """Half of the 95% interval of one task's mean over its episodes; 0 for one episode."""
    return estimate([scores]).half_width if len(scores) > 1 else 0.0
