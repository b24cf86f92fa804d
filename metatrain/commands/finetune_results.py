"""Results of `finetune`: cross-validation, the logistic-regression baseline, the test."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metatrain.evaluation import statistics
from metatrain.evaluation.analysis import mistakes_in
from metatrain.evaluation.held_out import Baseline, baseline, baseline_fits, by_class, interval, reliability
from metatrain.evaluation.protocol import scored
from metatrain.gradient.parameters import Parameters
from metatrain.meta.encoder_learner import EncoderLearner
from metatrain.meta.head_fit import Fit
from metatrain.meta.learner import Learner
from metatrain.models.export import is_none
from metatrain.tasks.encoded_episode import EncodedEpisode
from metatrain.tasks.episodes import Episode
from metatrain.tracking.console import Display

_NEAR_GUESSING = 0.75  # of ln(classes): a training loss above it has hardly learned the examples
_FEW = 20  # examples held out, below which probabilities are calibrated by little


@dataclass(frozen=True)
class Adapted:
    """A model that was adapted to an episode's support set."""

    learner: Learner
    parameters: Parameters
    episode: Episode
    texts: EncodedEpisode
    threshold: float | None  # of none_of_these
    kind: str  # of accuracy that a test gives: held-out | training, if training has all of its texts


def warn_of_loss(loss: float, way: int, learner: EncoderLearner, say: Callable[[str], None]) -> None:
    """Warn where the training loss is near that of guessing."""
    if loss < _NEAR_GUESSING * math.log(way) or math.isnan(loss):
        return
    said = f"warning: the training loss, {loss:.2f}, is near ln({way}) = {math.log(way):.2f}, that of random guessing"
    if learner.inner.fit_head:
        say(f"{said}: this encoder barely separates the classes; check the labels, or choose another encoder")
    else:
        say(f"{said}: the inner loop underfits; raise inner.steps={learner.steps(evaluation=True)}, or set inner.fit_head=true algorithm.adapt=head")


def cross_validation(fit: Fit, labels: np.ndarray, say: Callable[[str], None]) -> dict[str, Any]:
    """Report what the fit found on the examples themselves; labels: [examples]."""
    if fit.held_out is None:
        say("one example per class: the head is not fitted, because cross-validation and calibration need at least two")
        return {"pull": None, "updates": 0, "temperature": 1.0, "cross_validation": None}
    logits = fit.held_out[: len(labels)]
    judged = ~logits.isnan().any(1)
    correct = logits[judged].argmax(1).numpy() == labels[judged.numpy()]
    l2 = "inf" if fit.l2 == float("inf") else fit.l2
    trained = f", {fit.updates} updates of the whole encoder" if fit.updates else ""
    bounds = interval(int(correct.sum()), len(correct))
    say(
        f"cross-validated accuracy on the examples: {correct.mean():.3f}, 95% interval {_shown(bounds)} "
        f"(head fitted with L2 strength {l2}{trained}, temperature {fit.temperature:.2f})"
    )
    if len(correct) < _FEW:
        say(f"probabilities are calibrated on only {len(correct)} held-out examples and may be inaccurate; use {_FEW} or more")
    return {
        **{"pull": l2, "updates": fit.updates, "temperature": fit.temperature},
        "cross_validation": {"examples": len(correct), "accuracy": float(correct.mean()), "ci95": bounds},
    }


def logistic_regression(learner: EncoderLearner, fit: Fit | None, texts: EncodedEpisode, display: Display) -> Baseline:
    """Fit logistic regression to the encodings that adaptation began with; its predictions are for the queries."""
    support = _encoded(learner, texts.support, display) if fit is None or fit.encodings is None else fit.encodings
    queries = _encoded(learner, texts.query, display) if len(texts.query) else support[:0]
    labels = np.asarray(texts.support_labels)
    display.start("logistic regression, cross-validated", baseline_fits(labels), brief=True)
    found = baseline(support.double().numpy(), labels, queries.double().numpy(), display.advance)
    display.stop()
    return found


