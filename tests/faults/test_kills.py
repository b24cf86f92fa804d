"""SIGKILL at random times and at every place inside a save: the run goes on, and ends as if nothing had happened."""

import signal
import time

import pytest
from faults.injection import EVERY, FULL, SAVES, TRAIN, contents, count, most_lost, report, resuming, updates_done

pytestmark = pytest.mark.slow
# Each place of run/failpoints.py that a run without faults passes, and what is done there.
PLACES = {
    **{f"{name}=kill": 1 for name in ("save.begin", "save.manifest", "save.flushed", "save.done", "place.renamed", "remove.aside", "remove.done")},
    **{f"save.file={action}": 4 for action in ("kill", "tear")},  # four files in each save
    "save.manifest=tear": 1,
    **{f"{name}=kill": 0 for name in ("episode", "update", "validated", "temperature", "exported", "results")},
}
# Of a file, of a directory that takes its place, and between two saves; the others run nightly.
EVERY_TIME = ("save.file=kill", "save.file=tear", "place.renamed=kill", "update=kill")


def test_random_kills(zygote, whole, fresh, tmp_path, rng):
    kills, finished, lost = 0, 0, 0
    while kills < count(2, 200):
        run = fresh()
        here = 0
        while True:
            process = zygote.start(resuming(run), tmp_path)
            if kills < count(2, 200) and here < 6:
                time.sleep(rng.uniform(0, 1.1 * whole.seconds))
                process.send(signal.SIGKILL)
            code, output = process.wait()
            assert code in (0, -signal.SIGKILL), output
            kills += code == -signal.SIGKILL
            here += code == -signal.SIGKILL
            if code == 0:
                break
        finished += 1
        assert contents(run) == contents(whole.path)
        lost = max(lost, most_lost(updates_done(run)))
    assert lost <= EVERY
    report("random_kills", kills=kills, runs=finished, identical=finished, most_updates_lost=lost)


@pytest.mark.parametrize("fault", [fault if fault in EVERY_TIME else pytest.param(fault, marks=pytest.mark.nightly) for fault in PLACES])
def test_kills_inside_a_save(zygote, whole, fresh, tmp_path, rng, fault):
    passings = range(1, SAVES + 1) if FULL else [rng.randint(1, SAVES)]
    each = max(1, PLACES[fault])
    for passing in passings:
        run = fresh()
        number = (passing - 1) * each + rng.randint(1, each)
        if fault.startswith(("validated", "remove")):
            number = min(number, SAVES - 2)  # a validation comes after every fourth meta-update, and two checkpoints remain
        if fault.startswith(("temperature", "exported", "results")):
            number = 1
        code, output = zygote.run([*TRAIN, "hydra.run.dir=run"], tmp_path, f"{fault}@{number}")
        assert code == -signal.SIGKILL, output
        assert zygote.run(resuming(run), tmp_path)[0] == 0
        assert contents(run) == contents(whole.path)
        assert most_lost(updates_done(run)) <= EVERY
    report("kills_inside_a_save", fault=fault, kills=len(passings), identical=len(passings))


def test_a_kill_while_a_checkpoint_of_the_same_step_is_replaced(zygote, whole, fresh, tmp_path):
    run = fresh()
    code, output = zygote.run([*TRAIN, "hydra.run.dir=run"], tmp_path, f"update=term@{EVERY},place.aside=kill")  # saved, and saved again for the stop
    assert code == -signal.SIGKILL, output
    assert not (run / "checkpoints" / f"step-{EVERY:08d}").exists()  # moved aside, and the new one not yet in its place
    assert zygote.run(resuming(run), tmp_path)[0] == 0
    assert contents(run) == contents(whole.path)
    report("kills_inside_a_save", fault="place.aside=kill", kills=1, identical=1)


@pytest.mark.parametrize(
    "fault", ["save.file=kill@2", "save.file=tear@5", *(pytest.param(fault, marks=pytest.mark.nightly) for fault in ("save.file=tear@8", "save.file=kill@9"))]
)
def test_a_naive_saver_does_not_survive_them(zygote, whole, fresh, tmp_path, fault):
    """The negative control: were this to pass, the tests above would prove nothing."""
    run = fresh()
    assert zygote.run([*TRAIN, "hydra.run.dir=run"], tmp_path, fault, naive=True)[0] == -signal.SIGKILL
    code, _ = zygote.run(resuming(run), tmp_path, naive=True)
    assert code != 0
    report("naive_saver", fault=fault, survived=False)
