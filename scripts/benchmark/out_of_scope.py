"""Measure out-of-scope detection: python scripts/benchmark/out_of_scope.py RUN

RUN is a run of `intent_fewshot`. Support sets of its two test domains come from CLINC150's training file; queries are the domain's test file
and the 1,000 out-of-scope test texts, with `oos_false_rejection_rate=0.05`. Baseline: logistic regression on the frozen encoder, which predicts
none_of_these if its highest probability is below the 5% quantile of the support examples in cross-validation. Prints the table of
docs/results.md.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from metatrain.checkpoints.opening import open_checkpoint
from metatrain.config.schema import Overrides
from metatrain.evaluation.logistic_regression import logistic_regression
from metatrain.gradient.inner_rules import HEAD
from metatrain.meta.encoder_learner import EncoderLearner
from metatrain.models.export import is_none
from metatrain.run import hardware
from metatrain.run.config import HardwareConfig
from metatrain.tasks.encoded_episode import encode_episode
from metatrain.tasks.episodes import given_episode

DOMAINS = ("banking", "credit_cards")
SHOTS = (1, 2, 5, 10)
DRAWS, SHARE = 10, 0.05
FIGURES = ("lost", "found", "auroc")  # share of in-scope texts rejected, share of out-of-scope texts detected, AUROC


def measure(run: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Return the figures by number of shots and method, as means over domains and support sets."""
    device, dtype, _ = hardware.apply(HardwareConfig())
    opened = open_checkpoint(str(run), Overrides(), device, dtype, lambda line: None)
    learner, frozen = opened.learner, opened.untrained()
    assert isinstance(learner, EncoderLearner) and isinstance(frozen, EncoderLearner)
    data = Path(os.environ.get("METATRAIN_DATA", "data")) / "clinc150"
    train, test, out_of_scope = (_read(data / name) for name in ("train.jsonl", "test.jsonl", "oos.jsonl"))
    out_of_scope = [row for row in out_of_scope if row["split"] == "oos_test"]
    found: dict[str, dict[str, list[tuple[float, float, float]]]] = {}
    for domain in DOMAINS:
        pool, known = ([row for row in rows if row["domain"] == domain] for rows in (train, test))
        asked = [row["text"] for row in (*known, *out_of_scope)]
        names, ours, theirs = sorted({row["label"] for row in pool}), learner.features(learner.model.tokens().encode(asked)), _vectors(frozen, asked)
        for shots in SHOTS:
            for draw in range(DRAWS):
                rng = np.random.default_rng([shots, draw])
                rows = [row for name in names for row in rng.permutation(np.array([row for row in pool if row["label"] == name]))[:shots]]
                texts, labels = [row["text"] for row in rows], [row["label"] for row in rows]
                methods = found.setdefault(str(shots), {})
                methods.setdefault("metatrain", []).append(_ours(learner, texts, labels, ours, len(known)))
                if shots > 1:
                    methods.setdefault("logistic regression", []).append(_regression(_vectors(frozen, texts), labels, theirs, len(known)))
    return {shots: {method: dict(zip(FIGURES, np.mean(each, axis=0).tolist())) for method, each in methods.items()} for shots, methods in found.items()}


def _ours(learner: EncoderLearner, texts: Sequence[str], labels: Sequence[str], asked: torch.Tensor, known: int) -> tuple[float, float, float]:
    adapted, fit = learner.fit_support(encode_episode(given_episode(texts, labels, len(texts)), learner.model.tokens()))
    logits = (asked @ adapted[HEAD + "weight"].T + adapted[HEAD + "bias"]).cpu()
    return _figures(is_none(logits, fit.threshold(SHARE)).numpy(), logits.amax(1).numpy(), known)


def _regression(features: np.ndarray, labels: Sequence[str], asked: np.ndarray, known: int) -> tuple[float, float, float]:
    numbers = np.unique(np.array(labels), return_inverse=True)[1]
    model, folds = logistic_regression(features, numbers), StratifiedKFold(min(5, len(labels) // len(set(labels))), shuffle=True, random_state=0)
    top_probabilities = cross_val_predict(model, features, numbers, cv=folds, method="predict_proba").max(1)
    probabilities = model.predict_proba(asked).max(1)
    return _figures(probabilities < np.quantile(top_probabilities, SHARE), probabilities, known)


def _figures(none: np.ndarray, sure: np.ndarray, known: int) -> tuple[float, float, float]:
    """Return the figures of predictions, the first `known` of which are of in-scope texts."""
    return float(none[:known].mean()), float(none[known:].mean()), float(roc_auc_score(np.arange(len(sure)) < known, sure))


def _vectors(learner: EncoderLearner, texts: Sequence[str]) -> np.ndarray:
    return learner.features(learner.model.tokens().encode(texts)).double().cpu().numpy()


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def table(results: dict[str, dict[str, dict[str, float]]]) -> str:
    """Return a row per number of examples per class and method."""
    lines = ["| examples per class | method | in-scope texts rejected | out-of-scope texts detected | AUROC |", "|---|---|---|---|---|"]
    for shots, methods in results.items():
        for method, found in methods.items():
            lines.append(f"| {shots} | {method} | {100 * found['lost']:.1f}% | {100 * found['found']:.1f}% | {found['auroc']:.3f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(measure(Path(sys.argv[1]))))
