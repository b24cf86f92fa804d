"""Analyses for the report of a run: accuracy by number of inner steps, errors, learned rates, similarity of the tasks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from metatrain.evaluation.adapted_arms import Adapted
from metatrain.evaluation.by_step import QUERY_ACCURACY, QUERY_LOSS, SUPPORT_ACCURACY, SUPPORT_LOSS, scores_by_step, step_counts, takes_steps
from metatrain.evaluation.config import EvaluationConfig
from metatrain.evaluation.protocol import Scores, Setup
from metatrain.evaluation.sharing import Workers
from metatrain.evaluation.statistics import mean_over_tasks
from metatrain.evaluation.task_similarity import coordinates, similarity
from metatrain.gradient.inner_rules import as_rates, learns_rates
from metatrain.gradient.meta_gradient import LEARNED
from metatrain.meta.learner import Learner
from metatrain.models.encoder import Encoder
from metatrain.tasks.episodes import SPLITS, Episode
from metatrain.tasks.task import Task, TaskDistribution
from metatrain.tasks.texts import beginning

_STEP_EPISODES = 12  # per number of shots, at least, for the accuracy by inner steps: of as many tasks as there are
_WORST = 12  # maximum number of tasks whose errors are recorded
_EXAMPLES = 10  # maximum number of errors shown per task
_PAIRS = 400  # maximum number of (label, prediction) pairs recorded per task, most frequent first: all pairs of 20 classes
_LONGEST = 300  # maximum number of characters of a text
_MAP_TEXTS = 20  # texts per task that the map is computed from
_MAP_TASKS = 200  # maximum number of tasks on the map


def analysed_steps(learner: Learner) -> list[int]:
    """Return the numbers of inner steps to evaluate: those from 0 to the number used, and twice as many."""
    steps = learner.steps(evaluation=True)
    return [*step_counts(steps), 2 * steps] if takes_steps(learner) else []


def step_episodes(config: EvaluationConfig, tasks: int) -> int:
    """Return the number of episodes per task and number of shots for the accuracy by inner steps; tasks: the number of tasks."""
    return min(math.ceil(_STEP_EPISODES / tasks), config.episodes)


def accuracy_by_steps(
    trained: Adapted, scores: Mapping[str, Scores], setup: Setup, on_progress: Callable[[int], None] = lambda done: None, workers: Workers | None = None
) -> dict[str, Any]:
    """Return mean accuracy and log loss by number of shots and of inner steps, on the first episodes of each task.

    Those of the queries are `steps` and `losses`; those of the support set, except for text-to-text tasks, `support_steps` and
    `support_losses`. `scores`: scores of the arm with all its evaluation settings, by number of shots; they are reported for the same
    episodes, because `inner.fit_head` does more than take inner steps. `on_progress` and `workers` as in `run_arms`.
    """
    episodes, counts, found = step_episodes(setup.config, len(setup.tasks)), analysed_steps(trained.learner), {}
    names = {QUERY_ACCURACY: "steps", QUERY_LOSS: "losses", SUPPORT_ACCURACY: "support_steps", SUPPORT_LOSS: "support_losses"}
    for shots in setup.config.shots:
        by_step = scores_by_step(trained, counts, setup.episodes(shots, episodes), on_progress, workers)
        used = [values[:episodes] for values in scores[str(shots)].accuracy.values()]
        found[str(shots)] = {
            **{names[name]: dict(zip(map(str, counts), values)) for name, values in by_step.items()},
            "as_used": mean_over_tasks(used),
        }
    return {"episodes_per_task": episodes, "steps_used": trained.learner.steps(evaluation=True), "by_shots": found}


def mistakes(scores: Scores, setup: Setup, shots: int) -> list[dict[str, Any]]:
    """Return the errors (`mistakes_in`) of the tasks with the lowest scores; `shots`: the number of shots of `scores`."""
    classified = [task for task in setup.tasks if task.name in scores.predicted]
    found = []
    for task in sorted(classified, key=lambda task: np.mean(scores.accuracy[task.name]))[:_WORST]:
        predictions = scores.predicted[task.name]
        episodes = [setup.episodes(shots, len(predictions)).episode(task, index) for index in range(len(predictions))]
        found.append(mistakes_in(episodes, predictions, scores.confidence.get(task.name)))
    return found


def mistakes_in(episodes: Sequence[Episode], predictions: Sequence[Sequence[int] | np.ndarray], confidence: Sequence[np.ndarray] | None) -> dict[str, Any]:
    """Return the confusion counts and the most confident errors in episodes of one task.

    predictions: the predicted class of each query, as a position in the classes of its episode; confidence: the predicted probabilities, if any.
    """
    task = episodes[0].task
    pairs: Counter[tuple[str, str]] = Counter()
    wrong: dict[int, tuple[float, str, str]] = {}  # most confident error of each row of the task
    for index, episode in enumerate(episodes):
        probabilities = np.zeros(len(episode.query)) if confidence is None else confidence[index]
        for row, label, predicted, probability in zip(episode.query.tolist(), episode.query_labels, predictions[index], probabilities.tolist()):
            names = [task.label_names[episode.classes[each]] for each in (label, predicted)]
            pairs[names[0], names[1]] += 1
            if label != predicted:
                wrong[row] = max((probability, *names), wrong.get(row, (-1.0, "", "")))
    most_confident = sorted(wrong.items(), key=lambda item: (-item[1][0], item[0]))[:_EXAMPLES]
    return {
        "task": task.name,
        "labels": list(task.label_names),
        "pairs": [[label, predicted, count] for (label, predicted), count in pairs.most_common(_PAIRS)],
        "examples": [
            {"text": beginning(task.texts[row], _LONGEST), "label": label, "answer": predicted, "probability": None if confidence is None else probability}
            for row, (probability, label, predicted) in most_confident
        ],
    }


def learned_rates(learner: Learner) -> list[dict[str, Any]]:
    """Return the learned inner rates: mean, 5% and 95% quantiles and initial value for each parameter tensor (with LSLR, for each inner step).

    The list is empty if the inner rule learns no rates.
    """
    if not learns_rates(learner.rule):
        return []
    of_steps = learns_rates(learner.rule) == "per step"
    found = []
    for name, value in learner.parameters.items():
        if name.startswith(LEARNED):
            parameter, values = name.removeprefix(LEARNED), as_rates(learner.rule, value.detach().double()).cpu().numpy()
            began = learner.rule.rate(parameter)
            for step, rates in enumerate(values) if of_steps else [(None, values)]:
                low, high = np.quantile(rates, [0.05, 0.95])
                found.append({"parameter": parameter, "step": step, "mean": float(np.mean(rates)), "low": float(low), "high": float(high), "began": began})
    return found


def mean_rates(learner: Learner) -> dict[str, float]:
    """Return the mean of the learned inner rates of each parameter tensor, with LSLR of each inner step (`PARAMETER/step K`); empty if none are learned."""
    found: dict[str, float] = {}
    of_steps = learns_rates(learner.rule) == "per step"
    for name, value in learner.parameters.items() if learns_rates(learner.rule) else ():
        if name.startswith(LEARNED):
            parameter, values = name.removeprefix(LEARNED), as_rates(learner.rule, value.detach())
            found |= {f"{parameter}/step {step}": rate for step, rate in enumerate(values.tolist())} if of_steps else {parameter: float(values.mean())}
    return found


def task_map(encoder: Encoder, tasks: TaskDistribution, on_progress: Callable[[], None] = lambda: None) -> list[dict[str, Any]]:
    """Return the coordinates of the tasks on the first two principal components of their mean encodings, and their most similar training task."""
    shown = mapped_tasks(tasks)
    if len(shown) < 3:
        return []
    found = similarity([task for _, task in shown], encoder, "embedding", on_progress, texts=_MAP_TEXTS)
    training = [row for row, (split, _) in enumerate(shown) if split == "meta_train"]
    points = coordinates(found)
    rows = []
    for row, (split, task) in enumerate(shown):
        near = found.nearest(row, training) if set(training) - {row} else None
        nearest = {} if near is None else {"nearest": found.names[near], "likeness": float(found.matrix[row, near])}
        rows.append({"task": task.name, "split": split, "x": float(points[row, 0]), "y": float(points[row, 1]), **nearest})
    return rows


def mapped_tasks(tasks: TaskDistribution) -> list[tuple[str, Task]]:
    """Return (split, task) for each task on the map: text tasks, without the self-supervised ones."""
    every = [(split, task) for split in SPLITS for task in tasks.split(split) if task.way is None and not task.of_images]
    return every[:_MAP_TASKS]
