"""What a command's learner may hold at a time, from `hardware.max_memory` or from what is free."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

from metatrain.config.schema import TrainConfig
from metatrain.errors import RestartableError, UserError
from metatrain.meta.learner import Learner, OuterGradient
from metatrain.meta.memory import Footprint, Largest, MemoryUse, fit, halvings, side_by_side
from metatrain.meta.recorded import Recorded
from metatrain.run.config import HardwareConfig
from metatrain.run.failpoints import failpoint
from metatrain.run.hardware import free_memory, give_back, is_out_of_memory
from metatrain.run.ranks import Ranks
from metatrain.tasks.config import EpisodeConfig
from metatrain.tasks.encoded_episode import EncodedEpisode
from metatrain.tasks.episodes import way_of
from metatrain.tasks.task import Task

_LIBRARIES = 1.3e9  # what a process on a CPU takes beside tensors once it is at work: libraries, kernels, heap that is in pieces
_SPARE = 1.2  # an allocator takes more than it gives out
_SMALLEST = 256  # tokens that are encoded together on a CPU: half of that takes a third more time, and saves a twentieth of the memory
_SHARE = 0.8  # of free memory that is taken, if nothing is said


def largest_episode(episode: EpisodeConfig, way: int, rows: int, text: int, reads_support: bool = False) -> Largest:
    """The most tokens of an episode of `way` classes with texts of at most `text` tokens; rows: of the largest class.

    `reads_support`: each query is read after the whole support set.
    """
    queries = rows if episode.queries is None else min(rows, episode.queries)
    support = way * episode.shots * text
    query = text + (support if reads_support else 0)
    return Largest(query, support, way * queries * query)


def fit_memory(config: TrainConfig, learner: Learner, tasks: Sequence[Task], device: torch.device, ranks: Ranks) -> str:
    """Make the meta-gradients of a run fit into this process's share of memory; return a line for the log.

    Raises:
        UserError: `hardware.max_memory` is too small.
    """
    way = max(way_of(task, config.episode) for task in tasks)
    rows = max(int(np.bincount(task.labels).max()) for task in tasks)
    largest = largest_episode(config.episode, way, rows, learner.model.max_length, learner.reads_support)
    return fit_training(config.hardware, learner, largest, device, ranks.local_size, math.ceil(config.outer.meta_batch / ranks.size))


def fit_training(hardware: HardwareConfig, learner: Learner, largest: Largest, device: torch.device, sharing: int = 1, meta_batch: int = 1) -> str:
    """Make the learner's meta-gradients, of so many episodes in this process each time, fit; returns a line for the log.

    With `max_memory`, the choice depends on the configuration and the model alone, so the same run has the same numbers on
    every machine. Without, graphs are kept as far as free memory goes, which changes no number; on a CPU so many processes share it.
    On a GPU it also decides how many episodes go together, which changes rounding where not all of a meta-batch fit.

    Raises:
        UserError: `max_memory` is too little for the largest episode, whatever is given up.
    """
    footprint = Footprint.of(learner, largest.text)
    together = min(meta_batch, hardware.together or (meta_batch if device.type == "cuda" else 1))
    if hardware.max_memory is None:
        free = free_memory(device)
        if free is not None and device.type == "cpu":
            free //= sharing
        room = None if free is None else free * _SHARE / _SPARE
        found = MemoryUse() if room is None else fit(footprint, largest, room, [MemoryUse()])
        if free is not None and found is None:
            needed = footprint.meta_gradient(largest, MemoryUse()) * _SPARE / 1e9
            learner.memory = MemoryUse(graph_tokens=0.0)
            return f"warning: the largest episodes need about {needed:.1f} GB, and {free / 1e9:.1f} GB are free; set hardware.max_memory to use less"
    else:
        own = _own(learner, device)
        room = (hardware.max_memory * 1e9 - own - _around(footprint)) / _SPARE
        uses = _uses(largest, device)
        found = fit(footprint, largest, room, uses)
        if found is None:
            needed = (own + _around(footprint) + _SPARE * footprint.meta_gradient(largest, uses[-1])) / 1e9
            raise UserError(
                f"hardware.max_memory={hardware.max_memory}: this run needs about {needed:.1f} GB; lower inner.steps or model.max_length, "
                "adapt fewer parameters (algorithm.adapt), or choose algorithm.meta_gradient=first_order"
            )
    assert found is not None  # or one of the two ways above has ended
    learner.recorded = Recorded() if device.type == "cuda" and hardware.fast_kernels else None
    if room is not None:
        found = side_by_side(footprint, largest, room / 2 if learner.recorded else room, found, together)
    learner.memory = found
    return _line(footprint, largest, learner.memory)


def fit_adaptation(hardware: HardwareConfig, learner: Learner, device: torch.device) -> None:
    """Make adaptation for use fit in `hardware.max_memory`, if that is set, by encoding fewer texts at a time.

    Raises:
        UserError: it is too little for one text.
    """
    if hardware.max_memory is None:
        return
    text = learner.model.max_length
    largest = Largest(text, MemoryUse().part_tokens, MemoryUse().part_tokens)
    footprint = Footprint.of(learner, text)
    own = _own(learner, device)
    for use in _uses(largest, device):
        needed = own + _SPARE * footprint.adaptation(largest, use)
        if needed <= hardware.max_memory * 1e9:
            learner.memory = use
            return
    raise UserError(f"hardware.max_memory={hardware.max_memory}: adaptation needs about {needed / 1e9:.1f} GB; lower model.max_length")


def gradients_within_memory(learner: Learner, group: Sequence[EncodedEpisode], step: int, less: Callable[[MemoryUse | None], None]) -> list[OuterGradient]:
    """The meta-gradients of a group of episodes; where memory runs out, with nothing recorded, then of parts of the group, then with less held at a time.

    less: sets, for good, what the learner may hold; None: nothing is recorded any more. The numbers are the same to rounding.

    Raises:
        RestartableError: there is not enough for one text at a time.
    """
    try:
        failpoint("episode")
        return learner.outer_gradients(group, step)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    recorded = learner.recorded is not None
    if recorded:
        less(None)
    give_back()  # here, where the error holds no tensors any more
    if recorded:
        return gradients_within_memory(learner, group, step, less)
    if len(group) > 1:
        middle = len(group) // 2
        return [part for half in (group[:middle], group[middle:]) for part in gradients_within_memory(learner, half, step, less)]
    use = learner.memory.less(max(len(text) for text in (*group[0].support, *group[0].query)))
    if use is None:
        raise RestartableError(
            f"out of memory at meta-update {step + 1}, even with one text at a time; free memory, or lower inner.steps or model.max_length, and resume the run"
        )
    less(use)
    return gradients_within_memory(learner, group, step, less)


def _uses(largest: Largest, device: torch.device) -> list[MemoryUse]:
    return halvings(max(largest.text, _SMALLEST if device.type == "cpu" else 1))


def _own(learner: Learner, device: torch.device) -> float:
    """Bytes of a process that has loaded the learner."""
    model = sum(value.nbytes for value in learner.model.parameters())
    return (_LIBRARIES if device.type == "cpu" else 0) + model + _trained(learner)


def _around(footprint: Footprint) -> float:
    """Bytes of the outer loop: two moments and the sum of meta-gradients."""
    return 3.0 * _trained(footprint.learner)


def _trained(learner: Learner) -> int:
    return sum(value.nbytes for value in learner.parameters.values())


def _line(footprint: Footprint, largest: Largest, use: MemoryUse) -> str:
    steps = footprint.learner.inner.steps
    graphs = steps if use.graph_tokens == float("inf") else use.graph_tokens / largest.support
    bytes_ = use.together * (footprint.meta_gradient(largest, use) + footprint.kept * graphs * largest.support)
    if footprint.learner.recorded:
        bytes_ *= 2  # what is recorded has memory of its own
    said = f"memory: about {_SPARE * bytes_ / 1e9:.1f} GB in addition to the model for the largest episodes"
    if footprint.kept and graphs < steps:
        said += f"; activations of {int(graphs)} of {steps} inner steps are stored, the others recomputed"
    if use.together > 1:
        said += f"; up to {use.together} episodes vectorised in one pass"
    if use.part_tokens < MemoryUse().part_tokens:
        said += f"; texts are encoded {use.part_tokens} tokens at a time"
    return said
