"""One process with all cores against as many processes as cores: python scripts/benchmark/ranks.py [--rounds 5] > ranks.json

Meta-trains all-MiniLM-L6-v2 on the embedded reviews for a few meta-updates in each way, in turn, and prints the medians over rounds of
the seconds per meta-update (the first of each run left out), and the share of it that a rank spends with the others: exchanging
meta-gradients, and waiting for whoever had more to do.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from metatrain.tracking.metrics import read_metrics

CORES = len(os.sched_getaffinity(0))
WAYS: dict[str, Mapping[str, object]] = {
    "one process": {"hardware.processes": 1, "hardware.threads": CORES},
    "a process a core, ordered": {"hardware.processes": CORES, "hardware.threads": 1},
    "a process a core, fast": {"hardware.processes": CORES, "hardware.threads": 1, "hardware.reduce": "fast"},
}
REVIEWS = ["tasks=fdu_mtl", "episode.shots=5", "episode.queries=5"]  # some 80 tokens a text, where the embedded ones have some 15
METHODS = {  # the settings of each, and how many meta-updates
    "maml": (["algorithm=maml"], 3),
    "fomaml": (["algorithm=fomaml"], 4),
    "anil": (["algorithm=anil"], 8),
    "anil, FDU-MTL": (["algorithm=anil", *REVIEWS], 5),
}
SAME = ["tracking=none", "validation.every=0", "evaluation.episodes=1", "evaluation.arms=[meta_trained]", "outer.warmup=1", "checkpoint.every=1000"]


def seconds(method: str, settings: Mapping[str, object]) -> tuple[float, float]:
    """(seconds per meta-update, of which with other ranks): medians over a run's meta-updates."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        own, updates = METHODS[method]
        arguments = [
            *own,
            f"outer.steps={updates}",
            *SAME,
            f"hydra.run.dir={run}",
            *(f"{key}={value}" for key, value in settings.items()),
        ]
        subprocess.run([sys.executable, "-m", "metatrain", "train", *arguments], check=True, stdout=subprocess.DEVNULL)
        records = read_metrics(run / "timings.jsonl")[1:]
    return statistics.median(each["seconds"] for each in records), statistics.median(each.get("with_other_ranks", 0.0) for each in records)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--method", action="append", choices=METHODS)
    arguments = parser.parse_args()
    rounds = arguments.rounds
    found: dict[str, dict[str, list[tuple[float, float]]]] = {method: {way: [] for way in WAYS} for method in arguments.method or METHODS}
    for _ in range(rounds):
        for method, ways in found.items():
            for way, times in ways.items():
                times.append(seconds(method, WAYS[way]))
                print(method, way, times[-1], file=sys.stderr)
    medians = {
        method: {
            way: {"seconds": statistics.median(one for one, _ in times), "with_others": statistics.median(other for _, other in times)}
            for way, times in ways.items()
        }
        for method, ways in found.items()
    }
    print(json.dumps({"cores": CORES, "rounds": rounds, "methods": medians}, indent=1))


if __name__ == "__main__":
    main()
