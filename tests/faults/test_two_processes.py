"""Two processes on one run: the second is told who has it, and changes nothing."""

import json
import signal
import socket
import time

import pytest
from faults.injection import TRAIN, contents, report


@pytest.mark.slow
def test_a_second_process_learns_who_has_the_run(zygote, cli, fresh, tmp_path):
    run = fresh()
    process = zygote.start([*TRAIN, "hydra.run.dir=run", "outer.steps=100000", "outer.schedule=constant"], tmp_path)
    while not (run / "timings.jsonl").exists():
        time.sleep(0.02)
    process.send(signal.SIGSTOP)  # it holds the run all the same, and leaves the processor to the others
    for arguments in (["resume", "run"], ["resume", "run", "outer.steps=1"], [*TRAIN, "hydra.run.dir=run"]):
        before = (run / "config.yaml").read_bytes()
        found = cli(*arguments)
        assert found.code == 2, found.out + found.err
        assert f"is in use by another process {process.pid} on {socket.gethostname()}" in found.err and len(found.err.splitlines()) == 1
        assert (run / "config.yaml").read_bytes() == before
    process.send(signal.SIGCONT)
    process.send(signal.SIGTERM)
    assert process.wait()[0] == 143
    report("two_processes", refused=3)


@pytest.mark.slow
def test_the_lock_of_a_process_that_was_killed_holds_nobody_up(zygote, whole, fresh, tmp_path):
    run = fresh()
    code, _ = zygote.run([*TRAIN, "hydra.run.dir=run"], tmp_path, "update=kill@5")
    assert code == -9
    assert json.loads((run / "run.json").read_text())["state"] == "running"
    assert (run / ".lock").exists()
    assert zygote.run(["resume", "run"], tmp_path)[0] == 0
    assert contents(run) == contents(whole.path)


@pytest.mark.slow
def test_a_metrics_file_cut_within_a_line(zygote, whole, fresh, tmp_path):
    run = fresh()
    assert zygote.run([*TRAIN, "hydra.run.dir=run"], tmp_path, "update=kill@7")[0] == -9
    (run / "metrics.jsonl").write_bytes((run / "metrics.jsonl").read_bytes()[:-7])
    assert zygote.run(["resume", "run"], tmp_path)[0] == 0
    assert contents(run) == contents(whole.path)


@pytest.mark.slow
def test_a_metrics_file_that_has_lost_records_is_said(zygote, whole, fresh, tmp_path):
    run = fresh()
    assert zygote.run([*TRAIN, "hydra.run.dir=run"], tmp_path, "update=kill@7")[0] == -9
    (run / "metrics.jsonl").write_bytes(b"")
    code, output = zygote.run(["resume", "run"], tmp_path)
    assert code == 0
    assert "metrics.jsonl is shorter than at step-00000006" in output
    assert {name: value for name, value in contents(run).items() if name.startswith("model")} == {
        name: value for name, value in contents(whole.path).items() if name.startswith("model")
    }
