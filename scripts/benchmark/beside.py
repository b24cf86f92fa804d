"""Time a run next to a busy process, by OpenMP spin count (libgomp's default and metatrain's): python scripts/benchmark/beside.py [--rounds 3]

Prints seconds per meta-update of `sentiment_fewshot` on all cores (the first left out; medians over rounds, in turn), quiet and beside one process that
does nothing but count, in a session of its own as from another terminal: kernels share cores among sessions.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from metatrain.tracking.metrics import read_metrics

UPDATES = 4
RUN = [
    *("train", "+experiment=sentiment_fewshot", f"outer.steps={UPDATES}", "validation.every=0", "evaluation.arms=[]", "report=false", "tracking=none"),
    f"hardware.threads={len(os.sched_getaffinity(0))}",
]
WAITS = {"libgomp's own": {"GOMP_SPINCOUNT": "300000"}, "metatrain's": {}}  # which it has where neither variable is set


def seconds(environment: dict[str, str], busy: bool) -> float:
    """Of a meta-update."""
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True) if busy else None
    try:
        with tempfile.TemporaryDirectory() as folder:
            found = {key: value for key, value in os.environ.items() if key not in ("OMP_NUM_THREADS", "GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
            command = [sys.executable, "-m", "metatrain", *RUN, f"hydra.run.dir={folder}/run"]
            subprocess.run(command, env={**found, **environment}, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            records = read_metrics(Path(folder, "run", "timings.jsonl"))
        return statistics.median(each["seconds"] for each in records[1:])
    finally:
        if other is not None:
            other.kill()
            other.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    found: dict[str, dict[str, list[float]]] = {wait: {"quiet": [], "beside": []} for wait in WAITS}
    for _ in range(parser.parse_args().rounds):
        for wait, times in found.items():
            for where in times:
                times[where].append(seconds(WAITS[wait], where == "beside"))
                print(wait, where, times[where][-1], file=sys.stderr)
    print(json.dumps({wait: {where: statistics.median(each) for where, each in times.items()} for wait, times in found.items()}, indent=1))


if __name__ == "__main__":
    main()
