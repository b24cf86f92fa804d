"""Compare classifiers on one adaptation, and averages of their predictions: METATRAIN_DATA=FOLDER python scripts/benchmark/averaged_predictions.py

    --base minilm      checkpoint to adapt by leave_one_out
    --shots 1 5 16     examples per class
    --episodes 8 4 2   support sets of each task, for each number of shots

On the eight validation sets of tasks=universal (up to 20 classes, 15 queries per class, label names and definitions): the prototypes that `evaluate` uses,
prototypes of the label texts alone, and logistic regression with the label texts as examples, each on the encodings before the inner steps ("frozen") or
after them ("adapted"). An average is that of the logits, each first centred for every query and scaled to a standard deviation of 1 over the queries. Prints
balanced accuracy in %, and the difference from the first row with its 95% t interval over the sets.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from metatrain.checkpoints.opening import open_checkpoint
from metatrain.config.compose import composed
from metatrain.config.schema import AlgorithmOverrides, InnerOverrides, Overrides, TrainConfig
from metatrain.evaluation.adapted_arms import Adapted
from metatrain.evaluation.logistic_regression import logistic_regression
from metatrain.evaluation.protocol import EpisodeSet, each_episode
from metatrain.evaluation.statistics import balanced_accuracy, estimate
from metatrain.run import hardware
from metatrain.run.config import HardwareConfig
from metatrain.tasks.config import EpisodeConfig
from metatrain.tasks.distribution import load_tasks
from metatrain.tasks.encoded_episode import encode_episode
from metatrain.tasks.episodes import Episode

PROTOTYPES = "prototypes, adapted"
LABELS, REGRESSION, ADAPTED_REGRESSION = "label texts, frozen", "logistic regression, frozen", "logistic regression, adapted"
ADAPTED_LABELS = "label texts, adapted"
AVERAGES = (
    (PROTOTYPES, ADAPTED_REGRESSION),
    (PROTOTYPES, LABELS),
    (PROTOTYPES, REGRESSION),
    (PROTOTYPES, REGRESSION, LABELS),
    (PROTOTYPES, REGRESSION, ADAPTED_REGRESSION, LABELS, ADAPTED_LABELS),
)


def standardised(logits: np.ndarray) -> np.ndarray:
    """Return logits [queries, way] with mean 0 for each query and standard deviation 1 over all."""
    centred = logits - logits.mean(1, keepdims=True)
    return centred / max(float(centred.std()), np.finfo(np.float64).tiny)


def of_prototypes(examples: np.ndarray, labels: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Return the cosines [queries, way] of queries [queries, H] to the class means of examples [examples, H]."""
    means = np.stack([examples[labels == label].mean(0) for label in np.unique(labels)])
    return (queries / np.linalg.norm(queries, axis=1, keepdims=True)) @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T


def of_regression(examples: np.ndarray, labels: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Return the log probabilities [queries, way] of logistic regression, with C chosen by cross-validation."""
    return logistic_regression(examples, labels).predict_log_proba(queries)


def logits_of(adapted: Adapted, episode: Any) -> dict[str, np.ndarray]:
    """Return the logits of each classifier for the queries of an encoded episode, [queries, way]."""
    learner: Any = adapted.learner
    classifier, examples = learner.functional, len(episode.support)
    read = classifier.read(episode.without_queries())
    parameters, _ = learner.adapt(episode)
    texts, labels = [*read.support, *episode.query], np.asarray(read.support_labels)
    found = {PROTOTYPES: classifier.logits(parameters, episode.query).double().numpy()}
    for values, of_labels, of_all in ((learner.initial, LABELS, REGRESSION), (parameters, ADAPTED_LABELS, ADAPTED_REGRESSION)):
        encodings = classifier.features(values, texts).double().numpy()
        support, queries = encodings[: len(labels)], encodings[len(labels) :]
        found[of_labels] = of_prototypes(support[examples:], labels[examples:], queries)
        found[of_all] = of_regression(support, labels, queries)
    return found


def scores(adapted: Adapted, episodes: EpisodeSet) -> dict[str, dict[str, list[float]]]:
    """Return the balanced accuracies of each classifier and each average: for each task, a list with one for each episode."""

    def of_episode(episode: Episode) -> Mapping[str, float]:
        texts = encode_episode(episode, episodes.tokens)
        logits = {name: standardised(each) for name, each in logits_of(adapted, texts).items()}
        logits |= {" + ".join(names): np.sum([logits[name] for name in names], axis=0) for names in AVERAGES}
        return {name: balanced_accuracy(each.argmax(1), texts.query_labels) for name, each in logits.items()}

    found: dict[str, dict[str, list[float]]] = {}
    for task, outcome in each_episode(episodes, of_episode, lambda done: None, None):
        for name, score in outcome.items():
            found.setdefault(name, {}).setdefault(task.name, []).append(score)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", default="minilm")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 5, 16])
    parser.add_argument("--episodes", type=int, nargs="+", default=[8, 4, 2])
    given = parser.parse_args()
    hardware.apply(HardwareConfig())
    config = composed("train", ["tasks=universal_validation", "tasks.label_text=name_and_definition"], TrainConfig)
    tasks = load_tasks(config.tasks, 0, splits=("meta_test",)).meta_test
    method = AlgorithmOverrides(name="leave_one_out") if given.base == "minilm" else AlgorithmOverrides()
    opened = open_checkpoint(given.base, Overrides(method, InnerOverrides(fit_head=False)), torch.device("cpu"), torch.float32, print)
    adapted, tokens = Adapted(opened.learner), opened.learner.model.tokens()
    for shots, number in zip(given.shots, given.episodes, strict=True):
        settings = EpisodeConfig(way="..20", shots=shots, queries=15)
        found = scores(adapted, EpisodeSet(tasks, tokens, settings, number, 0, "meta_test"))
        print(f"\n| {shots}-shot, {number} support sets of each set | balanced accuracy | minus {PROTOTYPES} |\n|---|---|---|")
        for name, of_tasks in found.items():
            mean = 100 * float(np.mean([np.mean(each) for each in of_tasks.values()]))
            difference = estimate([np.array(each) - np.array(found[PROTOTYPES][task]) for task, each in of_tasks.items()])
            low, high = (100 * bound for bound in difference.interval)
            print(f"| {name} | {mean:.1f} | {100 * difference.mean:+.1f} [{low:+.1f}, {high:+.1f}] |", flush=True)


if __name__ == "__main__":
    main()
