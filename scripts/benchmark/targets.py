"""Measure `data.kind=labels` and `data.kind=number` beside scikit-learn on the same encodings: python scripts/benchmark/targets.py [--sizes 100 500]

Sets, below METATRAIN_DATA:

- unhealthy: unhealthy_comments, where "none of these" is no label (5 labels, most texts with none);
- snips, stackoverflow: one or two texts of different classes joined, as in MixSNIPS (Qin et al. 2020); 7 and 20 labels, 1.5 a text;
- onestop: onestop_english, three levels of difficulty, the texts' first 128 tokens;
- phrasebank: financial_phrasebank, negative, neutral and positive as 1, 2 and 3.

Texts are encoded by MiniLM (`checkpoint=minilm`), one thread. OneVsRestClassifier(LogisticRegression()) with C=1, and with C chosen by
cross-validation (GridSearchCV on negative log loss of each label), both with threshold 0.5; Ridge with alpha=1, and RidgeCV. Means over three draws of
the training examples. Prints the tables of docs/using.md.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression, Ridge, RidgeCV
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier

from metatrain.commands.labelling import open_encoder
from metatrain.evaluation.held_out_head import encoded
from metatrain.evaluation.label_sets import set_scores
from metatrain.evaluation.number_scores import number_scores
from metatrain.meta.label_fit import fit_labels
from metatrain.meta.number_fit import fit_numbers
from metatrain.meta.progress import Silent
from metatrain.meta.thresholds import choose_thresholds
from metatrain.models.targets import DEFAULT_THRESHOLD, sigmoid
from metatrain.run.config import HardwareConfig

DRAWS, TEST, POOL = 3, 600, 700
CANDIDATES = [0.1, 1.0, 10.0, 100.0, 1000.0]  # C of scikit-learn


@dataclass(frozen=True)
class Part:
    """Texts with their answers: label sets, boolean, [texts, labels], or numbers, [texts]."""

    texts: list[str]
    answers: np.ndarray


def rows(name: str, *files: str) -> list[dict[str, Any]]:
    """Return the rows of some files of a set."""
    found = []
    for file in files:
        path = Path(os.environ.get("METATRAIN_DATA", "data")) / name / file
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
            found += [json.loads(line) for line in lines]
    return found


def unhealthy(rng: np.random.Generator) -> tuple[Part, Part]:
    """Comments with one unhealthy trait, or none."""
    parts = [rows("unhealthy_comments", f"{part}.jsonl") for part in ("train", "test")]
    names = sorted({row["label"] for row in parts[0]} - {"none of these"})
    made = [Part([row["text"] for row in part], np.array([[row["label"] == name for name in names] for row in part])) for part in parts]
    return made[0], made[1]


def mixed(name: str) -> Callable[[np.random.Generator], tuple[Part, Part]]:
    """Return a set whose texts are one or two texts of another, of different classes."""

    def of(rng: np.random.Generator) -> tuple[Part, Part]:
        made = []
        for part, number in (("train", POOL), ("test", TEST)):
            found = rows(name, f"{part}.jsonl")
            names = sorted({row["label"] for row in rows(name, "train.jsonl")})
            texts: list[str] = []
            labels: list[list[bool]] = []
            while len(texts) < number:
                first, second = (found[place] for place in rng.integers(len(found), size=2))
                both = first["label"] != second["label"] and rng.random() < 0.5
                texts.append(f"{first['text']} and {second['text']}" if both else first["text"])
                labels.append([each in {first["label"], *([second["label"]] if both else [])} for each in names])
            made.append(Part(texts, np.array(labels)))
        return made[0], made[1]

    return of


def onestop(rng: np.random.Generator) -> tuple[Part, Part]:
    """Three levels of difficulty."""
    levels = {"elementary": 1, "intermediate": 2, "advanced": 3}

    def level(label: str) -> int:
        return next(number for name, number in levels.items() if name in label.lower())

    train, test = (rows("onestop_english", f"{part}.jsonl") for part in ("train", "test"))
    made = [Part([row["text"] for row in part], np.array([level(row["label"]) for row in part], dtype=np.float64)) for part in (train, test)]
    return made[0], made[1]


def phrasebank(rng: np.random.Generator) -> tuple[Part, Part]:
    """Financial news, negative to positive."""
    levels = {"negative": 1.0, "neutral": 2.0, "positive": 3.0}
    found = rows("financial_phrasebank", "all.jsonl")
    drawn = [found[place] for place in rng.permutation(len(found))[: POOL + TEST]]
    made = [Part([row["text"] for row in part], np.array([levels[row["label"]] for row in part])) for part in (drawn[:POOL], drawn[POOL:])]
    return made[0], made[1]


SETS = {
    **{"unhealthy": unhealthy, "snips": mixed("snips"), "stackoverflow": mixed("stackoverflow_tags")},
    **{"onestop": onestop, "phrasebank": phrasebank},
}


def label_scores(train: np.ndarray, targets: np.ndarray, test: np.ndarray, answers: np.ndarray, seed: int) -> dict[str, dict[str, float]]:
    """Return micro and macro F1 and subset accuracy of each method."""
    fit = fit_labels(torch.from_numpy(train), targets, None, np.zeros(targets.shape[1], dtype=bool), 1, seed, lambda: None)
    assert fit.held_out is not None  # there are many examples
    thresholds = choose_thresholds(sigmoid(fit.held_out), targets, fit.fold_of, DEFAULT_THRESHOLD).values
    ours = sigmoid(test @ fit.weight.double().numpy().T + fit.bias.double().numpy())
    found = {"metatrain": ours >= thresholds, "metatrain, threshold 0.5": ours >= DEFAULT_THRESHOLD}
    found["OneVsRest, C=1"] = OneVsRestClassifier(LogisticRegression(max_iter=1000)).fit(train, targets).predict(test).astype(bool)
    chosen = GridSearchCV(LogisticRegression(max_iter=1000), {"C": CANDIDATES}, scoring="neg_log_loss", cv=3)
    found["OneVsRest, C by cross-validation"] = OneVsRestClassifier(chosen).fit(train, targets).predict(test).astype(bool)
    return {name: set_scores(predicted, answers) for name, predicted in found.items()}


def numbers(train: np.ndarray, targets: np.ndarray, test: np.ndarray, answers: np.ndarray, seed: int) -> dict[str, dict[str, float]]:
    """Return mean absolute error, Spearman and accuracy of each method."""
    fit = fit_numbers(train, targets, seed)
    found = {
        "metatrain": np.clip(test @ fit.weight + fit.bias, targets.min(), targets.max()),
        "Ridge, alpha=1": Ridge().fit(train, targets).predict(test),
        "RidgeCV": RidgeCV(np.logspace(-3, 3, 13)).fit(train, targets).predict(test),
        "median": np.full(len(test), np.median(targets)),
    }
    return {name: {key: value if value is not None else 0.0 for key, value in number_scores(each, answers, True).items()} for name, each in found.items()}


def drawn(answers: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return training rows among which each label occurs three times or more."""
    while True:
        chosen = rng.permutation(len(answers))[:size]
        if answers.ndim == 1 or (answers[chosen].sum(0) >= 3).all():
            return chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--sizes", nargs="+", type=int, default=[100, 300])
    options = parser.parse_args()
    learner = open_encoder("minilm", HardwareConfig(threads=1), print)
    for name in options.sets:
        train, test = SETS[name](np.random.default_rng(0))
        features, queries = (encoded(learner, part.texts, Silent()) for part in (train, test))
        of_labels = train.answers.ndim == 2
        keys = ("micro_f1", "macro_f1", "subset_accuracy") if of_labels else ("mean_absolute_error", "spearman", "accuracy")
        print(f"\n| {name} ({len(test.texts)} test texts) | examples | {' | '.join(keys)} |\n|---|---|{'---|' * len(keys)}")
        for size in options.sizes:
            found: dict[str, list[dict[str, float]]] = defaultdict(list)
            for draw in range(DRAWS):
                chosen = drawn(train.answers, size, np.random.default_rng(draw))
                measure = label_scores if of_labels else numbers
                for method, scores in measure(features[chosen], train.answers[chosen], queries, test.answers, draw).items():
                    found[method].append(scores)
            for method, each in found.items():
                print(f"| {method} | {size} | {' | '.join(f'{np.mean([scores[key] for scores in each]):.3f}' for key in keys)} |", flush=True)


if __name__ == "__main__":
    main()
