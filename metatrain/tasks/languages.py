"""Languages of a task's texts, as identified by `py3langid`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

_TEXTS = 50  # number of texts in the sample
_LEAST = 0.1  # minimum fraction of the sample for a language to be reported


def languages(texts: Sequence[str]) -> str | None:
    """Return the two-letter codes of the languages, most frequent first; None: the library is not installed."""
    try:
        from py3langid import classify
    except ImportError:
        return None
    sample = texts[:: max(1, len(texts) // _TEXTS)][:_TEXTS]
    counts = Counter(classify(text)[0] for text in sample)
    return ", ".join(code for code, count in counts.most_common() if count >= _LEAST * len(sample))
