"""Protocol of head rules: how a rule makes the head of an episode, and what it states about itself.

Most heads are linear: `logits = features @ weight.T + bias`, weight [way, H], bias [way]. A rule has learned tensors of its own
(meta-parameters) and makes the episode's head from them and, if it wants, from the support set. Three facts widen what it may do:

- `reads_label_encodings`: `start` also gets the encodings of the label names (`LabelEncodingHead`);
- `reads_word_embeddings`: `start` gets the output embeddings and biases of the label words of a masked language model instead (`WordHead`);
- `is_linear=False`: the head computes the logits from the encodings itself (`LogitHead`); with `reads_queries`, those of a text from all
  texts that are predicted together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Protocol

from torch import Tensor

Head = dict[str, Tensor]  # a linear head: {"weight": [way, H], "bias": [way]}; another head: any floating-point tensors


@dataclass(frozen=True)
class HeadFacts:
    """Properties of a head rule. A head class states those that differ from these defaults as attributes of the same names."""

    needs_support: bool = False  # `start` reads the support encodings
    reads_names: bool = True  # `start` depends on the label names; False: episodes may be vectorised (torch.vmap)
    reads_label_encodings: bool = False  # `start` reads the encodings of the label names; episodes are then never vectorised
    reads_word_embeddings: bool = False  # `start` reads the output embeddings of the label words, at every inner step: the head has no tensors of its own
    reads_label_sets: bool = False  # `start` takes several labels per text (multi-label); the logits then are those of sigmoids
    is_linear: bool = True  # a linear layer; False: a `LogitHead`, which is exported for metatrain only and cannot be fitted by `inner.fit_head`
    reads_queries: bool = False  # a `LogitHead` whose logits of a text depend on the other texts (transductive); it is not exported
    constants: tuple[str, ...] = ()  # tensors of the head that no inner step changes
    fixed_way: bool = False  # for one number of classes only
    knows_classes: bool = True  # before the first inner step, logits differ between classes
    row_per_label: bool = False  # a learned row for each label name of the training tasks; rows of other labels start at zero
    needs_normalized: bool = False  # requires encodings of unit length
    learns: bool = True  # has meta-parameters
    is_language_model: bool = False  # no head: a language model generates the label name or another text
    reads: tuple[str, ...] | None = None  # settings of `algorithm` that it reads (head_scale); None: all
    reads_support: bool = False  # a language model that reads the support set before each query and has no inner loop


class HeadRule(Protocol):
    """One choice on the head axis; its properties (`HeadFacts`) are attributes of the class."""

    def learned(self, hidden: int, way: int | None) -> dict[str, Tensor]:
        """Initial values of the rule's own meta-parameters."""

    def start(self, learned: dict[str, Tensor], empty: Head, features: Tensor, labels: Tensor, names: Sequence[str]) -> Head:
        """The head before adaptation.

        `empty` is a linear head of zeros with the episode's shape, dtype and device; features: the support encodings
        [support, H], or none of them, [0, H], where they are not needed; labels: [support], or with `reads_label_sets` also [support, way]: 1 if a
        text has the label, 0 if not, -1 where that is unknown; names: of the labels, [way].
        """


class LabelEncodingHead(Protocol):
    """A head rule with `reads_label_encodings=True`; `learned` is that of `HeadRule`."""

    def start(self, learned: dict[str, Tensor], empty: Head, features: Tensor, labels: Tensor, names: Sequence[str], label_encodings: Tensor) -> Head:
        """The head before adaptation, as `HeadRule.start`; label_encodings: of all label names, with or without meaning, [way, H]."""


class WordHead(Protocol):
    """A head rule with `reads_word_embeddings=True`; `learned` is that of `HeadRule` and has no tensors."""

    def start(self, learned: dict[str, Tensor], empty: Head, features: Tensor, labels: Tensor, names: Sequence[str], words: Head) -> Head:
        """The head at the current parameters, as `HeadRule.start`; words: output embedding and bias of each class's label word, a linear head."""


class LogitHead(Protocol):
    """A head rule with `is_linear=False`; `learned` and `start` are those of `HeadRule`."""

    def logits(self, head: Head, features: Tensor) -> Tensor:
        """Return logits [texts, way] of encodings [texts, H].

        `head`: the learned tensors, and those that `start` returned, in place of learned ones of the same names. If the head adapts in the
        inner loop, it does so in what `start` returned, without `constants`. Without `reads_queries`, a text's logits must not depend on the
        other texts.
        """


def facts_of(head: HeadRule) -> HeadFacts:
    """The properties that a head states, and the defaults of the others."""
    return HeadFacts(**{each.name: getattr(head, each.name) for each in fields(HeadFacts) if hasattr(head, each.name)})
