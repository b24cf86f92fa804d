"""Measure thresholds chosen on the support set after inner steps: python scripts/benchmark/label_thresholds.py FOLDER RUN [--episodes 10] TASK ...

FOLDER has multi-label tasks (scripts/data/multi_label.py); RUN is a checkpoint, of which only the head adapts, by SGD on the binary cross-entropy of
the support set. Each TASK is one of its meta-validation tasks. For an episode, the model adapts without each of five folds of the support set, as
`inner.fit_head` does it, and the thresholds are those with the highest F1 on the held-out examples (`meta/thresholds.py`); they are compared with 0.5 and
with the best single threshold of the queries, which no method knows. Intervals are paired, over episodes.

Prints the table of docs/tasks.md.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from labelling import caching, half_width

from metatrain.checkpoints.opening import open_checkpoint
from metatrain.config.schema import AlgorithmOverrides, InnerOverrides, Overrides
from metatrain.evaluation.label_sets import set_scores
from metatrain.gradient.inner_rules import HEAD
from metatrain.meta.inner_losses import inner_loss
from metatrain.meta.label_fit import folds_of
from metatrain.meta.text_losses import ENCODINGS
from metatrain.meta.thresholds import best_threshold, choose_thresholds
from metatrain.models.targets import DEFAULT_THRESHOLD
from metatrain.run import hardware
from metatrain.run.config import HardwareConfig
from metatrain.tasks.config import EpisodeConfig
from metatrain.tasks.distribution import task_of_file
from metatrain.tasks.encoded_episode import EncodedEpisode, encode_episode
from metatrain.tasks.episodes import task_episode
from metatrain.tasks.files import Columns

STEPS, SHOTS, WAY, QUERIES = (0, 3, 10), (3, 5, 10), 5, 5


def micro_f1(probabilities: np.ndarray, thresholds: Any, targets: np.ndarray) -> float:
    return 100 * set_scores(probabilities >= thresholds, targets)["micro_f1"]


def probabilities_of(learner: Any, read: EncodedEpisode, features: torch.Tensor, rows: np.ndarray, asked: torch.Tensor, steps: int) -> np.ndarray:
    """Return probabilities [asked, way] after inner steps on some rows of a support set, whose encodings are known."""
    part = replace(read, support=[read.support[row] for row in rows], support_labels=read.support_labels[rows], reads_names=False)
    theta = {**learner.parameters, **dict(zip(ENCODINGS, (features[torch.from_numpy(rows)], features[:0])))}
    losses = inner_loss(learner.inner.loss).of(learner.functional, part, None, encoded=True)
    found, _ = learner.adapted_from(theta, losses, steps)
    return torch.sigmoid(asked.double() @ found[HEAD + "weight"].double().T + found[HEAD + "bias"].double()).detach().numpy()


def measured(learner: Any, episode: EncodedEpisode, steps: int) -> tuple[float, float, float]:
    """Return micro F1 of the queries with the threshold 0.5, with those of cross-validation, and with the best one."""
    read = learner.functional.read(episode.without_queries())  # label names, if the method reads them, are the last rows
    features, asked = learner.features(read.support), learner.features(episode.query)
    targets, queries = np.asarray(episode.support_labels) == 1, np.asarray(episode.query_labels) == 1
    held_out, fold_of, everything = np.zeros(targets.shape), np.zeros(len(targets), dtype=np.int64), np.arange(len(read.support))
    for number, fold in enumerate(folds_of(targets, episode.seed)):
        seen = np.setdiff1d(everything, fold)
        held_out[fold] = probabilities_of(learner, read, features, seen, features[torch.from_numpy(fold)], steps)
        fold_of[fold] = number
    found = probabilities_of(learner, read, features, everything, asked, steps)
    chosen = choose_thresholds(held_out, targets, fold_of, DEFAULT_THRESHOLD).values
    best = best_threshold(found.ravel(), queries.ravel())
    return micro_f1(found, DEFAULT_THRESHOLD, queries), micro_f1(found, chosen, queries), micro_f1(found, best, queries)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("run")
    parser.add_argument("tasks", nargs="+")
    parser.add_argument("--episodes", type=int, default=10)
    given = parser.parse_args()
    device, dtype, _ = hardware.apply(HardwareConfig(device="cpu", threads=1))
    settings = Overrides(algorithm=AlgorithmOverrides(adapt="head"), inner=InnerOverrides(fit_head=False, steps=max(STEPS)))
    learner = caching(open_checkpoint(given.run, settings, device, dtype, print).learner)
    tokens = learner.model.tokens()
    tasks = [task_of_file(given.folder / f"{name}.jsonl", Columns("text", "label")) for name in given.tasks]
    print("| shots | inner steps | episodes | threshold 0.5 | cross-validated | difference | best for the queries |")
    print("|---|---|---|---|---|---|---|")
    for shots in SHOTS:
        drawing = EpisodeConfig(way=WAY, shots=shots, queries=QUERIES)
        drawn = [task_episode(task, drawing, 0, "meta_validation", index) for task in tasks for index in range(given.episodes)]
        episodes = [encode_episode(each, tokens) for each in drawn]
        for steps in STEPS:
            found = np.array([measured(learner, episode, steps) for episode in episodes])
            gain = found[:, 1] - found[:, 0]
            means, half = found.mean(0), half_width(gain)
            interval = f"{gain.mean():+.1f} [{gain.mean() - half:+.1f}, {gain.mean() + half:+.1f}]"
            print(f"| {shots} | {steps} | {len(episodes)} | {means[0]:.1f} | {means[1]:.1f} | {interval} | {means[2]:.1f} |", flush=True)


if __name__ == "__main__":
    main()
