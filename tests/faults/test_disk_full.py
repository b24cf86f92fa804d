"""No space at each write of a save: one line, exit code 75, and what was there is as it was."""

import shutil

import pytest
from faults.injection import TRAIN, contents, report, resuming

from metatrain.run import checkpoint

pytestmark = pytest.mark.slow
WRITES = ["save.begin=full@2", *(f"save.file=full@{number}" for number in (5, 6, 7, 8)), "save.manifest=full@2", "save.flushed=full@2", "place.renamed=full@2"]
EVERY_TIME = ("save.file=full@6", "save.manifest=full@2", "place.renamed=full@2")  # the others run nightly


@pytest.mark.parametrize("write", [write if write in EVERY_TIME else pytest.param(write, marks=pytest.mark.nightly) for write in WRITES])
def test_a_full_disk_at_each_write_of_a_save(zygote, whole, fresh, tmp_path, write):
    run = fresh()
    code, output = zygote.run([*TRAIN, "hydra.run.dir=run"], tmp_path, write)
    assert code == 75, output
    assert "no space for the checkpoint" in output and "metatrain resume" in output and "Traceback" not in output
    assert len([line for line in output.splitlines() if "error" in line]) == 1
    saved, warnings = checkpoint.load_newest(shutil.copytree(run, tmp_path / "copy") / "checkpoints")
    assert saved is not None and warnings == []
    assert zygote.run(resuming(run), tmp_path)[0] == 0
    assert contents(run) == contents(whole.path)
    report("disk_full", write=write, exit=75, identical=True)
