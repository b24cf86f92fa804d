"""Adaptation of `metatrain finetune`: adapt to the examples, test, and report both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from metatrain.checkpoints.building import last_layers
from metatrain.checkpoints.class_balance import accuracy_for_priors, described, results_of
from metatrain.checkpoints.finetuning import Finetuned
from metatrain.commands.finetune_examples import Examples
from metatrain.commands.finetune_results import (
    Adapted,
    cross_validation,
    logistic_regression,
    majority_class,
    more_labels,
    of_baseline,
    rejected_share,
    support_encodings,
    test_results,
    unlabelled_results,
    warn_of_loss,
)
from metatrain.evaluation.held_out import Baseline
from metatrain.gradient.parameters import Parameters
from metatrain.meta.head_fit import Fit
from metatrain.meta.learner import Learner
from metatrain.models.prediction_sets import FEWEST
from metatrain.models.reading import Reading
from metatrain.tasks.encoded_episode import EncodedEpisode
from metatrain.tracking.console import Display

_MANY = 32  # examples per class from which adapting the whole encoder may pay off


@dataclass(frozen=True)
class Adaptation:
    """Result of the adaptation to the examples."""

    parameters: Parameters
    results: dict[str, Any]  # contents of results.json
    threshold: float | None  # threshold of the highest logit; below it, a text is out of scope
    reading: Reading | None  # what a language model reads around every text; None: it is an encoder
    analysis: dict[str, Any]  # contents of analysis.json; empty without a test of labels
    prediction_sets: dict[str, Any] | None  # their calibration; None: no example was held out, and there is none on other tasks


def adapt_and_test(learner: Learner, examples: Examples, rejection_rate: float | None, display: Display, adaptation: Finetuned) -> Adaptation:
    """Report the adaptation to the training examples, and test on the test examples, if there are any."""
    episode, balance = examples.episode, adaptation.balance
    texts, reading, fit, loss, seconds = adaptation.texts, adaptation.reading, adaptation.fit, adaptation.loss, adaptation.seconds
    steps = learner.steps(evaluation=True)
    counted = f"{len(episode.support)} examples" + (f" of {episode.way} classes" if episode.task.targets is None else "")
    if reading is not None and learner.functional.reads_support:
        display.say(f"{counted}, {len(reading.context)} tokens, form the context of every text; no parameter adapts")
        if reading.left_out:
            display.say(f"warning: {reading.left_out} of them are left out of the context, balanced over the classes: the model has no positions for them")
    elif fit is not None and fit.steps:
        display.say(f"adapted to {counted} in {seconds:.1f} s: {inner_steps(learner)}, then a head fitted (training loss {loss:.3f})")
    elif fit is not None:
        display.say(f"fitted to {counted} in {seconds:.1f} s (training loss {loss:.3f})")
    else:
        display.say(f"adapted to {counted} in {seconds:.1f} s ({f'{steps} inner steps, last loss {loss:.3f}' if steps else 'no inner steps'})")
    if fit is None and (temperature := learner.made_temperature(texts)) is not None:
        display.say(f"probabilities: temperature {temperature:.2f}, which meta-training learned for this number of classes and examples")
    for line in described(balance, episode):
        display.say(line)
    sets = adaptation.prediction_sets()
    if sets is not None and "across_tasks" in sets:
        display.say(f"prediction sets: calibrated on {sets['across_tasks']['tasks']} other tasks, because fewer than {FEWEST} examples are held out")
    if fit is not None and learner.functional.head_after:
        steps = fit.steps
    results: dict[str, Any] = {"examples": len(episode.support), "steps": steps, "seconds": round(seconds, 3)}
    results.update(results_of(balance, episode))
    if fit is not None and fit.unlabelled is not None:
        results["unlabelled"] = unlabelled_results(fit.unlabelled, episode, display.say)
    if fit is not None:
        results.update(cross_validation(fit, texts.support_labels, display.say))
        results.update(accuracy_for_priors(balance, fit, texts.support_labels, display.say))
    if episode.task.targets is None:
        results["majority_class"] = majority_class(episode, texts.support_labels, display.say)
    beside = None
    if learner.encodings is not None:
        warn_of_loss(loss, episode.way, learner, display.say)
        beside, found = _on_encodings(learner, fit, texts, display)
        results.update(found)
    is_frozen = fit is not None and learner.budget is None and not (fit.steps or fit.updates or learner.inner.fit_encoder)
    if is_frozen and len(episode.support) >= _MANY * episode.way:
        display.say(f"with {_MANY} or more examples per class, inner.fit_encoder=true may be more accurate: it trains the whole encoder on them, in minutes")
    threshold = adaptation.threshold(rejection_rate)
    adapted = Adapted(learner, adaptation.parameters, episode, texts, threshold, "held-out" if examples.is_held_out else "training")
    test, analysis = _tested(adapted, examples, beside, display)
    if test:
        results["test"] = test
    return Adaptation(adaptation.parameters, results, threshold, reading, analysis, sets)


def inner_steps(learner: Learner) -> str:
    """Return what the inner loop of a learner does, in words."""
    algorithm, inner = learner.algorithm, learner.inner
    where = f"the {last_layers(learner)}" if algorithm.adapt == "last_layers" else f"algorithm.adapt={algorithm.adapt}"
    return f"{learner.steps(evaluation=True)} inner steps on {where} (inner.loss={inner.loss}, inner.rule={inner.rule}, inner.lr={inner.lr:g})"


def _on_encodings(learner: Learner, fit: Fit | None, texts: EncodedEpisode, display: Display) -> tuple[Baseline, dict[str, Any]]:
    """Fit the baseline on the encodings before adaptation, and report it and the use of label names; return the baseline and contents of results.json."""
    results: dict[str, Any] = {}
    encodings = learner.encodings
    assert encodings is not None
    support = support_encodings(encodings, fit, texts, display)
    beside = logistic_regression(encodings, support, texts, display)
    if beside.cross_validated is not None:
        display.say(f"logistic regression on {of_baseline(learner)}, cross-validated accuracy: {beside.cross_validated:.3f}")
        results["logistic_regression"] = {"cross_validation": beside.cross_validated}
    results.update(more_labels(support, np.asarray(texts.support_labels), texts.seed, display))
    names = fit.names if fit is not None else encodings.choose_names(texts)
    if names is not None:
        weight = learner.algorithm.label_names_weight
        used = f"used as {'an extra example' if weight == 1 else f'{weight} extra examples'} of each class"
        display.say(f"label names are {used if names.read else 'not used'}: {names.why}")
        results["names"] = {"read": names.read, "why": names.why}
    return beside, results


def _tested(adapted: Adapted, examples: Examples, beside: Baseline | None, display: Display) -> tuple[dict[str, Any], dict[str, Any]]:
    """Test on in-scope and on out-of-scope examples, as far as there are any; return `test` of results.json, and analysis.json."""
    results: dict[str, Any] = {}
    analysis: dict[str, Any] = {}
    if examples.is_tested:
        results, analysis = test_results(adapted, beside, display)
        results.update(held_out=examples.is_held_out, also_in_training=examples.num_seen)
    if adapted.threshold is not None and examples.out_of_scope:
        ids = adapted.learner.model.tokens().encode(examples.out_of_scope)
        results["out_of_scope"] = {"examples": len(ids), "rejected": rejected_share(adapted, ids, display)}
    return results, analysis
