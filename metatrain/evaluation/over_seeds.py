"""Aggregation of runs that differ only in their training seed: means over seeds and tasks, and the standard deviation due to each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from metatrain.evaluation import statistics
from metatrain.evaluation.protocol import SUBJECT, compared

# Keys of a protocol: if all are equal, the tasks are the same; if the seed is equal too, so are the episodes.
_SAME_TASKS = ("split", "tasks", "way", "queries_per_class", "episodes_per_task", "episode_file")


@dataclass(frozen=True)
class Trainings:
    """One method, trained with one or more seeds."""

    seeds: tuple[int, ...]
    results: tuple[Mapping[str, Any], ...]  # results.json of each

    def has(self, shots: str, arm: str) -> bool:
        """Return True if all runs evaluated this arm with this number of shots."""
        return all(arm in results["by_shots"].get(shots, {}).get("arms", {}) for results in self.results)

    def scores(self, shots: str, arm: str) -> list[np.ndarray]:
        """Return the scores of each task, [seeds, episodes]."""
        arms = [results["by_shots"][shots]["arms"][arm]["per_task"] for results in self.results]
        return [np.array([tasks[task]["scores"] for tasks in arms]) for task in arms[0]]

    def problem(self) -> str | None:
        """Return the reason why the scores of these runs cannot be aggregated, or None."""
        return _problem(self.results[0], self.results[1:], _SAME_TASKS)


def difference(ours: Trainings, our_arm: str, theirs: Trainings, their_arm: str, shots: str) -> statistics.Estimate | str:
    """Return the difference ours - theirs, paired by task, episode and, if the seeds are equal, by seed; or the reason why it cannot be paired."""
    if problem := ours.problem() or theirs.problem():
        return problem
    by_seed = ours.seeds == theirs.seeds
    pairs = zip(ours.results, theirs.results) if by_seed else ((ours.results[0], other) for other in (*ours.results, *theirs.results))
    for one, other in pairs:
        if problem := _problem(one, [other], (*_SAME_TASKS, "seed")):
            return problem
    mine, other_scores = ours.scores(shots, our_arm), theirs.scores(shots, their_arm)
    if by_seed:
        return statistics.estimate([one - other for one, other in zip(mine, other_scores)])
    return statistics.difference_of_seeds(mine, other_scores)


def spread(scores: Sequence[np.ndarray]) -> tuple[float | None, float | None]:
    """Return the standard deviations due to (seeds, tasks), each without the other and their interaction; None for a single seed or task.

    The estimates are those of a two-way analysis of variance, with negative variances set to 0. That of tasks
    includes the difficulty of their episodes, which are the same for all seeds (`statistics.variance_components` takes it apart).

    scores: [seeds, episodes] of each task.
    """
    cells = np.stack([task.mean(1) for task in scores], axis=1)  # [seeds, tasks]
    seeds, tasks = cells.shape
    by_seed, by_task = cells.mean(1), cells.mean(0)
    rest = 0.0
    if min(seeds, tasks) > 1:
        rest = float(np.square(cells - by_seed[:, None] - by_task + cells.mean()).sum() / ((seeds - 1) * (tasks - 1)))
    of_seeds = max(0.0, float(by_seed.var(ddof=1)) - rest / tasks) ** 0.5 if seeds > 1 else None
    of_tasks = max(0.0, float(by_task.var(ddof=1)) - rest / seeds) ** 0.5 if tasks > 1 else None
    return of_seeds, of_tasks


@dataclass(frozen=True)
class ArmOverSeeds:
    """A row of the table over several seeds."""

    arm: str
    mean: float
    half_width: float  # of the 95% interval over seeds and tasks
    of_seeds: float | None
    of_tasks: float | None
    comparison: Mapping[str, Any] | None  # meta-trained arm minus this arm


def over_seeds(trainings: Trainings, shots: str) -> list[ArmOverSeeds]:
    """Return a row for each arm that all runs have, best first."""
    arms = [arm for arm in trainings.results[0]["by_shots"][shots]["arms"] if trainings.has(shots, arm)]
    scores = {arm: trainings.scores(shots, arm) for arm in arms}
    others = [arm for arm in arms if SUBJECT in arms and arm != SUBJECT]
    differences = [statistics.estimate([one - other for one, other in zip(scores[SUBJECT], scores[arm])]) for arm in others]
    comparisons = dict(zip(others, compared(differences)))
    lines = []
    for arm, values in scores.items():
        found = statistics.estimate(values)
        lines.append(ArmOverSeeds(arm, found.mean, found.half_width, *spread(values), comparisons.get(arm)))
    return sorted(lines, key=lambda line: -line.mean)


def _problem(first: Mapping[str, Any], others: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> str | None:
    different = [key for key in keys if any(other["protocol"].get(key) != first["protocol"].get(key) for other in others)]
    if different:
        return f"different {', '.join(different)}"
    arms = [arm for results in (first, *others) for part in results["by_shots"].values() for arm in part["arms"].values()]
    if any("scores" not in task for arm in arms for task in arm["per_task"].values()):
        return "a run of an earlier version; metatrain evaluate checkpoint=RUN computes its scores again"
    return None
