"""Sampling probabilities of meta-train tasks during meta-training.

The weights follow from what is fixed (the size of the tasks, the share of masked words) and from the query losses that the
tasks had. Given the weights, an episode is still a pure function of its index; a checkpoint has the sampler's state, so that a
resumed run draws the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from metatrain import plugins
from metatrain.errors import UserError
from metatrain.tasks.config import SamplingConfig
from metatrain.tasks.task import TaskDistribution

_REWARDS = 500  # number of latest loss decreases that set the scale of a bandit's rewards


def check_sampling(config: SamplingConfig) -> None:
    """Raises: UserError: the rule is unknown or a value is out of range."""
    preference_of(config.by)
    if not 0 <= config.exploration <= 1 or not 0 <= config.decay < 1:
        raise UserError("tasks.sampling.exploration must be between 0 and 1, tasks.sampling.decay at least 0 and below 1")
    if not 0 <= config.strength <= 10:
        raise UserError(f"tasks.sampling.strength={config.strength} must be between 0 and 10")


class Sampler:
    """The weights of the meta-train tasks; `by=fixed` leaves them as they are."""

    def __init__(self, config: SamplingConfig, tasks: TaskDistribution, steps: int):
        """steps: meta-updates of the whole run."""
        self.config, self.steps = config, steps
        self._tasks = tasks
        self._place = {task.name: number for number, task in enumerate(tasks.meta_train)}
        number = len(tasks.meta_train)
        self._base = np.full(number, 1 / number) if tasks.weights is None else np.array(tasks.weights)
        self.state = SamplerState.new(number)

    def tasks(self, step: int) -> TaskDistribution:
        """The distribution that meta-update `step` draws from."""
        preference = preference_of(self.config.by)(self, step)
        if preference is None:
            return self._tasks
        drawn = self._base > 0  # what is never drawn stays so
        preferred = np.where(drawn, self._base * np.exp(preference - preference[drawn].max()), 0)
        weights = (1 - self.config.exploration) * preferred / preferred.sum() + self.config.exploration * self._base
        return replace(self._tasks, weights=tuple((weights / weights.sum()).tolist()))

    def learn(self, step: int, names: Sequence[str], losses: Sequence[float]) -> None:
        """Take note of the tasks that meta-update `step` drew, and of their query losses after adaptation.

        Episodes of several tasks at once (`episode.cross_task_fraction`) say nothing of one.
        """
        if self.config.by == "fixed":
            return
        weights = self.tasks(step).weights if self.config.by == "bandit" else None
        for name, loss in zip(names, losses):
            place = self._place.get(name)
            if place is None:
                continue
            before = self.state.loss[place]
            if weights is not None and before is not None:
                self._reward(place, before - loss, weights[place])
            self.state.loss[place] = loss if before is None else self.config.decay * before + (1 - self.config.decay) * loss

    def _reward(self, place: int, progress: float, weight: float) -> None:
        """EXP3 (Auer et al. 2002) with learning progress as the reward, as Graves et al. (2017) do, who also scale it.

        Progress between the 20th and the 80th percentile of the newest is mapped to [-1, 1]; a reward counts the more, the
        less often its task is drawn.
        """
        state = self.state
        state.progress = [*state.progress, progress][-_REWARDS:]
        low, high = np.quantile(state.progress, [0.2, 0.8])
        scaled = 0.0 if high == low else float(np.clip(2 * (progress - low) / (high - low) - 1, -1, 1))
        state.preference[place] += self.config.strength * scaled / (weight * len(self._base)) * self.config.exploration

    def hardness(self) -> np.ndarray:
        """Running query losses, standardised; of tasks that were never drawn the mean."""
        known = np.array([np.nan if loss is None else loss for loss in self.state.loss])
        if np.isnan(known).all() or np.nanstd(known) == 0:
            return np.zeros(len(known))
        return np.nan_to_num((known - np.nanmean(known)) / np.nanstd(known))


@dataclass
class SamplerState:
    """State of a sampler, in plain values for a checkpoint."""

    loss: list[float | None]  # moving average of each task's query loss; None: never sampled
    preference: list[float]  # bandit: logarithm of each task's weight
    progress: list[float]  # latest loss decreases, of any task

    @classmethod
    def new(cls, tasks: int) -> SamplerState:
        return cls([None] * tasks, [0.0] * tasks, [])


def _curriculum(sampler: Sampler, step: int) -> np.ndarray:
    # Prefers easy tasks at the beginning, no tasks in the middle, and hard tasks at the end.
    return sampler.config.strength * (2 * min(1.0, step / max(1, sampler.steps - 1)) - 1) * sampler.hardness()


# From (sampler, step) to the logarithm of the factor on the fixed weight of each task, [tasks]; None: the fixed weights.
Preference = Callable[[Sampler, int], np.ndarray | None]
RULES: dict[str, Preference] = {
    "fixed": lambda sampler, step: None,
    "curriculum": _curriculum,
    "hardness": lambda sampler, step: sampler.config.strength * sampler.hardness(),
    "bandit": lambda sampler, step: np.array(sampler.state.preference),
}


def preference_of(name: str) -> Preference:
    """Return a sampling rule, from this package or a plug-in.

    Raises:
        UserError: there is no such rule.
    """
    found: Preference = plugins.find(plugins.SAMPLERS, name, RULES, f"tasks.sampling.by={name} is unknown; choose one of")
    return found
