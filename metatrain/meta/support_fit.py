"""Fit a head to the support set of an episode, after inner steps of the encoder if the inner loss makes them, and then the whole encoder if that helps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from metatrain.gradient.inner_rules import HEAD
from metatrain.gradient.parameters import Parameters
from metatrain.meta.budget import Budget, seconds_of_adaptation
from metatrain.meta.encoder_fit import Start, class_weights, fit_encoder
from metatrain.meta.functional import FunctionalClassifier
from metatrain.meta.head_fit import ENOUGH, ENOUGH_HELD_OUT, FITS, FOLDS, Fit, fit_head, folds_of, num_folds
from metatrain.meta.learner import Learner
from metatrain.meta.leave_one_out import MOST_TOKENS
from metatrain.meta.name_choice import NameChoice, choose_names
from metatrain.meta.progress import Progress
from metatrain.meta.text_losses import ENCODINGS, TextLosses
from metatrain.meta.unlabelled_fit import Encode, fit_unlabelled
from metatrain.models.head_rule import Head
from metatrain.tasks.encoded_episode import EncodedEpisode

MANY = 50  # examples per class from which a budget may be spent on training the whole encoder


def fit_support(
    learner: Learner, classifier: FunctionalClassifier, losses: type[TextLosses], episode: EncodedEpisode, progress: Progress
) -> tuple[Parameters, Fit]:
    """Fit the head (`inner.fit_head`), and then the whole encoder (`inner.fit_encoder`) if that helps; return all parameters and the choices made.

    With a time budget, the estimated time decides whether inner steps precede the fit and for how many folds; with `MANY` examples per class, the time
    that is left is spent on the whole encoder.

    classifier: the model of the learner; losses: its inner loss.
    """
    budget = Budget(learner.budget)
    support = classifier.read(episode.without_queries())
    adapts = classifier.head_after and learner.steps(evaluation=True) > 0  # whether inner steps precede the fit
    if adapts and (why := _why_no_steps(learner, episode)):
        progress.say(f"{why}: no inner steps are made, and the encoder stays as it is")
        adapts = False
    progress.start("encoding examples", len(support.support), brief=True)
    encoder = classifier  # as it is before the fit
    if adapts:
        texts = [text for part in classifier.texts_of(support) for text in part]
        classifier = classifier.caching(learner.initial)
        learner = learner.with_functional(classifier)
        if classifier.cache is not None:
            classifier.cache.of(texts, lambda texts: progress.advance(by=texts))
    on_progress = (lambda texts: progress.advance(by=texts)) if classifier is encoder else lambda texts: None
    begin = budget.spent
    features, choice = classifier.features(learner.initial, support.support, on_progress), None
    seconds = budget.spent - begin  # without the layers below the first that adapts, whose output is cached
    progress.stop()
    encodings = features[: len(episode.support)].cpu()
    if len(support.support) > len(episode.support):
        choice = choice_of_names(support, len(episode.support), features)
        if not choice.read:
            support, features = episode.without_queries(), features[: len(episode.support)]
    is_name = np.arange(len(support.support)) >= len(episode.support)
    folds = FOLDS
    if adapts:
        sizes = [len(fold) for fold in folds_of(np.asarray(support.support_labels), episode.seed, is_name, ENOUGH_HELD_OUT)]
        folds = len(sizes)
        if budget.is_limited:
            adapts, folds = _within(budget, seconds_of_adaptation(seconds, learner.steps(evaluation=True)), sizes, progress)
    examples = _Examples(learner, classifier, losses, support, features, progress, adapts)
    # On the CPU: thousands of small operations take less time there than a GPU takes to launch them.
    adaptations = 1 + folds if adapts else 0  # to all examples, and without each fold
    progress.start("fitting the head", FITS + adaptations, brief=True)
    encode = (lambda rows: examples.encodings(rows)[0].cpu()) if adapts else None
    of_all = examples.encodings(np.arange(len(examples.labels)))[0].cpu()
    pool = episode.unlabelled if episode.reads_unlabelled else ()
    learned = None if len(pool) else learner.temperature  # texts without labels make heads more confident than those that it was learned from
    weights = class_weights(episode)
    found = fit_head(examples.head, of_all, examples.labels, is_name, episode.seed, progress.advance, encode, weights, learned, folds)
    if len(pool):
        found = fit_unlabelled(examples.head, found, examples.with_pool(pool), len(pool), examples.labels, is_name, weights)
    fit = replace(found, names=choice, encodings=encodings, steps=learner.steps(evaluation=True) if adapts else 0)
    progress.stop()
    has_many = float(np.median(np.bincount(episode.support_labels))) >= MANY
    in_time = budget.is_limited and classifier.head_after and learner.trains_encoder and has_many and budget.left > 0
    if learner.inner.fit_encoder or in_time:
        frozen = fit
        if adapts:
            as_they_are = _Examples(learner, encoder, losses, support, features, progress, adapts=False)
            frozen = fit_head(as_they_are.head, features.cpu(), examples.labels, is_name, episode.seed, weights=weights, learned=learned)
            frozen = replace(frozen, names=choice, encodings=encodings)
        trained = fit_encoder(Start(encoder, learner.parameters), support, frozen, progress, budget)
        if trained is not None and (not adapts or _is_better(trained[1], fit, examples.labels, weights, progress)):
            return trained
    adapted = examples.adapted if adapts else {}
    return {**learner.parameters, **adapted, **{HEAD + name: value.to(features.device) for name, value in fit.head.items()}}, fit


def _within(budget: Budget, adaptation: float, sizes: Sequence[int], progress: Progress) -> tuple[bool, int]:
    """Return whether there is time for inner steps, and for how many folds of cross-validation.

    adaptation: estimated seconds of one adaptation; sizes: of the folds, of which there must be as many as hold out `ENOUGH` examples.
    """
    affordable, needed = budget.folds(adaptation, len(sizes)), num_folds(sizes, ENOUGH)
    if affordable < needed:
        progress.say(
            f"{budget}: the encoder stays as it is, because inner steps and {needed} of {len(sizes)} folds would take about {(1 + needed) * adaptation:.1f} s"
        )
        return False, FOLDS
    progress.say(f"{budget}: inner steps on all examples and for {affordable} of {len(sizes)} folds, about {(1 + affordable) * adaptation:.1f} s")
    return True, affordable


def _is_better(trained: Fit, fit: Fit, labels: Tensor, weights: Tensor | None, progress: Progress) -> bool:
    """Return whether a fit has a lower log loss than another on the examples that both held out; weights: of the classes, None: all 1."""
    weights = None if weights is None else weights.double()
    assert trained.held_out is not None and fit.held_out is not None  # each has folds
    judged = (trained.held_out.isfinite() & fit.held_out.isfinite()).all(1)
    ours, theirs = (float(F.cross_entropy(each[judged].double(), labels[judged], weight=weights)) for each in (trained.held_out, fit.held_out))
    what = "is used" if ours < theirs else "is not used"
    progress.say(f"the trained encoder {what}: log loss on held-out examples {ours:.3f}, after inner steps {theirs:.3f}")
    return ours < theirs


class _Examples:
    """The examples of a support set, label names among them, under an encoder that has adapted to only some of them."""

    def __init__(
        self,
        learner: Learner,
        classifier: FunctionalClassifier,
        losses: type[TextLosses],
        support: EncodedEpisode,
        features: Tensor,
        progress: Progress,
        adapts: bool,
    ):
        """features: the encodings of all examples before adaptation, [examples, H]; adapts: whether inner steps precede the fit."""
        self.learner, self.classifier, self.losses, self.support, self.progress = learner, classifier, losses, support, progress
        self.labels = torch.from_numpy(np.asarray(support.support_labels, dtype=np.int64))
        self.adapts = adapts
        self._names = classifier.texts_of(support)[2:]  # the label names, if the head reads their encodings
        self._initial = (features, *(classifier.features(learner.initial, texts) for texts in self._names))
        self._known: dict[tuple[int, ...], tuple[Tensor, ...]] = {}
        self._after: dict[tuple[int, ...], Parameters] = {}  # parameters after inner steps on some of the examples

    @property
    def adapted(self) -> Parameters:
        """All parameters after inner steps on all examples, once their encodings have been asked for."""
        return self._after[tuple(range(len(self.labels)))]

    def encodings(self, rows: np.ndarray) -> tuple[Tensor, ...]:
        """Return the encodings of all examples after inner steps on those of `rows`, and of the label names if the head reads them."""
        if not self.adapts:
            return self._initial
        key = tuple(rows.tolist())
        if key not in self._known:
            after, _ = self.learner.adapt(self._part(rows), self.learner.steps(evaluation=True))
            self.progress.advance()
            self._after[key] = after
            self._known[key] = tuple(self.classifier.features(after, texts) for texts in (self.support.support, *self._names))
        return self._known[key]

    def with_pool(self, texts: Sequence[np.ndarray]) -> Encode:
        """Return a function that encodes all examples, and further texts, after inner steps on some of the examples; on the CPU."""
        initial: Tensor | None = None

        def encode(rows: np.ndarray) -> tuple[Tensor, Tensor]:
            nonlocal initial
            encodings = self.encodings(rows)[0].cpu()
            if self.adapts:
                return encodings, self._pool(self._after[tuple(rows.tolist())], texts)
            if initial is None:
                initial = self._pool(self.learner.initial, texts)
            return encodings, initial

        return encode

    def _pool(self, parameters: Parameters, texts: Sequence[np.ndarray]) -> Tensor:
        self.progress.start("encoding texts without labels", len(texts), brief=True)
        found = self.classifier.features(parameters, texts, lambda number: self.progress.advance(by=number)).cpu()
        self.progress.stop()
        return found

    def head(self, rows: np.ndarray) -> Head:
        """Return the meta-learned head of the examples of `rows`, on the CPU."""
        encodings, *of_names = self.encodings(rows)
        theta = {**self.learner.parameters, **dict(zip(ENCODINGS, (encodings[torch.from_numpy(rows)], encodings[:0], *of_names)))}
        losses = self.losses.of(self.classifier, self._part(rows), None, encoded=True)
        head, _ = self.learner.adapted_from(theta, losses, 0 if self.classifier.head_after else None)
        return {name: head[HEAD + name].cpu() for name in ("weight", "bias")}

    def _part(self, rows: np.ndarray) -> EncodedEpisode:
        """Return some of the examples, label names among them, as a support set."""
        support = self.support
        return replace(support, support=[support.support[row] for row in rows], support_labels=support.support_labels[rows], reads_names=False)


def choice_of_names(support: EncodedEpisode, examples: int, features: Tensor) -> NameChoice:
    """Choose whether to read label names, from the encodings of a support set whose names come after this number of examples."""
    labels = torch.from_numpy(np.asarray(support.support_labels, dtype=np.int64))
    features = features.cpu()
    return choose_names(features[:examples], labels[:examples], features[examples:], labels[examples:], len(support.names))


def _why_no_steps(learner: Learner, episode: EncodedEpisode) -> str | None:
    """Return why no inner steps precede a fit; None: they do."""
    if not learner.makes_steps(episode):
        return "no class has two examples"
    tokens = sum(map(len, episode.support))
    return None if tokens <= MOST_TOKENS else f"the examples have {tokens:,} tokens, more than {MOST_TOKENS:,}"
