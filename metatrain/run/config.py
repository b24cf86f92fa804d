"""Settings of checkpoints and hardware."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class CheckpointConfig:
    """When to save checkpoints and how many to keep (config node `checkpoint`)."""

    every: int = 50  # number of meta-updates between checkpoints; the last one and each new best are always saved
    keep: int = 2  # number of newest checkpoints to keep; the best one is kept in addition


@dataclass
class HardwareConfig:
    """Device, precision, memory and processes (config group `hardware`)."""

    device: str = "auto"  # auto (cuda if available, else cpu) | cpu | cuda | cuda:N | mps
    threads: int | None = None  # CPU threads per process; null: OMP_NUM_THREADS, or all available cores, divided among the processes
    precision: str = "float32"  # float32 | float64 | tf32 (GPU only) | bf16 (matrix products of the model; parameters and inner loop stay float32)
    # Maximum number of episodes of the same shape whose meta-gradients are computed in one vectorised pass (vmap); null: on a GPU as many as
    # fit in memory, else 1.
    vectorized_episodes: int | None = None
    max_memory: float | None = None  # memory limit of the process (on a GPU: of the GPU) in GB; null: use the free memory
    processes: int = 1  # number of processes on this machine that share the episodes of a training run; several machines: docs/scaling.md
    # How processes sum meta-gradients: ordered (bit-identical for any number of processes) | fast (exchanges fewer bytes).
    reduce: str = "ordered"
    timeout: float = 600.0  # seconds to wait for the other processes before one is considered lost
    # CPU: oneDNN's faster float32 matrix product, and an allocator that retains freed memory. GPU: episodes that are vectorised run as CUDA graphs.
    fast_kernels: bool = True
