"""A hint that texts are not in the language of a tokenizer: it splits their words into many subword tokens."""

from __future__ import annotations

import re
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from metatrain.tasks.texts import readable

_SAMPLE = 200  # texts that are looked at
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\d_]+|\d+|[^\w\s]|_")  # a Chinese or Japanese character counts as a word
# Tokens per word from which texts count as of another language. MiniLM's tokenizer: at most 1.3 on 14 English data sets (chemistry), at least 1.6
# in 15 languages other than English and Chinese, whose characters are unknown tokens instead (scripts/benchmark/labelling.py language).
_MANY, _UNKNOWN = 1.45, 0.1
_OF_ONE_LANGUAGE = range(20_000, 100_000)  # sizes of vocabularies of one language; those of many languages are larger


def language_note(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> str | None:
    """Return a hint if texts are probably not in the language that the tokenizer was made for; None: they are, or it is for many languages."""
    if len(tokenizer) not in _OF_ONE_LANGUAGE:
        return None
    per_word, unknown = tokens_per_word(tokenizer, texts)
    if per_word < _MANY and unknown < _UNKNOWN:
        return None
    found = f"{unknown:.0%} of their tokens are unknown to it" if unknown >= _UNKNOWN else f"its tokenizer splits a word into {per_word:.1f} tokens"
    return f"hint: the texts may not be in the language of this model ({found}); a multilingual encoder may be more accurate"


def tokens_per_word(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> tuple[float, float]:
    """Return (mean number of tokens per word, share of unknown tokens) of some of the texts."""
    sample = [readable(texts[row]) for row in range(0, len(texts), -(-len(texts) // _SAMPLE))]
    words = sum(len(_WORD.findall(text)) for text in sample)
    ids = [each for part in tokenizer(sample, add_special_tokens=False)["input_ids"] for each in part]
    return len(ids) / max(1, words), sum(each == tokenizer.unk_token_id for each in ids) / max(1, len(ids))
