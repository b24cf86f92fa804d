"""Label names as examples: which of them say anything in words, and whether they agree with the support set."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_BORDER = re.compile(r"(?<=[^\W\d_])(?=\d)|(?<=\d)(?=[^\W\d_])|(?<=[a-z])(?=[A-Z])")  # between letters and digits, and in camelCase
_ROMAN = re.compile("[IVX]+")
_SHORTEST = 2  # letters of a word, in scripts that write sounds
_SCALE = 10.0  # of cosines, as logits
_CLEAR = 4  # standard deviations of a score by guessing that have to fit below a perfect one, or the score decides nothing


@dataclass(frozen=True)
class NameChoice:
    """Whether the label names of a support set are read as examples, and why."""

    read: bool
    why: str


@functools.lru_cache(maxsize=4096)
def telling_names(names: tuple[str, ...]) -> tuple[bool, ...]:
    """Whether each name says something about its class in words, as `refund` does and `28`, `C`, `x7` and `LABEL_3` do not.

    Numbers, codes and single letters are no words, and words that every name has are none where the names have no others.
    """
    words = [_words(name) for name in names]
    shared = frozenset.intersection(*words) if words else frozenset()
    if len(words) > 1 and all(each <= shared for each in words):
        return (False,) * len(names)
    return tuple(map(bool, words))


def _words(name: str) -> frozenset[str]:
    """The words and symbols (emoji) of a name."""
    read = "".join(letter if unicodedata.category(letter)[0] in "LMN" else " " for letter in unicodedata.normalize("NFKC", name))
    pieces = [piece for part in read.split() for piece in _BORDER.split(part) if piece and not _ROMAN.fullmatch(piece)]
    words = {piece.casefold() for piece in pieces if _is_word(piece)}
    if any(letter.isdigit() for letter in name) and all(len(word) <= _SHORTEST for word in words):
        words = set()  # a code: B2, AB-12, 3rd
    return frozenset(words | {letter for letter in name if unicodedata.category(letter) == "So"})


def _is_word(piece: str) -> bool:
    """Two letters or more, or one in a script whose characters are words."""
    letters = sum(unicodedata.category(letter)[0] in "LM" for letter in piece)
    return letters >= _SHORTEST or (letters == 1 and unicodedata.east_asian_width(piece[0]) == "W")


def unread_note(names_of: Sequence[tuple[str, Sequence[str]]]) -> str | None:
    """One line on the tasks (name, label names) with label names that say nothing in words, for a method that reads them; None: there is no such task."""
    found = [(task, name) for task, names in names_of for name, tells in zip(names, telling_names(tuple(names))) if not tells]
    if not found:
        return None
    tasks = list(dict.fromkeys(task for task, _ in found))
    labels = ", ".join(repr(name) for _, name in found[:3]) + (", ..." if len(found) > 3 else "")
    where = tasks[0] if len(tasks) == 1 else f"{tasks[0]} and {len(tasks) - 1} more task{'s' * (len(tasks) > 2)}"
    return f"label names without meaning are not used as examples: {labels} in {where}; descriptive label names help if examples are few"


def choose_names(features: Tensor, labels: Tensor, names: Tensor, named: Tensor, way: int) -> NameChoice:
    """Whether the names of the labels agree with the support set, by leaving one example out at a time.

    Each example is classified by the cosines of its encoding to the class means of the other examples, with the names among them and
    without; the lower log loss decides. Where no class has two examples, a class is known by its name only: then the names must rank the
    true class higher than guessing does (mean reciprocal rank), if there are enough examples to tell.

    features: [examples, H]; labels: [examples]; names: encodings of the names that are read, [names, H]; named: their classes, [names].
    """
    features, names = (F.normalize(each.double(), dim=1) for each in (features, names))
    name_sums = features.new_zeros(way, features.shape[1]).index_add_(0, named, names)
    counts = torch.bincount(labels, minlength=way)
    if bool((counts > 1).any()):
        sums = features.new_zeros(way, features.shape[1]).index_add_(0, labels, features)
        judged = counts[labels] > 1
        with_names, without = (_left_out_loss(features, labels, total, judged) for total in (sums + name_sums, sums))
        return NameChoice(with_names <= without, f"log loss on held-out examples {with_names:.3f} with them, {without:.3f} without")
    known = torch.isin(labels, named)
    scores = (features @ F.normalize(name_sums, dim=1).T)[known]
    ranks = 1 + (scores > scores.gather(1, labels[known, None])).double().sum(1)
    inverse = 1 / torch.arange(1, way + 1, dtype=torch.double)
    guessed, spread = float(inverse.mean()), float(inverse.std(correction=0)) / max(1, len(ranks)) ** 0.5
    if not len(ranks) or guessed + _CLEAR * spread > 1:
        return NameChoice(True, "too few examples to decide")
    found = float(ranks.reciprocal().mean())
    return NameChoice(found >= guessed + spread, f"mean reciprocal rank by label names {found:.3f}, by random guessing {guessed:.3f}")


def _left_out_loss(features: Tensor, labels: Tensor, sums: Tensor, judged: Tensor) -> float:
    """Mean log loss of the judged examples [examples] under the mean of each class without the example; sums: [way, H]."""
    scores = features @ F.normalize(sums, dim=1).T
    scores[torch.arange(len(labels)), labels] = (features * F.normalize(sums[labels] - features, dim=1)).sum(1)
    return float(F.cross_entropy(_SCALE * scores[judged], labels[judged]))
