"""Token ids of a task's texts: computed once per task, stored as one flat array, and cached on disk for later runs."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from metatrain.errors import UserError
from metatrain.tasks.task import Task, plain_name
from metatrain.tasks.texts import MASK, PAIR, is_image, path_of, plain

_IMAGES = 2000  # number of images cached in memory
_SAMPLED = 200  # number of texts from which the fraction of truncated texts is estimated
_MANY_TRUNCATED = 0.1  # fraction of truncated texts from which it is reported
_AT_A_TIME = 5000  # number of texts tokenised per call
_MAPPED = 1 << 20  # bytes from which the ids of a task are memory-mapped; each mapping holds a file open, and their number is limited (often 1,024)
CACHE = "METATRAIN_CACHE"  # environment variable with the folder of the cache; empty: no cache


@dataclass(frozen=True)
class TextEncoding:
    """Tokenization of texts inside a prompt: without special tokens."""

    lead: str  # what each text begins with: a space, or nothing
    pair: str  # what stands between the two texts of a pair; "": what the tokenizer puts there

    def __call__(self, tokenizer: Any, text: str, max_length: int) -> list[int]:
        """Return the token ids of a text or a pair, of which the longer text is truncated."""
        options = {"add_special_tokens": False}
        if PAIR not in text:
            return tokenizer(self.lead + text, truncation=True, max_length=max_length, **options)["input_ids"]
        first, second = text.split(PAIR)
        if not self.pair:
            return tokenizer(self.lead + first, second, truncation=True, max_length=max_length, **options)["input_ids"]
        between = tokenizer(self.pair.rstrip(" "), **options)["input_ids"]
        second = f" {second}" if self.pair.endswith(" ") else second
        parts = [tokenizer(each, truncation=True, max_length=max_length, **options)["input_ids"] for each in (self.lead + first, second)]
        room = max(2, max_length - len(between))
        kept = min(len(parts[0]), max(room - len(parts[1]), -(-room // 2)))
        return [*parts[0][:kept], *between, *parts[1][: room - kept]]


@dataclass(frozen=True)
class TokenTable:
    """Token ids of many texts: text i is `ids[offsets[i]:offsets[i + 1]]`, special tokens included."""

    ids: np.ndarray  # int32; in memory or on disk
    offsets: np.ndarray  # int64

    @classmethod
    def of(cls, tokenizer: Any, texts: Sequence[str], max_length: int, prefix: str = "", encode: TextEncoding | None = None) -> TokenTable:
        """Return the token ids of texts, each after `prefix`, truncated to `max_length` tokens; encode: as in `encoded`."""
        parts = list(encoded(tokenizer, texts, max_length, prefix, encode))
        lengths = np.array([length for _, part in parts for length in part], dtype=np.int64)
        ids = np.concatenate([np.zeros(0, dtype=np.int32), *(ids for ids, _ in parts)])
        return cls(ids, np.concatenate([[0], np.cumsum(lengths)]))

    def rows(self, rows: Sequence[int] | np.ndarray) -> list[np.ndarray]:
        """Return the token ids of some texts, each of shape [tokens]."""
        return [np.asarray(self.ids[self.offsets[row] : self.offsets[row + 1]]) for row in rows]


def encoded(
    tokenizer: Any, texts: Sequence[str], max_length: int, prefix: str = "", encode: TextEncoding | None = None
) -> Iterator[tuple[np.ndarray, list[int]]]:
    """Yield (ids, length of each text) for some thousand texts at a time. encode: tokenisation inside a prompt; None: texts stand alone.


    Before each text, and the first text of a pair, comes `prefix`. Masked words become the tokenizer's mask, or another special token. The longer text
    of a pair that is too long is truncated.

    Raises:
        UserError: a word is masked or a text has no tokens, and the tokenizer has no special token that can stand for it.
    """
    for part in _parts(texts):
        part = [prefix + text for text in part] if prefix else part
        if any(MASK in text for text in part):
            mask = tokenizer.mask_token or tokenizer.unk_token or tokenizer.eos_token
            if mask is None:
                raise UserError("tasks.masked_words: the model's tokenizer has no special token that can stand for a masked word; choose another model")
            part = [text.replace(MASK, mask) for text in part]
        if encode is not None:
            ids = [encode(tokenizer, text, max_length) for text in part]
        elif any(PAIR in text for text in part):
            ids = [tokenizer(*text.split(PAIR), truncation=True, max_length=max_length)["input_ids"] for text in part]
        else:
            ids = tokenizer(part, truncation=True, max_length=max_length)["input_ids"]
        if not all(ids):
            ids = [each or _some(tokenizer) for each in ids]
        yield np.fromiter(itertools.chain.from_iterable(ids), dtype=np.int32), list(map(len, ids))


def empty_text_token(tokenizer: Any) -> int | None:
    """Return the special token that replaces an empty text; None: there is none."""
    special = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id, tokenizer.pad_token_id)
    return next((token for token in special if token is not None), None)


def _some(tokenizer: Any) -> list[int]:
    if (token := empty_text_token(tokenizer)) is None:
        raise UserError("a text has no tokens, and the model's tokenizer has no special token that can stand for it; leave the text out")
    return [token]


def _parts(texts: Sequence[str]) -> Iterator[list[str]]:
    whole = iter(texts)
    while part := list(itertools.islice(whole, _AT_A_TIME)):
        yield part


@dataclass(frozen=True)
class TargetEncoding:
    """Tokenisation of a language model's targets, which end with the end-of-text token."""

    tokenizer: Any
    max_length: int
    decoder_only: bool  # whether the model is decoder-only: targets have no other special tokens
    lead: str = ""  # what each target begins with: a space, or nothing
    stop: int | None = None  # last token of a target of a decoder-only model; None: the end-of-text token
    words: Mapping[str, str] = field(default_factory=dict)  # words for label names

    def names(self, names: Sequence[str]) -> list[np.ndarray]:
        """Return the token ids of label names, as words."""
        return self([self.words.get(name, plain_name(name)) for name in names])

    def __call__(self, texts: Sequence[str]) -> list[np.ndarray]:
        if not texts:
            return []  # tokenizers refuse an empty list
        texts = [self.lead + text for text in texts]
        if not self.decoder_only:
            encoded = self.tokenizer(text_target=list(texts), truncation=True, max_length=self.max_length)["input_ids"]
        else:
            encoded = self.tokenizer(list(texts), add_special_tokens=False, truncation=True, max_length=self.max_length - 1)["input_ids"]
            encoded = [[*ids, self.tokenizer.eos_token_id if self.stop is None else self.stop] for ids in encoded]
        return [np.array(ids, dtype=np.int64) for ids in encoded]


