"""Losses of an episode under an encoder and a head, as functions of parameters: what `meta_gradient` differentiates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Self, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from metatrain.gradient.inner_rules import HEAD
from metatrain.gradient.parameters import Parameters
from metatrain.meta.functional import FunctionalClassifier
from metatrain.meta.noise import ONCE, QUERY, SUPPORT, Noise
from metatrain.models.batches import Batch, chunks, on_device
from metatrain.models.head_rule import LabelEncodingHead, WordHead
from metatrain.tasks.encoded_episode import EncodedEpisode

# Outputs of the frozen layers for each part, computed once an episode; and their names if all layers are frozen and all texts are in one part.
_SUPPORT, _QUERY = "frozen.support.", "frozen.query."
ENCODINGS = (f"{_SUPPORT}0", f"{_QUERY}0", "frozen.label_names.0")

Labelled = tuple[Batch | None, Tensor]  # texts, unless they are encoded already, and their labels, [texts] or [texts, way]
_Encoded = tuple[Tensor, Tensor, Tensor | None]  # encodings [texts, H], their labels, the penalty of the information bottleneck


def label_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the sum over texts of the cross-entropy, or with several labels per text of the mean over labels of the binary cross-entropy, a scalar.

    logits: [texts, way]; labels: [texts], or [texts, way] with -1 where a label is unknown, which adds nothing.
    """
    if labels.ndim == 1:
        return F.cross_entropy(logits, labels, reduction="sum")
    losses = F.softplus(logits) - logits * (labels == 1)  # -log sigmoid(z) = softplus(z) - z
    return (losses * (labels >= 0)).sum() / labels.shape[1]


