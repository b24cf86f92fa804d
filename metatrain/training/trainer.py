"""The outer loop: meta-updates, validation and checkpoints. It can stop between any two episodes, and resumes exactly."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from metatrain.config.schema import TrainConfig
from metatrain.errors import UserError
from metatrain.evaluation.analysis import mean_rates
from metatrain.meta.learner import Learner
from metatrain.meta.strategies import FIGURES
from metatrain.run import checkpoint
from metatrain.run.atomic import clear_away
from metatrain.run.failpoints import failpoint
from metatrain.run.hardware import give_back, peak_memory
from metatrain.tasks.encoded_episode import encode_episode
from metatrain.tasks.episodes import training_episode
from metatrain.tasks.sampler import Sampler, SamplerState
from metatrain.tasks.task import TaskDistribution
from metatrain.tasks.tokens import Tokens
from metatrain.tracking.inner_steps import query_figures
from metatrain.tracking.metrics import MetricsLog, read_metrics
from metatrain.tracking.score_names import MIXED, common_score, read_name
from metatrain.tracking.weights_and_biases import Tracker
from metatrain.training.check import check_changes
from metatrain.training.context import RunContext, StopNow
from metatrain.training.meta_batch import MetaBatchGradient
from metatrain.training.outer import OuterOptimizer, rate
from metatrain.training.state import TrainState
from metatrain.training.update_policy import UpdatePolicy
from metatrain.training.validation import CHANGES_SCORES, Validation


class Trainer:
    """Meta-trains a learner."""

    def __init__(self, config: TrainConfig, learner: Learner, tasks: TaskDistribution, tokens: Tokens, context: RunContext):
        self.config, self.tasks, self.tokens, self.context = config, tasks, tokens, context
        self.run, self.display, self._ranks = context.run, context.display, context.ranks
        initial = learner.copy_of_model() if config.outer.weight_interpolation < 1 else {}
        self.validation = Validation(config, initial, tasks, tokens, context)
        self.optimizer = OuterOptimizer(learner.parameters, config.outer)
        self.sampler = Sampler(config.tasks.sampling, tasks, config.outer.steps)
        self.state = TrainState(tasks=tasks.fingerprint())
        self._score = common_score(task.loop_score for task in tasks.meta_train)
        self._gradient = MetaBatchGradient(config, learner, context)
        self._saved_step: int | None = None
        self._timings = MetricsLog(None)

    @property
    def learner(self) -> Learner:
        """The learner with its current execution plan, which shrinks if memory runs out."""
        return self._gradient.learner

    @property
    def parameters_step(self) -> int:
        """The meta-update whose parameters the learner has after `train`."""
        return self.state.step if self.state.best_step is None else self.state.best_step

    @property
    def _adapts(self) -> bool:
        """True if meta-training takes inner steps."""
        return self.learner.steps(evaluation=False) > 0

    @property
    def _said_score(self) -> str:
        """The name of the score of meta-updates; with tasks of both kinds, what it is the mean of."""
        return "score (accuracy, or micro F1 with several labels per text)" if self._score == MIXED else read_name(self._score)

    def restore(self, changed: Sequence[str] = ()) -> None:
        """Restore the newest checkpoint that verifies, if there is one. changed: keys of settings that change from here on.

        Raises:
            UserError: the checkpoint is of a different model, the data of the tasks has changed, or training is complete and the changed
                settings would have no effect.
        """
        if self._ranks.first:
            clear_away(self.run.checkpoints)
        self._ranks.wait()
        found, warnings = checkpoint.load_newest(self.run.checkpoints)
        for warning in warnings:
            self.display.say(f"warning: {warning}")
        if found is None:
            self.display.say("no checkpoint yet: starting from scratch")
            return
        checkpoint.copy_parameters(found, self.learner.parameters)
        self.optimizer.load_state(found.tensors["optimizer"])
        torch.set_rng_state(found.tensors["rng"]["torch"])
        self._restore_state(found, changed)
        if self.state.part_tokens is not None:
            self._gradient.shrink(self.state.part_tokens)
        if self.run.metrics.exists() and self.run.metrics.stat().st_size < self.state.metrics_bytes:
            self.display.say(f"warning: {self.run.metrics} is shorter than at {found.path.name}; some records are lost")
        self._saved_step = self.state.step
        self.display.say(f"resuming from {found.path.name}")
        if self.state.best_step is not None and any(key.startswith(CHANGES_SCORES) for key in changed):
            self.validation.score_best_again(self.learner, self.state, found)
            self._saved_step = None

    def _restore_state(self, found: checkpoint.Checkpoint, changed: Sequence[str]) -> None:
        """Restore the state of the loop and of the sampler; raises what `restore` does."""
        known, tasks = asdict(TrainState()), self.state.tasks
        self.state = TrainState(**{key: value for key, value in found.state.items() if key in known})
        other_tasks = self.state.tasks is not None and not self.tasks.has_fingerprint(self.state.tasks)
        if other_tasks and not any(key.startswith("tasks.") for key in changed):
            why = "evaluation.seed holds out different tasks than" if "evaluation.seed" in changed else "the data of the tasks differs from that"
            raise UserError(f"{self.run.path}: {why} when the run was saved; restore it, or start a new run")
        self.state.tasks = tasks
        if self.finished():
            check_changes(self.config, self.run.path, self.state.step, [key for key in changed if other_tasks or not key.startswith("tasks.")])
        self.state.policy = UpdatePolicy(**found.state.get("policy", {}))
        if found.state.get("sampler"):
            self.sampler.state = SamplerState(**found.state["sampler"])

    def last_logged(self) -> int:
        """Return the last meta-update that any process of this run has done, whether or not a checkpoint contains it."""
        return max((record["step"] for record in read_metrics(self.run.path / "timings.jsonl")), default=0)

    def train(self, tracker: Tracker) -> None:
        """Run the outer loop to its end, leaving the best parameters in the learner.

        Raises:
            Stopped: a signal came; everything needed to resume is saved.
        """
        writes = self._ranks.first
        metrics = MetricsLog(self.run.metrics if writes else None, self.state.metrics_bytes)
        self._timings = MetricsLog(self.run.path / "timings.jsonl" if writes else None)
        self.validation.read_curve()
        self._ranks.check_same(self.learner.parameters, "at the start")
        self.display.say(f"meta-training: progress shows query loss and {self._said_score}{' before → after adaptation' if self._adapts else ''}")
        self.display.start("meta-training", self.config.outer.steps, self.state.step)
        try:
            if self.state.step and self._saved_step is None:
                self._save(metrics)  # the best checkpoint has another score
            while True:
                if self.validation.is_due(self.state):
                    self.validation.validate(self.learner, self.state, metrics, tracker)
                    self._saved_step = None
                    failpoint("validated")
                if self._checkpoint_due():
                    self._save(metrics)
                if self.finished():
                    break
                self._meta_update(metrics, tracker)
                failpoint("update")
        except StopNow:
            self._save(metrics)
            raise self.context.stopped(self.state.step) from None
        finally:
            self.display.stop()
            metrics.close()
            self._timings.close()
        if self.state.step < self.config.outer.steps:
            number, patience = self.state.without_new_best, self.config.validation.patience
            self.display.say(f"stopped early at step {self.state.step}: {number} validations without a new best (validation.patience={patience})")
        if self.state.best_step is not None:
            checkpoint.copy_parameters(checkpoint.load_for_use(self.run.checkpoints, self.state.best_step), self.learner.parameters)
        self.learner.load(self.validation.as_saved(self.learner).parameters)

    def finished(self) -> bool:
        """Return whether all meta-updates are done, or validation scores have stopped improving."""
        patience = self.config.validation.patience
        early = patience is not None and self.state.without_new_best >= patience
        return (self.state.step >= self.config.outer.steps or early) and not self.validation.is_due(self.state)

    def stop_evaluation(self) -> None:
        """Stop if requested, after training is complete and its checkpoints are saved."""
        if self.context.stop_requested():
            raise self.context.stopped(self.state.step)

    def _meta_update(self, metrics: MetricsLog, tracker: Tracker) -> None:
        """Sample a meta-batch, compute its mean meta-gradient, and apply it."""
        begin, outer, step = time.monotonic(), self.config.outer, self.state.step
        if self.config.hardware.max_memory is not None:
            give_back()  # otherwise the heap fragments a little more with every episode
        self._ranks.waited = 0.0
        tasks = self.sampler.tasks(step)
        drawn = [training_episode(tasks, self.config.episode, self.config.seed, step * outer.meta_batch + slot) for slot in range(outer.meta_batch)]
        episodes = [encode_episode(episode, self.tokens) for episode in drawn]
        names = [episode.task.name for episode in drawn]
        total, figures = self._gradient.mean(episodes, self.state)
        auxiliary = self._gradient.add_auxiliary(episodes, total)
        not_finite = [name for name, loss in zip(names, figures["loss_after"]) if not math.isfinite(loss)]
        norm = self.optimizer.step(total, step, -math.inf if not_finite else self.state.policy.largest_norm(outer))
        skipped = self.state.policy.judge(outer, step, norm, not_finite, self.display.say)
        if skipped is None:
            self.sampler.learn(step, names, figures["loss_after"])
        self.state.step += 1
        record: dict[str, Any] = {key: sum(figures[key]) / len(figures[key]) for key in FIGURES} | {"gradient_norm": norm} | auxiliary
        if skipped is not None:
            record["skipped"] = skipped
        record |= self._gradient.solver_figures(figures, self.state.step)
        metrics.write(step=self.state.step, split="meta_train", **record, tasks=names)
        self._log(record, time.monotonic() - begin, tracker)

    def _log(self, record: dict[str, Any], seconds: float, tracker: Tracker) -> None:
        """Log a meta-update to timings.jsonl, the tracker and the display."""
        memory = peak_memory(self.learner.model.device)
        waited = {"with_other_ranks": round(self._ranks.waited, 4)} if self._ranks.size > 1 else {}
        self._timings.write(step=self.state.step, split="meta_train", seconds=round(seconds, 4), **waited, peak_memory_mb=round(memory / 1e6))
        if tracker.is_on:
            rates = {"outer_rate": self.config.outer.lr * rate(self.config.outer, self.state.step - 1), **mean_rates(self.learner)}
            values = {f"train/{key}": value for key, value in record.items()} | {f"rates/{key}": value for key, value in rates.items()}
            tracker.log(self.state.step, values | {"time/seconds_per_step": seconds})
        self.display.advance(
            {
                **query_figures(record, self._adapts, self._score),
                "episodes/s": f"{self.config.outer.meta_batch / seconds:.2f}",
                "memory": f"{memory / 1e9:.1f} GB",
            }
        )

    def _checkpoint_due(self) -> bool:
        step = self.state.step
        if step == 0 or self._saved_step == step:
            return False
        return step % self.config.checkpoint.every == 0 or step == self.state.best_step == self.state.validated or self.finished()

    def _save(self, metrics: MetricsLog) -> None:
        """Save a checkpoint of this step, and remove old ones."""
        self.state.metrics_bytes, self.state.sampler = metrics.position(), self.sampler.state
        tensors = {
            "model": self.learner.parameters,
            "optimizer": self.optimizer.state(),
            "rng": {"torch": torch.get_rng_state()},
        }
        self._ranks.check_same(self.learner.parameters, f"at meta-update {self.state.step}")
        if self._ranks.first:
            checkpoint.save(self.run.checkpoints, self.state.step, tensors, asdict(self.state))
            checkpoint.prune(self.run.checkpoints, self.config.checkpoint.keep, self.state.best_step)
        self._ranks.wait()
        self._saved_step = self.state.step
