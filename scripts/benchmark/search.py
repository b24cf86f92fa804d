"""Measure killed, shared and pruned searches of `metatrain sweep`: python scripts/benchmark/search.py [PART ...]

Parts: killed pruned whole two random random_pruned steady steady_pruned steady_again.

The same search of 16 trials (all-MiniLM-L6-v2 on the embedded reviews, protoanil) in a folder of its own for each part, below
outputs/search_check: `whole`, by one process; `killed`, by one that is killed twice; `two`, by two processes at once; `pruned`, with trials
ended early; `random` and `random_pruned`, with trials of twice the length whose settings are drawn at random, so that both have the same;
`steady` and `steady_pruned`, the same with ten validations of five times the episodes, whose scores depend less on which they are;
`steady_again`, 16 other settings, whose curves say what halving would have found.
A part that is there is not done again. Prints what docs/scaling.md says of it. Seconds are only worth something with nothing beside: run
`whole` and `two` alone.
"""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from metatrain.search.config import SearchConfig
from metatrain.search.study import rungs
from metatrain.tracking.metrics import read_metrics, validation_scores

FOLDER = Path("outputs/search_check")
TRIALS = 16
META_BATCH = 4
VALIDATION_EPISODES = 4  # of each task
SEARCH = [
    *("sweep", "search=rates", f"search.trials={TRIALS}", "algorithm=protoanil", "outer.steps=18", "outer.warmup=2", f"outer.meta_batch={META_BATCH}"),
    *("validation.every=2", f"validation.episodes={VALIDATION_EPISODES}", "hardware.threads=1"),
]
LONGER = ["search.sampler=random", "outer.steps=36", "validation.every=4"]
STEADY = ["search.sampler=random", "outer.steps=40", "validation.every=4", f"validation.episodes={5 * VALIDATION_EPISODES}"]
PARTS = ("killed", "pruned", "whole", "two", "random", "random_pruned", "steady", "steady_pruned", "steady_again")


def start(folder: Path, *more: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "metatrain", *SEARCH, *more, f"hydra.run.dir={folder}"], stdout=subprocess.DEVNULL)


def wait(*processes: subprocess.Popen[bytes]) -> None:
    for process in processes:
        assert process.wait() == 0


def finished(folder: Path) -> dict[str, float]:
    """The trials whose runs have ended, and when they were begun."""
    records = {path.parent.name: json.loads(path.read_text()) for path in folder.glob("trials/*/run.json")}
    return {name: (folder / "trials" / name / "overrides.yaml").stat().st_mtime for name, record in records.items() if record.get("state") == "done"}


def make(part: str) -> None:
    folder = FOLDER / part
    begin = time.monotonic()
    facts: dict[str, object] = {}
    written: dict[str, int] = {}  # when, by trial that was finished before a kill
    if part == "killed":
        for number in (4, 10):
            process = start(folder, "search.pruner=none")
            while len(finished(folder)) < number:
                time.sleep(0.5)
            time.sleep(7)  # into the next trial
            process.send_signal(signal.SIGKILL)
            process.wait()
            before = finished(folder)
            logs = {name: os.stat(folder / "trials" / name / "run.log").st_mtime_ns for name in before}
            time.sleep(5)
            facts[f"finished before kill {number}"] = len(before)
            written.update(logs)
        wait(start(folder, "search.pruner=none"))
        facts["finished trials that ran again"] = sum(os.stat(folder / "trials" / name / "run.log").st_mtime_ns != at for name, at in written.items())
    elif part == "two":
        one = start(folder, "search.pruner=none")
        wait(one, start(folder, "search.pruner=none"))
    else:
        pruner = "halving" if part.endswith("pruned") else "none"
        more = {"random": LONGER, "steady": STEADY, "steady_again": [*STEADY, "seed=1"]}.get(part.removesuffix("_pruned"), [])
        wait(start(folder, f"search.pruner={pruner}", *more))
    facts["seconds"] = round(time.monotonic() - begin, 1)
    (folder / "facts.json").write_text(json.dumps(facts))


def episodes(folder: Path) -> int:
    """Of meta-training and validation, in all trials."""
    found, validated = 0, VALIDATION_EPISODES * (5 if folder.name.startswith("steady") else 1)
    for path in folder.glob("trials/*/metrics.jsonl"):
        records = [json.loads(line) for line in path.read_text().splitlines()]
        found += sum(META_BATCH if record["split"] == "meta_train" else validated * len(record["per_task"]) for record in records)
    return found


def halved(folder: Path) -> tuple[float, float]:
    """What the default pruner would have made of trials that all came to their end: the best score, and the share of the validations."""
    curves = [validation_scores(read_metrics(path)) for path in sorted(folder.glob("trials/*/metrics.jsonl"))]
    settings, length, left, done, cost = SearchConfig(), len(curves[0]), list(range(len(curves))), 0, 0
    for rung in (*rungs(settings, length), length):
        cost, done = cost + len(left) * (rung - done), rung
        left = sorted(left, key=lambda trial: (-max(curves[trial][:done]), trial))[: max(1, len(left) // settings.reduction)]
    return max(curves[left[0]]), cost / (len(curves) * length)


def main() -> None:
    wanted = sys.argv[1:] or PARTS
    for part in wanted:
        if not (FOLDER / part / "facts.json").exists():
            make(part)
    for part in PARTS:
        if (FOLDER / part / "facts.json").exists():
            rows = list(csv.DictReader((FOLDER / part / "trials.csv").open()))
            best = max((row for row in rows if row["state"] == "complete"), key=lambda row: float(row["score"]))
            facts = json.loads((FOLDER / part / "facts.json").read_text())
            if part.startswith("steady") and not part.endswith("_pruned"):
                facts["halved"] = halved(FOLDER / part)
            print(json.dumps({"part": part, **facts, "trials": len(rows), "episodes": episodes(FOLDER / part), "best": best}))


if __name__ == "__main__":
    main()
