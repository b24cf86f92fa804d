"""Measure a temperature that is learned across tasks: python scripts/benchmark/temperatures.py SET SET ... [--checkpoint everyday] [--episodes 10]

A support set of fewer than 20 examples is too small to choose the temperature of its probabilities (`meta/head_fit.py`). What is measured here, and
not part of metatrain, is a temperature that depends on the number of classes and of examples only, log T = a + b log(shots) + c log(way). It is fitted
to the queries of episodes of other tasks: the sum over episodes of the mean log loss of the logits / T, + RIDGE / 2 |(a, b, c)|^2, which pulls towards
T = 1, no change.

Each SET is a folder of METATRAIN_DATA; its tasks are tested. T is fitted twice: to tasks of the packaged collection `everyday` (every STRIDE-th), and
for each SET (two or more) to the other SETs. Columns: accuracy (the same with and without T), expected calibration error (15 bins, over all queries)
and log loss, without and with T; differences are paired, with 95% intervals of the bootstrap over episodes.

Logits are kept in the folder --cache, so that a second run only makes the tables of docs/probabilities.md.
"""

from __future__ import annotations

import argparse
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

from metatrain.checkpoints.opening import open_checkpoint
from metatrain.config.schema import Overrides
from metatrain.evaluation.statistics import calibration_error
from metatrain.run import hardware
from metatrain.run.config import HardwareConfig
from metatrain.tasks.config import EpisodeConfig, SplitConfig, TasksConfig
from metatrain.tasks.distribution import capped, load_tasks, task_of_file
from metatrain.tasks.encoded_episode import encode_episode
from metatrain.tasks.episodes import task_episode
from metatrain.tasks.files import Columns
from metatrain.tasks.task import Task

WAYS_SHOTS = ((2, 1), (4, 1), (8, 1), (15, 1), (2, 2), (4, 2), (8, 2), (2, 4), (4, 4), (2, 8))  # (way, shots) of fewer than 20 examples
QUERIES, ROWS, STRIDE = 40, 300, 5  # queries of an episode, rows of a task, step between tasks of the collection
RIDGE, DRAWS = 0.1, 2000  # ridge strength, draws of the bootstrap
COLLECTION = "everyday"


@dataclass(frozen=True)
class Case:
    """The queries of one episode."""

    source: str  # data set
    way: int
    shots: int
    logits: np.ndarray  # [queries, way]
    labels: np.ndarray

    def scores(self, temperature: float) -> tuple[np.ndarray, np.ndarray, float]:
        """Return the confidences, whether each prediction is correct, and the mean log loss."""
        log_probabilities = log_softmax(self.logits / temperature, axis=1)
        loss = -log_probabilities[np.arange(len(self.labels)), self.labels].mean()
        return np.exp(log_probabilities.max(1)), self.logits.argmax(1) == self.labels, float(loss)


def tasks_of(source: str) -> list[Task]:
    """Return the tasks of a data set, or of the collection."""
    if source == COLLECTION:
        settings = TasksConfig(path="metatrain:everyday", task="task", meta_train=SplitConfig(tasks=["*"]), holdout=0.0)
        return [capped(task, ROWS) for task in load_tasks(settings, 0).meta_train[::STRIDE]]
    folder = Path(os.environ.get("METATRAIN_DATA", "data")) / source
    path = next(path for name in ("test", "all", "train") for path in sorted(folder.glob(f"{name}.jsonl*")))
    return [capped(task_of_file(path, Columns("text", "label")), ROWS)]


