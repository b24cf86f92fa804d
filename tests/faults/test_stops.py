"""SIGTERM and SIGINT at random times: what is needed to go on is saved, and the run ends as if nothing had happened."""

import json
import signal
import time

import pytest
from faults.injection import TRAIN, count, outcome, report, resuming

pytestmark = pytest.mark.slow
CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGUSR1: 75}


def test_stops_at_random_times(zygote, whole, fresh, tmp_path, rng):
    stops, slowest, seconds = 0, 0.0, 0
    while stops < count(2, 100):
        run = fresh()
        arguments = [*TRAIN, "hydra.run.dir=run"]
        while True:
            process = zygote.start(arguments, tmp_path)
            number = rng.choice([signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
            sent = stops < count(2, 100)
            if sent:
                time.sleep(rng.uniform(0.05, 1.05 * whole.seconds))
                begin = time.monotonic()
                process.send(number)
                if again := rng.random() < 0.3:
                    time.sleep(rng.uniform(0, 0.2))
                    process.send(number)
                    seconds += again
            code, output = process.wait()
            if code == 0:
                break
            assert code == CODES[number], output
            assert "Traceback" not in output
            slowest = max(slowest, time.monotonic() - begin)
            stops += 1
            arguments = resuming(run)
        assert outcome(run) == outcome(whole.path)
    report("stops", stops=stops, with_a_second_signal=seconds, slowest_seconds=round(slowest, 2), identical=stops)


STAGES = ["save.file=term@5", "validated=term@1", "exported=int", "results=term", "episode=term@10", "update=int@5", "save.flushed=int@2", "temperature=term@2"]


@pytest.mark.parametrize(
    "place", [*STAGES[:1], "exported=int", *(pytest.param(place, marks=pytest.mark.nightly) for place in STAGES[1 : count(4, 8)] if place != "exported=int")]
)
def test_stops_at_each_stage(zygote, whole, fresh, tmp_path, place):
    run = fresh()
    code, output = zygote.run([*TRAIN, "hydra.run.dir=run"], tmp_path, place)
    assert code == (143 if "term" in place else 130) or (code == 0 and place.startswith("results")), output
    if code:
        assert json.loads((run / "run.json").read_text())["state"] == "stopped"
        assert "metatrain resume" in output
        assert zygote.run(resuming(run), tmp_path)[0] == 0
    assert outcome(run) == outcome(whole.path)
