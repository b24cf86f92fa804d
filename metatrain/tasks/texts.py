"""Texts: placeholder characters for masks, pairs and images, and texts that are read from disk on access."""

from __future__ import annotations

import os
import re
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np
import pyarrow
import pyarrow.ipc

# Noncharacters, which Unicode reserves for internal use; `plain` removes them from a user's text.
MASK = "\ufdd0"  # placeholder of a masked word; replaced by the tokenizer's mask token
PAIR = "\ufdd1"  # separates the two texts of a pair; replaced by the tokenizer's separator
IMAGE = "\ufdd2"  # prefix of an image; the path of its file follows
_SURROGATE = re.compile("[\ud800-\udfff]")
_READ = 10_000  # number of texts read at a time
_IN_MEMORY = 50_000  # number of texts from which a file's texts are stored on disk instead of in memory


def plain(text: str) -> str:
    """Return a user's text without placeholder characters and surrounding whitespace."""
    return text.replace(MASK, " ").replace(PAIR, " ").replace(IMAGE, " ").strip()


def has_lone_surrogate(text: str) -> bool:
    """Return True if a text contains a lone surrogate, which no tokenizer can read."""
    return not text.isascii() and _SURROGATE.search(text) is not None


def readable(text: str) -> str:
    """Return a readable form of a row: a text, a pair, an image or a text with a masked word."""
    return text.replace(MASK, "[masked]").replace(PAIR, " | ").replace(IMAGE, "")


def beginning(text: str, max_length: int = 60) -> str:
    """Return the first characters of a text, in readable form."""
    text = readable(text)
    return text if len(text) <= max_length else text[: max_length - 3] + "..."


def is_image(text: str) -> bool:
    """Return whether a row is an image."""
    return text.startswith(IMAGE)


def path_of(text: str) -> str:
    """Return the file of an image row."""
    return text[len(IMAGE) :]


class StoredTexts(Sequence[str]):
    """Rows of a memory-mapped column of texts."""

    def __init__(self, column: pyarrow.ChunkedArray, rows: np.ndarray | None = None):
        """rows: row numbers, shape [texts]; None: all."""
        self._column = column
        self._rows = np.arange(len(column)) if rows is None else rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return StoredTexts(self._column, self._rows[index])
        return self._column[int(self._rows[index])].as_py()

    def __iter__(self) -> Iterator[str]:
        for begin in range(0, len(self), _READ):
            yield from self._column.take(pyarrow.array(self._rows[begin : begin + _READ])).to_pylist()

    def subset(self, places: np.ndarray) -> StoredTexts:
        """Return the texts at these positions."""
        return StoredTexts(self._column, self._rows[places])


class TextStore:
    """Collects texts and returns them in order, from memory or, if there are many, from a temporary file that ends with the process."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._path: str | None = None
        self._writer: pyarrow.RecordBatchFileWriter | None = None

    def add(self, text: str) -> None:
        self._texts.append(text)
        if len(self._texts) >= _IN_MEMORY:
            self._write()

    def done(self) -> Sequence[str]:
        """Return all texts that were added."""
        if self._writer is None or self._path is None:
            return tuple(self._texts)
        self._write()
        self._writer.close()
        column = pyarrow.ipc.open_file(pyarrow.memory_map(self._path)).read_all()["text"]
        Path(self._path).unlink()  # mapped pages stay readable
        return StoredTexts(column)

    def _write(self) -> None:
        batch = pyarrow.record_batch([pyarrow.array(self._texts, pyarrow.large_string())], ["text"])
        if self._writer is None:
            handle, self._path = tempfile.mkstemp(prefix="metatrain-", suffix=".arrow")
            os.close(handle)
            weakref.finalize(self, Path(self._path).unlink, missing_ok=True)  # also if reading fails
            self._writer = pyarrow.ipc.new_file(self._path, batch.schema)
        self._writer.write_batch(batch)
        self._texts.clear()


def subset(texts: Sequence[str], places: np.ndarray) -> Sequence[str]:
    """Return the texts at these positions."""
    return texts.subset(places) if isinstance(texts, StoredTexts | Chained) else tuple(texts[place] for place in places)


class Chained(Sequence[str]):
    """Concatenation of several sequences of texts."""

    def __init__(self, parts: Sequence[Sequence[str]]):
        self._parts = list(parts)
        self._ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
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
        """Return the texts at these positions (sorted)."""
        bounds = np.searchsorted(places, [0, *self._ends])
        begins = [0, *self._ends[:-1]]
        found = [subset(part, places[low:high] - begin) for part, begin, low, high in zip(self._parts, begins, bounds[:-1], bounds[1:])]
        return Chained(found)


def sample(texts: Iterable[str], max_texts: int, rng: np.random.Generator) -> list[str]:
    """Return a uniform sample of at most `max_texts` texts, in one pass (Vitter 1985, algorithm R); all texts, in order, if there are no more."""
    kept: list[str] = []
    for number, text in enumerate(texts):
        if number < max_texts:
            kept.append(text)
        elif (place := int(rng.integers(number + 1))) < max_texts:
            kept[place] = text
    return kept
