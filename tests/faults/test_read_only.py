"""Directories that cannot be written: one line, exit code 2, and nothing is changed."""

import shutil

import pytest
from faults.injection import TRAIN, report

pytestmark = pytest.mark.slow


def test_a_run_directory_that_cannot_be_made(zygote, tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o555)
    code, output = zygote.run([*TRAIN, f"hydra.run.dir={folder}/run"], tmp_path, powerless=True)
    assert code == 2, output
    error = [line for line in output.splitlines() if "error" in line]
    assert len(error) == 1 and "hydra.run.dir" in error[0] and "Permission denied" in error[0], output
    assert list(folder.iterdir()) == []


def test_a_run_that_cannot_be_written(zygote, whole, tmp_path):
    run = shutil.copytree(whole.path, tmp_path / "run")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for path in (run, *run.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    code, output = zygote.run(["resume", str(run), "outer.steps=16"], tmp_path, powerless=True)
    assert code == 2, output
    error = [line for line in output.splitlines() if "error" in line]
    assert len(error) == 1 and "no permission" in error[0], output
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    for path in (run, *run.rglob("*")):
        path.chmod(0o755)  # so that it can be cleared away
    report("read_only", refused=2)
