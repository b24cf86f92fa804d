"""Weight interpolation between the initial and the trained encoder (`outer.weight_interpolation`)."""

import json

import pytest
import torch
from safetensors.torch import load_file

from metatrain.run import checkpoint
from metatrain.training.outer import interpolated


def test_parameters_with_an_initial_value_are_interpolated():
    start = {"encoder.a": torch.tensor([0.0, 2.0])}
    trained = {"encoder.a": torch.tensor([1.0, 4.0]), "head.log_scale": torch.tensor(3.0)}
    found = interpolated(start, trained, 0.25)
    assert found["encoder.a"].tolist() == [0.25, 2.5] and found["head.log_scale"] == 3
    assert interpolated({}, trained, 1.0) == trained


def test_run_export_and_evaluation_have_the_interpolated_model(cli, tmp_path):
    settings = ["debug=fast", "algorithm=protonet_cosine", "algorithm.label_names=true", "tracking=none", "hardware.threads=1", "outer.lr=0.01"]
    for share in (1.0, 0.5, 0.25):
        assert cli("train", *settings, f"outer.weight_interpolation={share}", f"hydra.run.dir=run{share}").code == 0
    exported = [load_file(tmp_path / f"run{share}" / "model" / "model.safetensors") for share in (1.0, 0.5, 0.25)]
    assert any(not torch.equal(whole, half) for whole, half in zip(exported[0].values(), exported[1].values()))
    for whole, half, quarter in zip(*(each.values() for each in exported)):
        torch.testing.assert_close(half - quarter, 0.25 * whole - 0.25 * (2 * half - whole), atol=1e-6, rtol=1e-4)
    # Training continues from the trained parameters, whatever is saved.
    newest = [checkpoint.load(checkpoint.steps(tmp_path / f"run{share}" / "checkpoints")[-1]).tensors["model"] for share in (1.0, 0.5)]
    assert all(torch.equal(value, newest[1][name]) for name, value in newest[0].items())
    # A checkpoint is the same model to `evaluate` as the export.
    for reference, name in (("run0.5", "again"), ("run0.5/model", "export")):
        again = [f"checkpoint={reference}", "tasks=reviews", "evaluation.shots=[2]", "evaluation.episodes=3", "evaluation.queries=5", "hardware.threads=1"]
        assert cli("evaluate", *again, f"hydra.run.dir={name}").code == 0
    first, second = (json.loads((tmp_path / name / "results.json").read_text())["arms"] for name in ("again", "export"))
    assert {name: arm["mean"] for name, arm in first.items()} == {name: arm["mean"] for name, arm in second.items()}
    assert first["meta_trained"]["calibration_error"] == pytest.approx(second["meta_trained"]["calibration_error"], abs=1e-4)


def test_a_share_that_makes_no_sense_is_refused(cli):
    found = cli("train", "debug=fast", "tracking=none", "outer.weight_interpolation=0")
    assert found.code == 2 and "outer.weight_interpolation=0.0 must be above 0 and at most 1" in found.err
