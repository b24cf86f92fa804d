"""Mean meta-gradient of a meta-batch, whose episodes are distributed over the ranks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from metatrain.config.schema import TrainConfig
from metatrain.gradient.parameters import Parameters
from metatrain.meta.learner import Learner
from metatrain.meta.plan import ExecutionPlan
from metatrain.meta.strategies import FIGURES, OuterGradient
from metatrain.tasks.encoded_episode import EncodedEpisode
from metatrain.training.context import RunContext
from metatrain.training.gradient_sum import GradientSum, rounds
from metatrain.training.memory_limit import gradients_within_memory
from metatrain.training.state import TrainState

_SOLVER_FIGURES = ("residual", "damping")  # of the linear system of an episode with implicit meta-gradients; None with other modes
Figures = Mapping[str, list[Any]]  # by name, the values of the episodes in order


class MetaBatchGradient:
    """Computes the mean meta-gradient of meta-batches, within memory and over all ranks."""

    def __init__(self, config: TrainConfig, learner: Learner, context: RunContext):
        self._config, self._context = config, context
        self.learner = learner  # with its current execution plan
        self._warned_of_damping = False

    def mean(self, episodes: list[EncodedEpisode], state: TrainState) -> tuple[Parameters, Figures]:
        """Return the mean meta-gradient of the meta-batch at `state.step`, and the figures of its episodes.

        If memory runs out in any rank, `state.part_tokens` is lowered for the rest of the run.
        """
        learner, ranks, reduce = self.learner, self._context.ranks, self._config.hardware.reduce
        total = GradientSum(learner, episodes, ranks, reduce)
        done: list[tuple[int, OuterGradient]] = []
        shared = rounds(learner, episodes, ranks, reduce)
        self._warn_of_idle_ranks(sum(map(len, shared)), state.step)
        for units in shared:
            self._context.give_way()
            unit = units[ranks.rank] if ranks.rank < len(units) else []
            parts = self._gradients([episodes[place] for place in unit], state) if unit else []
            total.add(parts, len(units))
            done += [(place, replace(part, gradient={})) for place, part in zip(unit, parts)]
            del parts  # frees the gradients before the next ones are computed
        # On a GPU, reading the figures waits for it; nothing before does.
        mine = [[place, part.residual, part.damping, *(float(getattr(part, key)) for key in FIGURES)] for place, part in done]
        found = ranks.gather({"part_tokens": state.part_tokens, "rows": mine})
        least = min((each["part_tokens"] for each in found if each["part_tokens"] is not None), default=None)
        if least is not None and least != state.part_tokens:  # memory has run out in another rank
            self.shrink(least)
            state.part_tokens = least
        rows = sorted(row for each in found for row in each["rows"])
        figures = {key: [row[index] for row in rows] for index, key in enumerate((*_SOLVER_FIGURES, *FIGURES), start=1)}
        return total.mean(len(episodes)), figures

    def add_auxiliary(self, episodes: list[EncodedEpisode], total: Parameters) -> dict[str, float]:
        """Add the gradient of the contrastive term, if there is one, to `total` in place; return its loss for the record."""
        algorithm = self.learner.algorithm
        if algorithm.contrastive is not None:
            self._context.give_way()
        part = self.learner.auxiliary_gradient(episodes)
        if part is None:
            return {}
        self.learner.add_gradient(total, part, algorithm.contrastive_weight)
        return {"contrastive_loss": part.loss}

    def shrink(self, part_tokens: int) -> None:
        """Encode at most this number of tokens at a time from here on, and recompute activations."""
        self.learner = self.learner.with_plan(replace(self.learner.plan, part_tokens=part_tokens, graph_tokens=0.0, vectorised=1))

    def solver_figures(self, figures: Figures, step: int) -> dict[str, float]:
        """Return what the record of meta-update `step` says about the linear systems of implicit meta-gradients; warn once if one has no solution."""
        residuals, dampings = ([value for value in figures[key] if value is not None] for key in _SOLVER_FIGURES)
        if not residuals:
            return {}
        if max(dampings) > 1 and not self._warned_of_damping:
            self._warned_of_damping = True
            number = sum(damping > 1 for damping in dampings)
            self._context.display.say(
                f"warning: conjugate gradients found no solution for {number} of {len(dampings)} episodes of meta-update {step}: adaptation "
                f"does not end near a minimum. Their meta-gradient uses an algorithm.proximal that is up to {max(dampings):.3g} times as large "
                "(cg_damping in metrics.jsonl, now and in later updates); raise algorithm.proximal or algorithm.cg_steps, or lower inner.lr"
            )
        return {"cg_residual": sum(residuals) / len(residuals), "cg_damping": max(dampings)}

    def _gradients(self, group: list[EncodedEpisode], state: TrainState) -> list[OuterGradient]:
        """Return the meta-gradients of a group of episodes; where memory runs out, use less memory for the rest of the run."""
        at = f"out of memory at meta-update {state.step + 1}"

        def on_smaller(plan: ExecutionPlan) -> None:
            captured = self.learner.plan.cuda_graphs is not None
            self.learner = self.learner.with_plan(plan)
            if captured:
                self._context.display.say(f"warning: {at}; CUDA graphs are disabled from here on, which is slower")
                return
            state.part_tokens = plan.part_tokens
            steps = ", and most inner steps are taken twice" if plan.segments else ""
            self._context.display.say(f"warning: {at}; from here on {plan.part_tokens} tokens are encoded at a time, and activations are recomputed{steps}")

        return gradients_within_memory(self.learner, group, state.step, on_smaller)

    def _warn_of_idle_ranks(self, units: int, step: int) -> None:
        size = self._context.ranks.size
        idle = size - units
        if step or idle < 1:
            return
        if units < self._config.outer.meta_batch:
            why, remedy = f"the episodes of a meta-batch are encoded together, in {units} part{'s' if units > 1 else ''}", "set hardware.reduce=fast"
        else:
            why, remedy = f"a meta-batch has {units} episodes", "raise outer.meta_batch"
        self._context.display.say(f"warning: {why}, so {idle} of {size} processes are idle in meta-training; {remedy}, or use fewer processes")
