"""Duplicate and near-duplicate texts: two normalised forms of a text, and their hashes.

Duplicates differ at most in case, whitespace and Unicode form (NFC). Every letter, mark, symbol and punctuation character counts: "C",
"C++" and "C#" are three texts, and so are ":)" and ":(". Near-duplicates are texts with the same words.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

from metatrain.tasks.texts import PAIR, is_image, path_of

_VARIATIONS = range(0xFE00, 0xFE10)  # variation selectors: how the symbol before them is drawn


class _WordCharacters(dict[int, str]):
    """Table for `str.translate` that keeps letters, marks, numbers and `PAIR`, drops format characters, and replaces all others by a space."""

    def __missing__(self, code: int) -> str:
        category = unicodedata.category(chr(code))
        is_kept = (category[0] in "LMN" and code not in _VARIATIONS) or chr(code) == PAIR
        self[code] = chr(code) if is_kept else "" if category == "Cf" else " "  # Cf: zero-width spaces, joiners, soft hyphens
        return self[code]


_WORD_CHARACTERS = _WordCharacters()


def same_form(text: str) -> str:
    """Return a text in lower case and NFC, with single spaces; for a pair, both texts."""
    # Neither casefold nor NFKC: they map "Maße" and "Masse", or "10⁵" and "105", to the same text.
    plain = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).lower())
    return _single_spaced(plain)


def word_form(text: str) -> str:
    """Return the words of a text, case-folded and in NFKC; for a text without letters and numbers, its `same_form`."""
    plain = unicodedata.normalize("NFKC", text.casefold())
    words = _single_spaced(plain.translate(_WORD_CHARACTERS))
    return words if any(map(str.isalnum, words)) else same_form(text)


def _single_spaced(text: str) -> str:
    """Return a text, or both texts of a pair, with single spaces between words."""
    return PAIR.join(" ".join(part.split()) for part in text.split(PAIR)) if PAIR in text else " ".join(text.split())


def text_key(text: str) -> bytes:
    """Return the hash of the `same_form` of a text; texts with equal keys are duplicates."""
    return _hash(same_form(text).encode())


def row_key(text: str, target: str | None) -> int:
    """Return a 64-bit hash of a text and its target, if there is one; for an image, of the content of its file.

    The target counts because a sentence may have translations into several languages. Among a million rows, two different ones have the
    same hash with a probability of 3 in 100 million.
    """
    return _number(text, target, same_form)


def near_key(text: str, target: str | None) -> int:
    """Return the hash of a row's `word_form`: rows with equal near keys but different keys are near-duplicates."""
    return _number(text, target, word_form)


def first_row_key(text: str, target: str | None) -> int:
    """Return the hash in fingerprints of early checkpoints: letters and numbers count, marks and symbols do not."""
    return _number(text if target is None else f"{text}\n{target}", None, lambda each: re.sub(r"\W+", " ", each.casefold()).strip())


def _number(text: str, target: str | None, form: Callable[[str], str]) -> int:
    if is_image(text):
        content = Path(path_of(text)).read_bytes()
    else:  # a line feed is in neither form
        content = (form(text) if target is None else f"{form(text)}\n{form(target)}").encode()
    return int.from_bytes(_hash(content), "little")


def _hash(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=8).digest()
