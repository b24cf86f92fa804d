"""Self-supervised tasks from raw text: which word was masked here? (SMLMT, Bansal et al. 2020b)

An episode has N words and, for each, sentences that contain it, with every occurrence masked; the label is the word. A corpus is one task
with a class for each word, from which episodes sample classes. A word is replaced by a single mask, whatever its number of subword tokens,
so that the mask does not reveal its length. Each sentence belongs to one word only, so no episode has it twice.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from metatrain.errors import UserError
from metatrain.tasks.config import MaskedWordsConfig
from metatrain.tasks.keys import text_key
from metatrain.tasks.task import Task
from metatrain.tasks.texts import MASK, PAIR

NAME = "masked words"
_END_OF_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_WORD = re.compile(r"[^\W\d_]{3,}(?:['’-][^\W\d_]+)*")  # letters of any script, with an apostrophe or hyphen inside
_SHORTEST, _LONGEST = 5, 60  # minimum and maximum number of words per sentence


def check_masked_words(config: MaskedWordsConfig) -> None:
    """Raises: UserError: a value is out of range."""
    if not 0 < config.max_share <= 1:
        raise UserError(f"tasks.masked_words.max_share={config.max_share} must be above 0 and at most 1")
    for key, least in {"way": 2, "max_words": config.way, "min_sentences": 2, "max_sentences": config.min_sentences}.items():
        if getattr(config, key) < least:
            raise UserError(f"tasks.masked_words.{key}={getattr(config, key)} must be {least} or more")


def masked_words(texts: Iterable[str], config: MaskedWordsConfig, seed: int) -> Task:
    """Return the masked-word task of a corpus.

    Words are sampled evenly from frequency bins, each twice as frequent as the one before, because words sampled uniformly would almost
    all be rare. At most `max_sentences` sentences per word are sampled.

    Raises:
        UserError: too few words are in enough sentences.
    """
    rng = np.random.default_rng([seed, 23])
    sentences = _sentences(texts)
    found: dict[str, list[int]] = defaultdict(list)
    for number, sentence in enumerate(sentences):
        for word in {match.casefold() for match in _WORD.findall(sentence)}:
            found[word].append(number)
    most = config.max_share * len(sentences)
    candidates = {word: numbers for word, numbers in found.items() if config.min_sentences <= len(numbers) <= most}
    words = _balanced({word: len(numbers) for word, numbers in candidates.items()}, config.max_words, rng)
    taken: set[int] = set()
    chosen: dict[str, list[int]] = {}
    for word in sorted(words, key=lambda word: (len(candidates[word]), word)):  # rarest first: they have the fewest sentences
        free = [number for number in candidates[word] if number not in taken]
        if len(free) >= config.min_sentences:
            chosen[word] = sorted(rng.choice(free, min(len(free), config.max_sentences), replace=False).tolist())
            taken.update(chosen[word])
    if len(chosen) < config.way:
        raise UserError(
            f"tasks.masked_words: {len(chosen)} words are in {config.min_sentences} sentences or more of their own, and an episode needs "
            f"tasks.masked_words.way={config.way}; give more text, or lower tasks.masked_words.min_sentences"
        )
    names = tuple(sorted(chosen))
    rows = [(masked(sentences[number], name), label) for label, name in enumerate(names) for number in chosen[name]]
    everywhere = np.ones(len(rows), dtype=bool)
    return Task(NAME, tuple(text for text, _ in rows), np.array([label for _, label in rows]), names, everywhere, everywhere, config.way)


def masked(sentence: str, word: str) -> str:
    """Return the sentence with every occurrence of the word masked, ignoring case."""
    return _WORD.sub(lambda match: MASK if match[0].casefold() == word else match[0], sentence)


def sentences_of(text: str) -> list[str]:
    """Return the sentences of a text that are neither too short nor too long."""
    return [sentence.strip() for sentence in _END_OF_SENTENCE.split(text) if _SHORTEST <= len(sentence.split()) <= _LONGEST]


def _sentences(texts: Iterable[str]) -> list[str]:
    """Return the sentences of all texts that are neither too short nor too long, without duplicates."""
    known: dict[bytes, str] = {}
    for text in texts:
        for sentence in sentences_of(text.replace(PAIR, "\n")):
            known.setdefault(text_key(sentence), sentence)
    return list(known.values())


def _balanced(counts: dict[str, int], max_words: int, rng: np.random.Generator) -> Sequence[str]:
    """Return at most this number of words, sampled from the frequency bins in turn until these are empty."""
    bins: dict[int, list[str]] = defaultdict(list)
    for word in sorted(counts):
        bins[counts[word].bit_length()].append(word)
    shuffled = [[words[i] for i in rng.permutation(len(words))] for _, words in sorted(bins.items())]
    turns = [word for turn in range(max(map(len, shuffled), default=0)) for words in shuffled for word in words[turn : turn + 1]]
    return turns[:max_words]
