"""Execution plans that fit in `hardware.max_memory` or in free memory, and smaller plans when memory runs out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch

from metatrain.config.schema import TrainConfig
from metatrain.errors import RestartableError, UserError
from metatrain.meta.cuda_graphs import CudaGraphs
from metatrain.meta.learner import Learner
from metatrain.meta.memory import Footprint, Largest, fit, halvings, with_episodes
from metatrain.meta.plan import ExecutionPlan
from metatrain.meta.strategies import OuterGradient
from metatrain.run.config import HardwareConfig
from metatrain.run.failpoints import failpoint
from metatrain.run.hardware import free_memory, give_back, is_out_of_memory
from metatrain.run.ranks import Ranks
from metatrain.tasks.config import EpisodeConfig
from metatrain.tasks.encoded_episode import EncodedEpisode, encode_episode
from metatrain.tasks.episodes import most_way, shots_range, training_episode
from metatrain.tasks.task import TaskDistribution
from metatrain.tasks.tokens import Tokens

_LIBRARIES = 1.3e9  # what a process on a CPU takes beside tensors once it is at work: libraries, kernels, heap that is in pieces
_SPARE = 1.2  # an allocator takes more than it gives out
_SMALLEST = 256  # tokens that are encoded together on a CPU: half of that takes a third more time, and saves a twentieth of the memory
_DRAWN = 64  # episodes of a run whose sizes are looked at before it
_SHARE = 0.8  # of free memory that is taken, if nothing is said


def largest_episode(episode: EpisodeConfig, way: int, rows: int, text: int, reads_support: bool = False, target: int = 0) -> Largest:
    """The most tokens of an episode of `way` classes with texts of at most `text` tokens; rows: of the largest class.

    `reads_support`: each query is read after the whole support set. target: tokens of a target at most.
    """
    queries = rows if episode.queries is None else min(rows, episode.queries)
    support = way * shots_range(episode).most * (text + target)
    query = text + target + (support if reads_support else 0)
    return Largest(query, support, way * queries * query, target)


def largest_drawn(learner: Learner, episodes: Iterable[EncodedEpisode], meta_batch: int) -> Largest:
    """Return the most tokens that a learner reads of these episodes, `meta_batch` of which are of one meta-update."""
    texts, supports, queries, target = [], [], [], 0
    for episode in episodes:
        support, query = learner.sizes(episode)
        texts += [*support, *query]
        supports.append(sum(support))
        queries.append(sum(query))
        if episode.targets is not None:
            target = max(target, *map(len, (*episode.targets.support, *episode.targets.query)))
    each = [support + query for support, query in zip(supports, queries)]
    batch = max(sum(each[first : first + meta_batch]) for first in range(0, len(each), meta_batch))
    return Largest(max(texts), max(supports), max(queries), target, math.ceil(np.sqrt(np.mean(np.square(texts)))), batch)


def fit_memory(config: TrainConfig, learner: Learner, tasks: TaskDistribution, tokens: Tokens, device: torch.device, ranks: Ranks) -> tuple[ExecutionPlan, str]:
    """Return the plan by which the meta-gradients of a run fit in this process's share of memory, and a line for the log.

    With `hardware.max_memory`, any episode that the settings allow fits; else the largest of the run's first `_DRAWN` episodes.

    Raises:
        UserError: `hardware.max_memory` is too small.
    """
    if config.hardware.max_memory is None and not any(task.of_images for task in tasks.meta_train):
        number = min(_DRAWN, config.outer.steps * config.outer.meta_batch)
        drawn = (training_episode(tasks, config.episode, config.seed, index) for index in range(number))
        largest = largest_drawn(learner, (encode_episode(episode, tokens) for episode in drawn), config.outer.meta_batch)
    else:
        way = max(most_way(task, config.episode) for task in tasks.meta_train)
        rows = max(int(task.sizes.max()) for task in tasks.meta_train)
        way += any(task.has_no_label.any() for task in tasks.meta_train)  # texts without any label are one more class
        largest = largest_episode(config.episode, way, rows, learner.model.max_length, learner.functional.reads_support, _longest_target(learner))
    return fit_training(config.hardware, learner, largest, device, ranks.local_size, math.ceil(config.outer.meta_batch / ranks.size))


def fit_training(
    hardware: HardwareConfig, learner: Learner, largest: Largest, device: torch.device, sharing: int = 1, meta_batch: int = 1
) -> tuple[ExecutionPlan, str]:
    """Return a plan for the meta-gradients of `meta_batch` episodes in this process, and a line for the log.

    With `max_memory`, the plan depends only on the configuration and the model, so the same run gives the same numbers on
    every machine. Without it, activations are stored while free memory allows, which changes no number; on a CPU, `sharing` processes
    share that memory. On a GPU, free memory also decides how many episodes are vectorised, which changes rounding.

    Raises:
        UserError: `max_memory` is too small for the largest episode under any plan.
    """
    footprint = Footprint.of_largest(learner, largest)
    most = min(meta_batch, hardware.vectorized_episodes or (meta_batch if device.type == "cuda" else 1))
    if hardware.max_memory is None:
        free = free_memory(device)
        if free is not None and device.type == "cpu":
            free //= sharing
        room = None if free is None else (free * _SHARE - _around(footprint)) / _SPARE
        found = ExecutionPlan() if room is None else fit(footprint, largest, room, [ExecutionPlan()])
        if free is not None and found is None:
            needed = (footprint.meta_gradient(largest, ExecutionPlan()) * _SPARE + _around(footprint)) / 1e9
            return ExecutionPlan(graph_tokens=0.0), (
                f"warning: the largest episodes need about {needed:.1f} GB, and {free / 1e9:.1f} GB are free; set hardware.max_memory to use less"
            )
    else:
        own = _own(learner, device)
        room = (hardware.max_memory * 1e9 - own - _around(footprint)) / _SPARE
        plans = _plans(largest, device)
        found = fit(footprint, largest, room, plans)
        if found is None:
            needed = (own + _around(footprint) + _SPARE * footprint.meta_gradient(largest, plans[-1])) / 1e9
            raise UserError(
                f"hardware.max_memory={hardware.max_memory}: this run needs about {needed:.1f} GB; lower inner.steps or model.max_length, "
                "adapt fewer parameters (algorithm.adapt), or choose algorithm.meta_gradient=first_order"
            )
    assert found is not None  # or one of the two ways above has ended
    found = replace(found, cuda_graphs=CudaGraphs() if device.type == "cuda" and hardware.fast_kernels else None)
    if room is not None:
        found = with_episodes(footprint, largest, room / 2 if found.cuda_graphs else room, found, most)
    return found, _line(footprint, largest, found)


def fit_adaptation(hardware: HardwareConfig, learner: Learner, device: torch.device) -> ExecutionPlan:
    """Return the plan by which adaptation for use fits in `hardware.max_memory`, if that is set.

    Raises:
        UserError: it is too small for one text.
    """
    if hardware.max_memory is None:
        return learner.plan
    target = _longest_target(learner)
    largest = Largest(learner.model.max_length + target, ExecutionPlan().part_tokens, ExecutionPlan().part_tokens, target)
    footprint = Footprint.of_largest(learner, largest)
    own = _own(learner, device)
    for plan in _plans(largest, device):
        needed = own + _SPARE * footprint.adaptation(largest, plan)
        if needed <= hardware.max_memory * 1e9:
            return plan
    raise UserError(f"hardware.max_memory={hardware.max_memory}: adaptation needs about {needed / 1e9:.1f} GB; lower model.max_length")


def gradients_within_memory(learner: Learner, group: Sequence[EncodedEpisode], step: int, on_smaller: Callable[[ExecutionPlan], None]) -> list[OuterGradient]:
    """Return the meta-gradients of a group of episodes, by a smaller plan if memory runs out.

    First CUDA graphs are given up, then the group is split, then the plan shrinks. `on_smaller` gets each new plan, which applies from
    then on. Results are equal up to rounding.

    Raises:
        RestartableError: memory is not enough for one text at a time.
    """
    try:
        failpoint("episode")
        return learner.outer_gradients(group, step)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    captured = learner.plan.cuda_graphs is not None
    if captured:
        learner = learner.with_plan(replace(learner.plan, cuda_graphs=None))
        on_smaller(learner.plan)
    give_back()  # outside of the handler, because the error references tensors
    if captured:
        return gradients_within_memory(learner, group, step, on_smaller)
    if len(group) > 1:
        middle = len(group) // 2
        return [part for half in (group[:middle], group[middle:]) for part in gradients_within_memory(learner, half, step, on_smaller)]
    plan = learner.plan.smaller(max(len(text) for text in (*group[0].support, *group[0].query)))
    if plan is None:
        raise RestartableError(
            f"out of memory at meta-update {step + 1}, even with one text at a time; free memory, or lower inner.steps or model.max_length, and resume the run"
        )
    on_smaller(plan)
    return gradients_within_memory(learner.with_plan(plan), group, step, on_smaller)


def _longest_target(learner: Learner) -> int:
    """Return the most tokens of a target; 0: there are none."""
    encode = learner.model.tokens().encode_targets
    return 0 if encode is None else encode.max_length


def _plans(largest: Largest, device: torch.device) -> list[ExecutionPlan]:
    return halvings(max(largest.text, _SMALLEST if device.type == "cpu" else 1))


def _own(learner: Learner, device: torch.device) -> float:
    """Return the bytes that a process with the learner needs before training."""
    model = sum(value.nbytes for value in learner.model.parameters())
    return (_LIBRARIES if device.type == "cpu" else 0) + model + _trained(learner)


def _around(footprint: Footprint) -> float:
    """Return the bytes of the outer loop: two moments and the sum of meta-gradients."""
    return 3.0 * _trained(footprint.learner)


def _trained(learner: Learner) -> int:
    return sum(value.nbytes for value in learner.parameters.values())


def _line(footprint: Footprint, largest: Largest, plan: ExecutionPlan) -> str:
    steps = footprint.learner.inner.steps
    graphs = steps if plan.graph_tokens == float("inf") else plan.graph_tokens / largest.support
    stored = footprint.stored(largest)
    bytes_ = plan.vectorised * (footprint.meta_gradient(largest, plan) + stored * graphs * largest.support)
    if plan.cuda_graphs:
        bytes_ *= 2  # captured graphs have memory of their own
    needed = (_SPARE * bytes_ + _around(footprint)) / 1e9
    said = f"memory: {f'about {needed:.1f}' if needed >= 0.05 else 'less than 0.1'} GB in addition to the model for the largest episodes"
    if stored and graphs < steps:
        said += f"; activations of {int(graphs)} of {steps} inner steps are stored, the others recomputed"
    if plan.vectorised > 1:
        said += f"; up to {plan.vectorised} episodes vectorised in one pass"
    if plan.part_tokens < ExecutionPlan().part_tokens:
        said += f"; texts are encoded {plan.part_tokens} tokens at a time"
    if plan.segments:
        said += f"; the adapted parameters are stored once in {plan.segment(steps)} inner steps, and the steps between are taken twice"
    return said
