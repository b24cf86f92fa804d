"""Four ranks over a slow network: python scripts/benchmark/network.py > network.json      needs root on Linux (unshare, ip, tc)

All ranks run on this machine. Rate: in a network of their own whose loopback has a limited bit rate (token bucket); the bytes that
the cost model counts for the exchange, over that rate, are compared with the time that a meta-update takes longer than on the loopback as
it is. Latency: each rank on a machine of its own (scripts/benchmark/machines.py), started by torchrun, some milliseconds from the others; what
a meta-update takes longer is compared with the messages that wait for one another. Their weights are compared with those of one process.
"""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from machines import DEVICE, Machines

from metatrain.checkpoints.building import build_learner
from metatrain.checkpoints.recipe import Recipe
from metatrain.config.compose import conf_dir, typed
from metatrain.config.schema import TrainConfig, register
from metatrain.tasks.distribution import load_tasks
from metatrain.tasks.encoded_episode import encode_episode
from metatrain.tasks.episodes import training_episode
from metatrain.tracking.metrics import read_metrics

RANKS, UPDATES = 4, 6
RATES = {"as it is": None, "2 Gbit/s": 2e9, "1 Gbit/s": 1e9, "0.5 Gbit/s": 5e8}
LATENCIES = (0, 2, 10, 50)  # milliseconds, one way
# Messages that wait for one another in a meta-update: gloo exchanges slices at once, gathers in a ring, and adds up in a ring twice as long. Beside
# the meta-gradients (`ordered`: slices and a gathering; `fast`: one addition), sizes are agreed on (an addition, a gathering) and stops (an addition).
IN_TURN = {"ordered": 1 + (RANKS - 1) + 5 * (RANKS - 1), "fast": 2 * (RANKS - 1) + 5 * (RANKS - 1)}
RUN = [
    *("train", "algorithm=fomaml", "inner.steps=1", "tracking=none", "validation.every=0", "evaluation.arms=[]", "outer.warmup=1"),
    *(f"outer.steps={UPDATES}", "hardware.threads=1", "checkpoint.every=1000"),
]


def updates(run: Path) -> float:
    """Seconds of a meta-update, the first left out."""
    return statistics.median(each["seconds"] for each in read_metrics(run / "timings.jsonl")[1:])


def weights(run: Path) -> str:
    return hashlib.sha256((run / "model" / "model.safetensors").read_bytes()).hexdigest()


def alone(folder: Path) -> Path:
    """The run of one process."""
    subprocess.run([sys.executable, "-m", "metatrain", *RUN, f"hydra.run.dir={folder}"], check=True, stdout=subprocess.DEVNULL)
    return folder


def between_machines(milliseconds: float, reduce: str, folder: Path) -> Path:
    """The run of a process on each of four machines."""
    found = {**os.environ, "GLOO_SOCKET_IFNAME": DEVICE, "OMP_NUM_THREADS": "1"}
    with Machines(RANKS, milliseconds / 1000) as machines:
        processes = []
        for number, address in enumerate(machines.addresses):
            torchrun = [sys.executable, "-m", "torch.distributed.run", f"--nnodes={RANKS}", "--nproc-per-node=1", "--rdzv-backend=c10d"]
            torchrun += [f"--rdzv-endpoint={machines.addresses[0]}:29500", f"--local-addr={address}", "--no-python", sys.executable, "-m", "metatrain"]
            command = machines.command(number, [*torchrun, *RUN, "hardware=distributed", f"hardware.reduce={reduce}", f"hydra.run.dir={folder}"])
            processes.append(subprocess.Popen(command, env=found, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        assert not any([process.wait() for process in processes])
    return folder


def seconds(rate: float | None, reduce: str) -> float:
    """Of a meta-update on a loopback of this rate."""
    with tempfile.TemporaryDirectory() as folder:
        shape = "" if rate is None else f"tc qdisc add dev lo root tbf rate {rate:.0f}bit burst 1mb latency 400ms && "
        command = " ".join([sys.executable, "-m", "metatrain", *RUN, f"hardware.processes={RANKS}", f"hardware.reduce={reduce}", f"hydra.run.dir={folder}/run"])
        command = command.replace("[]", "'[]'")
        subprocess.run(["unshare", "-n", "bash", "-c", f"ip link set lo up && {shape}{command}"], check=True, stdout=subprocess.DEVNULL)
        return updates(Path(folder) / "run")


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
        rows = learner.rows([encode_episode(episode, tokens) for episode in drawn])
        assert rows is not None  # `exact` with all parameters sends the rows that occur
        sizes.append(sum(value[: len(rows)].nbytes if name in learner.functional.sparse else value.nbytes for name, value in learner.parameters.items()))
    return 2 * (RANKS - 1) * statistics.mean(sizes)


def latencies() -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        one = weights(alone(Path(folder) / "alone"))
        runs = {
            (reduce, milliseconds): between_machines(milliseconds, reduce, Path(folder) / f"{reduce}-{milliseconds}")
            for milliseconds in LATENCIES
            for reduce in IN_TURN
        }
        times = {key: updates(run) for key, run in runs.items()}
        print(times, file=sys.stderr)
        found = {
            f"{milliseconds} ms": {
                reduce: {
                    "seconds": times[reduce, milliseconds],
                    "longer": times[reduce, milliseconds] - times[reduce, 0],
                    "messages in turn": IN_TURN[reduce] * milliseconds / 1000,
                }
                for reduce in IN_TURN
            }
            for milliseconds in LATENCIES
        }
        return {"same weights as one process": all(weights(run) == one for (reduce, _), run in runs.items() if reduce == "ordered"), "latencies": found}


def rates() -> dict[str, object]:
    number = exchanged()
    found = {reduce: {name: seconds(rate, reduce) for name, rate in RATES.items()} for reduce in ("ordered", "fast")}
    for times in found.values():
        print(times, file=sys.stderr)
    rows = {
        name: {reduce: {"seconds": times[name], "longer": times[name] - times["as it is"], "predicted": 8 * number / rate} for reduce, times in found.items()}
        for name, rate in RATES.items()
        if rate is not None
    }
    return {"megabytes": number / 1e6, "seconds as it is": {reduce: times["as it is"] for reduce, times in found.items()}, "rates": rows}


if __name__ == "__main__":
    print(json.dumps({**latencies(), **rates()}, indent=1))
