"""Scores by inner step: loss and accuracy on the query set and on the support set, before adaptation and after each inner step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from metatrain.evaluation import statistics
from metatrain.evaluation.adapted_arms import Adapted
from metatrain.evaluation.protocol import EpisodeSet, each_episode, scored
from metatrain.evaluation.sharing import Workers
from metatrain.gradient.parameters import Parameters
from metatrain.meta.learner import Learner
from metatrain.tasks.encoded_episode import EncodedEpisode, encode_episode
from metatrain.tasks.episodes import Episode

QUERY_ACCURACY, QUERY_LOSS = "query_accuracy", "query_loss"
SUPPORT_ACCURACY, SUPPORT_LOSS = "support_accuracy", "support_loss"
_MOST_POINTS = 6  # of a run with more inner steps, this many numbers of steps are scored besides 0

ByStep = dict[str, list[float]]  # a mean over tasks after each number of inner steps, for each of the names above


def takes_steps(learner: Learner) -> bool:
    """Return whether evaluation adapts by inner steps that can be evaluated separately; a language model that reads its examples takes none."""
    return learner.steps(evaluation=True) > 0 and not learner.functional.reads_support


def step_counts(steps: int) -> list[int]:
    """Return the numbers of inner steps to score: 0 to `steps`, or some of them if there are many."""
    return sorted({round(steps * part / min(steps, _MOST_POINTS)) for part in range(min(steps, _MOST_POINTS) + 1)})


def scores_by_step(
    arm: Adapted, counts: Sequence[int], episodes: EpisodeSet, on_progress: Callable[[int], None] = lambda done: None, workers: Workers | None = None
) -> ByStep:
    """Return the scores after each number of inner steps in `counts`, on the same episodes; one inner loop per episode gives all of them.

    Text-to-text tasks have no support scores. `on_progress` and `workers` as in `run_arms`.
    """
    rows = [row for _, row in each_episode(episodes, lambda episode: _of_episode(arm, counts, episodes, episode), on_progress, workers)]
    names = [name for name in (QUERY_ACCURACY, QUERY_LOSS, SUPPORT_ACCURACY, SUPPORT_LOSS) if all(name in row for row in rows)]
    by_task = {name: np.array([row[name] for row in rows]).reshape(len(episodes.tasks), episodes.per_task, len(counts)) for name in names}
    return {name: values.mean((0, 1)).tolist() for name, values in by_task.items()}


def _of_episode(arm: Adapted, counts: Sequence[int], episodes: EpisodeSet, episode: Episode) -> ByStep:
    """Return the scores of one episode."""
    texts = encode_episode(episode, episodes.tokens)
    found: ByStep = {}
    before, values = None, {}
    for steps, parameters in enumerate(arm.learner.trajectory(texts, counts[-1])):
        if steps not in counts:
            continue
        if parameters is not before:  # the same where no step can be made
            before, values = parameters, _after_step(arm, parameters, episode, texts)
        for name, value in values.items():
            found.setdefault(name, []).append(float("nan") if value is None else value)
    return found


def _after_step(arm: Adapted, parameters: Parameters, episode: Episode, texts: EncodedEpisode) -> dict[str, float | None]:
    """Return the scores of one episode under adapted parameters; a loss is None if it cannot be computed."""
    query = arm.prediction(parameters, texts)
    loss = query.target_loss if query.probabilities is None else statistics.log_loss(query.probabilities, texts.query_labels)
    values = {QUERY_ACCURACY: scored(episode, query.predicted, texts.query_labels)[0], QUERY_LOSS: loss}
    if episode.task.targets is None:
        support = arm.prediction(parameters, _support_as_queries(texts))
        assert support.probabilities is not None  # the task has labels
        values[SUPPORT_ACCURACY] = scored(episode, support.predicted, texts.support_labels)[0]
        values[SUPPORT_LOSS] = statistics.log_loss(support.probabilities, texts.support_labels)
    return values


def _support_as_queries(episode: EncodedEpisode) -> EncodedEpisode:
    """Return the episode with its support set in place of its queries."""
    targets = None if episode.targets is None else replace(episode.targets, query=episode.targets.support)
    return replace(episode, query=episode.support, query_labels=episode.support_labels, targets=targets)
