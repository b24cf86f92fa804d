"""Several processes on one run: the same bits as one, and none of them is left behind when one dies, hangs or is stopped."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
from faults.injection import FULL, STEPS, TRAIN, contents, count, outcome, report, resuming, updates_done

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes by /proc")]
TIMEOUT = 6  # seconds; a rank that hangs is noticed after it


def ranks_of(pid: int) -> list[int]:
    """The processes that a run's first process has started, in the order of their ranks."""
    return [int(number) for number in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def after_updates(run: Path, number: int) -> None:
    """Wait until a run has done so many meta-updates."""
    while len(updates_done(run)) < number:
        time.sleep(0.01)


LONG_STEPS = 30 if FULL else 22
LONG = [*TRAIN, f"outer.steps={LONG_STEPS}", "report=true", "hydra.run.dir=run"]


@pytest.fixture(scope="module")
def long(zygote, tmp_path_factory) -> Path:
    """A run of `LONG_STEPS` meta-updates in one process."""
    folder = tmp_path_factory.mktemp("long")
    code, output = zygote.run(LONG, folder)
    assert code == 0, output
    return folder / "run"


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.nightly)])
def test_the_same_bits_as_one_process(zygote, long, fresh, tmp_path, processes):
    run = fresh()
    code, output = zygote.run([*LONG, f"hardware.processes={processes}"], tmp_path)
    assert code == 0, output
    assert len(updates_done(run)) == LONG_STEPS and contents(run) == contents(long)
    assert (run / "analysis.json").read_bytes() == (long / "analysis.json").read_bytes() and (run / "report.html").exists()
    scores = [json.loads((path / "results.json").read_text())["arms"]["meta_trained"]["per_task"] for path in (run, long)]
    assert scores[0] == scores[1]
    assert json.loads((run / "run.json").read_text())["hardware"]["processes"] == processes
    report("ranks_same_bits", processes=processes)


@pytest.mark.parametrize("algorithm", ["maml", pytest.param("anil", marks=pytest.mark.nightly)])
def test_more_episodes_than_ranks_and_fewer(zygote, tmp_path, algorithm):
    found = []
    for processes in (1, 4):
        run = f"{processes}"
        more = ["outer.meta_batch=5", "algorithm.head=zero", f"algorithm={algorithm}", "outer.steps=3", f"hydra.run.dir={run}"]
        code, output = zygote.run([*TRAIN, *more, f"hardware.processes={processes}"], tmp_path)
        assert code == 0, output
        found.append(contents(tmp_path / run))
    assert found[0] == found[1]


