"""Token ids of a task's texts, made once per task, kept as one flat array and found again by later runs."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from metatrain.errors import UserError
from metatrain.tasks.task import MASK, PAIR, Task

CACHE = "METATRAIN_CACHE"  # the folder of the cache; empty: there is none


@dataclass(frozen=True)
class TokenTable:
    """Token ids of many texts: text i is `ids[offsets[i]:offsets[i + 1]]`, special tokens included."""

    ids: np.ndarray  # int32
    offsets: np.ndarray  # int64

    @classmethod
    def of(cls, tokenizer, texts: Sequence[str], max_length: int) -> TokenTable:
        """Texts tokenised and cut to `max_length` tokens; masked words become the tokenizer's mask, or another special token.

        Of a pair that is too long, the longer text is cut.

        Raises:
            UserError: a word is masked, and the tokenizer has no special token that can stand for it.
        """
        if any(MASK in text for text in texts):
            mask = tokenizer.mask_token or tokenizer.unk_token or tokenizer.eos_token
            if mask is None:
                raise UserError("tasks.masked_words: the model's tokenizer has no special token that can stand for a masked word; choose another model")
            texts = [text.replace(MASK, mask) for text in texts]
        if any(PAIR in text for text in texts):
            encoded = [tokenizer(*text.split(PAIR), truncation=True, max_length=max_length)["input_ids"] for text in texts]
        else:
            encoded = tokenizer(list(texts), truncation=True, max_length=max_length)["input_ids"] if len(texts) else []
        offsets = np.cumsum([0] + [len(ids) for ids in encoded])
        return cls(np.array([token for ids in encoded for token in ids], dtype=np.int32), offsets)

    def rows(self, rows: Sequence[int]) -> list[np.ndarray]:
        """The token ids of some texts, each of shape [tokens]."""
        return [self.ids[self.offsets[row] : self.offsets[row + 1]] for row in rows]


@dataclass(frozen=True)
class TargetEncoding:
    """How a language model's targets become token ids: each ends with the end of a text."""

    tokenizer: Any
    max_length: int
    alone: bool  # of a decoder alone: with no other special token

    def __call__(self, texts: Sequence[str]) -> list[np.ndarray]:
        if not self.alone:
            encoded = self.tokenizer(text_target=list(texts), truncation=True, max_length=self.max_length)["input_ids"]
        else:
            encoded = self.tokenizer(list(texts), add_special_tokens=False, truncation=True, max_length=self.max_length - 1)["input_ids"]
            encoded = [[*ids, self.tokenizer.eos_token_id] for ids in encoded]
        return [np.array(ids, dtype=np.int64) for ids in encoded]


class Tokens:
    """Tokenises each task the first time it is asked for and keeps the result, in memory and on disk."""

    def __init__(self, tokenizer, max_length: int, encode_targets: TargetEncoding | None = None):
        """`encode_targets`: for a language model; None: there are no targets."""
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.encode_targets = encode_targets
        self._tables: dict[int, tuple[Task, TokenTable]] = {}

    def of(self, task: Task, rows: Sequence[int]) -> list[np.ndarray]:
        if id(task) not in self._tables:  # the task is kept beside its table, so its id stays its own
            self._tables[id(task)] = (task, self._table(task.texts))
        return self._tables[id(task)][1].rows(rows)

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Token ids of texts that belong to no task."""
        table = TokenTable.of(self.tokenizer, texts, self.max_length)
        return table.rows(range(len(texts)))

    @functools.cached_property
    def _cache(self) -> _Cache | None:
        return _Cache.of(self.tokenizer, self.max_length)

    def _table(self, texts: Sequence[str]) -> TokenTable:
        if self._cache is None:
            return TokenTable.of(self.tokenizer, texts, self.max_length)
        path = self._cache.path(texts)
        found = self._cache.read(path)
        if found is None:
            found = TokenTable.of(self.tokenizer, texts, self.max_length)
            self._cache.write(path, found)
        return found


@dataclass
class _Cache:
    """Tables on disk, each under the hash of everything that it depends on."""

    folder: Path
    tokenizer: bytes  # hash of the tokenizer and the length

    @classmethod
    def of(cls, tokenizer, max_length: int) -> _Cache | None:
        """None if there is to be no cache, or if the tokenizer is code (a slow one): nobody knows when that changes."""
        base = os.environ.get(CACHE)
        if base == "" or not getattr(tokenizer, "is_fast", False):
            return None
        folder = Path(base) if base else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "metatrain"
        described = json.loads(tokenizer.backend_tokenizer.to_str())
        described.update(truncation=[max_length, tokenizer.truncation_side], padding=None, mask=tokenizer.mask_token)  # what its last call has left there
        return cls(folder / "tokens", hashlib.sha256(json.dumps(described, sort_keys=True).encode()).digest())

    def read(self, path: Path) -> TokenTable | None:
        """The table in a file; None if it is not there or cannot be read."""
        try:
            found = safetensors.numpy.load_file(path)
            return TokenTable(found["ids"], found["offsets"])
        except (OSError, SafetensorError, KeyError):
            return None  # made anew, and written over what was there

    def write(self, path: Path, table: TokenTable) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            content = safetensors.numpy.save({"ids": table.ids, "offsets": table.offsets})
            with tempfile.NamedTemporaryFile(dir=self.folder, delete=False) as file:
                file.write(content)
            os.replace(file.name, path)
        except OSError as error:
            warnings.warn(f"tokens are not kept for later runs: {error}; set {CACHE} to a folder, or to nothing for no cache", stacklevel=2)

    def path(self, texts: Sequence[str]) -> Path:
        """Where the table of these texts belongs."""
        content = hashlib.sha256(self.tokenizer)
        for text in texts:
            encoded = text.encode("utf-8", "surrogatepass")
            content.update(len(encoded).to_bytes(8, "little"))
            content.update(encoded)
        return self.folder / f"{content.hexdigest()}.safetensors"
