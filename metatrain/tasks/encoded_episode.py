"""Encoded episodes: token ids and labels for a learner, and target token ids for a language model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from metatrain.errors import UserError
from metatrain.tasks.episodes import Episode
from metatrain.tasks.label_names import meaningful_names
from metatrain.tasks.task import plain_name
from metatrain.tasks.tokens import TargetEncoding, Tokens


@dataclass(frozen=True)
class TargetTokens:
    """Token ids that a language model has to generate."""

    support: Sequence[np.ndarray]  # after each support text
    query: Sequence[np.ndarray]  # after each query
    choices: Sequence[np.ndarray] | None  # the label names; None: a text-to-text task, any text may be generated


@dataclass(frozen=True)
class RawTexts:
    """The texts of an episode as strings."""

    support: Sequence[str]
    query: Sequence[str]
    names: Sequence[str]  # label names, as words


@dataclass(frozen=True)
class EncodedEpisode:
    """The token ids and labels of an episode: everything that a learner reads.

    With several labels per text, labels are of shape [support, way] and [queries, way]: 1 if a text has the label, 0 if not, -1 where that is unknown.
    """

    support: Sequence[np.ndarray]
    support_labels: np.ndarray
    query: Sequence[np.ndarray]
    query_labels: np.ndarray
    names: Sequence[str]  # label names
    seed: int = 0  # seed of dropout and noise in meta-training
    targets: TargetTokens | None = None  # for language models
    name_texts: Sequence[str] = ()  # texts of the labels for methods that read label names; empty: the names
    name_tokens: Sequence[np.ndarray] = ()  # token ids of these texts, for a model that reads texts
    reads_names: bool = True  # False: label names are not used as examples here, even by a method that reads them (algorithm.label_names)
    raw: RawTexts | None = None  # in evaluation, for methods with their own tokenizer
    class_weights: np.ndarray | None = None  # of the losses when a head or the whole encoder is fitted, [way]; None: all 1
    unlabelled: Sequence[np.ndarray] = ()  # texts without labels
    reads_unlabelled: bool = False  # True: the fit of a head uses them

    @property
    def is_multi_label(self) -> bool:
        """True if a text may have several labels."""
        return self.support_labels.ndim == 2

    def without_queries(self) -> EncodedEpisode:
        """Return the support set only."""
        targets = None if self.targets is None else replace(self.targets, query=())
        labels = np.zeros((0, *self.support_labels.shape[1:]), np.int64)
        return replace(self, query=(), query_labels=labels, targets=targets, unlabelled=())

    def with_names(self, weight: int = 1) -> EncodedEpisode:
        """Add each meaningful label name to the support texts, as this number of examples of its class; with several labels per text, of its own only.

        Raises:
            UserError: the model reads no texts.
        """
        if not self.name_tokens:
            raise UserError("algorithm.label_names: an image model cannot read label names; set algorithm.label_names=false")
        named = [label for label, is_meaningful in enumerate(meaningful_names(tuple(self.name_texts or self.names))) if is_meaningful] * weight
        of_names = np.array(named, dtype=np.int64)
        if self.is_multi_label:
            of_names = np.where(of_names[:, None] == np.arange(len(self.names)), 1, -1)
        labels = np.concatenate([self.support_labels, of_names])
        raw = None if self.raw is None else replace(self.raw, support=[*self.raw.support, *(self.raw.names[label] for label in named)])
        return replace(self, support=[*self.support, *(self.name_tokens[label] for label in named)], support_labels=labels, raw=raw)

    def with_permuted_labels(self, order: np.ndarray) -> EncodedEpisode:
        """Give support text i the label and target of support text `order[i]`."""
        targets = None if self.targets is None else replace(self.targets, support=[self.targets.support[i] for i in order])
        return replace(self, support_labels=self.support_labels[order], targets=targets)


def encode_episode(episode: Episode, tokens: Tokens) -> EncodedEpisode:
    """Return an episode as the learner reads it."""
    names, texts = ([of_task[label] for label in episode.classes] for of_task in (episode.task.label_names, episode.task.read_names))
    return EncodedEpisode(
        tokens.of(episode.task, episode.support),
        episode.support_labels,
        tokens.of(episode.task, episode.query),
        episode.query_labels,
        names,
        episode.seed,
        _target_tokens(episode, names, tokens),
        texts,
        () if tokens.encode_targets else tokens.names(texts),
    )


def raw_texts(episode: Episode) -> RawTexts:
    """Return the texts of an episode as strings."""
    support, query = ([episode.task.texts[row] for row in rows] for rows in (episode.support, episode.query))
    return RawTexts(support, query, [plain_name(episode.task.read_names[label]) for label in episode.classes])


def targets_of(episode: EncodedEpisode) -> TargetTokens:
    """Return the targets of an episode that was encoded for a language model."""
    assert episode.targets is not None  # every episode for a language model has them
    return episode.targets


def label_name_targets(encode: TargetEncoding, names: Sequence[str], support: np.ndarray, query: np.ndarray) -> TargetTokens:
    """Return labels, given as positions in `names`, as the token ids of their names."""
    choices = encode.names(names)
    return TargetTokens([choices[label] for label in support], [choices[label] for label in query], choices)


def _target_tokens(episode: Episode, names: Sequence[str], tokens: Tokens) -> TargetTokens | None:
    """Return the task's target texts, or else the label names, as token ids; None for an encoder."""
    texts, encode = episode.task.targets, tokens.encode_targets
    if encode is None:
        return None if texts is None else TargetTokens((), (), None)
    if texts is None:
        return label_name_targets(encode, names, episode.support_labels, episode.query_labels)
    support, query = (encode([texts[row] for row in rows]) for rows in (episode.support, episode.query))
    return TargetTokens(support, query, None)
