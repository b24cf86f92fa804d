"""Train the whole encoder on a support set, for a number of updates chosen by cross-validation.

Training starts from the meta-trained encoder and the head that was fitted to its encodings, since a random head would distort the
pretrained features (Kumar et al. 2022: linear probing, then fine-tuning). The number of updates, possibly 0, is the one with the lowest
log loss on held-out examples, each predicted by an encoder and a head that have not seen it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from metatrain.gradient.inner_rules import HEAD
from metatrain.gradient.parameters import Parameters
from metatrain.meta.budget import PER_STEP, Budget
from metatrain.meta.functional import FunctionalClassifier
from metatrain.meta.head_fit import ENOUGH_HELD_OUT, Fit, best_temperature, num_folds, of_all
from metatrain.meta.progress import Progress
from metatrain.models.batches import chunks
from metatrain.models.head_rule import Head
from metatrain.tasks.encoded_episode import EncodedEpisode

LR, HEAD_LR = 5e-5, 1e-3  # of Adam
WARMUP = 20  # updates in which the learning rates rise linearly
BATCH = 16  # texts per update
UPDATES = (0, 20, 40, 80, 160, 320, 640, 1280, 2560)  # numbers of updates that are compared
COPIES = 3  # of the encoder in memory per fold: its parameters and the two moments of Adam
_FEWEST, _EPOCHS = 80, 10  # compared are at least this number of updates, or of epochs
_PATIENCE = 2  # checks without a lower log loss after which the comparison ends


@dataclass(frozen=True)
class Support:
    """Support set over the word-embedding rows that occur in it."""

    texts: Sequence[np.ndarray]
    labels: Tensor
    rows: Tensor | None  # of the word embeddings, as `FunctionalClassifier.occurring`
    weights: Tensor | None = None  # of the classes in the loss, [way]; None: all 1

    @classmethod
    def of(cls, classifier: FunctionalClassifier, episode: EncodedEpisode) -> Support:
        """Return the support set of an episode, with labels on the model's device."""
        texts, rows = classifier.occurring(episode.support)
        device, weights = classifier.model.device, class_weights(episode)
        labels = torch.from_numpy(np.asarray(episode.support_labels, dtype=np.int64)).to(device)
        return cls(texts, labels, rows, None if weights is None else weights.to(device))


def class_weights(episode: EncodedEpisode) -> Tensor | None:
    """Return the class weights of an episode, [way], float32 on the CPU; None: all 1."""
    return None if episode.class_weights is None else torch.from_numpy(episode.class_weights).float()


@dataclass(frozen=True)
class Start:
    """Classifier and meta-parameters that training starts from."""

    classifier: FunctionalClassifier
    parameters: Parameters


class Training:
    """Training of an encoder and its head on some of the examples; rates: Adam's learning rates of encoder and head; None: (LR, HEAD_LR)."""

    def __init__(self, start: Start, support: Support, examples: np.ndarray, head: Head, seed: int, rates: tuple[float, float] | None = None):
        classifier = start.classifier
        self.start, self.classifier, self.support, self.examples = start, classifier, support, examples
        module = {classifier.prefix + name: value for name, value in classifier.model.named_parameters() if name not in classifier.unreached}
        view = {name: value for name, value in classifier.view(start.parameters, support.rows).items() if name.startswith(classifier.prefix)}
        begin = {**module, **view, **{HEAD + name: value.to(classifier.model.device) for name, value in head.items()}}
        self.parameters: Parameters = {name: value.detach().clone().requires_grad_() for name, value in begin.items()}
        groups = [
            {"params": [value for name, value in self.parameters.items() if name.startswith(HEAD) == of_head], "lr": rate}
            for of_head, rate in zip((False, True), rates or (LR, HEAD_LR))
        ]
        self.optimizer = torch.optim.Adam(groups, fused=classifier.model.device.type == "cpu" or None)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda done: min(1.0, (done + 1) / WARMUP))
        self.rng, self.order, self.done = np.random.default_rng(seed), np.zeros(0, np.int64), 0

    def train(self, until: int, progress: Progress) -> None:
        """Train until this number of updates is done, each on the next examples of an order that is drawn again at its end."""
        with torch.enable_grad():
            while self.done < until:
                if len(self.order) == 0:
                    self.order = self.rng.permutation(self.examples)
                batch, self.order = self.order[:BATCH], self.order[BATCH:]
                texts, labels = [self.support.texts[row] for row in batch], self.support.labels[torch.from_numpy(batch)]
                for part in chunks(texts, self.classifier.plan.part_tokens):
                    scores = self.classifier.scores(self.parameters, self.classifier.model.batch(texts[part]))
                    (F.cross_entropy(scores, labels[part], reduction="sum", weight=self.support.weights) / len(texts)).backward()
                self.optimizer.step()
                self.schedule.step()
                self.optimizer.zero_grad()  # here, so that no gradients are held while another fold trains
                self.done += 1
                progress.advance()

    def logits(self, rows: np.ndarray) -> Tensor:
        """Return logits [rows, way] of examples, on the CPU."""
        return self.classifier.logits(self.parameters, [self.support.texts[row] for row in rows]).cpu()

    def result(self, temperature: float) -> Parameters:
        """Return all parameters, with all rows of the word embeddings, and the head divided by a temperature."""
        found = {name: value.detach() / (temperature if name.startswith(HEAD) else 1.0) for name, value in self.parameters.items()}
        if self.support.rows is not None:
            name = str(self.classifier.embedding)
            found[name] = self.start.parameters[name].index_copy(0, self.support.rows, found[name])
        return {**self.start.parameters, **found}


