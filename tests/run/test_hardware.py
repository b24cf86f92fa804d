"""What a command takes of the machine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from metatrain.errors import UserError
from metatrain.run import hardware
from metatrain.run.config import HardwareConfig
from metatrain.run.ranks import Ranks


@pytest.fixture(autouse=True)
def threads_as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def threads(config: HardwareConfig, ranks: Ranks | None = None) -> int:
    hardware.apply(config, ranks)
    return torch.get_num_threads()


def test_threads_are_those_that_are_asked_for_or_those_of_openmp_or_all_cores(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3,2")
    assert threads(HardwareConfig(device="cpu", threads=2)) == 2
    assert threads(HardwareConfig(device="cpu")) == 3
    for nothing in ("", "many", "0"):
        monkeypatch.setenv("OMP_NUM_THREADS", nothing)
        assert threads(HardwareConfig(device="cpu")) == len(os.sched_getaffinity(0))


def test_processes_of_one_machine_share_its_cores(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    assert threads(HardwareConfig(device="cpu", processes=3), Ranks(rank=1, size=3, local_rank=1, local_size=3)) == 2


def test_no_threads_are_refused():
    with pytest.raises(UserError, match="hardware.threads=0 must be 1 or more"):
        hardware.apply(HardwareConfig(device="cpu", threads=0))


linux = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="asks Linux")
ASKS = "import torch; from metatrain.run.hardware import peak_memory; print(peak_memory(torch.device('cpu')))"


@linux
def test_peak_memory_is_not_that_of_the_process_that_started_this_one():
    large = f"import subprocess, sys; held = b'x' * 1_500_000_000; subprocess.run([sys.executable, '-c', {ASKS!r}], check=True)"
    found = subprocess.run([sys.executable, "-c", large], capture_output=True, text=True, check=True)
    assert int(found.stdout) < 1_500_000_000


@linux
def test_measuring_a_part_does_not_make_the_peak_forgotten():
    cpu = torch.device("cpu")
    torch.ones(100_000_000)  # 400 MB, let go of at once
    before = hardware.peak_memory(cpu)
    with hardware.measured_memory(cpu) as used:
        held = torch.ones(50_000_000)
    assert 150e6 < used() < 350e6 and len(held)
    assert hardware.peak_memory(cpu) > 0.99 * before  # the kernel counts some pages late


def test_speed_of_products_counts_two_operations_for_each_of_the_cube_and_takes_the_fastest(monkeypatch):
    ticks = iter([0.0, 1.0] + [value for number in range(9) for value in (10.0 * number, 10.0 * number + 2.0)])
    monkeypatch.setattr(hardware.time, "perf_counter", lambda: next(ticks))
    assert hardware.product_speed(torch.device("cpu")) == 2 * 512**3 / 1e9
