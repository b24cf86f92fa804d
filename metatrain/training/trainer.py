"""The outer loop: meta-updates, validation, checkpoints; it can stop between any two episodes and go on exactly."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from metatrain.config.schema import TrainConfig
from metatrain.errors import Stopped, UserError
from metatrain.evaluation.arms import Adapted, ShuffledLabels
from metatrain.evaluation.prediction import Arm
from metatrain.evaluation.protocol import EpisodeSet, run_arms
from metatrain.evaluation.statistics import mean_over_tasks
from metatrain.gradient.parameters import Parameters
from metatrain.meta.learner import Learner
from metatrain.meta.plan import ExecutionPlan
from metatrain.meta.strategies import OuterGradient
from metatrain.run import checkpoint
from metatrain.run.atomic import clear_away
from metatrain.run.failpoints import failpoint
from metatrain.run.hardware import give_back, peak_memory
from metatrain.run.hints import resume_command, shown
from metatrain.tasks.encoded_episode import EncodedEpisode, encode_episode
from metatrain.tasks.episodes import training_episode
from metatrain.tasks.sampler import Sampler, SamplerState
from metatrain.tasks.task import TaskDistribution
from metatrain.tasks.tokens import Tokens
from metatrain.tracking.metrics import MetricsLog, read_metrics, validation_scores
from metatrain.tracking.weights_and_biases import WandbRun
from metatrain.training.check import validation_settings
from metatrain.training.context import RunContext
from metatrain.training.gradient_sum import GradientSum, rounds
from metatrain.training.memory_limit import gradients_within_memory
from metatrain.training.outer import OuterOptimizer, blended
from metatrain.training.update_policy import UpdatePolicy

# Settings, or beginnings of their keys, that may change when training is over; and those that validation scores depend on.
_AFTER_TRAINING = ("evaluation.", "report", "tracking.", "hardware.", "checkpoint.", "name", "tasks.meta_test.")
_OF_SCORES = (
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
FIGURES = ("loss_before", "loss_after", "accuracy_before", "accuracy_after")  # of each episode; their means are logged
_OF_SOLUTIONS = ("residual", "damping")  # of the linear system of an episode with implicit meta-gradients; None with others


@dataclass
class TrainState:
    """Where the outer loop is: with the tensors of a checkpoint, all that the next meta-update depends on."""

    step: int = 0  # meta-updates done
    validated: int = 0  # the last step that was validated
    best_step: int | None = None
    best_score: float | None = None
    without_new_best: int = 0  # validations since the best
    metrics_bytes: int = 0  # length of metrics.jsonl
    sampler: SamplerState | None = None
    policy: UpdatePolicy = field(default_factory=UpdatePolicy)
    part_tokens: int | None = None  # texts that are encoded together, once memory has run out with more
    tasks: str | None = None  # fingerprint of the tasks


class Trainer:
    """Meta-trains a learner."""

    def __init__(self, config: TrainConfig, learner: Learner, tasks: TaskDistribution, tokens: Tokens, context: RunContext):
        self.config, self.learner, self.tasks, self.tokens = config, learner, tasks, tokens
        self.run, self.display, self._stop, self._ranks = context.run, context.display, context.stop, context.ranks
        self._start = learner.copy_of_model() if config.outer.weight_interpolation < 1 else {}
        self.optimizer = OuterOptimizer(learner.parameters, config.outer)
        self.sampler = Sampler(config.tasks.sampling, tasks, config.outer.steps)
        self.state = TrainState(tasks=tasks.fingerprint())
        self._saved_step: int | None = None
        self._damped = False  # whether it was said that linear systems had no solution
        self._timings = MetricsLog(None)
        self._curve: list[float] = []  # scores of validation, in order

    def restore(self, changed: Sequence[str] = ()) -> None:
        """Restore the newest checkpoint that verifies, if there is one. changed: keys of settings that change from here on.

        Raises:
            UserError: the checkpoint is of another model, the tasks' data is not what it was, or nothing is left to train with the changed settings.
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
        known, tasks = asdict(TrainState()), self.state.tasks
        self.state = TrainState(**{key: value for key, value in found.state.items() if key in known})
        other_tasks = self.state.tasks is not None and not self.tasks.has_fingerprint(self.state.tasks)
        if other_tasks and not any(key.startswith("tasks.") for key in changed):
            why = "evaluation.seed holds out different tasks than" if "evaluation.seed" in changed else "the data of the tasks differs from that"
            raise UserError(f"{self.run.path}: {why} when the run was saved; restore it, or start a new run")
        self.state.tasks = tasks
        self._check_changes([key for key in changed if other_tasks or not key.startswith("tasks.")])
        self.state.policy = UpdatePolicy(**found.state.get("policy", {}))
        if found.state.get("sampler"):
            self.sampler.state = SamplerState(**found.state["sampler"])
        if self.state.part_tokens is not None:
            self._use(_smaller(self.learner.plan, self.state.part_tokens))
        if self.run.metrics.exists() and self.run.metrics.stat().st_size < self.state.metrics_bytes:
            self.display.say(f"warning: {self.run.metrics} is shorter than at {found.path.name}; some records are lost")
        self._saved_step = self.state.step
        self.display.say(f"resuming from {found.path.name}")
        if self.state.best_step is not None and any(key.startswith(_OF_SCORES) for key in changed):
            self._score_best_again(found)

    def _check_changes(self, changed: Sequence[str]) -> None:
        """Raises: UserError: training is over, and settings of training differ, which would be recorded of a training that they had no part in."""
        without_effect = [key for key in changed if not key.startswith(_AFTER_TRAINING)]
        if not without_effect or not self.finished():
            return
        name, step, keys = shown(self.run.path), self.state.step, ", ".join(without_effect)
        if step < self.config.outer.steps:
            why, remedy = (
                f"stopped early at step {step} (validation.patience={self.config.validation.patience})",
                "add validation.patience=null or a larger number",
            )
        else:
            why, remedy = f"is complete at step {step}", "raise outer.steps"
        raise UserError(f"training of {name} {why}, so {keys} would have no effect; to continue training, {remedy}, or start a new run")

    def _score_best_again(self, newest: checkpoint.Checkpoint) -> None:
        """Validate the best checkpoint as validation is from here on, so that it is compared with scores of its own kind."""
        assert self.state.best_step is not None  # asked by the caller
        checkpoint.copy_parameters(checkpoint.load_for_use(self.run.checkpoints, self.state.best_step), self.learner.parameters)
        before = self.state.best_score
        try:
            values = self._scores(Adapted(self._kept()), self.config.validation.episodes)
        except _StopNow:
            raise self._stopped() from None
        checkpoint.copy_parameters(newest, self.learner.parameters)
        self.state.best_score, self.state.without_new_best = mean_over_tasks(values.values()), 0
        self._saved_step = None
        score = f"{self.config.validation.score.replace('_', ' ')} {self.state.best_score:.3f}"
        self.display.say(
            f"validation settings have changed: the best checkpoint so far (step {self.state.best_step}, previously {before:.3f}) now scores {score}"
        )

    def last_logged(self) -> int:
        """The last meta-update that any process of this run has done, also if no checkpoint has it."""
        return max((record["step"] for record in read_metrics(self.run.path / "timings.jsonl")), default=0)

    def train(self, wandb: WandbRun) -> None:
        """Run the outer loop to its end, leaving the best parameters in the learner.

        Raises:
            Stopped: a signal came; everything needed to go on is saved.
        """
        writes = self._ranks.first
        metrics = MetricsLog(self.run.metrics if writes else None, self.state.metrics_bytes)
        self._timings = MetricsLog(self.run.path / "timings.jsonl" if writes else None)
        self._curve = validation_scores(read_metrics(self.run.metrics))
        self._ranks.check_same(self.learner.parameters, "at the start")
        self.display.say("meta-training: progress shows query loss and accuracy before → after adaptation")
        self.display.start("meta-training", self.config.outer.steps, self.state.step)
        try:
            if self.state.step and self._saved_step is None:
                self._save(metrics)  # the best has another score
            while True:
                if self._validation_due():
                    self._validate(metrics, wandb)
                    failpoint("validated")
                if self._checkpoint_due():
                    self._save(metrics)
                if self.finished():
                    break
                self._meta_update(metrics, wandb)
                failpoint("update")
        except _StopNow:
            self._save(metrics)
            raise self._stopped() from None
        finally:
            self.display.stop()
            metrics.close()
            self._timings.close()
        if self.state.step < self.config.outer.steps:
            number, patience = self.state.without_new_best, self.config.validation.patience
            self.display.say(f"stopped early at step {self.state.step}: {number} validations without a new best (validation.patience={patience})")
        if self.state.best_step is not None:
            checkpoint.copy_parameters(checkpoint.load_for_use(self.run.checkpoints, self.state.best_step), self.learner.parameters)
        self.learner.load(blended(self._start, self.learner.parameters, self.config.outer.weight_interpolation))

    def finished(self) -> bool:
        """Whether all meta-updates are done, or validation has stopped improving."""
        patience = self.config.validation.patience
        early = patience is not None and self.state.without_new_best >= patience
        return (self.state.step >= self.config.outer.steps or early) and not self._validation_due()

    def between_episodes(self, done: int = 0) -> None:
        """Give way to a stop request, of whichever rank."""
        if self._stop_requested():
            raise _StopNow

    def stop_evaluation(self) -> None:
        """Give way to a stop request after training is over; the checkpoints are there already."""
        if self._stop_requested():
            raise self._stopped()

    def _stop_requested(self) -> bool:
        found = self._ranks.highest(self._stop.signal_number or 0)
        if found:  # else one that has just come would be forgotten
            self._stop.signal_number = found
        return found > 0

    def _meta_update(self, metrics: MetricsLog, wandb: WandbRun) -> None:
        begin, outer, step = time.monotonic(), self.config.outer, self.state.step
        if self.config.hardware.max_memory is not None:
            give_back()  # else the heap goes to pieces, a little more with every episode's sizes
        self._ranks.waited = 0.0
        tasks = self.sampler.tasks(step)
        drawn = [training_episode(tasks, self.config.episode, self.config.seed, step * outer.meta_batch + slot) for slot in range(outer.meta_batch)]
        episodes = [encode_episode(episode, self.tokens) for episode in drawn]
        total, figures = self._mean_gradient(episodes, step)
        auxiliary = self._auxiliary(episodes, total)
        not_finite = [episode.task.name for episode, loss in zip(drawn, figures["loss_after"]) if not math.isfinite(loss)]
        norm = self.optimizer.step(total, step, -math.inf if not_finite else self.state.policy.largest_norm(outer))
        skipped = self.state.policy.judge(outer, step, norm, not_finite, self.display.say)
        if skipped is None:
            self.sampler.learn(step, [episode.task.name for episode in drawn], figures["loss_after"])
        self.state.step += 1
        record = {key: sum(figures[key]) / len(figures[key]) for key in FIGURES} | {"gradient_norm": norm}
        record.update(auxiliary)
        if skipped is not None:
            record["skipped"] = skipped
        record.update(self._of_solutions(figures))
        metrics.write(step=self.state.step, split="meta_train", **record, tasks=[episode.task.name for episode in drawn])
        seconds, memory = time.monotonic() - begin, peak_memory(self.learner.model.device)
        waited = {"with_other_ranks": round(self._ranks.waited, 4)} if self._ranks.size > 1 else {}
        self._timings.write(step=self.state.step, split="meta_train", seconds=round(seconds, 4), **waited, peak_memory_mb=round(memory / 1e6))
        wandb.log(self.state.step, {f"train/{key}": value for key, value in record.items()} | {"time/seconds_per_step": seconds})
        self.display.advance(
            {
                "loss": f"{record['loss_before']:.3f} → {record['loss_after']:.3f}",
                "accuracy": f"{record['accuracy_before']:.2f} → {record['accuracy_after']:.2f}",
                "episodes/s": f"{outer.meta_batch / seconds:.2f}",
                "memory": f"{memory / 1e9:.1f} GB",
            }
        )

    def _mean_gradient(self, episodes: list[EncodedEpisode], step: int) -> tuple[Parameters, dict[str, list[Any]]]:
        """The mean meta-gradient of a meta-batch that all ranks share, and the figures of its episodes, in order."""
        reduce, rank = self.config.hardware.reduce, self._ranks.rank
        total = GradientSum(self.learner, episodes, self._ranks, reduce)
        taken: list[tuple[int, OuterGradient]] = []
        shared = rounds(self.learner, episodes, self._ranks, reduce)
        self._say_who_is_idle(sum(map(len, shared)), step)
        for units in shared:
            self.between_episodes()
            unit = units[rank] if rank < len(units) else []
            parts = self._outer_gradients([episodes[place] for place in unit], step) if unit else []
            total.add(parts, len(units))
            taken += [(place, replace(part, gradient={})) for place, part in zip(unit, parts)]
            del parts  # their gradients, which would be there while the next are taken
        # Here a GPU is waited for, not before.
        mine = [[place, part.residual, part.damping, *(float(getattr(part, key)) for key in FIGURES)] for place, part in taken]
        found = self._ranks.gather({"part_tokens": self.state.part_tokens, "rows": mine})
        least = min((each["part_tokens"] for each in found if each["part_tokens"] is not None), default=None)
        if least is not None and least != self.state.part_tokens:  # another rank's memory has run out
            self._use(_smaller(self.learner.plan, least))
            self.state.part_tokens = least
        rows = sorted(row for each in found for row in each["rows"])
        figures = {key: [row[index] for row in rows] for index, key in enumerate((*_OF_SOLUTIONS, *FIGURES), start=1)}
        return total.mean(len(episodes)), figures

    def _of_solutions(self, figures: dict[str, list[Any]]) -> dict[str, float]:
        """What the record says of the linear systems of implicit meta-gradients; the first update without a solution is told."""
        residuals, dampings = ([value for value in figures[key] if value is not None] for key in _OF_SOLUTIONS)
        if not residuals:
            return {}
        if max(dampings) > 1 and not self._damped:
            self._damped = True
            number = sum(damping > 1 for damping in dampings)
            self.display.say(
                f"warning: conjugate gradients found no solution for {number} of {len(dampings)} episodes of meta-update {self.state.step}: adaptation "
                f"does not end near a minimum. Their meta-gradient uses an algorithm.proximal that is up to {max(dampings):.3g} times as large "
                "(cg_damping in metrics.jsonl, now and in later updates); raise algorithm.proximal or algorithm.cg_steps, or lower inner.lr"
            )
        return {"cg_residual": sum(residuals) / len(residuals), "cg_damping": max(dampings)}

    def _say_who_is_idle(self, units: int, step: int) -> None:
        idle = self._ranks.size - units
        if step or idle < 1:
            return
        if units < self.config.outer.meta_batch:
            why, remedy = f"the episodes of a meta-batch are encoded together, in {units} part{'s' if units > 1 else ''}", "set hardware.reduce=fast"
        else:
            why, remedy = f"a meta-batch has {units} episodes", "raise outer.meta_batch"
        self.display.say(f"warning: {why}, so {idle} of {self._ranks.size} processes are idle in meta-training; {remedy}, or use fewer processes")

    def _outer_gradients(self, group: list[EncodedEpisode], step: int) -> list[OuterGradient]:
        def on_smaller(plan: ExecutionPlan) -> None:
            captured = self.learner.plan.cuda_graphs is not None
            self._use(plan)
            if captured:
                self.display.say(f"warning: out of memory at meta-update {step + 1}; CUDA graphs are disabled from here on, which is slower")
                return
            self.state.part_tokens = plan.part_tokens
            self.display.say(
                f"warning: out of memory at meta-update {step + 1}; from here on {plan.part_tokens} tokens are encoded at a time, "
                "and activations are recomputed"
            )

        return gradients_within_memory(self.learner, group, step, on_smaller)

    def _auxiliary(self, episodes: list[EncodedEpisode], total: Parameters) -> dict[str, float]:
        """Add the gradient of the contrastive term, if there is one, to `total`; its loss."""
        algorithm = self.learner.algorithm
        if algorithm.contrastive is not None:
            self.between_episodes()
        part = self.learner.auxiliary_gradient(episodes)
        if part is None:
            return {}
        self.learner.add_gradient(total, part, algorithm.contrastive_weight)
        return {"contrastive_loss": part.loss}

    def _validation_due(self) -> bool:
        every, step = self.config.validation.every, self.state.step
        last = step >= self.config.outer.steps
        return every > 0 and self.state.validated < step and (step % every == 0 or last)

    def _validate(self, metrics: MetricsLog, wandb: WandbRun) -> None:
        name, arm, state = self.config.validation.score, Adapted(self._kept()), self.state
        values = self._scores(arm, self.config.validation.episodes)
        shuffled = mean_over_tasks(self._scores(ShuffledLabels(arm), 1).values())
        score = mean_over_tasks(values.values())
        state.validated = state.step
        if state.best_score is None or score > state.best_score:
            state.best_step, state.best_score, state.without_new_best = state.step, score, 0
        else:
            state.without_new_best += 1
        found = {name: score, f"{name}_with_shuffled_labels": shuffled}
        per_task = {task: sum(episodes) / len(episodes) for task, episodes in values.items()}
        metrics.write(step=state.step, split="meta_validation", **found, best_step=state.best_step, per_task=per_task)
        wandb.log(state.step, {f"validation/{key}": value for key, value in found.items()})
        self._curve.append(score)
        self.display.validated(self._curve, per_task)
        self.display.show({"validation": f"{score:.3f} (best {state.best_score:.3f} at {state.best_step})"})
        best = "best so far" if state.best_step == state.step else f"best {state.best_score:.3f} at {state.best_step}"
        self.display.say(f"step {state.step}: validation {name.replace('_', ' ')} {score:.3f} ({best}), {shuffled:.3f} with shuffled support labels")
        self._saved_step = None

    def _kept(self) -> Learner:
        """Return the learner with the parameters that the run would export now."""
        return self.learner.with_parameters(blended(self._start, self.learner.parameters, self.config.outer.weight_interpolation))

    def _use(self, plan: ExecutionPlan) -> None:
        self.learner = self.learner.with_plan(plan)

    def _scores(self, arm: Arm, episodes: int) -> dict[str, list[float]]:
        """What chooses the checkpoint, by meta-validation task and episode."""
        sampled = EpisodeSet(self.tasks.meta_validation, self.tokens, validation_settings(self.config), episodes, self.config.seed, "meta_validation")
        scores = run_arms({"arm": arm}, sampled, self.between_episodes, self._ranks)["arm"]
        return {"accuracy": scores.accuracy, "balanced_accuracy": scores.balanced}[self.config.validation.score]

    def _checkpoint_due(self) -> bool:
        step = self.state.step
        if step == 0 or self._saved_step == step:
            return False
        return step % self.config.checkpoint.every == 0 or step == self.state.best_step == self.state.validated or self.finished()

    def _save(self, metrics: MetricsLog) -> None:
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

    def _stopped(self) -> Stopped:
        return Stopped(self._stop.signal_number or signal.SIGTERM, f"stopped at step {self.state.step}; resume with: {resume_command(self.run.path)}")


def _smaller(plan: ExecutionPlan, part_tokens: int) -> ExecutionPlan:
    """Return the plan of a process that ran out of memory with more than this number of tokens at a time."""
    return replace(plan, part_tokens=part_tokens, graph_tokens=0.0, vectorised=1)


class _StopNow(Exception):
    """A stop request was seen between two episodes."""
