"""Self-supervised tasks from raw text: cluster classification (CACTUs), sentence order, and sentences from the same text.

Masked-word tasks are in `masked_words.py`. As there, each generated task is large, and an episode samples some of its classes and rows.
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
_DIMENSIONS = 50  # number of SVD components of the TF-IDF features
_LEAST_ROWS = 20  # minimum number of rows per class; smaller clusters are dropped


def clusters(texts: Sequence[str], config: ClustersConfig, seed: int) -> list[Task]:
    """Return tasks whose classes are clusters of the texts, as in CACTUs (Hsu et al. 2019), on TF-IDF features instead of a network's.

    Each of `partitions` tasks has its own clustering of randomly scaled dimensions (section 2.2 of the paper), so that the tasks differ. A
    partition with too few large clusters is dropped.

    Raises:
        UserError: there are too few texts for `way` clusters.
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
    """Return a sentence-order task: are two consecutive sentences in order or swapped? As in ALBERT (Lan et al. 2020)."""
    rng = np.random.default_rng([seed, 31])
    pairs = [(one, other) for text in texts for one, other in _following(text)]
    return [_pairs(SENTENCE_ORDER, [pair if follows else pair[::-1] for pair, follows in _half(pairs, config, rng)], ("in order", "swapped"))]


def same_text(texts: Sequence[str], config: PairsConfig, seed: int) -> list[Task]:
    """Return a next-sentence task: is the second sentence from the same text or from another? As in BERT (Devlin et al. 2019)."""
    rng = np.random.default_rng([seed, 37])
    pairs = [(one, other) for text in texts for one, other in _following(text)]
    drawn = _half(pairs, config, rng)
    # Negatives take the second sentence of the next sampled pair, which is from another text unless two pairs of one text are adjacent.
    second = [pair[1] for pair, _ in drawn]
    joined = [(one, other if follows else second[(row + 1) % len(drawn)]) for row, ((one, other), follows) in enumerate(drawn)]
    return [_pairs(SAME_TEXT, joined, ("of one text", "of two"))]


def _following(text: str) -> list[tuple[str, str]]:
    """Return non-overlapping pairs of consecutive sentences."""
    sentences = sentences_of(text)
    return list(zip(sentences[::2], sentences[1::2]))


def _half(pairs: list[tuple[str, str]], config: PairsConfig, rng: np.random.Generator) -> list[tuple[tuple[str, str], bool]]:
    """Return at most `max_pairs` pairs in random order, the first half marked True (unchanged) and the second half False.

    Raises:
        UserError: there are too few pairs.
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
    """Generator of one kind of self-supervised tasks."""

    make: Callable[[Sequence[str], Any, int], list[Task]]  # (texts, settings, seed) -> tasks
    classes: str = "classes"  # plural noun for its classes, in the log


# Generators of this package; one with its own config node `tasks.NAME` is set there, the others and those of plug-ins in `tasks.self_supervised`.
GENERATORS = {
    "masked_words": Generator(lambda texts, config, seed: [masked_words(texts, config, seed)], "words"),
    "clusters": Generator(clusters, "clusters"),
    "sentence_order": Generator(sentence_order, "orders"),
    "same_text": Generator(same_text, "answers"),
}


def generator_of(name: str) -> Generator:
    """Return the generator of a kind of self-supervised tasks, from this package or a plug-in.

    Raises:
        UserError: there is no such kind.
    """
    found: Generator = plugins.find(plugins.SELF_SUPERVISED, name, GENERATORS, f"tasks.self_supervised: no kind {name!r}; choose from")
    return found


def settings_of(config: TasksConfig) -> dict[str, Any]:
    """Return the settings of all kinds of self-supervised tasks, by name.

    Raises:
        UserError: a name in `tasks.self_supervised` has its own config node.
    """
    own = {name: getattr(config, name) for name in GENERATORS if hasattr(config, name)}
    if both := own.keys() & config.self_supervised.keys():
        raise UserError(f"tasks.self_supervised.{min(both)} is set in tasks.{min(both)}; move its settings there")
    return {**own, **config.self_supervised}
