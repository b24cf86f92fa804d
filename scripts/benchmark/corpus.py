"""A synthetic corpus as task source: time, memory and episodes a second: python scripts/benchmark/corpus.py [--texts 1000000] [--tasks 50]

The corpus (8 to 25 words of 20,000 made-up ones a text, four classes) is written into a folder that is removed at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import tempfile
import time
from pathlib import Path

EPISODES = 2000


def write(path: Path, texts: int, tasks: int) -> None:
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=6)) for _ in range(20_000)]
    with path.open("w") as file:
        for number in range(texts):
            text = " ".join(rng.choices(words, k=rng.randint(8, 25)))
            file.write(json.dumps({"text": text, "label": f"class{number // tasks % 4}", "task": f"task{number % tasks}"}) + "\n")


def own_memory() -> float:
    """Megabytes of this process that are no file's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1e3


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--texts", type=int, default=1_000_000)
    parser.add_argument("--tasks", type=int, default=50)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "corpus.jsonl")
        write(path, arguments.texts, arguments.tasks)
        os.environ["HF_DATASETS_CACHE"] = os.environ["METATRAIN_CACHE"] = folder

        from metatrain.models import tiny
        from metatrain.tasks.config import EpisodeConfig, SplitConfig, TasksConfig
        from metatrain.tasks.distribution import load_tasks
        from metatrain.tasks.episodes import training_episode
        from metatrain.tasks.tokens import Tokens

        print(f"{arguments.texts:,} texts in {arguments.tasks} tasks, {path.stat().st_size / 1e6:.0f} MB; {own_memory():.0f} MB of memory before")
        begin = time.perf_counter()
        config = TasksConfig(path=str(path), task="task", holdout=0, meta_train=SplitConfig(tasks=["*"]))
        tasks = load_tasks(config, 0, splits=("meta_train",))
        print(f"read: {time.perf_counter() - begin:.0f} s, {own_memory():.0f} MB")
        begin, tokens = time.perf_counter(), Tokens(tiny.tokenizer(), 64)
        for task in tasks.meta_train:
            tokens.of(task, [0])
        print(f"tokenised, once: {time.perf_counter() - begin:.0f} s, {own_memory():.0f} MB")
        begin = time.perf_counter()
        for index in range(EPISODES):
            episode = training_episode(tasks, EpisodeConfig(), 0, index)
            tokens.of(episode.task, episode.support), tokens.of(episode.task, episode.query)
        print(f"episodes with their tokens: {EPISODES / (time.perf_counter() - begin):,.0f} a second, {own_memory():.0f} MB")
        print(f"peak, with pages of files that can be given back: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB")


if __name__ == "__main__":
    main()
