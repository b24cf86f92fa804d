"""Runs of one method that differ in their training seed only, as one: means over seeds and tasks, and what spread is due to each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from metatrain.evaluation import statistics
from metatrain.evaluation.protocol import SUBJECT, compared

# Of a protocol: with all of these the same, the tasks are the same; with the seed the same too, so are the episodes.
_SAME_TASKS = ("split", "tasks", "way", "queries_per_class", "episodes_per_task")


@dataclass(frozen=True)
class Trainings:
    """One method, trained once for each seed; a single run is one with one seed."""

    seeds: tuple[int, ...]
    results: tuple[Mapping[str, Any], ...]  # results.json of each

    def has(self, shots: str, arm: str) -> bool:
        """Whether all of them were tested so."""
        return all(arm in results["by_shots"].get(shots, {}).get("arms", {}) for results in self.results)

    def scores(self, shots: str, arm: str) -> list[np.ndarray]:
        """Of each task, [seeds, episodes]."""
        arms = [results["by_shots"][shots]["arms"][arm]["per_task"] for results in self.results]
        return [np.array([tasks[task]["scores"] for tasks in arms]) for task in arms[0]]

    def problem(self) -> str | None:
        """Why their scores cannot be taken together, if they cannot."""
        return _problem(self.results[0], self.results[1:], _SAME_TASKS)


def difference(ours: Trainings, our_arm: str, theirs: Trainings, their_arm: str, shots: str) -> statistics.Estimate | str:
    """The first minus the second, paired by task, episode and, where they have the same seeds, by seed; or why it cannot be paired."""
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
    """Standard deviations of (seeds, tasks), each without the other's and their interaction's; None of one seed, or of one task.

    scores: of each task, [seeds, episodes]. Estimates of a two-way analysis of variance, 0 where it would be below.
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
    """A line of the table of trainings with several seeds."""

    arm: str
    mean: float
    half_width: float  # of the 95% interval over seeds and tasks
    of_seeds: float | None
    of_tasks: float | None
    comparison: Mapping[str, Any] | None  # the meta-trained arm minus it


def over_seeds(trainings: Trainings, shots: str) -> list[ArmOverSeeds]:
    """Every arm that all trainings have, best first."""
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
        return f"another {', '.join(different)}"
    arms = [arm for results in (first, *others) for part in results["by_shots"].values() for arm in part["arms"].values()]
    if any("scores" not in task for arm in arms for task in arm["per_task"].values()):
        return "a run of an earlier version; metatrain evaluate checkpoint=RUN computes its scores again"
    return None
