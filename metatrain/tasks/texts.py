"""Texts: the characters that mean something in them, and texts that stay on disk, read as they are asked for."""

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

# Noncharacters, which Unicode reserves for use inside a program: what a user's text may hold stands for itself.
MASK = "\ufdd0"  # stands for a masked word in a text; the tokenizer's own mask takes its place
PAIR = "\ufdd1"  # stands between the two texts of a pair; the tokenizer's own separator takes its place
IMAGE = "\ufdd2"  # begins what stands for an image: the path of its file follows
_SURROGATE = re.compile("[\ud800-\udfff]")
_READ = 10_000  # texts that are read at a time
_IN_MEMORY = 50_000  # texts of a file with fewer are held in memory


def plain(text: str) -> str:
    """Return a user's text without the characters that mean something here, and without the blanks around it."""
    return text.replace(MASK, " ").replace(PAIR, " ").replace(IMAGE, " ").strip()


def has_lone_surrogate(text: str) -> bool:
    """Return True if a text contains a lone surrogate, which no tokenizer can read."""
    return _SURROGATE.search(text) is not None


def readable(text: str) -> str:
    """Return a readable form of a row: a text, a pair, an image or a text with a masked word."""
    return text.replace(MASK, "[masked]").replace(PAIR, " | ").replace(IMAGE, "")


def beginning(text: str, most: int = 60) -> str:
    """The first characters of a text, for people to read."""
    text = readable(text)
    return text if len(text) <= most else text[: most - 3] + "..."


def is_image(text: str) -> bool:
    """Return whether a row is an image."""
    return text.startswith(IMAGE)


def path_of(text: str) -> str:
    """Return the file of an image row."""
    return text[len(IMAGE) :]


class StoredTexts(Sequence[str]):
    """Some texts of a memory-mapped table."""

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
        """The texts at these places."""
        return StoredTexts(self._column, self._rows[places])


class TextStore:
    """Takes texts in and gives them back in order: from memory while they are few, else from a file that goes with the process."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._path: str | None = None
        self._writer: pyarrow.RecordBatchFileWriter | None = None

    def add(self, text: str) -> None:
        self._texts.append(text)
        if len(self._texts) >= _IN_MEMORY:
            self._write()

    def done(self) -> Sequence[str]:
        """All texts that were added."""
        if self._writer is None or self._path is None:
            return tuple(self._texts)
        self._write()
        self._writer.close()
        column = pyarrow.ipc.open_file(pyarrow.memory_map(self._path)).read_all()["text"]
        Path(self._path).unlink()  # the pages stay as long as they are mapped
        return StoredTexts(column)

    def _write(self) -> None:
        batch = pyarrow.record_batch([pyarrow.array(self._texts, pyarrow.large_string())], ["text"])
        if self._writer is None:
            handle, self._path = tempfile.mkstemp(prefix="metatrain-", suffix=".arrow")
            os.close(handle)
            weakref.finalize(self, Path(self._path).unlink, missing_ok=True)  # also where reading ends in an error
            self._writer = pyarrow.ipc.new_file(self._path, batch.schema)
        self._writer.write_batch(batch)
        self._texts.clear()


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
        """The texts at these places (sorted)."""
        bounds = np.searchsorted(places, [0, *self._ends])
        begins = [0, *self._ends[:-1]]
        found = [subset(part, places[low:high] - begin) for part, begin, low, high in zip(self._parts, begins, bounds[:-1], bounds[1:])]
        return Chained(found)


def sample(texts: Iterable[str], most: int, rng: np.random.Generator) -> list[str]:
    """Return a uniform sample of at most this number of texts, in one pass (Vitter 1985, algorithm R); all, in order, if there are no more."""
    kept: list[str] = []
    for number, text in enumerate(texts):
        if number < most:
            kept.append(text)
        elif (place := int(rng.integers(number + 1))) < most:
            kept[place] = text
    return kept