@dataclass(frozen=True, eq=False)
class _Check:
    """Log loss of held-out examples after a number of updates."""

    updates: int
    temperature: float  # the best
    loss: float  # at it
    logits: Tensor  # [held out, way]


def fit_encoder(start: Start, episode: EncodedEpisode, fit: Fit, progress: Progress, budget: Budget) -> tuple[Parameters, Fit] | None:
    """Train on the support set of an episode; return all parameters and the choices made, or None if the fitted head is as good.

    fit: the head that was fitted to this support set; budget: numbers of updates for which it has no time, as estimated from those before, are not compared.
    """
    support = Support.of(start.classifier, episode)
    labels, weights = support.labels.cpu(), class_weights(episode)
    everything, folds = np.arange(len(labels)), fit.folds[: num_folds([len(fold.held_out) for fold in fit.folds], ENOUGH_HELD_OUT)]
    if not folds:
        return None
    held_out = np.concatenate([fold.held_out for fold in folds])
    trainings = [Training(start, support, np.setdiff1d(everything, fold.held_out), fold.head, episode.seed) for fold in folds]
    checks: list[_Check] = []
    numbers = _numbers(len(labels))
    progress.start("training the encoder, cross-validation", len(folds) * numbers[-1])
    done, per_update = 0, 0.0  # seconds
    for updates in numbers:
        if updates and per_update * (len(folds) * (updates - done) + updates) > budget.left:  # of the folds, and then of all examples
            progress.say(f"{budget}: no time for {updates} updates of the whole encoder")
            break
        begin = budget.spent
        for training in trainings:
            training.train(updates, progress)
        if updates:
            per_update = (budget.spent - begin) / (len(folds) * (updates - done))
        logits = torch.cat([training.logits(fold.held_out) for training, fold in zip(trainings, folds)])
        if not updates:
            per_update = PER_STEP * BATCH * (budget.spent - begin) / len(held_out)
        done = updates
        # If all are correct, the log loss has no minimum in the temperature: smooth labels as if one more were wrong (Platt 1999, section 2.2).
        temperature = best_temperature(logits, labels[held_out], smoothing=1 / (len(held_out) + 2), weights=weights)
        loss = float(F.cross_entropy(logits.double() / temperature, labels[held_out], weight=None if weights is None else weights.double()))
        checks.append(_Check(updates, temperature, loss, logits))
        correct = int((logits.argmax(1) == labels[held_out]).sum())
        progress.say(f"the whole encoder after {updates} updates: log loss {loss:.3f}, {correct} of {len(held_out)} held-out examples are correct")
        best = min(checks, key=lambda check: check.loss)
        if len(checks) - checks.index(best) > _PATIENCE:
            break
    progress.stop()
    if best.updates == 0:
        if len(checks) > 1:
            progress.say("the encoder is not trained: the fitted head alone is as good")
        return None
    del trainings, training  # and what they hold, before the next
    training = Training(start, support, everything, fit.head, episode.seed)
    progress.start("training the encoder, all examples", best.updates)
    training.train(best.updates, progress)
    progress.stop()
    judged = of_all(len(labels), held_out, best.logits / best.temperature)
    loss = float(F.cross_entropy(training.logits(everything) / best.temperature, labels, weight=weights))
    return training.result(best.temperature), replace(fit, loss=loss, temperature=best.temperature, held_out=judged, updates=best.updates, is_learned=False)


def _numbers(examples: int) -> list[int]:
    """Return the numbers of updates that are compared for this number of examples."""
    most = max(_FEWEST, _EPOCHS * math.ceil(examples / BATCH))
    return [number for number in UPDATES if number <= most]
