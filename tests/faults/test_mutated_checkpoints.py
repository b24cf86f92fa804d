"""Checkpoint files changed in every way: each change is noticed, and the checkpoint before is used."""

import random
import shutil

import torch
from faults.injection import count, report

from metatrain.run import checkpoint

KINDS = ("flip", "truncate", "zero", "append", "empty", "remove", "swap", "directory")


def save(folder, step: int) -> None:
    tensors = {"model": {"w": torch.full((70, 40), float(step))}, "optimizer": {"w/exp_avg": torch.full((70, 40), 0.5 * step)}}
    checkpoint.save(folder, step, {**tensors, "rng": {"torch": torch.arange(8, dtype=torch.uint8) + step}}, {"step": step, "best_step": None})


def damage(path, other, kind: str, rng: random.Random) -> bool:
    """Whether anything is different now."""
    before = path.read_bytes()
    content = bytearray(before)
    if kind == "flip":
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    elif kind == "truncate":
        del content[rng.randrange(len(content)) :]
    elif kind == "zero":  # a page that never reached the disk
        begin = rng.randrange(len(content)) // 4096 * 4096
        content[begin : begin + 4096] = bytes(len(content[begin : begin + 4096]))
    elif kind == "append":
        content += rng.choice([b" ", b"\n", b"\0"])
    elif kind == "empty":
        content.clear()
    elif kind == "swap":
        content[:] = other.read_bytes()
    path.unlink()
    if kind == "directory":
        path.mkdir()
    elif kind != "remove":
        path.write_bytes(content)
    return kind in ("remove", "directory") or bytes(content) != before


def test_every_mutation_is_noticed_and_the_one_before_is_used(tmp_path):
    rng, good, made = random.Random(0), tmp_path / "good", 0
    save(good, 1)
    save(good, 2)
    while made < count(160, 1000):
        folder = tmp_path / "damaged"
        shutil.copytree(good, folder)
        target = rng.choice(sorted((folder / "step-00000002").iterdir()))
        kind = rng.choice(KINDS)
        if damage(target, folder / "step-00000001" / target.name, kind, rng):
            made += 1
            found, warnings = checkpoint.load_newest(folder)
            assert found is not None and found.state["step"] == 1, (kind, target.name)
            assert torch.equal(found.tensors["model"]["w"], torch.ones(70, 40))
            assert len(warnings) == 1 and "renamed to" in warnings[0]
            assert checkpoint.load_newest(folder)[1] == []  # the broken one is out of the way
        shutil.rmtree(folder)
    report("mutations", made=made, noticed=made, previous_used=made)
