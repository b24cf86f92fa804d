"""Gradients that are not finite, spikes, and memory that runs out: what reaches the weights, and what is said."""

import json

import pytest
import torch

from metatrain.meta.learner import Learner
from metatrain.tracking.metrics import read_metrics

SHORT = ["train", "debug=fast", "hardware.threads=1", "outer.steps=12", "validation.every=0", "algorithm.head=prototype", "tracking=none"]
SHORT += ["evaluation.episodes=1", "evaluation.arms=[meta_trained]", "checkpoint.every=2", "checkpoint.keep=20", "hydra.run.dir=run"]


@pytest.fixture
def broken(monkeypatch):
    """Multiplies the meta-gradients of some meta-updates by a factor."""

    def at(steps: set[int], factor: float) -> None:
        taken = Learner.outer_gradients

        def outer_gradients(self, episodes, step=0):
            parts = taken(self, episodes, step)
            if step + 1 in steps:
                for part in parts:
                    for value in part.gradient.values():
                        value.mul_(factor)
            return parts

        monkeypatch.setattr(Learner, "outer_gradients", outer_gradients)
        monkeypatch.setattr("metatrain.meta.encoder_learner.EncoderLearner.outer_gradients", outer_gradients)

    return at


def updates(run) -> list[dict]:
    return [record for record in read_metrics(run / "metrics.jsonl") if record["split"] == "meta_train"]


@pytest.mark.parametrize("factor", [float("nan"), pytest.param(float("inf"), marks=pytest.mark.nightly)])
def test_a_gradient_that_is_not_finite_stops_the_run_before_the_weights_change(cli, tmp_path, broken, factor):
    broken({6}, factor)
    found = cli(*SHORT)
    assert found.code == 2
    assert "the meta-gradient is not finite at meta-update 6; lower inner.lr" in found.err and len(found.err.splitlines()) == 1
    assert [record["step"] for record in updates(tmp_path / "run")] == [1, 2, 3, 4, 5]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["state"] == "failed"
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())[-1] == "step-00000004"


def test_it_can_be_skipped(cli, tmp_path, broken):
    broken({6, 7}, float("nan"))
    found = cli(*SHORT, "outer.nonfinite=skip")
    assert found.code == 0, found.err
    assert [record["step"] for record in updates(tmp_path / "run") if "skipped" in record] == [6, 7]
    assert updates(tmp_path / "run")[5]["gradient_norm"] is None  # JSON has no NaN
    assert all(torch.isfinite(value).all() for value in weights(tmp_path / "run", 12).values())
    assert "warning: meta-update 6 is skipped: the meta-gradient is not finite" in found.out


def test_three_in_a_row_stop_the_run(cli, tmp_path, broken):
    broken({6, 7, 8}, float("nan"))
    found = cli(*SHORT, "outer.nonfinite=skip")
    assert found.code == 2
    assert "3 meta-updates in a row were skipped" in found.err


def test_a_spike_is_skipped_where_that_is_asked_for(cli, tmp_path, broken):
    broken({9}, 1e4)
    found = cli(*SHORT, "outer.spike=100")
    assert found.code == 0, found.err
    assert [record["step"] for record in updates(tmp_path / "run") if "skipped" in record] == [9]
    found = cli(*SHORT[:-1], "hydra.run.dir=taken")
    assert [record["step"] for record in updates(tmp_path / "taken") if "skipped" in record] == []


def weights(run, step: int) -> dict[str, torch.Tensor]:
    from metatrain.run import checkpoint

    return checkpoint.load(run / "checkpoints" / f"step-{step:08d}").tensors["model"]


@pytest.mark.slow
@pytest.mark.parametrize("head", ["prototype", "zero"])  # episodes together, and one by one with second derivatives
def test_out_of_memory_is_tried_again_with_less(zygote, tmp_path, head):
    train = [*SHORT, f"algorithm.head={head}"]
    if head == "prototype":
        train += ["algorithm.adapt=head"]
    results = []
    for failpoints in ("", "episode=memory@5,episode=memory@6,episode=memory@7"):
        folder = tmp_path / (failpoints[:3] or "whole")
        folder.mkdir()
        code, output = zygote.run(train, folder, failpoints)
        assert code == 0, output
        assert ("out of memory" in output) == bool(failpoints) or head == "prototype"
        results.append(updates(folder / "run"))
    for one, other in zip(*results, strict=True):
        assert one["loss_after"] == pytest.approx(other["loss_after"], rel=1e-3)  # rounding, and what it grows to over the updates


@pytest.mark.slow
def test_out_of_memory_with_one_text_at_a_time_is_said(zygote, tmp_path):
    code, output = zygote.run([*SHORT, "algorithm.head=zero"], tmp_path, ",".join(f"episode=memory@{number}" for number in range(5, 30)))
    assert code == 75
    assert "out of memory at meta-update" in output and "with one text at a time" in output and "Traceback" not in output
    assert zygote.run(["resume", "run"], tmp_path)[0] == 0
