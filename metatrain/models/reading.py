"""Token ids that a language model reads before and after each text: a context of examples, and the cue for its answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from metatrain.errors import UserError
from metatrain.models.language_model import LanguageModel
from metatrain.models.prompts import Pieces
from metatrain.tasks.task import plain_name

_NOTHING = np.zeros(0, dtype=np.int64)
_PLAIN = Pieces(_NOTHING, _NOTHING, _NOTHING, _NOTHING)


@dataclass(frozen=True)
class Reading:
    """Token ids around the texts of a task."""

    opening: np.ndarray  # before a text without examples
    context: np.ndarray  # before a text, with the examples; equal to `opening` if there are none
    cue: np.ndarray  # after a text; none if `model.separator` is the cue
    left_out: int = 0  # number of examples for which the model has no positions

    def of(self, model: LanguageModel, texts: Sequence[np.ndarray], examples: bool = True) -> Sequence[np.ndarray]:
        """Return the prompt of each text, with or without the examples.

        Raises: UserError: a prompt exceeds the positions of the model.
        """
        before = self.context if examples else self.opening
        return after_context(model, before, texts, self.cue)


def pieces_of(model: LanguageModel, names: Sequence[str]) -> Pieces:
    """Return the token ids between the texts and labels of a task with these label names; none: a text-to-text task."""
    words = model.prompt_config.words
    return _PLAIN if model.prompt is None else model.prompt.pieces(tuple(words.get(name, plain_name(name)) for name in names))


def reading_of(model: LanguageModel, names: Sequence[str], examples: Sequence[tuple[np.ndarray, np.ndarray]], labels: Sequence[int], query: int) -> Reading:
    """Return what is read around texts of at most `query` tokens, after as many of the examples as the model has positions for.

    names: label names of the task, none for a text-to-text task; examples: token ids of text and target, in the order in which they are read; labels: a
    number for the class of each example. What is left out is balanced over the classes.
    """
    pieces = pieces_of(model, names)
    between = model.separator if model.prompt is None else pieces.between
    read = [np.concatenate([text, between, target, pieces.joint]) for text, target in examples]
    room = None
    if model.positions is not None:
        room = model.positions - len(pieces.opening) - query - len(pieces.cue) - len(model.separator) - model.max_target_length
    kept = kept_examples(list(map(len, read)), labels, room)
    return Reading(pieces.opening, np.concatenate([pieces.opening, *(read[row] for row in kept)]), pieces.cue, len(read) - len(kept))


def kept_examples(sizes: Sequence[int], labels: Sequence[int], room: int | None) -> list[int]:
    """Return the positions of the examples that fit in `room` tokens, in order; None: all. The largest class loses its last example first."""
    kept = list(range(len(sizes)))
    while room is not None and kept and sum(sizes[row] for row in kept) > room:
        counts = Counter(labels[row] for row in kept)
        most = max(counts.values())
        kept.remove(next(row for row in reversed(kept) if counts[labels[row]] == most))
    return kept


def after_context(model: LanguageModel, context: np.ndarray, texts: Sequence[np.ndarray], cue: np.ndarray = _NOTHING) -> Sequence[np.ndarray]:
    """Return the token ids of each text with the context before it and the cue after it.

    Raises: UserError: they exceed the positions of the model.
    """
    if not (len(context) or len(cue)) or not len(texts):
        return texts
    longest, room = len(context) + max(map(len, texts)) + len(cue), len(model.separator) + model.max_target_length
    if model.positions and longest + room > model.positions:
        raise UserError(
            f"a prompt has {longest} tokens, plus {room} for the target, but the model has {model.positions} positions; "
            "lower model.max_length, or use fewer classes (episode.way, evaluation.way) or a shorter prompt"
        )
    return [np.concatenate([context, text, cue]) for text in texts]
