"""Held-out predictions of labelled examples by a head on frozen encodings: the quick path of finetuning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

from metatrain.meta.learner import Learner
from metatrain.meta.progress import Progress
from metatrain.tasks.encoded_episode import encode_episode
from metatrain.tasks.episodes import given_episode


@dataclass(frozen=True)
class HeldOut:
    """Labelled texts, and the probabilities that heads fitted without them predict."""

    names: Sequence[str]  # label names, sorted
    labels: np.ndarray  # positions in `names`, [texts]
    encodings: np.ndarray  # [texts, H], under the frozen encoder
    probabilities: np.ndarray  # [texts, labels]; NaN for a text that is not judged

    @property
    def is_judged(self) -> np.ndarray:
        """Texts that were held out, as a boolean array, [texts]; the only example of a class never is."""
        return ~np.isnan(self.probabilities).any(1)


def held_out(learner: Learner, texts: Sequence[str], labels: Sequence[str], seed: int, progress: Progress) -> HeldOut:
    """Fit the head of a learner with `inner.fit_head` by cross-validation; return the predictions of the folds.

    labels: names, two or more of them.
    """
    episode = given_episode(texts, labels, len(texts), seed=seed)
    _, _, fit = learner.fit(encode_episode(episode, learner.model.tokens()), progress)
    assert fit is not None and fit.encodings is not None  # the learner fits its head
    shape = len(texts), episode.way
    probabilities = np.full(shape, np.nan) if fit.held_out is None else fit.held_out[: len(texts)].double().softmax(1).numpy()
    return HeldOut(episode.task.label_names, episode.support_labels, fit.encodings.double().numpy(), probabilities)


def predicted(
    learner: Learner, texts: Sequence[str], labels: Sequence[str], others: Sequence[str], seed: int, progress: Progress
) -> tuple[np.ndarray, np.ndarray]:
    """Fit the head of a learner with `inner.fit_head` to labelled texts; return (probabilities [others, labels], encodings [others, H]) of other texts.

    labels: names, two or more of them; the columns are their sorted names.
    """
    episode = given_episode(texts, labels, len(texts), seed=seed)
    _, _, fit = learner.fit(encode_episode(episode, learner.model.tokens()), progress)
    assert fit is not None  # the learner fits its head
    encodings = encoded(learner, others, progress)
    head = {name: value.double().numpy() for name, value in fit.head.items()}
    return softmax(encodings @ head["weight"].T + head["bias"], axis=1), encodings


def encoded(learner: Learner, texts: Sequence[str], progress: Progress) -> np.ndarray:
    """Return the encodings of texts under the frozen encoder, [texts, H]."""
    encodings = learner.encodings
    assert encodings is not None  # the caller has looked
    progress.start("encoding texts", len(texts), brief=True)
    found = encodings.features(learner.model.tokens().encode(texts), lambda number: progress.advance(by=number))
    progress.stop()
    return found.double().cpu().numpy()
