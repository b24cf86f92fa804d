"""Meta-validation: scores the learner as it would be saved, and selects the best checkpoint."""

from __future__ import annotations

from typing import Any

from metatrain.config.schema import TrainConfig
from metatrain.evaluation.adapted_arms import Adapted, ShuffledLabels
from metatrain.evaluation.by_step import scores_by_step, step_counts, takes_steps
from metatrain.evaluation.prediction import Arm
from metatrain.evaluation.protocol import EpisodeSet, run_arms
from metatrain.evaluation.statistics import mean_over_tasks
from metatrain.gradient.parameters import Parameters
from metatrain.meta.learner import Learner
from metatrain.run import checkpoint
from metatrain.tasks.task import TaskDistribution
from metatrain.tasks.tokens import Tokens
from metatrain.tracking.inner_steps import adaptation_line
from metatrain.tracking.metrics import MetricsLog, read_metrics, validation_scores
from metatrain.tracking.score_names import common_score, read_name, validation_name
from metatrain.tracking.weights_and_biases import Tracker
from metatrain.training.check import validation_settings
from metatrain.training.context import RunContext, StopNow
from metatrain.training.outer import interpolated
from metatrain.training.state import TrainState

# Settings, or beginnings of their keys, that change validation scores.
CHANGES_SCORES = (
    "validation.score",
    "validation.episodes",
    "validation.queries",
    "episode.",
    "inner.",
    "algorithm.",
    "model.",
    "outer.weight_interpolation",
    "tasks.",
)


class Validation:
    """Meta-validation of a learner during training."""

    def __init__(self, config: TrainConfig, initial: Parameters, tasks: TaskDistribution, tokens: Tokens, context: RunContext):
        """initial: the parameters of the model before meta-training; empty where outer.weight_interpolation=1 does not need them."""
        self._config, self._tasks, self._tokens, self._context = config, tasks, tokens, context
        self._initial = initial
        self._curve: list[float] = []  # scores in order
        self._main_score = common_score(task.main_score for task in tasks.meta_validation)
        self.score_name = validation_name(self._main_score, config.validation.score)  # as a person reads it

    def read_curve(self) -> None:
        """Read the scores so far from the metrics log, for the live display."""
        self._curve = validation_scores(read_metrics(self._context.run.metrics))

    def is_due(self, state: TrainState) -> bool:
        """Return whether the learner is to be validated before the next meta-update, or at the end."""
        every = self._config.validation.every
        is_last = state.step >= self._config.outer.steps
        return every > 0 and state.validated < state.step and (state.step % every == 0 or is_last)

    def validate(self, learner: Learner, state: TrainState, metrics: MetricsLog, tracker: Tracker) -> None:
        """Score the learner, update the best step, and log the scores."""
        name, arm, display = self._config.validation.score, Adapted(self.as_saved(learner)), self._context.display
        values = self._scores(arm, self._config.validation.episodes)
        shuffled = mean_over_tasks(self._scores(ShuffledLabels(arm), 1).values())
        by_step = self._by_step(arm)
        score = mean_over_tasks(values.values())
        state.validated = state.step  # only now: a stop request ends what is above, and the resumed run validates again
        if state.best_score is None or score > state.best_score:
            state.best_step, state.best_score, state.without_new_best = state.step, score, 0
        else:
            state.without_new_best += 1
        found = {name: score, f"{name}_with_shuffled_labels": shuffled}
        per_task = {task: sum(episodes) / len(episodes) for task, episodes in values.items()}
        metrics.write(step=state.step, split="meta_validation", **found, best_step=state.best_step, per_task=per_task, **by_step)
        tracker.log(state.step, {f"validation/{key}": value for key, value in found.items()})
        self._curve.append(score)
        display.validated(self._curve, per_task)
        display.show({"validation": f"{score:.3f} (best {state.best_score:.3f} at {state.best_step})"})
        best = "best so far" if state.best_step == state.step else f"best {state.best_score:.3f} at {state.best_step}"
        display.say(f"step {state.step}: validation {self.score_name} {score:.3f} ({best}), {shuffled:.3f} with shuffled support labels")
        if by_step:
            display.say(adaptation_line(by_step["by_step"], by_step["inner_steps"], read_name(self._main_score)))

    def score_best_again(self, learner: Learner, state: TrainState, newest: checkpoint.Checkpoint) -> None:
        """Score the best checkpoint with the changed validation settings, so that later scores can be compared with it.

        Raises:
            Stopped: a stop request came.
        """
        assert state.best_step is not None  # asked by the caller
        checkpoint.copy_parameters(checkpoint.load_for_use(self._context.run.checkpoints, state.best_step), learner.parameters)
        before = state.best_score
        try:
            values = self._scores(Adapted(self.as_saved(learner)), self._config.validation.episodes)
        except StopNow:
            raise self._context.stopped(state.step) from None
        checkpoint.copy_parameters(newest, learner.parameters)
        state.best_score, state.without_new_best = mean_over_tasks(values.values()), 0
        score = f"{self.score_name} {state.best_score:.3f}"
        self._context.display.say(
            f"validation settings have changed: the best checkpoint so far (step {state.best_step}, previously {before:.3f}) now scores {score}"
        )

    def as_saved(self, learner: Learner) -> Learner:
        """Return the learner with the parameters that the run would save now: interpolated with the initial ones if outer.weight_interpolation is below 1."""
        return learner.with_parameters(interpolated(self._initial, learner.parameters, self._config.outer.weight_interpolation))

    def _by_step(self, arm: Adapted) -> dict[str, Any]:
        """Return loss and accuracy by inner step on the first episode of each task, for the record; empty for a method without inner steps."""
        if not takes_steps(arm.learner):
            return {}
        counts = step_counts(arm.learner.steps(evaluation=True))
        found = scores_by_step(arm, counts, self._episodes(1), lambda done: self._context.give_way(), self._context.ranks)
        return {"inner_steps": counts, "by_step": found}

    def _episodes(self, per_task: int) -> EpisodeSet:
        settings, seed = validation_settings(self._config), self._config.seed
        return EpisodeSet(self._tasks.meta_validation, self._tokens, settings, per_task, seed, "meta_validation")

    def _scores(self, arm: Arm, per_task: int) -> dict[str, list[float]]:
        """Return the scores that select the checkpoint, by meta-validation task and episode."""
        scores = run_arms({"arm": arm}, self._episodes(per_task), self._context.give_way, self._context.ranks)["arm"]
        return {"accuracy": scores.accuracy, "balanced_accuracy": scores.balanced}[self._config.validation.score]
