"""Measure class priors, class weights and prediction sets: python scripts/benchmark/probabilities.py priors|coverage SET ... [--draws 10]

Each SET is a folder of METATRAIN_DATA, as in scripts/benchmark/labelling.py. Texts are encoded by MiniLM (`checkpoint=minilm algorithm=recommended`),
one thread; the head is fitted as by `metatrain finetune`.

priors: 120 examples, whose classes have geometric shares, the most frequent ten times the rarest (the order of the classes is drawn), with 2 or more
of each; the test texts have the same shares, equal shares, or those in reversed order. Accuracy and log loss with and without `data.priors` and
`data.class_weights=balanced`.
coverage: 20, 40 and 100 examples drawn at random; the share of test texts (of classes with examples) whose prediction set contains their label, and
the mean number of labels in a set, for `coverage=0.8` and 0.9. Intervals are over draws.

Prints the tables of docs/probabilities.md.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from labelling import Rows, half_width, read, run

from metatrain.checkpoints.class_balance import balance_of
from metatrain.checkpoints.finetuning import finetuned
from metatrain.config.schema import DataConfig
from metatrain.meta.progress import Silent
from metatrain.models.decisions import decided
from metatrain.models.prediction_sets import limits
from metatrain.tasks.episodes import given_episode

EXAMPLES, RATIO, TEST = 120, 10, 300  # of `priors`: examples, the most frequent class relative to the rarest, texts of a test
POOL = 3000  # rows of a file that are read
NUMBERS, COVERAGES = (20, 40, 100), (0.8, 0.9)  # of `coverage`: examples, and stated coverages
SETTINGS: dict[str, dict[str, Any]] = {
    "none": {},
    "class_weights": {"class_weights": "balanced"},
    "priors": {"priors": True},
    "both": {"class_weights": "balanced", "priors": True},
}


@dataclass(frozen=True)
class Logits:
    """Logits of texts under a finetuned head, and the labels, as positions."""

    logits: torch.Tensor
    labels: np.ndarray

    def scores(self) -> tuple[float, float]:
        """Return accuracy and log loss."""
        loss = torch.nn.functional.cross_entropy(self.logits.double(), torch.from_numpy(self.labels))
        return float((self.logits.argmax(1).numpy() == self.labels).mean()), float(loss)


def logits_of(learner: Any, examples: Rows, asked: Rows, data: DataConfig, seed: int) -> Logits:
    """Finetune on the examples, and return the logits of other texts."""
    episode = given_episode([*examples.texts, *asked.texts], [*examples.labels, *asked.labels], len(examples.texts), seed=seed)
    found = finetuned(learner, episode, Silent(), balance_of(data, episode))
    weight, bias = found.parameters["head.weight"], found.parameters["head.bias"]
    return Logits(learner.features(found.texts.query) @ weight.T + bias, episode.query_labels)


def priors(learner: Any, sets: dict[str, tuple[Rows, Rows]], draws: int) -> None:
    """Print accuracy and log loss for each setting and distribution of the test texts."""
    print("| data set | classes | shares of the test texts | none | class_weights | priors | both | priors - none |")
    print("|---|---|---|---|---|---|---|---|")
    for name, (train, test) in sets.items():
        found = np.array([_with_priors(learner, train, test, draw) for draw in range(draws)])  # [draws, tests, settings, 2]
        for place, shares in enumerate(("as the examples", "equal", "reversed")):
            cells = [f"{100 * accuracy:.1f} ({loss:.2f})" for accuracy, loss in found[:, place].mean(0)]
            gain = 100 * (found[:, place, 2, 0] - found[:, place, 0, 0])
            print(f"| {name} | {len(set(train.labels))} | {shares} | {' | '.join(cells)} | {_interval(gain)} |", flush=True)


def _with_priors(learner: Any, train: Rows, test: Rows, draw: int) -> list[list[tuple[float, float]]]:
    rng = np.random.default_rng(draw)
    names = sorted(set(train.labels))
    shares = RATIO ** -(np.arange(len(names)) / (len(names) - 1))
    shares = rng.permutation(shares / shares.sum())
    examples = _drawn(train, names, shares, EXAMPLES, 2, rng)
    own = np.array([examples.labels.count(name) for name in names]) / len(examples.labels)
    found = []
    for wanted in (own, np.full(len(names), 1 / len(names)), own.sum() * own[np.argsort(own)[::-1][np.argsort(np.argsort(own))]]):
        asked = _drawn(test, names, wanted, TEST, 1, rng)
        given = dict(zip(names, wanted.tolist()))
        settings = [DataConfig(**{**each, **({"priors": given} if "priors" in each else {})}) for each in SETTINGS.values()]
        found.append([logits_of(learner, examples, asked, each, draw).scores() for each in settings])
    return found


def coverage(learner: Any, sets: dict[str, tuple[Rows, Rows]], draws: int) -> None:
    """Print measured coverage and mean size of prediction sets."""
    print("| data set | classes | examples | accuracy | coverage=0.8: measured | labels | coverage=0.9: measured | labels |")
    print("|---|---|---|---|---|---|---|---|")
    for name, (train, test) in sets.items():
        for number in NUMBERS:
            found = np.array([_covered(learner, train, test, number, draw) for draw in range(draws)])  # [draws, 5]
            means = found.mean(0)
            cells = [f"{_share(found[:, place])} | {means[place + 1]:.1f}" for place in (1, 3)]
            print(f"| {name} | {len(set(train.labels))} | {number} | {100 * means[0]:.0f}% | {' | '.join(cells)} |", flush=True)


def _covered(learner: Any, train: Rows, test: Rows, number: int, draw: int) -> tuple[float, ...]:
    """Return accuracy, and coverage and mean size of the sets for each of `COVERAGES`."""
    rng = np.random.default_rng(draw)
    examples = train.drawn(rng, number)
    while min(Counter(examples.labels).values()) < 2:  # the only example of a class is never held out
        examples = examples.at([row for row, label in enumerate(examples.labels) if examples.labels.count(label) > 1])
        rest = [row for row, label in enumerate(train.labels) if label in examples.labels and train.texts[row] not in examples.texts]
        more = train.at(rng.permutation(rest)[: number - len(examples.labels)])
        examples = Rows([*examples.texts, *more.texts], [*examples.labels, *more.labels])
    asked = test.at([row for row, label in enumerate(test.labels) if label in examples.labels])
    names = sorted(set(examples.labels))
    given = given_episode([*examples.texts, *asked.texts], [*examples.labels, *asked.labels], number, seed=draw)
    found = finetuned(learner, given, Silent(), balance_of(DataConfig(), given))
    logits = learner.features(found.texts.query) @ found.parameters["head.weight"].T + found.parameters["head.bias"]
    figures = [float((logits.argmax(1).numpy() == given.query_labels).mean())]
    for share in COVERAGES:
        highest = limits("the model", found.prediction_sets(), names, share)
        possible = [each.prediction_set or () for each in decided(logits.numpy(), names, None, limits=highest)]
        figures += [float(np.mean([label in each for label, each in zip(asked.labels, possible)])), float(np.mean(list(map(len, possible))))]
    return tuple(figures)


def _share(values: np.ndarray) -> str:
    half = half_width(values)
    return f"{100 * values.mean():.1f}% [{100 * (values.mean() - half):.1f}, {100 * (values.mean() + half):.1f}]"


def _drawn(rows: Rows, names: list[str], shares: np.ndarray, number: int, fewest: int, rng: np.random.Generator) -> Rows:
    """Draw about this number of rows with these class shares, `fewest` or more of each class; the number is reduced if a class has too few rows."""
    of_class = [rng.permutation([row for row, label in enumerate(rows.labels) if label == name]) for name in names]
    number = min(number, *(int(len(of) / share) for of, share in zip(of_class, shares)))
    counts = np.maximum(fewest, np.round(shares * number).astype(int))
    return rows.at(rng.permutation(np.concatenate([of[:count] for of, count in zip(of_class, counts)])))


def _interval(values: np.ndarray) -> str:
    half = half_width(values)
    return f"{values.mean():+.1f} [{values.mean() - half:+.1f}, {values.mean() + half:+.1f}]"


MEASURES = {"priors": priors, "coverage": coverage}


if __name__ == "__main__":
    run(MEASURES, lambda name: read(name, POOL, POOL), draws=10)
