"""Results of `finetune`: cross-validation, the logistic-regression baseline, the test."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from metatrain.checkpoints.class_balance import listed
from metatrain.evaluation import statistics
from metatrain.evaluation.analysis import mistakes_in
from metatrain.evaluation.held_out import Baseline, baseline, baseline_fits, by_class, interval, reliability
from metatrain.evaluation.learning_curve import learning_curve, num_fits, why_not
from metatrain.evaluation.protocol import scored
from metatrain.gradient.parameters import Parameters
from metatrain.meta.head_fit import ENOUGH, Fit, UnlabelledUse
from metatrain.meta.learner import EncodingLearner, Learner
from metatrain.models.export import is_none
from metatrain.tasks.encoded_episode import EncodedEpisode
from metatrain.tasks.episodes import Episode
from metatrain.tracking.console import Display

_NEAR_GUESSING = 0.75  # fraction of ln(classes), the loss of random guessing, above which a training loss is reported as high


@dataclass(frozen=True)
class Adapted:
    """A model that was adapted to an episode's support set."""

    learner: Learner
    parameters: Parameters
    episode: Episode
    texts: EncodedEpisode
    threshold: float | None  # threshold of the highest logit; below it, a text is out of scope
    kind: str  # accuracy measured by the test: held-out | training (training has all test texts)


def of_baseline(learner: Learner) -> str:
    """Return which encodings logistic regression reads."""
    return "the same encodings" if learner.functional.first_adapted_layer is None else "the encodings before adaptation"


def warn_of_loss(loss: float, way: int, learner: Learner, say: Callable[[str], None]) -> None:
    """Warn if the training loss is near that of random guessing."""
    if loss < _NEAR_GUESSING * math.log(way) or math.isnan(loss) or (learner.functional.head_after and not learner.inner.fit_head):
        return  # without a fit, the loss of `leave_one_out` is that of left-out examples
    said = f"warning: the training loss, {loss:.2f}, is near ln({way}) = {math.log(way):.2f}, that of random guessing"
    if learner.inner.fit_head:
        say(f"{said}: this encoder barely separates the classes; check the labels, or choose another encoder")
    else:
        say(f"{said}: the inner loop underfits; raise inner.steps={learner.steps(evaluation=True)}, or set inner.fit_head=true algorithm.adapt=head")


def cross_validation(fit: Fit, labels: np.ndarray, say: Callable[[str], None]) -> dict[str, Any]:
    """Report the cross-validated accuracy and the hyperparameters of the fitted head, and return them; labels: [examples]."""
    if fit.held_out is None:
        say("one example per class: the head is not fitted, because cross-validation and calibration need at least two")
        say(_of_probabilities(fit))
        return {"l2_strength": None, "updates": 0, "temperature": fit.temperature, "temperature_learned": fit.is_learned, "cross_validation": None}
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
    if not fit.folds and not (fit.unlabelled is not None and fit.unlabelled.read):
        say(_of_probabilities(fit))
    elif len(correct) < ENOUGH:
        prior = ", near the temperature that meta-training learned for this number of classes and examples," if fit.is_learned else ""
        say(f"probabilities are calibrated on only {len(correct)} held-out examples{prior} and may be inaccurate; use {ENOUGH} or more")
    return {
        **{"l2_strength": l2, "updates": fit.updates, "temperature": fit.temperature, "temperature_learned": fit.is_learned},
        "cross_validation": {"examples": len(correct), "accuracy": float(correct.mean()), "ci95": bounds},
    }


def _of_probabilities(fit: Fit) -> str:
    """Return a line about the temperature of a head that is not fitted."""
    if fit.is_learned:
        learned = f"temperature {fit.temperature:.2f}, which meta-training learned for this number of classes"
        return f"probabilities: {learned}; {ENOUGH} or more examples choose it themselves"
    return f"probabilities: not calibrated, because one example per class chooses no temperature; use {ENOUGH} or more examples"


def unlabelled_results(use: UnlabelledUse, episode: Episode, say: Callable[[str], None]) -> dict[str, Any]:
    """Report whether texts without labels are used, and return it with the estimated shares of the classes among them."""
    names = [episode.task.label_names[label] for label in episode.classes]
    found: dict[str, Any] = {"texts": use.texts, "read": use.read, "why": use.why}
    if use.shares is None:
        say(f"{use.texts} texts without labels are not used: {use.why}")
        return found
    say(f"{use.texts} texts without labels are used: {use.why}; estimated class shares among them: {listed(names, use.shares)}")
    return {**found, "shares": dict(zip(names, use.shares.tolist()))}


def majority_class(episode: Episode, labels: np.ndarray, say: Callable[[str], None]) -> dict[str, Any]:
    """Report the accuracy of always predicting the most frequent class, on the examples themselves; labels: [examples]."""
    counts = np.bincount(labels)
    name, share = episode.task.label_names[episode.classes[int(counts.argmax())]], float(counts.max() / len(labels))
    say(f"always predicting the most frequent class ({name!r}), accuracy on the examples: {share:.3f}")
    return {"label": name, "share": share}


def support_encodings(learner: EncodingLearner, fit: Fit | None, texts: EncodedEpisode, display: Display) -> np.ndarray:
    """Return the encodings of the examples before adaptation, [examples, H]."""
    return _encoded(learner, texts.support, display) if fit is None or fit.encodings is None else fit.encodings.double().numpy()


