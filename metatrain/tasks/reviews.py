"""The embedded corpus `reviews`: short product and service reviews, written for this project.

16 domains of 60 reviews, half of them positive. Some words change sides with the domain (an unpredictable plot, an
unpredictable brake), and some reviews are mixed or ironic.
"""

from __future__ import annotations

from pathlib import Path


def corpus_path() -> Path:
    """The JSON Lines file of the corpus; fields text, label (negative, positive) and domain."""
    return Path(__file__).parent / "corpus" / "reviews.jsonl"
