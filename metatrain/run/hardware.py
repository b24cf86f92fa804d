"""Device, threads and precision, applied once at the start of a command."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from metatrain.errors import UserError
from metatrain.run.config import HardwareConfig
from metatrain.run.threads import threads_of

if TYPE_CHECKING:
    from metatrain.run.ranks import Ranks

# Memory of this process under Linux. (`getrusage` includes the parent process, which may be larger.)
_STATUS = Path("/proc/self/status")
_earlier_peaks = [0]  # peaks before the kernel's high-water mark was reset


def apply(config: HardwareConfig, ranks: Ranks | None = None) -> tuple[torch.device, torch.dtype, list[str]]:
    """Apply the settings to this process; return the device, the dtype for `load_encoder`, and lines for the log.

    ranks: None for a command that runs in one process.

    Raises:
        UserError: the device is not available or a value is out of range.
    """
    precisions = {"float32": torch.float32, "float64": torch.float64, "tf32": torch.float32, "bf16": torch.bfloat16}
    if config.precision not in precisions:
        raise UserError(f"hardware.precision={config.precision} is unknown; choose one of {', '.join(precisions)}")
    if config.max_memory is not None and not 0 < config.max_memory < float("inf"):
        raise UserError(f"hardware.max_memory={config.max_memory} must be a positive number of GB, or null")
    if config.vectorized_episodes is not None and config.vectorized_episodes < 1:
        raise UserError(f"hardware.vectorized_episodes={config.vectorized_episodes} must be 1 or more, or null")
    if config.processes < 1:
        raise UserError(f"hardware.processes={config.processes} must be 1 or more")
    if ranks is None and config.processes != 1:
        raise UserError(f"hardware.processes={config.processes}: this command runs in a single process; remove the setting")
    local_rank, local_size = (0, 1) if ranks is None else (ranks.local_rank, ranks.local_size)
    threads = threads_of(config, local_size)
    torch.set_num_threads(threads)
    device = _device(config.device, local_rank, local_size)
    each = f" for each of {local_size} processes" if local_size > 1 else ""
    notes = [f"hardware: {device}, {threads} thread{'' if threads == 1 else 's'}{each}, {config.precision}"]
    if config.precision == "tf32":
        if device.type != "cuda":
            raise UserError(f"hardware.precision=tf32 needs an NVIDIA GPU, but the device is {device}; choose float32 or bf16")
        torch.set_float32_matmul_precision("high")
    if device.type == "cpu" and config.fast_kernels:
        notes += _fast_cpu()
    if device.type == "cpu" and config.precision == "bf16" and not {"avx512_bf16", "amx_bf16"} & set(_cpu_flags().split()):
        notes.append("warning: this CPU has no bf16 instructions, so hardware.precision=bf16 is probably slower than float32")
    return device, precisions[config.precision], notes


def wait(device: torch.device) -> None:
    """Wait until all work queued on the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def product_speed(device: torch.device, size: int = 512, repeats: int = 10) -> float:
    """Return the speed of a float32 matrix product [size, size] x [size, size] under the applied settings, in GFLOP/s: the best of `repeats`."""
    seconds = []
    factor = torch.ones(size, size, device=device)
    for _ in range(repeats):
        wait(device)
        begin = time.perf_counter()
        factor @ factor
        wait(device)
        seconds.append(time.perf_counter() - begin)
    return 2 * size**3 / min(seconds) / 1e9


def peak_memory(device: torch.device) -> int:
    """Return the peak memory so far in bytes: of the GPU, or of the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    if _STATUS.exists():
        return max(_of_process("VmHWM"), *_earlier_peaks)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _of_process(key: str) -> int:
    """Return a size in `_STATUS`, in bytes."""
    return next(1024 * int(line.split()[1]) for line in _STATUS.read_text().splitlines() if line.startswith(f"{key}:"))


def free_memory(device: torch.device) -> int | None:
    """Return the memory in bytes that this process can still allocate; None: unknown."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    found = []
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        found += [1024 * int(line.split()[1]) for line in meminfo.read_text().splitlines() if line.startswith("MemAvailable:")]
    limit, used = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current"))  # limit of a container
    if limit.exists() and used.exists() and limit.read_text().strip() != "max":
        found.append(int(limit.read_text()) - int(used.read_text()))
    return min(found, default=None)


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if an error is an out-of-memory error; torch has no exception class for that on a CPU."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error))


def give_back() -> None:
    """Return cached free memory to the system, and on a GPU to other processes."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if libc := _glibc():
        libc.malloc_trim(0)


@contextmanager
def measured_memory(device: torch.device) -> Iterator[Callable[[], int]]:
    """Measure memory in the block: yield a function that returns the peak increase in bytes.

    On a CPU under Linux, it resets the high-water mark of the process; on CPUs elsewhere, it returns 0.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_reserved(device)
        yield lambda: torch.cuda.max_memory_reserved(device) - before
        return
    reset = Path("/proc/self/clear_refs")
    if not reset.exists():
        yield lambda: 0
        return
    give_back()  # freed memory that the process still holds would hide the next rise
    _earlier_peaks.append(_of_process("VmHWM"))
    reset.write_text("5")
    before = _of_process("VmRSS")
    yield lambda: max(0, _of_process("VmHWM") - before)


def describe() -> dict[str, str | int]:
    """Return the facts about the machine for run.json."""
    return {"platform": platform.platform(), "processor": _processor(), "cores": os.cpu_count() or 0, "threads": torch.get_num_threads()}


def _device(name: str, local_rank: int, local_size: int) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if local_size > 1 and name.startswith("cuda"):
        if local_size > torch.cuda.device_count():
            raise UserError(f"hardware.device={name}: {local_size} processes and {torch.cuda.device_count()} available GPUs; each process needs its own")
        name = f"cuda:{local_rank}"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"hardware.device={name} cannot be used: {str(error).splitlines()[0]}; choose auto, cpu, or another") from error
    return device


def _fast_cpu() -> list[str]:
    notes = []
    # On chips with AMX, "medium" would really compute in bf16; elsewhere it only picks oneDNN's float32 kernel.
    if "amx_bf16" not in _cpu_flags():
        torch.set_float32_matmul_precision("medium")
        # oneDNN caches a kernel for every shape. Shapes rarely recur between episodes, and a thousand kernels take half a gigabyte.
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "256")
        notes.append("kernels: oneDNN float32 matrix product (disable with hardware.fast_kernels=false)")
    if libc := _glibc():
        # Freed buffers stay with the process: mapping them again in each step costs a third of the time.
        m_trim_threshold, m_mmap_threshold = -1, -3
        libc.mallopt(m_mmap_threshold, 1 << 30)
        libc.mallopt(m_trim_threshold, (1 << 31) - 1)
    return notes


def _glibc() -> ctypes.CDLL | None:
    """The C library, where it is the one whose allocator is set here."""
    return ctypes.CDLL(None) if sys.platform == "linux" and platform.libc_ver()[0] == "glibc" else None


def _cpu_flags() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.exists() else ""


def _processor() -> str:
    names = [line.split(":", 1)[1].strip() for line in _cpu_flags().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor()