def _counts(logits: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
    """Return the number of correct predictions; with several labels per text, the numerator and denominator of micro F1 at the threshold 0.5."""
    if labels.ndim == 1:
        return ((logits.argmax(1) == labels).double().sum(),)
    predicted, has = logits >= 0, labels == 1
    return 2 * (predicted & has).double().sum(), predicted.double().sum() + has.double().sum()


class TextLosses:
    """Support and query loss of an episode as functions of the adapted parameters phi and the meta-parameters theta."""

    head_after = False  # whether the head is made from the encodings after the inner steps; the inner loss then must not read it
    rows: Tensor | None = None  # of the word embeddings, those that occur
    words: tuple[Sequence[np.ndarray], Sequence[np.ndarray]] = ((), ())  # tokens of the label words as `rows`, and as ids; empty: no head reads them

    def __init__(
        self,
        classifier: FunctionalClassifier,
        names: Sequence[str],
        noise: Noise,
        support: Sequence[Labelled],
        query: Sequence[Labelled],
        encoded: bool = False,
        label_texts: Sequence[Batch] = (),
    ):
        """`support`, `query`: the texts in parts, and their labels; no query, no query loss. `label_texts`: the label names, if the head reads them.

        `encoded`: nothing of the encoder adapts, and theta brings the encodings of the texts, [support, H] and [queries, H], and of the
        label names, [way, H], as ENCODINGS.
        """
        self.classifier, self.names, self.noise, self.encoded = classifier, names, noise, encoded
        self.support, self.query, self.label_texts = support, query, label_texts
        self.support_size, self.query_size = (sum(len(labels) for _, labels in parts) for parts in (support, query))
        self.support_tokens = 0  # known where they are of an episode
        self.known: Parameters = {}  # outputs of the frozen layers that need not be computed
        self.query_accuracies: list[Tensor] = []  # or micro F1 with several labels; one for each time that all of `query_parts` were asked for

    @classmethod
    def of(cls, classifier: FunctionalClassifier, episode: EncodedEpisode, seed: int | None, encoded: bool = False) -> Self:
        """Return the losses of an episode. `seed`: of dropout and noise; None: there is none."""
        noise = Noise(classifier.algorithm, seed)
        labels, query_labels = (on_device(np.asarray(each, dtype=np.int64), classifier.model.device) for each in (episode.support_labels, episode.query_labels))
        given = [text for part in classifier.texts_of(episode) for text in part]
        texts, rows = ([], None) if encoded else classifier.occurring(given)

        def parts(texts: Sequence[np.ndarray], labels: Tensor) -> list[Labelled]:
            if encoded:
                return [(None, labels)]
            return [(classifier.model.batch(texts[part]), labels[part]) for part in chunks(texts, classifier.plan.part_tokens)]

        own = len(labels) + len(query_labels)  # texts of the episode; label names follow
        support, query = parts(texts[: len(labels)], labels), parts(texts[len(labels) : own], query_labels)
        reads_words = classifier.head_facts.reads_word_embeddings
        names = [] if reads_words else [classifier.model.batch(texts[own:][part]) for part in chunks(texts[own:], classifier.plan.part_tokens)]
        losses = cls(classifier, episode.names, noise, support, query, encoded, names)
        losses.words = (texts[own:], episode.name_tokens) if reads_words else ((), ())
        losses.rows, losses.support_tokens = rows, sum(map(len, episode.support))
        if seed is None and not encoded:
            places = enumerate(zip(support, chunks(given[: len(labels)], classifier.plan.part_tokens)))
            known = {f"{_SUPPORT}{number}": classifier.known(given[part], batch) for number, ((batch, _), part) in places if batch is not None}
            losses.known = {name: value for name, value in known.items() if value is not None}
        return losses

    def start(self, theta: Mapping[str, Tensor]) -> tuple[Parameters, Parameters]:
        classifier = self.classifier
        begin = {**theta, **classifier.reset}
        frozen: Mapping[str, Tensor | None] = {name: theta[name] for name in ENCODINGS if name in theta} if self.encoded else self._frozen(begin)
        fixed = {name: value for name, value in theta.items() if name not in classifier.adapted}
        fixed.update({name: value for name, value in frozen.items() if value is not None})
        phi = {name: begin[name] for name in classifier.adapted}
        later = classifier.head_after or classifier.head_facts.reads_word_embeddings
        for name, value in ({} if later else self._new_head(begin, frozen)).items():
            (phi if classifier.head_adapts and name[len(HEAD) :] not in classifier.head_facts.constants else fixed)[name] = value
        return phi, {name: value for name, value in fixed.items() if name not in phi}

    def head(self, phi: Mapping[str, Tensor], fixed: Mapping[str, Tensor]) -> Parameters:
        """Return the head with which queries are predicted at phi."""
        if self.classifier.head_facts.reads_word_embeddings:
            return self._new_head({**fixed, **phi}, {})
        return {name: value for name, value in {**fixed, **phi}.items() if name.startswith(HEAD)}

    def _new_head(self, parameters: Mapping[str, Tensor], frozen: Mapping[str, Tensor | None]) -> Parameters:
        """Return the head that the head rule makes from the support set, with encodings under these parameters; frozen: outputs of the frozen layers."""
        classifier, head = self.classifier, self.classifier.head
        some, way, size = next(iter(parameters.values())), len(self.names), classifier.model.hidden_size
        features = some.new_zeros(0, size)
        if classifier.head_facts.needs_support:
            parts = [
                self._rest(parameters, batch, frozen.get(f"{_SUPPORT}{part}"), self.noise.dropout_seed(SUPPORT, part, ONCE, 1))
                for part, (batch, _) in enumerate(self.support)
            ]
            features = torch.cat(parts)
        empty = {"weight": some.new_zeros(way, size), "bias": some.new_zeros(way)}
        learned = {name[len(HEAD) :]: value for name, value in parameters.items() if name.startswith(HEAD)}
        labels = torch.cat([labels for _, labels in self.support])
        if classifier.head_facts.reads_word_embeddings:
            first = cast(WordHead, head).start(learned, empty, features, labels, self.names, classifier.words(parameters, *self.words))
        elif classifier.head_facts.reads_label_encodings:
            first = cast(LabelEncodingHead, head).start(learned, empty, features, labels, self.names, self._label_encodings(parameters))
        else:
            first = head.start(learned, empty, features, labels, self.names)
        return {HEAD + name: value for name, value in first.items()}

    def _frozen(self, theta: Mapping[str, Tensor]) -> dict[str, Tensor | None]:
        """Return the output of the layers that never adapt for each part; None if every layer adapts."""
        encode, seed = self.classifier.encode_frozen, self.noise.dropout_seed
        frozen: dict[str, Tensor | None] = dict(self.known)
        for part, (batch, _) in enumerate(self.support):
            if (name := f"{_SUPPORT}{part}") not in frozen:
                frozen[name] = encode(theta, batch, seed(SUPPORT, part, ONCE))
        frozen.update({f"{_QUERY}{part}": encode(theta, batch, seed(QUERY, part, ONCE)) for part, (batch, _) in enumerate(self.query)})
        return frozen

    def _label_encodings(self, theta: Mapping[str, Tensor]) -> Tensor:
        """Return the encodings of the label names, [way, H], which are needed only at the start."""
        if self.encoded:
            return theta[ENCODINGS[-1]]
        seed = self.noise.dropout_seed
        return torch.cat([self.classifier.encode(theta, batch, seed=seed(SUPPORT, part, ONCE, 4)) for part, batch in enumerate(self.label_texts)])

    def support_parts(self, phi: Mapping[str, Tensor], fixed: Mapping[str, Tensor], step: int) -> Iterator[Tensor]:
        for features, labels, _ in self._wholes(self._support_encodings(phi, fixed, step)):
            logits = self._logits({**phi, **self.head(phi, fixed)}, fixed, features)
            yield label_loss(logits, labels) / self.support_size

    def support_features(self, phi: Mapping[str, Tensor], fixed: Mapping[str, Tensor], step: int) -> Iterator[Tensor]:
        """Yield the encodings of the support texts, [texts, H], as the support loss reads them in inner step `step`."""
        for features, _, _ in self._support_encodings(phi, fixed, step):
            yield features

    def query_parts(self, phi: Mapping[str, Tensor], fixed: Mapping[str, Tensor]) -> Iterator[Tensor]:
        counts = []
        for features, labels, penalty in self._wholes(self._query_encodings(phi, fixed)):
            # The head again for each part, because the graph of a part is freed before the next.
            logits = self._logits({**phi, **self.head(phi, fixed)}, fixed, features)
            counts.append(_counts(logits, labels))
            loss = label_loss(logits, labels) / self.query_size
            yield loss if penalty is None else loss + penalty * (len(labels) / self.query_size)
        correct, *of_all = (torch.stack(each).sum() for each in zip(*counts))
        self.query_accuracies.append(correct / (of_all[0].clamp(min=1) if of_all else self.query_size))

    def _support_encodings(self, phi: Mapping[str, Tensor], fixed: Mapping[str, Tensor], step: int) -> Iterator[_Encoded]:
        for part, (batch, labels) in enumerate(self.support):
            features = self._features(phi, fixed, f"{_SUPPORT}{part}", batch, self.noise.dropout_seed(SUPPORT, part, step))
            features = self.noise.perturbed(features, fixed, part, step)
            features, penalty = self.noise.bottleneck(features, fixed, SUPPORT, part, step)
            yield features, labels, penalty

    def _query_encodings(self, phi: Mapping[str, Tensor], fixed: Mapping[str, Tensor]) -> Iterator[_Encoded]:
        for part, (batch, labels) in enumerate(self.query):
            features = self._features(phi, fixed, f"{_QUERY}{part}", batch, self.noise.dropout_seed(QUERY, part, 0))
            features, penalty = self.noise.bottleneck(features, fixed, QUERY, part, 0)
            yield features, labels, penalty

    def _wholes(self, parts: Iterable[_Encoded]) -> Iterable[_Encoded]:
        """Return parts whose logits can be computed separately: the given ones, or all in one for a transductive head."""
        if not self.classifier.is_transductive:
            return parts
        features, labels, penalties = zip(*parts)
        sums = [penalty * len(of) for penalty, of in zip(penalties, labels) if penalty is not None]
        number = sum(map(len, labels))
        return [(torch.cat(features), torch.cat(labels), torch.stack(sums).sum() / number if sums else None)]

    def _features(self, phi: Mapping[str, Tensor], fixed: Mapping[str, Tensor], name: str, batch: Batch | None, seed: int | None) -> Tensor:
        return self._rest({**fixed, **phi}, batch, fixed.get(name), seed)

    def _rest(self, parameters: Mapping[str, Tensor], batch: Batch | None, frozen: Tensor | None, seed: int | None) -> Tensor:
        """Return encodings [B, H] from the output of the frozen layers, or those that theta brought."""
        return frozen if self.encoded and frozen is not None else self.classifier.encode_rest(parameters, batch, frozen, seed)

    def _logits(self, phi: Mapping[str, Tensor], fixed: Mapping[str, Tensor], features: Tensor) -> Tensor:
        return self.classifier.logits_of({**fixed, **phi}, features)