def cases(learner: Any, checkpoint: str, source: str, episodes: int, most_shots: int, cache: Path) -> list[Case]:
    """Return the episodes of all tasks of a source, from the cache where it has them."""
    found = []
    for number, task in enumerate(tasks_of(source)):
        tokens = learner.model.tokens()
        known: Any = None
        for way, shots in WAYS_SHOTS:
            if shots > most_shots or way > len(task.label_names) or task.sizes.min() < shots + 1:
                continue
            settings = EpisodeConfig(way=way, shots=shots, queries=max(2, QUERIES // way))
            for index in range(episodes if source != COLLECTION else max(1, episodes // 4)):
                path = cache / f"{checkpoint}-{source}-{number}-{way}-{shots}-{index}.npz"
                if not path.exists():
                    tokens.check([task])
                    known = known or learner.with_functional(learner.functional.remembering(learner.initial))  # each text is encoded once
                    episode = encode_episode(task_episode(task, settings, 0, "meta_validation", index), tokens)
                    parameters, _, _ = known.fit(episode)
                    logits = known.query_logits(parameters, episode).detach().numpy()
                    np.savez(path, logits=logits, labels=episode.query_labels)
                with np.load(path) as content:
                    found.append(Case(source, way, shots, content["logits"].astype(np.float64), content["labels"]))
        print(f"{source}: {task.name}, {len(task.label_names)} classes", flush=True)
    return found


def inputs(case: Case) -> np.ndarray:
    return np.array([1.0, np.log(case.shots), np.log(case.way)])


def fitted(found: Sequence[Case]) -> np.ndarray:
    """Return (a, b, c)."""

    def objective(weights: np.ndarray) -> float:
        return sum(case.scores(float(np.exp(inputs(case) @ weights)))[2] for case in found) + RIDGE / 2 * float(weights @ weights)

    return minimize(objective, np.zeros(3), method="BFGS").x


def rows(found: Sequence[Case], weights: np.ndarray) -> Iterator[str]:
    """Yield a row of the table for each (way, shots)."""
    for way, shots in WAYS_SHOTS:
        here = [case for case in found if (case.way, case.shots) == (way, shots)]
        if not here:
            continue
        temperature = float(np.exp(inputs(here[0]) @ weights))
        before, after = ([case.scores(each) for case in here] for each in (1.0, temperature))
        rng = np.random.default_rng(zlib.crc32(f"{here[0].source}{way}{shots}".encode()))
        draws = [rng.integers(len(here), size=len(here)) for _ in range(DRAWS)]
        errors = [[_error([scored[row] for row in draw]) for scored in (before, after)] for draw in (np.arange(len(here)), *draws)]
        gaps = np.array([100 * (new - old) for old, new in errors])
        losses = np.array([[each[2] for each in scored] for scored in (before, after)])
        gains = losses[1] - losses[0]
        of_draws = np.array([gains[draw].mean() for draw in draws])
        accuracy = 100 * np.mean(np.concatenate([each[1] for each in before]))
        yield (
            f"| {here[0].source} | {way} | {shots} | {len(here)} | {accuracy:.1f} | {temperature:.2f} | {100 * errors[0][0]:.1f} | {100 * errors[0][1]:.1f} | "
            f"{_interval(gaps[0], gaps[1:], 1)} | {losses[0].mean():.2f} | {losses[1].mean():.2f} | {_interval(gains.mean(), of_draws, 2)} |"
        )


def _error(scored: Sequence[tuple[np.ndarray, np.ndarray, float]]) -> float:
    return calibration_error(np.concatenate([each[0] for each in scored]), np.concatenate([each[1] for each in scored]))


def _interval(mean: float, of_draws: np.ndarray, digits: int) -> str:
    low, high = np.quantile(of_draws, [0.025, 0.975])
    return f"{mean:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="+")
    parser.add_argument("--checkpoint", default="everyday")
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--shots", type=int, default=8, help="maximum number of shots")
    parser.add_argument("--cache", type=Path, default=Path("outputs/temperatures"))
    given = parser.parse_args()
    given.cache.mkdir(parents=True, exist_ok=True)
    device, dtype, _ = hardware.apply(HardwareConfig(device="cpu", threads=1))
    learner = open_checkpoint(given.checkpoint, Overrides(), device, dtype, print).learner
    by_source = {
        source: cases(learner, given.checkpoint.replace("/", "-"), source, given.episodes, given.shots, given.cache) for source in (*given.sets, COLLECTION)
    }
    of_collection = fitted(by_source[COLLECTION])
    for title, weights_of in (
        (f"fitted to tasks of the collection {COLLECTION}", lambda source: of_collection),
        ("fitted to the other sets", lambda source: fitted([case for other in given.sets if other != source for case in by_source[other]])),
    ):
        print(f"\n{title}\n")
        print("| set | way | shots | episodes | accuracy | T | ECE | with T | difference | log loss | with T | difference |")
        print("|---|---|---|---|---|---|---|---|---|---|---|---|")
        for source in given.sets:
            weights = weights_of(source)
            print("\n".join(rows(by_source[source], weights)), flush=True)
            print(json.dumps({"a, b, c": [round(float(each), 3) for each in weights]}), flush=True)


if __name__ == "__main__":
    main()