class Tokens:
    """Tokenises each task when it is first used and caches the result, in memory and on disk."""

    def __init__(
        self,
        tokenizer: Any,
        max_length: int,
        encode_targets: TargetEncoding | None = None,
        read_image: Callable[[str], np.ndarray] | None = None,
        longest: int | None = None,
        prefix: str = "",
        encode_texts: TextEncoding | None = None,
    ):
        """`encode_targets`: for a language model; `read_image`: for an image model, from a file to an array [patches, values];
        `longest`: maximum number of tokens that the model can read; None: no limit. `prefix`: text before every text. `encode_texts`: tokenisation
        inside a prompt; None: texts stand alone."""
        self.encode_texts = encode_texts
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.encode_targets = encode_targets
        self.longest, self.prefix = longest, prefix
        self._image = functools.lru_cache(_IMAGES)(read_image) if read_image else None
        self._tables: dict[int, tuple[Task, TokenTable]] = {}
        self._names: dict[str, np.ndarray] = {}

    def check(self, tasks: Iterable[Task]) -> None:
        """Raises: UserError: a task has images or texts that the model cannot read."""
        for task in tasks:
            if task.of_images and self._image is None:
                raise UserError(f"task '{task.name}' has images, but the model reads texts; choose an image model (for example model=scratch_vit)")
            if not task.of_images and self.tokenizer is None:
                raise UserError(
                    f"task '{task.name}' has texts, but the model reads only images; choose a model of images and texts (for example model=scratch_clip)"
                )

    def notes(self, tasks: Iterable[Task]) -> tuple[str, ...]:
        """Return a warning if many texts are truncated, estimated from a few texts of each task."""
        of_texts = [task for task in tasks if not task.of_images and len(task.texts)]
        each = max(1, _SAMPLED // max(1, len(of_texts)))
        texts = [task.texts[row] for task in of_texts for row in range(0, len(task.texts), -(-len(task.texts) // each))]
        lengths = [length for _, part in encoded(self.tokenizer, texts, 2 * self.max_length, self.prefix) for length in part]
        share = sum(length > self.max_length for length in lengths) / max(1, len(lengths))
        if share < _MANY_TRUNCATED:
            return ()
        more = min(2 * self.max_length, self.tokenizer.model_max_length, self.longest or 2 * self.max_length)
        advice = f"; model.max_length={more} keeps more of them, at a higher cost" if more > self.max_length else ""
        return (f"about {share:.0%} of the texts are longer than {self.max_length} tokens and are truncated{advice}",)

    def of(self, task: Task, rows: Sequence[int] | np.ndarray) -> list[np.ndarray]:
        """Return the model inputs of these rows."""
        return self._images([task.texts[row] for row in rows]) if task.of_images else self._of(task).rows(rows)

    def prepare(self, tasks: Iterable[Task], on_progress: Callable[[], None]) -> None:
        """Tokenise tasks in advance; `on_progress` is called after each."""
        for task in tasks:
            if not task.of_images:
                self._of(task)
            on_progress()

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return the model inputs of texts or images that belong to no task."""
        if texts and is_image(texts[0]):
            return self._images(texts)
        if self.tokenizer is None:
            raise UserError("these are texts, but the model reads only images; give images")
        table = TokenTable.of(self.tokenizer, texts, self.max_length, self.prefix, self.encode_texts)
        return table.rows(range(len(texts)))

    def _images(self, texts: Sequence[str]) -> list[np.ndarray]:
        if self._image is None:
            raise UserError("these are images, but the model reads texts; choose an image model")
        return [self._image(path_of(text)) for text in texts]

    def names(self, names: Sequence[str]) -> list[np.ndarray]:
        """Return the token ids of the label names, with spaces for underscores; none if the model reads no texts."""
        if self.tokenizer is None:
            return []
        new = [name for name in names if name not in self._names]
        self._names.update(zip(new, self.encode([plain(plain_name(name)) for name in new])))
        return [self._names[name] for name in names]

    @functools.cached_property
    def _cache(self) -> _Cache | None:
        return _Cache.of(self.tokenizer, self.max_length, self.prefix, self.encode_texts)

    def _of(self, task: Task) -> TokenTable:
        if id(task) not in self._tables:  # the task is stored with its table, so no other object gets its id
            self._tables[id(task)] = (task, self._table(task.texts))
        return self._tables[id(task)][1]

    def _table(self, texts: Sequence[str]) -> TokenTable:
        if self._cache is None:
            return TokenTable.of(self.tokenizer, texts, self.max_length, self.prefix, self.encode_texts)
        name = self._cache.name(texts)
        found = self._cache.read(name)
        if found is None:
            self._cache.write(name, encoded(self.tokenizer, texts, self.max_length, self.prefix, self.encode_texts))
            found = self._cache.read(name)
        return TokenTable.of(self.tokenizer, texts, self.max_length, self.prefix, self.encode_texts) if found is None else found


@dataclass
class _Cache:
    """Tables on disk, each under the hash of everything that it depends on."""

    folder: Path
    tokenizer: bytes  # hash of the tokenizer, the length and the prefix

    @classmethod
    def of(cls, tokenizer: Any, max_length: int, prefix: str = "", encode: TextEncoding | None = None) -> _Cache | None:
        """Return the cache; None: it is switched off, or the tokenizer is a slow one, whose code may change unnoticed."""
        base = os.environ.get(CACHE)
        if base == "" or not getattr(tokenizer, "is_fast", False):
            return None
        folder = Path(base) if base else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "metatrain"
        described = json.loads(tokenizer.backend_tokenizer.to_str())
        described.update(
            truncation=[max_length, tokenizer.truncation_side], padding=None, mask=tokenizer.mask_token, nothing=empty_text_token(tokenizer)
        )  # truncation and padding are otherwise those of its last call
        if prefix:
            described["prefix"] = prefix
        if encode is not None:
            described.update(encode=asdict(encode))
        return cls(folder / "tokens", hashlib.sha256(json.dumps(described, sort_keys=True).encode()).digest())

    def read(self, name: str) -> TokenTable | None:
        """Return a table, memory-mapped if it is large; None if it does not exist or cannot be read."""
        try:
            offsets = np.load(self.folder / f"{name}.npy", allow_pickle=False)
            path = self.folder / f"{name}.ids"
            size = path.stat().st_size
            if size != 4 * int(offsets[-1]):
                return None
            return TokenTable(np.memmap(path, dtype=np.int32, mode="r") if size >= _MAPPED else np.fromfile(path, dtype=np.int32), offsets)
        except (OSError, ValueError, IndexError, EOFError):
            return None  # recomputed, and overwrites the file

    def write(self, name: str, parts: Iterable[tuple[np.ndarray, list[int]]]) -> None:
        """Write a table part by part; the offsets are written last and mark it as complete."""
        lengths: list[int] = []
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._replaced(f"{name}.ids") as file:
                for ids, of_part in parts:
                    file.write(ids.tobytes())
                    lengths += of_part
            with self._replaced(f"{name}.npy") as file:
                np.save(file, np.concatenate([[0], np.cumsum(np.array(lengths, dtype=np.int64))]), allow_pickle=False)
        except OSError as error:
            warnings.warn(f"token ids are not cached for later runs: {error}; set {CACHE} to a folder, or to nothing for no cache", stacklevel=2)

    @contextmanager
    def _replaced(self, name: str) -> Iterator[IO[bytes]]:
        """Write a file atomically; it is removed if writing fails."""
        with tempfile.NamedTemporaryFile(dir=self.folder, delete=False) as file:
            try:
                yield file
                file.flush()
                os.replace(file.name, self.folder / name)
            except BaseException:
                os.unlink(file.name)
                raise

    def name(self, texts: Sequence[str]) -> str:
        """Return the name of the table of these texts."""
        content = hashlib.sha256(self.tokenizer)
        for text in texts:
            whole = text.encode("utf-8", "surrogatepass")
            content.update(len(whole).to_bytes(8, "little"))
            content.update(whole)
        return content.hexdigest()
