"""Measure the temperature learned across tasks: python scripts/benchmark/temperatures.py SET SET ... [--checkpoint everyday] [--episodes 12] [--shots 8]

A support set of fewer than 20 examples is too small to choose the temperature of its probabilities (`meta/head_fit.py`): with one example per class
it has chosen none, with more it chose one near 1.5. A checkpoint with a learned temperature (`meta/temperature.py`) uses that instead, or chooses one
near it. Compared are both, on the same episodes of data sets that the checkpoint has not seen.

Each SET is a folder of METATRAIN_DATA. Columns: accuracy (the same in both), mean temperature, expected calibration error (15 bins, over all queries)
and log loss, without and with the learned temperature; differences are paired, with 95% intervals of the bootstrap over episodes.

The episodes are those of the meta-test of `metatrain evaluate` with the same way, shots and queries. Logits are kept in the folder --cache, so that a
second run only makes the table of docs/probabilities.md, also after another temperature was learned; remove it when the weights have changed.
"""

from __future__ import annotations

import argparse
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from labelling import caching
from scipy.special import log_softmax

from metatrain.checkpoints.opening import open_checkpoint
from metatrain.config.schema import Overrides
from metatrain.evaluation.statistics import calibration_error
from metatrain.meta.head_fit import best_temperature
from metatrain.meta.temperature import LearnedTemperature
from metatrain.run import hardware
from metatrain.run.config import HardwareConfig
from metatrain.tasks.config import EpisodeConfig
from metatrain.tasks.distribution import capped, task_of_file
from metatrain.tasks.encoded_episode import encode_episode
from metatrain.tasks.episodes import task_episode
from metatrain.tasks.files import Columns

WAYS_SHOTS = ((2, 1), (4, 1), (8, 1), (15, 1), (2, 2), (4, 2), (8, 2), (2, 4), (4, 4), (2, 8))  # (way, shots) of fewer than 20 examples
QUERIES, ROWS, DRAWS = 40, 300, 2000  # queries of an episode, about; rows of a task; draws of the bootstrap


@dataclass(frozen=True)
class Case:
    """The queries of one episode."""

    logits: np.ndarray  # before any temperature, [queries, way]
    labels: np.ndarray
    temperatures: np.ndarray  # without and with the learned one, [2]

    def scores(self, which: int) -> tuple[np.ndarray, np.ndarray, float]:
        """Return the confidences, whether each prediction is correct, and the mean log loss; which: 0 without, 1 with the learned temperature."""
        log_probabilities = log_softmax(self.logits / self.temperatures[which], axis=1)
        loss = -log_probabilities[np.arange(len(self.labels)), self.labels].mean()
        return np.exp(log_probabilities.max(1)), self.logits.argmax(1) == self.labels, float(loss)


def cases(learner: Any, checkpoint: str, source: str, episodes: int, most_shots: int, cache: Path) -> dict[tuple[int, int], list[Case]]:
    """Return the episodes of a data set by way and shots, from the cache where it has them."""
    folder = Path(os.environ.get("METATRAIN_DATA", "data")) / source
    path = next(path for name in ("test", "all", "train") for path in sorted(folder.glob(f"{name}.jsonl*")))
    task, tokens = capped(task_of_file(path, Columns("text", "label")), ROWS), learner.model.tokens()
    known: Any = None
    found: dict[tuple[int, int], list[Case]] = {}
    for way, shots in WAYS_SHOTS:
        if shots > most_shots or way > len(task.label_names) or task.sizes.min() < shots + 1:
            continue
        settings = EpisodeConfig(way=way, shots=shots, queries=max(2, QUERIES // way))
        for index in range(episodes):
            path = cache / f"{checkpoint}-{source}-{way}-{shots}-{index}.npz"
            if not path.exists():
                if known is None:
                    tokens.check([task])
                    known = caching(learner.with_temperature(None))
                episode = encode_episode(task_episode(task, settings, 0, "meta_test", index), tokens)
                parameters, _, fit = known.fit(episode)
                logits = known.query_logits(parameters, episode).double().numpy() * fit.temperature
                held_out = fit.held_out[: way * shots].double().numpy() * fit.temperature if fit.folds else np.zeros((0, way))
                np.savez(path, logits=logits, labels=episode.query_labels, before=fit.temperature, held_out=held_out, held_out_labels=episode.support_labels)
            with np.load(path) as content:
                found.setdefault((way, shots), []).append(
                    Case(content["logits"], content["labels"], np.array([float(content["before"]), _learned(learner.temperature, way, shots, content)]))
                )
    return found


def _learned(temperature: LearnedTemperature, way: int, shots: int, content: Any) -> float:
    """Return the temperature as `fit_head` chooses it with the learned one; content: `held_out` logits without a temperature, and their labels."""
    assert temperature.made is not None and temperature.fitted is not None  # `main` has looked
    if not len(content["held_out"]):
        return temperature.made.at(way, shots)
    held_out, labels = torch.from_numpy(content["held_out"]), torch.from_numpy(content["held_out_labels"].astype(np.int64))
    return best_temperature(held_out, labels, usual=temperature.fitted.at(way, shots))


def rows(source: str, found: dict[tuple[int, int], list[Case]]) -> Iterator[str]:
    """Yield a row of the table for each (way, shots)."""
    for (way, shots), here in found.items():
        before, after = ([case.scores(which) for case in here] for which in (0, 1))
        rng = np.random.default_rng(zlib.crc32(f"{source}{way}{shots}".encode()))
        draws = [rng.integers(len(here), size=len(here)) for _ in range(DRAWS)]
        errors = [[_error([scored[row] for row in draw]) for scored in (before, after)] for draw in (np.arange(len(here)), *draws)]
        gaps = np.array([100 * (new - old) for old, new in errors])
        losses = np.array([[each[2] for each in scored] for scored in (before, after)])
        gains = losses[1] - losses[0]
        of_draws = np.array([gains[draw].mean() for draw in draws])
        accuracy = 100 * np.mean(np.concatenate([each[1] for each in before]))
        temperatures = np.mean([case.temperatures for case in here], 0)
        yield (
            f"| {source} | {way} | {shots} | {accuracy:.1f} | {temperatures[0]:.2f} | {temperatures[1]:.2f} | {100 * errors[0][0]:.1f} | "
            f"{100 * errors[0][1]:.1f} | {_interval(gaps[0], gaps[1:], 1)} | {losses[0].mean():.2f} | {losses[1].mean():.2f} | "
            f"{_interval(gains.mean(), of_draws, 2)} |"
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
    parser.add_argument("--episodes", type=int, default=12)
    parser.add_argument("--shots", type=int, default=8, help="maximum number of shots")
    parser.add_argument("--cache", type=Path, default=Path("outputs/temperatures"))
    given = parser.parse_args()
    given.cache.mkdir(parents=True, exist_ok=True)
    device, dtype, _ = hardware.apply(HardwareConfig(device="cpu", threads=1))
    learner = open_checkpoint(given.checkpoint, Overrides(), device, dtype, print).learner
    if learner.temperature is None or learner.temperature.made is None or learner.temperature.fitted is None:
        raise SystemExit(f"{given.checkpoint} has no learned temperature")
    print("| set | classes | examples per class | accuracy | T before | T | ECE before | ECE | difference | log loss before | log loss | difference |")
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    for source in given.sets:
        found = cases(learner, given.checkpoint.replace("/", "-"), source, given.episodes, given.shots, given.cache)
        print("\n".join(rows(source, found)), flush=True)


if __name__ == "__main__":
    main()
