"""A cost model of meta-training, checked against measured meta-updates: python scripts/benchmark/cost_model.py > cost.json

Operations are counted by formula, from the model's shape and the tokens of the episodes:
    forward(T, A) = layers * (2 T (4 H^2 + 2 H F) + 4 A H)      T tokens, A sum of squared lengths of texts, H hidden, F feed-forward
    first order   = inner steps * 3 forward(support) + 4 forward(query)          the query loss is also taken before adaptation
    exact         = inner steps * 9 forward(support) + 4 forward(query)          9: 3 of a gradient, 6 of its derivative
    head alone    = 3 forward(support and query)
Each of these multiples is a pass through the model, which costs some time whatever is in it, and beside them the outer step moves
`_OUTER` copies of all parameters through memory. Three constants: bytes a second are measured by copying; operations a second and
seconds a pass follow from the first two configurations. The others are predicted.

    python scripts/benchmark/cost_model.py --read-off     what the model says of larger machines and models: an estimate, nothing is run
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from hydra import compose, initialize_config_dir

from metatrain.checkpoints.building import build_learner
from metatrain.checkpoints.recipe import Recipe
from metatrain.config.compose import conf_dir, typed
from metatrain.config.schema import TrainConfig, register
from metatrain.tasks.distribution import load_tasks
from metatrain.tasks.encoded_episode import encode_episode
from metatrain.tasks.episodes import training_episode
from metatrain.tracking.metrics import read_metrics

_OUTER = 14  # zeroed, added to, scaled, its norm, clipped, and what AdamW reads and writes
UPDATES = 4
CORES = len(os.sched_getaffinity(0))
# The first two set the constants.
CONFIGURATIONS = {
    "first order, 3 steps, 5 examples": ["algorithm=fomaml", "inner.steps=3"],
    "first order, 5 steps, 10 examples": ["algorithm=fomaml", "inner.steps=5", "episode.shots=10"],
    "first order, 1 step, 5 examples": ["algorithm=fomaml", "inner.steps=1"],
    "first order, 8 episodes": ["algorithm=fomaml", "inner.steps=3", "outer.meta_batch=8"],
    "exact, 3 steps, 5 examples": ["algorithm=maml", "inner.steps=3"],
    "exact, 5 steps, 10 examples": ["algorithm=maml", "inner.steps=5", "episode.shots=10"],
    "head alone, 8 episodes": ["algorithm=anil", "outer.meta_batch=8"],
}
SAME = ["tracking=none", "validation.every=0", "evaluation.arms=[]", "outer.warmup=1", f"outer.steps={UPDATES}"]


def work_of(arguments: list[str]) -> tuple[float, int, float]:
    """(operations, passes, bytes moved by the outer step) of a meta-update, a mean over those that are measured."""
    register()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = typed(compose("train", [*arguments, *SAME]), TrainConfig)
    tasks = load_tasks(config.tasks, config.seed)
    learner = build_learner(Recipe.of_run(config, tasks.meta_train), torch.device("cpu"), torch.float32)
    shape = learner.model.backbone.config
    tokens, batch = learner.model.tokens(), config.outer.meta_batch

    def forward(texts: Sequence[np.ndarray]) -> float:
        lengths = np.array([len(text) for text in texts], dtype=float)
        products = 2 * lengths.sum() * (4 * shape.hidden_size**2 + 2 * shape.hidden_size * shape.intermediate_size)
        return shape.num_hidden_layers * (products + 4 * (lengths**2).sum() * shape.hidden_size)

    exact = config.algorithm.meta_gradient == "exact"
    steps, total, passes = config.inner.steps, 0.0, 3
    for index in range(batch, UPDATES * batch):  # the first meta-update is not measured either
        episode = encode_episode(training_episode(tasks, config.episode, config.seed, index), tokens)
        support, query = forward(episode.support), forward(episode.query)
        if config.algorithm.name == "anil":
            total += 3 * (support + query)
        else:
            total += steps * (9 if exact else 3) * support + 4 * query
            passes = batch * (steps * (9 if exact else 3) + 4)
    return total / (UPDATES - 1), passes, _OUTER * sum(value.nbytes for value in learner.parameters.values())


def seconds(arguments: list[str], processes: int) -> tuple[float, float]:
    """(seconds per meta-update, of which with other ranks), the first one left out: means, as episodes differ in length."""
    with tempfile.TemporaryDirectory() as folder:
        hardware = [f"hardware.processes={processes}", f"hardware.threads={CORES // processes}"]
        command = [sys.executable, "-m", "metatrain", "train", *arguments, *SAME, *hardware, f"hydra.run.dir={folder}/run"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        records = read_metrics(Path(folder) / "run/timings.jsonl")[1:]
    return statistics.mean(each["seconds"] for each in records), statistics.mean(each.get("with_other_ranks", 0.0) for each in records)


def bytes_a_second() -> float:
    """What this machine copies through memory: read and written."""
    import time

    one, other, times = torch.empty(1 << 26), torch.ones(1 << 26), []
    for _ in range(7):
        begin = time.perf_counter()
        one.copy_(other)
        times.append(time.perf_counter() - begin)
    return 2 * one.nbytes / statistics.median(times)


# Of the read-off: layers, hidden, feed-forward, word embeddings' rows, products of the feed-forward part.
MODELS = {
    "22M (MiniLM)": (6, 384, 1536, 30522, 2),
    "110M (BERT base)": (12, 768, 3072, 30522, 2),
    "335M (BERT large)": (24, 1024, 4096, 30522, 2),
    "1.3B": (24, 2048, 8192, 50272, 2),
    "7B": (32, 4096, 11008, 32000, 3),
}
GPU, NVLINK, NETWORK = 0.4 * 990e12, 450e9, 50e9  # operations a second at 40% of an H100's bf16 peak; bytes a second of a GPU in its node, and of a node
TEXTS, LENGTH, STEPS = (10, 50), 64, 5  # support and query texts of an episode, their tokens, inner steps


def read_off() -> list[str]:
    """A Markdown table: one episode for each GPU in each meta-update."""
    lines = ["| model | exact, s | first order, s | exchange, 8 GPUs | exchange, 64 nodes of 8 | memory, GB |", "|---|---|---|---|---|---|"]
    for name, (layers, hidden, wide, rows, products) in MODELS.items():
        weights = layers * (4 * hidden**2 + products * hidden * wide)
        support, query = (texts * LENGTH * (2 * weights + 4 * layers * LENGTH * hidden) for texts in TEXTS)
        exact, first = (STEPS * each * support + 4 * query for each in (9, 3))
        travelling = 4 * (weights + min(rows, sum(TEXTS) * LENGTH) * hidden)
        # Each GPU sends its slices to the others, then its slice of the sum: two times the numbers, nearly all of them out of its node.
        near, far = 2 * travelling / NVLINK, 2 * travelling * 8 / NETWORK
        memory = 4 * (weights + rows * hidden) * (4 + STEPS)  # weights, two moments, the sum; the adapted weights of each step
        lines.append(f"| {name} | {exact / GPU:.3f} | {first / GPU:.3f} | {near:.4f} | {far:.3f} | {memory / 1e9:.0f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--read-off", action="store_true")
    rounds = parser.parse_args().rounds
    if parser.parse_args().read_off:
        print("\n".join(read_off()))
        return
    measured: dict[str, list[float]] = {name: [] for name in CONFIGURATIONS}
    for _ in range(rounds):
        for name, arguments in CONFIGURATIONS.items():
            measured[name].append(seconds(arguments, 1)[0])
    bandwidth = bytes_a_second()
    counted = {name: work_of(arguments) for name, arguments in CONFIGURATIONS.items()}
    known = list(CONFIGURATIONS)[:2]
    rest = [statistics.median(measured[name]) - counted[name][2] / bandwidth for name in known]
    of_operation, of_pass = np.linalg.solve([counted[name][:2] for name in known], rest)
    rows = {}
    for name, (work, passes, moved) in counted.items():
        predicted, found = float(work * of_operation + passes * of_pass + moved / bandwidth), statistics.median(measured[name])
        rows[name] = {"tflop": float(work) / 1e12, "passes": passes, "predicted": predicted, "measured": found, "error": predicted / found - 1}
        print(name, rows[name], file=sys.stderr)
    constants = {"gflop_a_second": 1e-9 / of_operation, "milliseconds_a_pass": 1000 * of_pass, "gigabytes_a_second": bandwidth / 1e9}
    print(json.dumps({**constants, "rounds": rounds, "cores": CORES, "configurations": rows}, indent=1))


if __name__ == "__main__":
    main()
