"""Ranks that a launcher of torch's kind has started; those of `hardware.processes` are in tests/faults/test_processes_of_a_run.py."""

import json
import os
import socket
import subprocess

import pytest
from conftest import spawn

from metatrain.errors import RestartableError, UserError
from metatrain.run.config import HardwareConfig
from metatrain.run.ranks import Ranks, join


def free_port() -> str:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return str(server.getsockname()[1])


@pytest.mark.nightly
def test_processes_of_another_launcher_find_each_other_and_agree_on_the_run(tmp_path, tiny_run):
    """Each has the environment that torchrun gives."""
    shared = {**os.environ, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    arguments = ["train", "debug=fast", "validation.every=2", "hardware.threads=1"]
    processes: list[subprocess.Popen] = [spawn(*arguments, cwd=tmp_path, env={**shared, "RANK": rank, "LOCAL_RANK": rank}) for rank in ("0", "1")]
    (out, err), silent = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], err
    assert "for each of 2 processes" in out and silent[0] == ""
    (run,) = (tmp_path / "outputs" / "train" / "maml").iterdir()
    assert json.loads((run / "run.json").read_text())["hardware"]["processes"] == 2
    for name in ("metrics.jsonl", "model/model.safetensors"):
        assert (run / name).read_bytes() == (tiny_run / name).read_bytes()


def test_a_single_process_has_no_ranks(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert join(HardwareConfig()) == Ranks()


@pytest.mark.parametrize(("key", "value"), [("reduce", "best"), ("timeout", 0.0), ("timeout", float("inf"))])
def test_settings_that_make_no_sense_are_refused(key, value):
    with pytest.raises(UserError, match=f"hardware.{key}="):
        join(HardwareConfig(**{key: value}))


def test_one_process_asks_nobody():
    alone = Ranks()
    assert alone.first and alone.highest(7) == 7 and alone.gather({"a": 1}) == [{"a": 1}]
    alone.wait()
    assert alone.waited == 0.0


def test_other_commands_run_in_one_process():
    from metatrain.run.hardware import apply

    with pytest.raises(UserError, match=r"hardware\.processes=2: this command runs in a single process"):
        apply(HardwareConfig(processes=2, threads=1))


def test_parameters_that_differ_are_noticed(monkeypatch):
    import torch

    monkeypatch.setattr(Ranks, "gather", lambda self, value: [value, "another"])
    with pytest.raises(RestartableError, match="rank 1 and rank 0 have different parameters at meta-update 3, so nothing more is saved"):
        Ranks(0, 2).check_same({"x": torch.zeros(1)}, "at meta-update 3")
