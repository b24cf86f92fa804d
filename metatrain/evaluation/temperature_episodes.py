"""Episodes of meta-validation tasks, from which the temperature of probabilities is learned (`meta/temperature.py`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from metatrain.evaluation.adapted_arms import Adapted
from metatrain.evaluation.protocol import EpisodeSet, each_episode, is_large_enough
from metatrain.evaluation.sharing import Workers
from metatrain.meta.head_fit import ENOUGH
from metatrain.meta.learner import Learner
from metatrain.meta.temperature import TemperatureCase
from metatrain.models.heads import head_facts
from metatrain.tasks.config import EpisodeConfig
from metatrain.tasks.encoded_episode import encode_episode
from metatrain.tasks.episodes import Episode, fixed_way
from metatrain.tasks.task import Task
from metatrain.tasks.tokens import Tokens

WAYS, SHOTS = (2, 3, 4, 6, 8, 12, 16), (1, 2, 4, 8)  # in all pairs of fewer than ENOUGH examples
QUERIES = 40  # of an episode, about
PER_VALIDATION_EPISODE = 8  # of a run: number of episodes, for each of validation.episodes


@dataclass(frozen=True)
class TemperatureEpisodes:
    """Episodes of each number of classes and of examples per class that the tasks allow."""

    sets: Sequence[EpisodeSet]

    @classmethod
    def of(cls, learner: Learner, tasks: Sequence[Task], tokens: Tokens, episode: EpisodeConfig, seed: int, number: int) -> TemperatureEpisodes:
        """Choose the episodes; none where the learner's probabilities take no temperature, or no task is large enough.

        episode: other settings of the episodes; number: of episodes, at least, divided equally among the pairs of way and shots.
        """
        usable = [task for task in tasks if task.is_labelled and task.label_sets is None] if learner.takes_temperature else []
        way = fixed_way(episode) if head_facts(learner.algorithm.head).fixed_way else None
        found = []
        for shots in SHOTS:
            for ways in WAYS if way is None else (way,):
                settings = replace(episode, way=ways, shots=shots, queries=max(2, QUERIES // ways), file=None)
                fits = [task for task in usable if is_large_enough(task, settings)]
                if fits and ways * shots < ENOUGH:
                    found.append((fits, settings))
        share = math.ceil(number / max(1, len(found)))
        sets = []
        for fits, settings in found:
            chosen = [fits[place * len(fits) // min(share, len(fits))] for place in range(min(share, len(fits)))]  # at equal distances
            sets.append(EpisodeSet(chosen, tokens, settings, math.ceil(share / len(chosen)), seed, "meta_validation"))
        return cls(sets)

    @classmethod
    def of_whole_tasks(cls, tasks: Sequence[Task], tokens: Tokens, shots: int, per_task: int, seed: int, split: str) -> TemperatureEpisodes:
        """Choose episodes with all classes of each task that is large enough, or with as many as have fewer than ENOUGH examples in all; shots: 1 to 9."""
        sets = []
        for task in tasks:
            way = min(len(task.label_names), (ENOUGH - 1) // shots)
            settings = EpisodeConfig(way=way, shots=shots, queries=max(2, QUERIES // way))
            if is_large_enough(task, settings):
                sets.append(EpisodeSet([task], tokens, settings, per_task, seed, split))
        return cls(sets)

    def __len__(self) -> int:
        return sum(len(each.tasks) * each.per_task for each in self.sets)

    def cases(self, learner: Learner, on_progress: Callable[[int], None] = lambda done: None, workers: Workers | None = None) -> list[TemperatureCase]:
        """Return the queries of all episodes, one or more, whose logits are finite; on_progress, workers: as of `run_arms`."""
        plain, tokens = Adapted(learner.with_temperature(None)).learner, self.sets[0].tokens  # each text is encoded once

        def of_episode(episode: Episode) -> dict[str, Any]:
            texts = encode_episode(episode, tokens)
            parameters, _, fit = plain.fit(texts)
            logits = plain.query_logits(parameters, texts)
            assert logits is not None  # `takes_temperature`
            is_fitted = fit is not None and len(fit.folds) > 0
            found = {
                "way": episode.way,
                "shots": len(episode.support) / episode.way,
                "is_fitted": is_fitted,
                "logits": (logits.double().cpu().numpy() * (1.0 if fit is None else fit.temperature)).tolist(),
                "labels": np.asarray(texts.query_labels).tolist(),
                "task": episode.task.name,
            }
            if fit is not None and fit.held_out is not None and is_fitted:
                held_out = fit.held_out[: len(episode.support)].double().numpy() * fit.temperature
                is_judged = ~np.isnan(held_out).any(1)
                found |= {"held_out": held_out[is_judged].tolist(), "held_out_labels": np.asarray(texts.support_labels)[is_judged].tolist()}
            return found

        found = [outcome for each in self.sets for _, outcome in each_episode(each, of_episode, on_progress, workers)]
        cases = [TemperatureCase.of(each) for each in found]
        return [case for case in cases if np.isfinite(case.logits).all()]
