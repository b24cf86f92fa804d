"""Duplicate and near-duplicate texts: two normal forms of a text, and their hashes.

The same are texts that differ at most in case, blanks and Unicode form (NFC). Every letter, mark, symbol and punctuation character counts:
"C", "C++" and "C#" are three texts, and so are ":)" and ":(". Nearly the same are texts with the same words.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

from metatrain.tasks.texts import PAIR, is_image, path_of

_VARIATIONS = range(0xFE00, 0xFE10)  # marks that choose how the symbol before them is drawn


class _WordCharacters(dict[int, str]):
    """A table for `str.translate` that leaves letters, their marks and numbers, drops what has no shape, and makes a blank of any other character."""

    def __missing__(self, code: int) -> str:
        category = unicodedata.category(chr(code))
        is_of_word = category[0] in "LMN" and code not in _VARIATIONS
        self[code] = chr(code) if is_of_word else "" if category == "Cf" else " "  # Cf: zero-width spaces, joiners, soft hyphens
        return self[code]


_WORD_CHARACTERS = _WordCharacters()


def same_form(text: str) -> str:
    """The text in lower case and NFC, with single blanks; of a pair, both texts."""
    # Not casefold, nor NFKC: these make one text of "Maße" and "Masse", of "10⁵" and "105".
    plain = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).lower())
    return PAIR.join(" ".join(part.split()) for part in plain.split(PAIR))


def word_form(text: str) -> str:
    """The words of the text, whatever their case and compatibility form; of one without letters and numbers, its `same_form`."""
    plain = unicodedata.normalize("NFKC", text.casefold())
    words = PAIR.join(" ".join(part.translate(_WORD_CHARACTERS).split()) for part in plain.split(PAIR))
    return words if any(map(str.isalnum, words)) else same_form(text)


def text_key(text: str) -> bytes:
    """Hash of the text's `same_form`: equal keys count as the same text."""
    return _hash(same_form(text).encode())


def row_key(text: str, target: str | None) -> int:
    """The key of a text and its target, if it has one: one sentence may go into two languages. Of an image, that of its file's content.

    Of 64 bits: among a million rows, two that differ share one with a probability of 3 in 100 million.
    """
    return _number(text, target, same_form)


def near_key(text: str, target: str | None) -> int:
    """As `row_key`, of the `word_form`: rows whose keys differ and whose near keys do not are nearly the same."""
    return _number(text, target, word_form)


def first_row_key(text: str, target: str | None) -> int:
    """The key of a row by the rule that the fingerprints of earlier checkpoints follow: letters and numbers, and neither marks nor symbols."""
    return _number(text if target is None else f"{text}\n{target}", None, lambda each: re.sub(r"\W+", " ", each.casefold()).strip())


def _number(text: str, target: str | None, form: Callable[[str], str]) -> int:
    if is_image(text):
        content = Path(path_of(text)).read_bytes()
    else:  # a line feed is in neither form
        content = (form(text) if target is None else f"{form(text)}\n{form(target)}").encode()
    return int.from_bytes(_hash(content), "little")


def _hash(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=8).digest()