def logistic_regression(learner: EncodingLearner, support: np.ndarray, texts: EncodedEpisode, display: Display) -> Baseline:
    """Fit logistic regression to the encodings before adaptation, `support`, cross-validate it, and predict the queries."""
    queries = _encoded(learner, texts.query, display) if len(texts.query) else support[:0]
    labels = np.asarray(texts.support_labels)
    display.start("logistic regression, cross-validated", baseline_fits(labels), brief=True)
    found = baseline(support, labels, queries, display.advance)
    display.stop()
    return found


def _encoded(learner: EncodingLearner, texts: Sequence[np.ndarray], display: Display) -> np.ndarray:
    display.start("encoding texts", len(texts), brief=True)
    found = learner.features(texts, lambda number: display.advance(by=number)).double().cpu().numpy()
    display.stop()
    return found


def more_labels(support: np.ndarray, labels: np.ndarray, seed: int, display: Display) -> dict[str, Any]:
    """Report the learning curve of the examples; return contents of results.json.

    support: encodings, [examples, H]; labels: [examples].
    """
    if (why := why_not(labels)) is not None:
        display.say(f"no learning curve: {why}")
        return {}
    display.start("learning curve", num_fits(labels), brief=True)
    found = learning_curve(support, labels, seed, display.advance)
    display.stop()
    points = ", ".join(f"{size} examples {mean:.3f}" for size, mean in zip(found.sizes, found.accuracy))
    gain, (low, high) = found.last_gain
    display.say(f"learning curve of logistic regression, cross-validated accuracy: {points}")
    display.say(f"the last doubling of examples added {100 * gain:+.1f} points, 95% interval [{100 * low:+.1f}, {100 * high:+.1f}]; expect less of the next")
    return {"learning_curve": found.results()}


def test_results(adapted: Adapted, beside: Baseline | None, display: Display) -> tuple[dict[str, Any], dict[str, Any]]:
    """Test on the queries; return the contents of `test` in results.json, and of analysis.json."""
    episode, learner = adapted.episode, adapted.learner
    number, score = len(episode.query), episode.task.score
    logits = _logits(adapted, adapted.texts, display)
    predictions = learner.predictions(adapted.parameters, adapted.texts) if logits is None else logits.argmax(1).numpy()
    accuracy, balanced = scored(episode, predictions, episode.query_labels)
    if score is not None:
        display.say(f"{adapted.kind} {score}: {accuracy:.3f} on {number} test examples")
        return {"examples": number, score: accuracy}, {}
    assert logits is not None  # only target texts, which have a score, leave no labels to choose from
    probabilities = logits.double().softmax(1).numpy()
    predicted, labels = np.asarray(predictions), episode.query_labels
    is_correct = predicted == labels
    bounds = interval(int(is_correct.sum()), number)
    before = "" if adapted.threshold is None else ", before none_of_these"
    display.say(f"{adapted.kind} accuracy{before}: {accuracy:.3f}, 95% interval {_shown(bounds)} (balanced {balanced:.3f}) on {number} test examples")
    results: dict[str, Any] = {"examples": number, "accuracy": accuracy, "ci95": bounds, "balanced_accuracy": balanced}
    names = [episode.task.label_names[label] for label in episode.classes]
    confidence = probabilities.max(1)
    analysis = {
        "mistakes": [mistakes_in([episode], [predicted], [confidence])],
        "classes": by_class(predicted, labels, names),
        "reliability": reliability(confidence, is_correct),
    }
    results["calibration_error"] = statistics.calibration_error(confidence, is_correct)
    display.say(f"mean confidence of the predictions: {confidence.mean():.3f} (calibration error {results['calibration_error']:.3f})")
    results["majority_class"] = float(np.mean(labels == np.bincount(adapted.texts.support_labels).argmax()))
    display.say(f"always predicting the most frequent class of the examples, {adapted.kind} accuracy: {results['majority_class']:.3f}")
    if beside is not None:
        results["logistic_regression"] = float(np.mean(beside.predictions == labels))
        display.say(f"logistic regression on {of_baseline(learner)}, {adapted.kind} accuracy: {results['logistic_regression']:.3f}")
    if adapted.threshold is not None:
        rejected = is_none(logits, adapted.threshold).numpy()
        results["false_rejection_rate"], results["accuracy_with_rejection"] = float(rejected.mean()), float((is_correct & ~rejected).mean())
        display.say(
            f"none_of_these rejects {rejected.mean():.1%} of these in-scope test examples; with rejections counted as errors, "
            f"{adapted.kind} accuracy is {results['accuracy_with_rejection']:.3f}"
        )
    return results, analysis


def rejected_share(adapted: Adapted, texts: Sequence[np.ndarray], display: Display) -> float:
    """Return the fraction of out-of-scope texts that the threshold rejects."""
    logits = adapted.learner.query_logits(adapted.parameters, replace(adapted.texts, query=texts))
    assert logits is not None  # only a classifier has a threshold
    found = float(is_none(logits, adapted.threshold).double().mean())
    display.say(f"none_of_these rejects {found:.1%} of {len(texts)} out-of-scope test texts")
    return found


def _logits(adapted: Adapted, texts: EncodedEpisode, display: Display) -> Tensor | None:
    """Return logits [queries, labels]; None for a task with target texts."""
    display.start("testing", len(texts.query), brief=True)
    found = adapted.learner.query_logits(adapted.parameters, texts, lambda number: display.advance(by=number))
    display.stop()
    return None if found is None else found.cpu()


def _shown(bounds: Sequence[float]) -> str:
    return f"[{bounds[0]:.3f}, {bounds[1]:.3f}]"
