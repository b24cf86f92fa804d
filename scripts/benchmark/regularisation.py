"""Choose the regularisation of logistic regression on a frozen encoder: METATRAIN_DATA=FOLDER python scripts/benchmark/regularisation.py

On data sets used for this choice only, at most 80 texts per class of at most 10 classes each: accuracy and log loss of each fixed strength
(`metatrain/evaluation/logistic_regression.py`) and of the one that cross-validation on the support set chooses, means over the data sets and
six support sets of each. Takes a few minutes, most of them to encode. Prints the table of docs/results.md.
"""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import numpy as np

from metatrain.evaluation.logistic_regression import STRENGTHS, choose_strength, fitted
from metatrain.evaluation.statistics import accuracy, log_loss
from metatrain.gradient.config import InnerConfig
from metatrain.meta.config import AlgorithmConfig
from metatrain.meta.encoder_learner import EncoderLearner
from metatrain.models.config import ModelConfig
from metatrain.models.encoder import load_encoder

DATA = ("agnews_test", "financial_phrasebank", "github_issue_type", "poem_sentiment", "tweet_hate", "symptom_disease")
TEXTS, CLASSES, SUPPORT_SETS, SHOTS = 80, 10, 6, (1, 2, 5, 16)


def read(folder: Path) -> list[dict[str, str]]:
    """All rows of a data set."""
    rows = []
    for path in sorted(folder.glob("*.jsonl*")):
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
            rows += [json.loads(line) for line in lines]
    return rows


def encoded(learner: EncoderLearner, rows: list[dict[str, str]]) -> tuple[np.ndarray, np.ndarray]:
    """(vectors, labels) of some texts of the classes that have enough."""
    labels = np.array([str(row["label"]) for row in rows])
    names, counts = np.unique(labels, return_counts=True)
    rng, names = np.random.default_rng(0), names[counts >= TEXTS // 2][:CLASSES]
    chosen = [rng.permutation(np.flatnonzero(labels == name))[:TEXTS] for name in names]
    texts = [rows[row]["text"] for row in np.concatenate(chosen)]
    return learner.features(learner.model.tokens().encode(texts)).double().numpy(), np.repeat(np.arange(len(names)), [len(each) for each in chosen])


def measure(sets: list[tuple[np.ndarray, np.ndarray]], shots: int) -> np.ndarray:
    """[strengths and the chosen one, (accuracy, log loss)]."""
    found = []
    for features, labels in sets:
        for number in range(SUPPORT_SETS):
            rng = np.random.default_rng([number, shots])
            support = np.concatenate([rng.permutation(np.flatnonzero(labels == label))[:shots] for label in np.unique(labels)])
            query = np.setdiff1d(np.arange(len(labels)), support)
            scores = []
            for strength in (*STRENGTHS, choose_strength(features[support], labels[support])):
                probabilities = fitted(features[support], labels[support], strength).predict_proba(features[query])
                scores.append((accuracy(probabilities.argmax(1), labels[query]), log_loss(probabilities, labels[query])))
            found.append(scores)
    return np.mean(found, axis=0)


def table() -> str:
    """Return a row per number of examples per class."""
    encoder, _ = load_encoder(ModelConfig(name="minilm", max_length=64, normalize=True), second_order=False)
    learner = EncoderLearner(encoder, AlgorithmConfig(head="cosine", head_scale=10.0, adapt="head"), InnerConfig(steps=0), way=None)
    sets = [encoded(learner, read(Path(os.environ["METATRAIN_DATA"]) / name)) for name in DATA]
    lines = [
        f"| examples per class | {' | '.join(f'{strength:g}' for strength in STRENGTHS)} | cross-validated |",
        f"|---|{'---|' * (len(STRENGTHS) + 1)}",
    ]
    for shots in SHOTS:
        cells = [f"{100 * correct:.1f}, {loss:.3f}" for correct, loss in measure(sets, shots)]
        lines.append(f"| {shots} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
