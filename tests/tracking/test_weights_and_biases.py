"""W&B is beside the record: whatever it does, the run goes on."""

import sys
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from metatrain.errors import UserError
from metatrain.tracking.config import TrackingConfig
from metatrain.tracking.weights_and_biases import WandbRun, check_tracking


@dataclass
class Settings:
    seed: int = 0


@pytest.fixture
def lines() -> list[str]:
    return []


def start(mode: str, folder, say, run_id=None) -> WandbRun:
    return WandbRun(TrackingConfig(mode=mode), "name", folder, Settings(), say, run_id)


def test_auto_without_a_key_keeps_to_the_local_record(tmp_path, lines, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    run = start("auto", tmp_path, lines.append)
    run.log(1, {"a": 1})
    run.finish({})
    assert "wandb" not in sys.modules
    assert lines == ["tracking: local files; for Weights & Biases run `wandb login` or set WANDB_API_KEY"]


def test_offline_writes_a_run_that_can_be_synced(tmp_path, lines):
    run = start("offline", tmp_path, lines.append)
    run.log(1, {"train/loss": 0.5})
    run.finish({"meta_test/meta_trained": 0.8})
    assert run.run_id
    assert list((tmp_path / "wandb").glob(f"offline-run-*-{run.run_id}/*.wandb"))
    assert not [line for line in lines if "warning" in line]


@pytest.mark.parametrize("where", ["init", "log", "finish"])
def test_a_failure_anywhere_is_one_warning(tmp_path, lines, monkeypatch, where):
    def fail(*_, **__):
        raise ConnectionError("the server is on fire\nand more")

    inner = SimpleNamespace(id="abc", url=None, log=lambda *_, **__: None, finish=lambda: None, summary={})
    if where != "init":
        setattr(inner, where, fail)
    stub = SimpleNamespace(init=fail if where == "init" else lambda **_: inner, Settings=SimpleNamespace)
    monkeypatch.setitem(sys.modules, "wandb", stub)
    run = start("offline", tmp_path, lines.append)
    for step in range(3):
        run.log(step, {"a": step})
    run.finish({"b": 1})
    warnings = [line for line in lines if "warning" in line]
    assert warnings == ["warning: Weights & Biases is off for the rest of this run: the server is on fire"]


def test_a_resumed_run_keeps_its_id(tmp_path, lines, monkeypatch):
    seen = {}
    stub = SimpleNamespace(init=lambda **arguments: seen.update(arguments) or SimpleNamespace(id=arguments["id"], url=None), Settings=SimpleNamespace)
    monkeypatch.setitem(sys.modules, "wandb", stub)
    assert start("offline", tmp_path, lines.append, run_id="abc").run_id == "abc"
    assert (seen["id"], seen["resume"], seen["config"]) == ("abc", "allow", {"seed": 0})


def test_unknown_mode():
    with pytest.raises(UserError, match="choose one of"):
        check_tracking(TrackingConfig(mode="sometimes"))
