"""Texts: the characters that mean something in them, and texts that stay on disk, read as they are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow

MASK = "\ufffc"  # stands for a masked word in a text; the tokenizer's own mask takes its place
PAIR = "\x1e"  # stands between the two texts of a pair; the tokenizer's own separator takes its place
_READ = 10_000  # texts that are read at a time
_IN_MEMORY = 50_000  # texts of a file with fewer are held in memory


def plain(text: str) -> str:
    """A user's text without the two characters that mean something here."""
    return text.replace(MASK, " ").replace(PAIR, " ")


class StoredTexts(Sequence[str]):
    """The texts of some rows of a column, or the pairs of two; missing values are ''."""

    def __init__(self, columns: Sequence[pyarrow.ChunkedArray], rows: np.ndarray | None = None):
        """rows: row numbers, shape [texts]; None: all."""
        self._columns = list(columns)
        self._rows = np.arange(len(self._columns[0])) if rows is None else rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return StoredTexts(self._columns, self._rows[index])
        row = int(self._rows[index])
        return _joined([column[row].as_py() for column in self._columns])

    def __iter__(self) -> Iterator[str]:
        for begin in range(0, len(self), _READ):
            yield from self.take(np.arange(begin, min(begin + _READ, len(self))))

    def take(self, places: np.ndarray) -> list[str]:
        """The texts at these places."""
        rows = pyarrow.array(self._rows[places])
        return [_joined(values) for values in zip(*(column.take(rows).to_pylist() for column in self._columns))]

    def subset(self, places: np.ndarray) -> StoredTexts:
        """The texts at these places."""
        return StoredTexts(self._columns, self._rows[places])


def stored(columns: Sequence[pyarrow.ChunkedArray]) -> Sequence[str]:
    """The texts of a column, or the pairs of two: in memory if they are few."""
    texts = StoredTexts(columns)
    return tuple(texts) if len(texts) < _IN_MEMORY else texts


def subset(texts: Sequence[str], places: np.ndarray) -> Sequence[str]:
    """The texts at these places."""
    return texts.subset(places) if isinstance(texts, StoredTexts | Chained) else tuple(texts[place] for place in places)


class Chained(Sequence[str]):
    """Several sequences of texts as one."""

    def __init__(self, parts: Sequence[Sequence[str]]):
        self._parts = list(parts)
        self._ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index):
        if isinstance(index, slice):
            return self.subset(np.arange(*index.indices(len(self))))
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        part = int(np.searchsorted(self._ends, index, side="right"))
        return self._parts[part][index - (self._ends[part - 1] if part else 0)]

    def __iter__(self) -> Iterator[str]:
        for part in self._parts:
            yield from part

    def subset(self, places: np.ndarray) -> Sequence[str]:
        """The texts at these places (sorted)."""
        bounds = np.searchsorted(places, [0, *self._ends])
        begins = [0, *self._ends[:-1]]
        found = [subset(part, places[low:high] - begin) for part, begin, low, high in zip(self._parts, begins, bounds[:-1], bounds[1:])]
        return Chained(found)


def sample(texts: Iterable[str], most: int, rng: np.random.Generator) -> list[str]:
    """At most so many texts, each as likely as the others, in one pass (Vitter 1985, algorithm R); all, in order, if there are no more."""
    kept: list[str] = []
    for number, text in enumerate(texts):
        if number < most:
            kept.append(text)
        elif (place := int(rng.integers(number + 1))) < most:
            kept[place] = text
    return kept


def _joined(values: Sequence) -> str:
    texts = ["" if value is None else plain(str(value)).strip() for value in values]
    return PAIR.join(texts) if all(texts) else ""
