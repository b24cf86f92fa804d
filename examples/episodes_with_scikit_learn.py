"""Run another library on the episodes of metatrain: logistic regression of scikit-learn on the encodings of sentence-transformers.

    metatrain tasks tasks=reviews export=episodes.jsonl evaluation.shots=[1,5] evaluation.episodes=10
    python examples/episodes_with_scikit_learn.py episodes.jsonl [--model sentence-transformers/all-MiniLM-L6-v2]

It uses nothing of metatrain but the file, and prints the accuracy of metatrain's arm `logistic_regression` to the last digit: of

    metatrain evaluate checkpoint=MODEL episode.file=episodes.jsonl evaluation.arms=[logistic_regression]

where MODEL is the same plain encoder (for a meta-trained model, the arm encodes with the base model).

For the four meta-test tasks of `reviews`, ten episodes each, and all-MiniLM-L6-v2:

    1-shot: 0.5012931034482758
    5-shot: 0.4775
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer
from sklearn.linear_model import LogisticRegression

STRENGTHS = (1.0, 10.0, 100.0, 1000.0)  # candidate values of C, in units of 1 / mean squared length of the encodings
WITHOUT_FOLDS = 100.0  # C if no class has two examples
FOLDS, HELD_OUT = 5, 100  # folds of cross-validation; no further ones after this number of held-out examples


def fitted(features: np.ndarray, labels: np.ndarray, strength: float) -> LogisticRegression:
    """Fit logistic regression."""
    with warnings.catch_warnings():  # with one example per class, scikit-learn suspects a regression task
        warnings.filterwarnings("ignore", message="The number of unique classes is greater than 50%")
        return LogisticRegression(C=strength / np.square(features).sum(1).mean(), max_iter=1000).fit(features, labels)


def folds_of(labels: np.ndarray) -> list[np.ndarray]:
    """Folds stratified by class; the only example of a class is in none."""
    rng = np.random.default_rng(0)
    folds: list[list[int]] = [[] for _ in range(FOLDS)]
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        for place, row in enumerate(rows if len(rows) > 1 else []):
            folds[place % FOLDS].append(int(row))
    sizes = np.cumsum([len(fold) for fold in folds])
    return [np.array(sorted(fold)) for fold, size in zip(folds, sizes) if fold and size - len(fold) < HELD_OUT]


def held_out_loss(features: np.ndarray, labels: np.ndarray, fold: np.ndarray, strength: float) -> float:
    """Sum of the log loss over the examples of a fold."""
    rest = np.setdiff1d(np.arange(len(labels)), fold)
    probabilities = fitted(features[rest], labels[rest], strength).predict_proba(features[fold])
    of_correct = probabilities[np.arange(len(fold)), labels[fold]]
    return len(fold) * float(-np.log(np.clip(of_correct, np.finfo(np.float64).eps, 1.0)).mean())


def accuracy(episode: dict[str, Any], encodings: dict[str, np.ndarray]) -> float:
    """Accuracy on the queries of an episode."""
    (features, labels), (queries, answers) = (
        (np.stack([encodings[text] for text in episode[part]["texts"]]), np.array(episode[part]["labels"])) for part in ("support", "query")
    )
    folds = folds_of(labels)
    losses = {strength: sum(held_out_loss(features, labels, fold, strength) for fold in folds) for strength in STRENGTHS}
    strength = min(STRENGTHS, key=losses.__getitem__) if folds else WITHOUT_FOLDS
    return float(np.mean(fitted(features, labels, strength).predict_proba(queries).argmax(1) == answers))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", help="episodes, one JSON object a line")
    parser.add_argument("--model", default="sentence-transformers/all-MiniLM-L6-v2")
    arguments = parser.parse_args()
    episodes = [json.loads(line) for line in Path(arguments.file).read_text(encoding="utf-8").split("\n") if line]
    texts = sorted({text for episode in episodes for part in ("support", "query") for text in episode[part]["texts"]})
    model = SentenceTransformer(arguments.model, device="cpu")
    encodings = dict(zip(texts, model.encode(texts, normalize_embeddings=True).astype(np.float64)))
    scores: dict[int, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for episode in episodes:
        scores[episode["shots"]][episode["task"]].append(accuracy(episode, encodings))
    for shots, of_tasks in sorted(scores.items()):
        print(f"{shots}-shot: {np.mean([np.mean(of_task) for of_task in of_tasks.values()])}")


if __name__ == "__main__":
    main()
