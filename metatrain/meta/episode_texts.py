"""An episode as a learner sees it: token ids, labels and wanted texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from metatrain.errors import UserError
from metatrain.meta.label_names import telling_names


@dataclass(frozen=True)
class Targets:
    """What a language model is to write, as token ids."""

    support: Sequence[np.ndarray]  # after each support text
    query: Sequence[np.ndarray]  # after each query
    choices: Sequence[np.ndarray] | None  # the names of the labels; None: a text-to-text task, any text may be an answer


@dataclass(frozen=True)
class Written:
    """The texts themselves."""

    support: Sequence[str]
    query: Sequence[str]
    names: Sequence[str]  # of the labels, in words


@dataclass(frozen=True)
class EpisodeTexts:
    """The token ids and labels of an episode: what the learner needs to know of it."""

    support: Sequence[np.ndarray]
    support_labels: np.ndarray
    query: Sequence[np.ndarray]
    query_labels: np.ndarray
    names: Sequence[str]  # of the labels
    seed: int = 0  # of dropout and noise in meta-training
    targets: Targets | None = None  # for language models
    name_texts: Sequence[np.ndarray] = ()  # token ids of the names, of a model that reads texts
    reads_names: bool = True  # False: the names are no examples here, even for a method that reads them (algorithm.label_names)
    written: Written | None = None  # in evaluation, for methods that bring their own tokenizer

    def without_queries(self) -> EpisodeTexts:
        """The support set alone."""
        targets = None if self.targets is None else replace(self.targets, query=())
        return replace(self, query=(), query_labels=np.zeros(0, np.int64), targets=targets)

    def with_names(self) -> EpisodeTexts:
        """The names of the labels among the support texts, one more example of each class whose name says something in words.

        Raises:
            UserError: the model reads no texts.
        """
        if not self.name_texts:
            raise UserError("algorithm.label_names: an image model cannot read label names; set algorithm.label_names=false")
        named = [label for label, tells in enumerate(telling_names(tuple(self.names))) if tells]
        labels = np.concatenate([self.support_labels, np.array(named, dtype=np.int64)])
        written = None if self.written is None else replace(self.written, support=[*self.written.support, *(self.written.names[label] for label in named)])
        return replace(self, support=[*self.support, *(self.name_texts[label] for label in named)], support_labels=labels, written=written)

    def with_support_in_order(self, order: np.ndarray) -> EpisodeTexts:
        """The support texts as they are, with labels and targets of others: `order[i]` says whose text i gets."""
        targets = None if self.targets is None else replace(self.targets, support=[self.targets.support[i] for i in order])
        return replace(self, support_labels=self.support_labels[order], targets=targets)


def wanted(episode: EpisodeTexts) -> Targets:
    """What a language model is to write; every episode for one has it."""
    assert episode.targets is not None
    return episode.targets
