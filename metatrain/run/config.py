"""Settings of checkpoints and hardware."""

from __future__ import annotations

from dataclasses import dataclass, field

from metatrain.conditions import TRAINING, Condition, Place, Unread, when
from metatrain.run.rank_environment import number_of_ranks


def _is_one_process(place: Place) -> Unread | None:
    if place.value("hardware.processes") > 1 or number_of_ranks() > 1:
        return None
    return Unread(f"the run has one process ({place.given('hardware.processes')})", "set hardware.processes to 2 or more, start it with torchrun")


def _episodes_are_taken_alone(place: Place) -> Unread | None:
    if place.facts("algorithm.head").is_language_model:
        return Unread(f"{place.given('algorithm.head')}: the episodes of a language model are not vectorised", "choose another head")
    if place.facts("algorithm.head").reads_names:
        return Unread(f"{place.given('algorithm.head')} depends on the label names of each episode", "choose another head")
    if place.facts("inner.rule").observes:
        return Unread(f"{place.given('inner.rule')} observes the support set of each episode", "choose another inner.rule")
    if not place.facts("algorithm.meta_gradient").separates_episodes:
        return Unread(f"{place.given('algorithm.meta_gradient')} takes one episode at a time", "choose algorithm.meta_gradient=exact")
    random = next((key for key in ("dropout", "meta_dropout", "information_penalty") if place.value(f"algorithm.{key}")), None)
    return None if random is None else Unread(f"{place.given(f'algorithm.{random}')} draws random numbers for each episode", f"remove algorithm.{random}")


PROCESSES = Condition(_is_one_process, lambda place: "the run has several processes")
VECTORISED = Condition(_episodes_are_taken_alone, lambda place: "head and meta-gradient can be vectorised over episodes and nothing is random")


@dataclass
class CheckpointConfig:
    """When to save checkpoints and how many to keep (config node `checkpoint`)."""

    every: int = 50  # number of meta-updates between checkpoints; the last one and each new best are always saved
    keep: int = 2  # number of newest checkpoints to keep; the best one is kept in addition
    # What model/ holds after training: adapter (only the LoRA matrices, as an adapter of peft; needs algorithm.adapt=lora and algorithm.train=adapted) |
    # merged (the whole model). null: adapter for a language model of which only LoRA matrices are trained, else merged.
    export: str | None = None


@dataclass
class HardwareConfig:
    """Device, precision, memory and processes (config group `hardware`)."""

    device: str = "auto"  # auto (cuda if available, else cpu) | cpu | cuda | cuda:N | mps
    threads: int | None = None  # CPU threads per process; null: OMP_NUM_THREADS, or all available cores, divided among the processes
    precision: str = "float32"  # float32 | float64 | tf32 (GPU only) | bf16 (matrix products of the model; parameters and inner loop stay float32)
    # Maximum number of episodes of the same shape whose meta-gradients are computed in one vectorised pass (vmap); null: on a GPU as many as
    # fit in memory, else 1.
    vectorized_episodes: int | None = field(default=None, metadata=when(TRAINING, VECTORISED))
    max_memory: float | None = None  # memory limit of the process (on a GPU: of the GPU) in GB; null: use the free memory
    processes: int = 1  # number of processes on this machine that share the episodes of a training run; several machines: docs/scaling.md
    # How processes sum meta-gradients: ordered (bit-identical for any number of processes) | fast (exchanges fewer bytes).
    reduce: str = field(default="ordered", metadata=when(TRAINING, PROCESSES))
    timeout: float = field(default=600.0, metadata=when(TRAINING, PROCESSES))  # seconds to wait for the other processes before one is considered lost
    # CPU: oneDNN's faster float32 matrix product, and an allocator that retains freed memory. GPU: episodes that are vectorised run as CUDA graphs.
    fast_kernels: bool = True
