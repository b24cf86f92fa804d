"""Names of labels and tasks: normalisation of spellings that look the same, and warnings about similar ones."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

# Control characters, and format characters that no script needs: zero-width spaces, soft hyphens, direction marks, byte order marks.
_INVISIBLE = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff]")
# Joiners shape the letters of many scripts, and emojis; beside Latin letters or at an end they do nothing.
_IDLE_JOINER = re.compile("(?<![^\x00-\u024f\u200c\u200d])[\u200c\u200d]+|[\u200c\u200d]+(?![^\x00-\u024f])")
_VISIBLE = re.compile(f"[^\\s\u200c\u200d{_INVISIBLE.pattern[1:]}")
# Joiners, variation selectors, and characters that are drawn as whitespace or not at all.
_HARDLY_VISIBLE = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200c\u200d\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0000-\U000e0fff]")
_DECIMAL = re.compile(r"[-+]?\d+\.\d*")
_BETWEEN_WORDS = re.compile(r"[\s_-]+")
_MISSING = ("nan", "NaN", "NAN", "<NA>", "None", "null", "NULL", "N/A", "#N/A")  # how programs write a missing value


@functools.lru_cache(maxsize=100_000)  # labels come back, row after row
def clean_label(text: str) -> str:
    """Return a name in Unicode's composed form (NFC), without invisible characters, with single spaces."""
    return unicodedata.normalize("NFC", " ".join(_IDLE_JOINER.sub("", _INVISIBLE.sub("", text)).split()))


def is_blank(text: str) -> bool:
    """Return True if a text has no visible character."""
    return _VISIBLE.search(text) is None


def as_text(value: object) -> str:
    """Return a text, number or boolean as JSON writes it: true, not True."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def by_label(texts: Mapping[Any, str]) -> dict[str, str]:
    """Return texts of labels by label as it is read from a file; a label may be a number."""
    return {clean_label(as_text(label)): text for label, text in texts.items()}


def label_notes(source: str, labels: Iterable[str]) -> list[str]:
    """Return warnings about the labels of a file: similar spellings, and common spellings of a missing value."""
    alike: dict[str, list[str]] = defaultdict(list)
    for label in dict.fromkeys(labels):
        alike[folded(label)].append(label)
    near = [names for names in alike.values() if len(names) > 1]
    notes = [f"warning: {source}: label {label!r} is read as written; drop its rows if it stands for a missing value" for names in alike.values()
             for label in names if label in _MISSING]  # fmt: skip
    if near:
        named = "; ".join(" and ".join(map(repr, names)) for names in near[:3]) + (f" and {len(near) - 3} more" if len(near) > 3 else "")
        notes.append(f"warning: {source}: labels that look alike are different classes: {named}")
    return notes


def folded(label: str) -> str:
    """Return a normalised form that is equal for labels which look alike: case-folded, in NFKC, with single spaces; numbers by their value."""
    plain = unicodedata.normalize("NFKC", _HARDLY_VISIBLE.sub("", label)).casefold()
    if _DECIMAL.fullmatch(plain):  # 1.0, as programs write a 1 in a column with missing values
        plain = plain.rstrip("0").rstrip(".")
    return _BETWEEN_WORDS.sub(" ", plain).strip()
