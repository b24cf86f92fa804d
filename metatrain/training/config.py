"""What a user may set about the outer loop, validation, checkpoints and hardware."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class OuterConfig:
    """The outer loop (config group `outer`)."""

    lr: float = 4e-5  # of AdamW, at the top of the schedule
    head_lr: float | None = None  # of the head rule's own parameters; null: the same as lr
    rule_lr: float | None = None  # of what the inner rule learns (rates, matrices); null: the same as lr
    steps: int = 100  # meta-updates
    meta_batch: int = 4  # episodes per meta-update
    schedule: str = "cosine"  # constant | linear | cosine, after the warm-up
    warmup: int = 10  # meta-updates over which the rate rises from 0
    clip: float | None = 1.0  # largest norm of the mean meta-gradient; null: no clipping
    # A meta-gradient that is not finite never reaches the weights: stop the run | skip the meta-update (three in a row stop the run).
    nonfinite: str = "stop"
    spike: float | None = None  # skip a meta-update whose gradient norm is this many times the median of the last 20; null: none is
    # The model that is kept is this share of the way from the initial weights of the encoder to the trained ones; less forgets less.
    blend: float = 1.0
    weight_decay: float = 0.01  # of matrices; biases, layer norms and what the inner rule learns have none


@dataclass
class CheckpointConfig:
    """When to save and what to keep (config node `checkpoint`)."""

    every: int = 50  # meta-updates between checkpoints; the last one and each new best are always saved
    keep: int = 2  # newest checkpoints kept, besides the best


@dataclass
class HardwareConfig:
    """Where and how to compute (config group `hardware`)."""

    device: str = "auto"  # auto | cpu | cuda | cuda:N | mps
    threads: int | None = None  # of each process; null: OMP_NUM_THREADS, or all cores that it may use, shared among the processes
    precision: str = "float32"  # float32 | float64 | tf32 (GPU) | bf16 (either: of the model's matrix products; parameters and inner loop stay in float32)
    together: int | None = None  # episodes whose meta-gradients are taken in one pass, where they have one shape; null: on a GPU all that fit, else 1
    max_memory: float | None = None  # GB that the process (or the GPU) may take; null: what is free, without changing any number for it
    processes: int = 1  # of a training run on this machine, which share its episodes; several machines: docs/scaling.md
    reduce: str = "ordered"  # how they add up meta-gradients: ordered (the same bits with any number of processes) | fast (fewer bytes exchanged)
    timeout: float = 600.0  # seconds that a process waits for the others, until it takes one of them for lost
    fast_kernels: bool = True  # CPU: the faster float32 product, an allocator that keeps freed memory; GPU: kernels of episodes together are recorded


@dataclass
class ValidationConfig:
    """Meta-validation during training: it chooses the checkpoint and may stop the run (config node `validation`)."""

    every: int = 25  # meta-updates between validations; 0: none, the last parameters are taken
    episodes: int = 8  # per meta-validation task
    queries: int | None = 25  # query examples per class, fewer where a class has no more; null: every row not in the support set
    score: str = "accuracy"  # what chooses the checkpoint: accuracy | balanced_accuracy
    patience: int | None = None  # stop after this many validations without a new best; null: never
