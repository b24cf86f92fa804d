"""Four ranks over a slow network: python scripts/benchmark/network.py > network.json      needs root on Linux (unshare, ip, tc)

All ranks run on this machine, in a network of their own whose loopback carries so many bits a second (token bucket); the bytes that the
cost model counts for the exchange, over that rate, are compared with the time that a meta-update takes longer than on the loopback as
it is. Latency cannot be had this way.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir

from metatrain.commands.building import Recipe, build_learner
from metatrain.config.compose import conf_dir, typed
from metatrain.config.schema import TrainConfig, register
from metatrain.evaluation.protocol import texts_of
from metatrain.tasks.distribution import load_tasks
from metatrain.tasks.episodes import training_episode

RANKS, UPDATES = 4, 6
RATES = {"as it is": None, "2 Gbit/s": 2e9, "1 Gbit/s": 1e9, "0.5 Gbit/s": 5e8}
RUN = [
    *("train", "algorithm=fomaml", "inner.steps=1", "tracking=none", "validation.every=0", "evaluation.arms=[]", "outer.warmup=1"),
    *(f"outer.steps={UPDATES}", f"hardware.processes={RANKS}", "hardware.threads=1", "checkpoint.every=1000"),
]


def seconds(rate: float | None, reduce: str) -> float:
    """A meta-update's, the first left out."""
    with tempfile.TemporaryDirectory() as folder:
        shape = "" if rate is None else f"tc qdisc add dev lo root tbf rate {rate:.0f}bit burst 1mb latency 400ms && "
        command = " ".join([sys.executable, "-m", "metatrain", *RUN, f"hardware.reduce={reduce}", f"hydra.run.dir={folder}/run"])
        command = command.replace("[]", "'[]'")
        subprocess.run(["unshare", "-n", "bash", "-c", f"ip link set lo up && {shape}{command}"], check=True, stdout=subprocess.DEVNULL)
        records = [json.loads(line) for line in (Path(folder) / "run/timings.jsonl").read_text().splitlines()][1:]
    return statistics.median(each["seconds"] for each in records)


def exchanged() -> float:
    """Bytes over the loopback in a meta-update of as many episodes as ranks: each rank's slices to all others, then the sum's to all."""
    register()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = typed(compose("train", RUN[1:]), TrainConfig)
    tasks = load_tasks(config.tasks, config.seed)
    learner = build_learner(Recipe.of_run(config, tasks.meta_train), torch.device("cpu"), torch.float32)
    tokens, sizes = learner.model.tokens(), []
    for update in range(1, UPDATES):
        drawn = (training_episode(tasks, config.episode, config.seed, update * RANKS + slot) for slot in range(RANKS))
        rows = learner.rows([texts_of(episode, tokens) for episode in drawn])
        sizes.append(sum(value[: len(rows)].nbytes if name in learner.by_row else value.nbytes for name, value in learner.parameters.items()))
    return 2 * (RANKS - 1) * statistics.mean(sizes)


def main() -> None:
    number = exchanged()
    found = {reduce: {name: seconds(rate, reduce) for name, rate in RATES.items()} for reduce in ("ordered", "fast")}
    for times in found.values():
        print(times, file=sys.stderr)
    rows = {
        name: {reduce: {"seconds": times[name], "longer": times[name] - times["as it is"], "predicted": 8 * number / rate} for reduce, times in found.items()}
        for name, rate in RATES.items()
        if rate is not None
    }
    print(json.dumps({"megabytes": number / 1e6, "seconds as it is": {reduce: times["as it is"] for reduce, times in found.items()}, "rates": rows}, indent=1))


if __name__ == "__main__":
    main()
