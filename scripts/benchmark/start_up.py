"""Time start-up and data loading between meta-gradients: python scripts/benchmark/start_up.py > start.json

Seconds of `metatrain --help`, and from the command to the end of the first meta-update of all-MiniLM-L6-v2 on the embedded reviews,
both in processes of their own with a warm file cache (medians, the first run left out); and the time that drawing, tokenising
(from memory) and batching the episodes of a meta-update take as a share of its meta-gradient.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from metatrain.gradient.config import InnerConfig
from metatrain.meta.config import AlgorithmConfig
from metatrain.meta.encoder_learner import EncoderLearner
from metatrain.meta.text_losses import TextLosses
from metatrain.models.config import ModelConfig
from metatrain.models.encoder import load_encoder
from metatrain.run import hardware
from metatrain.run.config import HardwareConfig
from metatrain.tasks.config import EpisodeConfig, SplitConfig, TasksConfig
from metatrain.tasks.distribution import load_tasks
from metatrain.tasks.encoded_episode import encode_episode
from metatrain.tasks.episodes import training_episode
from metatrain.tasks.tokens import Tokens

META_BATCH = 4


def help_seconds(rounds: int) -> list[float]:
    found = []
    for _ in range(rounds + 1):
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-m", "metatrain", "--help"], check=True, stdout=subprocess.DEVNULL)
        found.append(time.perf_counter() - begin)
    return found[1:]


def first_update_seconds(rounds: int, algorithm: str) -> list[float]:
    """From the command to the first line of metrics.jsonl."""
    found = []
    for _ in range(rounds + 1):
        with tempfile.TemporaryDirectory() as folder:
            metrics = Path(folder) / "run" / "metrics.jsonl"
            command = [
                sys.executable,
                "-m",
                "metatrain",
                "train",
                f"algorithm={algorithm}",
                "tracking=none",
                "validation.every=0",
                f"hydra.run.dir={folder}/run",
            ]
            begin = time.perf_counter()
            process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while not (metrics.is_file() and metrics.stat().st_size):
                time.sleep(0.02)
                if process.poll() is not None:
                    raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
            found.append(time.perf_counter() - begin)
            process.kill()
            process.wait()
    return found[1:]


def sampling(updates: int, adapt: str) -> dict[str, float]:
    """Seconds of drawing and batching, and of the meta-gradient, in each of some meta-updates."""
    tasks = load_tasks(TasksConfig(path="metatrain:reviews", task="domain", meta_train=SplitConfig(tasks=["*"])), 0)
    encoder, _ = load_encoder(ModelConfig(name="minilm"), second_order=True)
    learner = EncoderLearner(encoder, AlgorithmConfig(adapt=adapt, head="prototype"), InnerConfig(), way=None)
    tokens, settings = Tokens(encoder.tokenizer, 128), EpisodeConfig(queries=10)
    before, within = [], []
    for update in range(updates + 1):
        begin = time.perf_counter()
        episodes = [encode_episode(training_episode(tasks, settings, 0, update * META_BATCH + slot), tokens) for slot in range(META_BATCH)]
        for episode in episodes:
            TextLosses.of(learner.functional, episode, None)  # batches are made here, and again within
        middle = time.perf_counter()
        learner.mean_gradient(episodes)
        before.append(middle - begin)
        within.append(time.perf_counter() - middle)
    return {"sampling": statistics.median(before[1:]), "meta_gradient": statistics.median(within[1:])}


def main() -> None:
    hardware.apply(HardwareConfig())
    found: dict[str, object] = {"help": statistics.median(help_seconds(10))}
    found["first_update"] = {name: statistics.median(first_update_seconds(3, name)) for name in ("maml", "protoanil")}
    found["episodes"] = {adapt: sampling(10, adapt) for adapt in ("all", "head")}
    print(json.dumps({**hardware.describe(), "torch": torch.__version__, "cores_used": len(os.sched_getaffinity(0)), **found}))


if __name__ == "__main__":
    main()