def _encoded(learner: EncoderLearner, texts: Sequence[np.ndarray], display: Display) -> Tensor:
    display.start("encoding texts", len(texts), brief=True)
    found = learner.features(texts, lambda number: display.advance(by=number)).cpu()
    display.stop()
    return found


def held_out_results(adapted: Adapted, beside: Baseline | None, display: Display) -> tuple[dict[str, Any], dict[str, Any]]:
    """Test on the queries; returns what results.json says of it, and analysis.json."""
    episode, learner = adapted.episode, adapted.learner
    number, score = len(episode.query), episode.task.score
    logits = _logits(adapted, display) if isinstance(learner, EncoderLearner) else None
    predictions = learner.predictions(adapted.parameters, adapted.texts) if logits is None else logits.argmax(1).numpy()
    accuracy, balanced = scored(episode, predictions, episode.query_labels)
    if score is not None:
        display.say(f"{adapted.kind} {score}: {accuracy:.3f} on {number} test examples")
        return {"examples": number, score: accuracy}, {}
    probabilities = learner.probabilities(adapted.parameters, adapted.texts) if logits is None else logits.double().softmax(1).numpy()
    predicted, labels = np.asarray(predictions), episode.query_labels
    is_correct = predicted == labels
    bounds = interval(int(is_correct.sum()), number)
    before = "" if adapted.threshold is None else ", before none_of_these"
    display.say(f"{adapted.kind} accuracy{before}: {accuracy:.3f}, 95% interval {_shown(bounds)} (balanced {balanced:.3f}) on {number} test examples")
    results: dict[str, Any] = {"examples": number, "accuracy": accuracy, "ci95": bounds, "balanced_accuracy": balanced}
    names = [episode.task.label_names[label] for label in episode.classes]
    confidence = None if probabilities is None else probabilities.max(1)
    analysis = {"mistakes": [mistakes_in([episode], [predicted], None if confidence is None else [confidence])], "classes": by_class(predicted, labels, names)}
    if confidence is not None:
        analysis["reliability"] = reliability(confidence, is_correct)
        results["calibration_error"] = statistics.calibration_error(confidence, is_correct)
        display.say(f"mean confidence of the predictions: {confidence.mean():.3f} (calibration error {results['calibration_error']:.3f})")
    if beside is not None:
        results["logistic_regression"] = float(np.mean(beside.predictions == labels))
        display.say(f"logistic regression on the same encodings, {adapted.kind} accuracy: {results['logistic_regression']:.3f}")
    if adapted.threshold is not None:
        assert logits is not None  # only an encoder's head has a threshold
        rejected = is_none(logits, adapted.threshold).numpy()
        results["known_texts_lost"], results["accuracy_with_none_of_these"] = float(rejected.mean()), float((is_correct & ~rejected).mean())
        display.say(
            f"none_of_these rejects {rejected.mean():.1%} of these in-scope test examples; with rejections counted as errors, "
            f"{adapted.kind} accuracy is {results['accuracy_with_none_of_these']:.3f}"
        )
    return results, analysis


def rejected_share(adapted: Adapted, texts: Sequence[np.ndarray], display: Display) -> float:
    """The share of texts of no class that `none_of_these` rejects."""
    assert isinstance(adapted.learner, EncoderLearner)  # only an encoder's head has a threshold
    found = float(is_none(adapted.learner.logits(adapted.parameters, texts), adapted.threshold).double().mean())
    display.say(f"none_of_these rejects {found:.1%} of {len(texts)} out-of-scope test texts")
    return found


def _logits(adapted: Adapted, display: Display) -> torch.Tensor:
    texts, learner = adapted.texts.query, adapted.learner
    assert isinstance(learner, EncoderLearner)
    display.start("testing", len(texts), brief=True)
    found = learner.logits(adapted.parameters, texts, lambda number: display.advance(by=number)).cpu()
    display.stop()
    return found


def _shown(bounds: Sequence[float]) -> str:
    return f"[{bounds[0]:.3f}, {bounds[1]:.3f}]"
