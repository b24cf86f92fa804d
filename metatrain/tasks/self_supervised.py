"""Further self-supervised tasks from raw text: which group of texts is this of, do these halves follow, are they of one text?

Masked words are in `masked_words.py`. Like there, all that is made is one task, of which an episode draws some classes and rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from metatrain import plugins
from metatrain.errors import UserError
from metatrain.tasks.config import ClustersConfig, PairsConfig, TasksConfig
from metatrain.tasks.keys import text_key
from metatrain.tasks.masked_words import masked_words, sentences_of
from metatrain.tasks.task import Task
from metatrain.tasks.texts import PAIR

CLUSTERS, SENTENCE_ORDER, SAME_TEXT = "clusters", "sentence order", "same text"
_DIMENSIONS = 50  # that TF-IDF is reduced to
_LEAST_ROWS = 20  # of a class; smaller clusters are left out


def clusters(texts: Sequence[str], config: ClustersConfig, seed: int) -> list[Task]:
    """Tasks whose classes are clusters of the texts, as in CACTUs (Hsu et al. 2019), on TF-IDF in place of a network's features.

    Each of `partitions` tasks clusters the texts anew, on randomly scaled dimensions (their section 2.2), so that the tasks differ; a
    partition with too few clusters that are large enough is left out.

    Raises:
        UserError: there are too few texts for the clusters of an episode.
    """
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = list({text_key(text): text for text in texts}.values())
    few = f"tasks.clusters: {len(texts)} texts do not make tasks.clusters.way={config.way} clusters of {_LEAST_ROWS}; give more text, or lower it"
    if len(texts) < config.way * _LEAST_ROWS:
        raise UserError(few)
    matrix = TfidfVectorizer(sublinear_tf=True, max_df=0.5, max_features=20_000).fit_transform(texts)
    dimensions = min(_DIMENSIONS, min(matrix.shape) - 1)
    features = TruncatedSVD(dimensions, random_state=seed).fit_transform(matrix)
    features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    made = []
    for partition in range(config.partitions):
        rng = np.random.default_rng([seed, 29, partition])
        scaled = features * rng.uniform(0, 1, dimensions)
        found = MiniBatchKMeans(config.clusters, random_state=int(rng.integers(2**31)), n_init=3).fit_predict(scaled)
        kept = [cluster for cluster in range(config.clusters) if (found == cluster).sum() >= _LEAST_ROWS]
        if len(kept) < config.way:
            continue
        rows = np.flatnonzero(np.isin(found, kept))
        labels = np.searchsorted(kept, found[rows])
        names = [f"cluster {number}" for number in range(len(kept))]
        made.append(_task(f"{CLUSTERS} {partition + 1}", [texts[row] for row in rows], labels, names, config.way))
    if not made:
        raise UserError(few)
    return made


def sentence_order(texts: Sequence[str], config: PairsConfig, seed: int) -> list[Task]:
    """Two sentences that follow each other in a text, or the same ones swapped: the order of ALBERT (Lan et al. 2020)."""
    rng = np.random.default_rng([seed, 31])
    pairs = [(one, other) for text in texts for one, other in _following(text)]
    return [_pairs(SENTENCE_ORDER, [pair if follows else pair[::-1] for pair, follows in _half(pairs, config, rng)], ("in order", "swapped"))]


def same_text(texts: Sequence[str], config: PairsConfig, seed: int) -> list[Task]:
    """Two sentences that follow each other in a text, or of which the second is of another: the contrast of BERT (Devlin et al. 2019)."""
    rng = np.random.default_rng([seed, 37])
    pairs = [(one, other) for text in texts for one, other in _following(text)]
    drawn = _half(pairs, config, rng)
    # The second sentence of the next one that is drawn: of another text, unless two of one were drawn in a row.
    second = [pair[1] for pair, _ in drawn]
    joined = [(one, other if follows else second[(row + 1) % len(drawn)]) for row, ((one, other), follows) in enumerate(drawn)]
    return [_pairs(SAME_TEXT, joined, ("of one text", "of two"))]


def _following(text: str) -> list[tuple[str, str]]:
    """Every second pair of sentences, so that none is in two."""
    sentences = sentences_of(text)
    return list(zip(sentences[::2], sentences[1::2]))


def _half(pairs: list[tuple[str, str]], config: PairsConfig, rng: np.random.Generator) -> list[tuple[tuple[str, str], bool]]:
    """At most `rows` pairs, first all that stay as they are and then as many that do not, in random order within each.

    Raises:
        UserError: there are too few.
    """
    chosen = [pairs[row] for row in rng.permutation(len(pairs))[: config.max_pairs]]
    if len(chosen) < 2 * _LEAST_ROWS:
        raise UserError(f"tasks: {len(chosen)} pairs of sentences follow each other in the texts, and a task of them needs {2 * _LEAST_ROWS}; give more text")
    return [(pair, row < len(chosen) // 2) for row, pair in enumerate(chosen)]


def _pairs(name: str, pairs: list[tuple[str, str]], names: tuple[str, str]) -> Task:
    labels = (np.arange(len(pairs)) >= len(pairs) // 2).astype(np.int64)
    return _task(name, [f"{one}{PAIR}{other}" for one, other in pairs], labels, names, 2)


def _task(name: str, texts: Sequence[str], labels: np.ndarray, names: Sequence[str], way: int) -> Task:
    everywhere = np.ones(len(texts), dtype=bool)
    return Task(name, tuple(texts), labels, tuple(names), everywhere, everywhere, way)


@dataclass(frozen=True)
class Generator:
    """A kind of self-supervised tasks."""

    make: Callable[[Sequence[str], Any, int], list[Task]]  # (texts, settings, seed) -> tasks
    classes: str = "classes"  # plural noun for its classes, in the log


# Those with a node of their own in the settings (`tasks.NAME`); others, of plug-ins too, are chosen in `tasks.self_supervised`.
GENERATORS = {
    "masked_words": Generator(lambda texts, config, seed: [masked_words(texts, config, seed)], "words"),
    "clusters": Generator(clusters, "clusters"),
    "sentence_order": Generator(sentence_order, "orders"),
    "same_text": Generator(same_text, "answers"),
}


def generator_of(name: str) -> Generator:
    """Return a kind of self-supervised tasks, from this package or a plug-in.

    Raises:
        UserError: there is no such kind.
    """
    found: Generator | None = GENERATORS.get(name) or plugins.load(plugins.SELF_SUPERVISED, name)
    if found is None:
        raise UserError(f"tasks.self_supervised: no kind {name!r}; choose from {', '.join((*GENERATORS, *plugins.names(plugins.SELF_SUPERVISED)))}")
    return found


def settings_of(config: TasksConfig) -> dict[str, Any]:
    """Settings of all kinds of self-supervised tasks, by name.

    Raises:
        UserError: a name in `tasks.self_supervised` has a node of its own.
    """
    own = {name: getattr(config, name) for name in GENERATORS if hasattr(config, name)}
    if both := own.keys() & config.self_supervised.keys():
        raise UserError(f"tasks.self_supervised.{min(both)} is set in tasks.{min(both)}; move its settings there")
    return {**own, **config.self_supervised}
