"""Checkpoints appear whole, are verified byte by byte, and the last good one is always there."""

import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from metatrain.errors import RestartableError, UserError
from metatrain.run import checkpoint
from metatrain.training.state import TrainState

STATE = {"step": 3, "best_step": None}


def tensors(value: float) -> dict:
    return {"model": {"w": torch.full((40, 5), value)}, "optimizer": {"w/exp_avg": torch.ones(3)}, "rng": {"torch": torch.arange(8, dtype=torch.uint8)}}


def save(folder, step: int):
    return checkpoint.save(folder, step, tensors(float(step)), {**STATE, "step": step})


def test_what_was_saved_is_loaded(tmp_path):
    found = checkpoint.load(save(tmp_path, 7))
    assert torch.equal(found.tensors["model"]["w"], torch.full((40, 5), 7.0))
    assert torch.equal(found.tensors["optimizer"]["w/exp_avg"], torch.ones(3))
    assert found.state["step"] == 7
    assert sorted(path.name for path in (tmp_path / "step-00000007").iterdir()) == [
        "MANIFEST.json", "model.safetensors", "optimizer.safetensors", "rng.safetensors", "state.json",
    ]  # fmt: skip


def test_the_same_content_gives_the_same_bytes(tmp_path):
    one, other = save(tmp_path / "a", 1), save(tmp_path / "b", 1)
    for path in one.iterdir():
        assert path.read_bytes() == (other / path.name).read_bytes()


def test_the_newest_is_that_of_the_highest_step_whatever_the_clock_said(tmp_path):
    for step in (1, 2, 3):
        os.utime(save(tmp_path, step), (1e9 - step, 1e9 - step))
    assert checkpoint.load_newest(tmp_path)[0].state["step"] == 3


def test_nothing_is_pruned_for_the_sake_of_a_broken_one(tmp_path):
    for step in (1, 2, 3):
        save(tmp_path, step)
    (tmp_path / "step-00000003" / "rng.safetensors").write_bytes(b"x")
    with pytest.raises(checkpoint.BrokenCheckpoint):
        checkpoint.prune(tmp_path, keep=1, best=None)
    assert [path.name for path in checkpoint.steps(tmp_path)] == ["step-00000001", "step-00000002", "step-00000003"]


FORMATS = sorted((Path(__file__).parent / "formats").iterdir())


@pytest.mark.parametrize("folder", FORMATS, ids=lambda path: path.name)
def test_every_format_that_was_ever_written_is_read(folder):
    """To be kept: a new format gets a directory of its own here."""
    found, warnings = checkpoint.load_newest(folder)
    assert warnings == []
    assert torch.equal(found.tensors["model"]["w"], torch.arange(6.0).view(2, 3) / 4)
    assert torch.equal(found.tensors["optimizer"]["w/step"], torch.tensor(3.0))
    assert found.tensors["rng"]["torch"].tolist() == [1, 2, 3]
    known = asdict(TrainState())
    assert {key: found.state[key] for key in ("step", "validated", "best_step", "best_score", "without_new_best", "metrics_bytes")} == {
        "step": 3, "validated": 2, "best_step": 2, "best_score": 0.625, "without_new_best": 0, "metrics_bytes": 417,
    }  # fmt: skip
    assert set(found.state) - {"format"} <= set(known)  # what a run does not know any more would be lost


def test_the_newest_format_has_an_example():
    assert [path.name for path in FORMATS][-1] == f"format-{checkpoint.FORMAT}"


def test_a_link_out_of_the_directory_is_not_followed(tmp_path):
    path = save(tmp_path, 1)
    (tmp_path / "elsewhere").write_bytes((path / "model.safetensors").read_bytes())
    (path / "model.safetensors").unlink()
    (path / "model.safetensors").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(checkpoint.BrokenCheckpoint):
        checkpoint.load(path)


def test_a_manifest_that_names_other_files_is_refused(tmp_path):
    path = save(tmp_path, 1)
    manifest = json.loads((path / "MANIFEST.json").read_text())
    manifest["files"]["../../secret"] = {"size": 0, "sha256": ""}
    (path / "MANIFEST.json").write_text(json.dumps(manifest))
    with pytest.raises(checkpoint.BrokenCheckpoint, match="does not list"):
        checkpoint.load(path)


def test_an_unfinished_save_is_not_seen_and_cleared_away(tmp_path):
    save(tmp_path, 1)
    (tmp_path / ".tmp-1234").mkdir()
    (tmp_path / ".tmp-1234" / "model.safetensors").write_bytes(b"half")
    assert checkpoint.load_newest(tmp_path)[0].state["step"] == 1
    checkpoint.prune(tmp_path, keep=1, best=None)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_pruning_keeps_the_newest_and_the_best(tmp_path):
    for step in range(1, 7):
        save(tmp_path, step)
    checkpoint.prune(tmp_path, keep=2, best=3)
    assert [path.name for path in checkpoint.steps(tmp_path)] == ["step-00000003", "step-00000005", "step-00000006"]


def test_saving_the_same_step_again_replaces_it(tmp_path):
    save(tmp_path, 1)
    checkpoint.save(tmp_path, 1, tensors(9.0), STATE)
    assert checkpoint.load(tmp_path / "step-00000001").tensors["model"]["w"][0, 0] == 9.0


def test_a_full_disk_leaves_what_was_there(tmp_path):
    """A limit on file sizes stands in for the disk: the library that writes tensors reports both alike."""
    import resource

    save(tmp_path, 1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, before[1]))
    try:
        with pytest.raises(RestartableError, match="no space for the checkpoint of step 2.*metatrain resume"):
            save(tmp_path, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert checkpoint.load_newest(tmp_path)[0].state["step"] == 1


def test_a_newer_format_is_not_guessed_at(tmp_path):
    path = save(tmp_path, 1)
    (path / "MANIFEST.json").write_text((path / "MANIFEST.json").read_text().replace('"format": 1', '"format": 99'))
    with pytest.raises(checkpoint.BrokenCheckpoint, match="format 99"):
        checkpoint.load(path)


def test_a_checkpoint_that_must_be_there(tmp_path):
    with pytest.raises(UserError, match="unreadable checkpoint"):
        checkpoint.load_for_use(tmp_path, 5)
