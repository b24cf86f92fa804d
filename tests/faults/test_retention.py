"""Saving, damaging, pruning and interrupting in any order: the newest that verifies and the best are always there."""

import shutil
import tempfile
from pathlib import Path

import torch
from faults.injection import FULL, report
from hypothesis import given, settings
from hypothesis import strategies as st

from metatrain.run import checkpoint

ACTIONS = st.sampled_from(["save", "save", "save", "save best", "prune", "prune", "damage newest", "unfinished save", "resume"])


def save(folder: Path, step: int) -> None:
    tensors = {name: {"w": torch.full((2,), float(step))} for name in checkpoint.TENSOR_FILES}
    checkpoint.save(folder, step, tensors, {"step": step})


@settings(max_examples=1000 if FULL else 100, deadline=None, derandomize=True)
@given(st.lists(ACTIONS, min_size=3, max_size=14), st.integers(1, 3))
def test_what_must_be_there_is_there(actions, keep):
    with tempfile.TemporaryDirectory() as name:
        folder, step, best, good = Path(name), 0, None, []
        for action in actions:
            if action.startswith("save"):
                step += 1
                save(folder, step)
                good.append(step)
                best = step if action == "save best" else best
            elif action == "prune":
                try:
                    checkpoint.prune(folder, keep, best)
                except checkpoint.BrokenCheckpoint:
                    assert good != [step]  # the newest is damaged, and nothing was removed
                    continue
                found = [int(path.name[5:]) for path in checkpoint.steps(folder)]
                assert len(found) <= keep + 1
                assert best is None or best in found or best not in good
                good = [each for each in good if each in found]
            elif action == "damage newest" and good and good[-1] != best:
                (folder / f"step-{good.pop():08d}" / "rng.safetensors").write_bytes(b"")
            elif action == "unfinished save" and checkpoint.steps(folder):
                shutil.copytree(checkpoint.steps(folder)[-1], folder / ".tmp-x", dirs_exist_ok=True)
            elif action == "resume":
                found, _ = checkpoint.load_newest(folder)
                assert (found.state["step"] if found else None) == (good[-1] if good else None)
                step = good[-1] if good else 0
            if good:
                assert checkpoint.load(folder / f"step-{good[-1]:08d}").state["step"] == good[-1]
            if best in good:
                assert checkpoint.load(folder / f"step-{best:08d}").state["step"] == best
    report("retention", sequences=1)