def test_a_plain_sum_is_the_same_to_rounding(zygote, whole, fresh, tmp_path):
    run = fresh()
    code, output = zygote.run([*TRAIN, "hydra.run.dir=run", "hardware.processes=2", "hardware.reduce=fast"], tmp_path)
    assert code == 0, output
    losses = [[json.loads(line).get("loss_after") for line in (path / "metrics.jsonl").read_text().splitlines()][:3] for path in (run, whole.path)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_one_then_two_then_four_then_one_with_kills_between(zygote, long, fresh, tmp_path):
    run = fresh()
    for processes, fault in ((1, "update=kill@7"), (2, "update=kill@8"), (4, "update=kill@8"), (1, "")):
        arguments = resuming(run) if (run / "config.yaml").exists() else LONG
        code, output = zygote.run([*arguments, f"hardware.processes={processes}"], tmp_path, fault)
        assert code == ((75 if processes > 1 else -signal.SIGKILL) if fault else 0), output
    assert contents(run) == contents(long)
    report("ranks_changed_between", kills=3, identical=1)


@pytest.mark.parametrize(
    ("number", "rank"),
    [
        pytest.param(signal.SIGKILL, 0, id="killed-0"),
        pytest.param(signal.SIGKILL, 1, id="killed-1", marks=pytest.mark.nightly),
        pytest.param(signal.SIGSTOP, 0, id="hangs-0", marks=pytest.mark.nightly),
        pytest.param(signal.SIGSTOP, 1, id="hangs-1"),
    ],
)
def test_a_rank_that_is_lost_ends_the_others(zygote, whole, fresh, tmp_path, rng, rank, number):
    for _ in range(count(1, 10)):
        run = fresh()
        process = zygote.start([*TRAIN, "hydra.run.dir=run", "hardware.processes=2", f"hardware.timeout={TIMEOUT}"], tmp_path)
        after_updates(run, rng.randint(1, STEPS - 4))
        ranks = ranks_of(process.pid)
        begin = time.monotonic()
        os.kill(ranks[rank], number)
        code, output = process.wait()
        seconds = time.monotonic() - begin
        assert code == 75, output
        said = "was killed by signal 9" if number == signal.SIGKILL else "did not respond and was terminated"
        assert output.splitlines()[-1] == f"metatrain: error: process {rank} of 2 {said}; resume with: metatrain resume run" and "Traceback" not in output
        assert seconds < TIMEOUT + 5 and not any(Path(f"/proc/{pid}").exists() for pid in ranks)
        assert zygote.run(resuming(run), tmp_path)[0] == 0
        assert outcome(run) == outcome(whole.path)
        report("lost_rank", rank=rank, how=number.name, seconds=round(seconds, 1), timeout=TIMEOUT, identical=1)


@pytest.mark.parametrize(
    ("whom", "number"),
    [
        ("the first process", signal.SIGTERM),
        ("one rank", signal.SIGINT),
        pytest.param("one rank", signal.SIGUSR1, marks=pytest.mark.nightly),
        pytest.param("the first process", signal.SIGINT, marks=pytest.mark.nightly),
        pytest.param("the first process", signal.SIGUSR1, marks=pytest.mark.nightly),
        pytest.param("one rank", signal.SIGTERM, marks=pytest.mark.nightly),
    ],
)
def test_a_signal_stops_all_ranks_at_the_same_meta_update(zygote, whole, fresh, tmp_path, rng, whom, number):
    run = fresh()
    process = zygote.start([*TRAIN, "hydra.run.dir=run", "hardware.processes=2"], tmp_path)
    after_updates(run, rng.randint(1, STEPS - 6))
    ranks = ranks_of(process.pid)
    os.kill(process.pid if whom == "the first process" else ranks[1], number)
    code, output = process.wait()
    assert code == {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGUSR1: 75}[number], output
    assert output.count("metatrain resume") == 1 and "Traceback" not in output
    assert not any(Path(f"/proc/{pid}").exists() for pid in ranks)
    assert json.loads((run / "run.json").read_text())["state"] == "stopped"
    assert zygote.run([*resuming(run), "hardware.processes=1"], tmp_path)[0] == 0
    assert outcome(run) == outcome(whole.path)


def test_ranks_end_when_the_process_that_started_them_is_killed(zygote, whole, fresh, tmp_path):
    run = fresh()
    process = zygote.start([*TRAIN, "hydra.run.dir=run", "hardware.processes=2"], tmp_path)
    after_updates(run, 3)
    ranks = ranks_of(process.pid)
    process.send(signal.SIGKILL)
    assert process.wait()[0] == -signal.SIGKILL
    begin = time.monotonic()
    while any(Path(f"/proc/{pid}").exists() for pid in ranks):
        assert time.monotonic() - begin < 30
        time.sleep(0.05)
    assert json.loads((run / "run.json").read_text())["state"] == "stopped"
    assert zygote.run([*resuming(run), "hardware.processes=1"], tmp_path)[0] == 0
    assert outcome(run) == outcome(whole.path)


def test_what_is_wrong_is_said_once(zygote, fresh, tmp_path):
    for wrong, said in (("hardware.processes=0", "hardware.processes=0"), ("inner.lr=-1", "inner.lr=-1"), ("hardware.reduce=best", "hardware.reduce=best")):
        code, output = zygote.run([*TRAIN, "hydra.run.dir=run", "hardware.processes=2", wrong], tmp_path)
        assert code == 2 and len(output.splitlines()) == 1 and said in output, output
        assert not (tmp_path / "run" / "config.yaml").exists()
