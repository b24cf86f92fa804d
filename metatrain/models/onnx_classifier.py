"""Prediction by onnxruntime: a classifier that `metatrain export` has written as one graph. Needs neither torch nor transformers.

A directory `onnx/` (or `onnx_int8/`) inside a model directory holds the graph, its tokenizer, and `classifier.json`, which says what the graph
was made from: a graph of other weights than those beside it is stale and is not used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from metatrain.errors import UserError
from metatrain.models.finetuned_folder import read_object
from metatrain.models.targets import target_of
from metatrain.models.windows import Windows, check_single
from metatrain.tasks.texts import PAIR

GRAPH, TOKENIZER, CLASSIFIER = "model.onnx", "tokenizer.json", "classifier.json"
FOLDERS = {"onnx": "onnx", "onnx_int8": "onnx_int8"}  # runtime -> folder inside the model directory
_MAX_TOKENS = 8192  # maximum number of tokens of one call, padding included


def is_installed() -> bool:
    """Return whether onnxruntime is installed."""
    return find_spec("onnxruntime") is not None


def stale_file(model: Path, name: str) -> str | None:
    """Return a file of the model directory that differs from the one that the graph in its subfolder `name` was made from; None: there is none.

    Raises:
        UserError: classifier.json of the graph cannot be read.
    """
    before, now = read_object(model / name / CLASSIFIER).get("made_from"), sources_of(model)
    if not isinstance(before, dict):
        return CLASSIFIER
    return next((file for file in sorted(before.keys() | now.keys()) if before.get(file) != now.get(file)), None)


def sources_of(folder: Path) -> dict[str, str]:
    """Return the sha256 of each file of a model directory that a graph is made from, by relative path: weights, settings and tokenizer."""
    files = {path.relative_to(folder): path for path in folder.rglob("*") if path.suffix in (".safetensors", ".json")}
    # Hidden directories are those of an export in progress.
    own = {name: path for name, path in files.items() if name.parts[0] not in FOLDERS.values() and not name.parts[0].startswith(".")}
    return {name.as_posix(): sha256(path) for name, path in sorted(own.items())}


def sha256(path: Path) -> str:
    """Return the sha256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class OnnxClassifier:
    """An exported model of texts, run by onnxruntime on the CPU."""

    def __init__(self, folder: Path, threads: int):
        """Load the graph of the directory `folder`, to run on a number of threads.

        Raises:
            UserError: a file of it is missing or cannot be read.
        """
        import onnxruntime
        from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, InvalidGraph, InvalidProtobuf, NoSuchFile
        from tokenizers import Tokenizer

        facts = read_object(folder / CLASSIFIER)
        try:
            self.labels: list[str] = list(facts["labels"])
            self.target = target_of(facts, CLASSIFIER)
            self._windows = Windows(**facts["windows"]) if "windows" in facts else None  # None: long texts are cut
            self.threshold: float | None = facts["out_of_scope_below"]
            self._padding: int = facts["padding_token"]
            self._prefix: str = facts.get("prefix", "")  # before every text; earlier versions write none
            self._empty: int = facts["empty_text_token"]  # null if no text is empty, because the tokenizer adds special tokens
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
            options.log_severity_level = 3  # errors
            if sha256(folder / TOKENIZER) != facts["tokenizer"]:
                raise ValueError(f"another {TOKENIZER}")
            self._session = onnxruntime.InferenceSession(str(folder / GRAPH), options, providers=["CPUExecutionProvider"])
            self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
            self._tokenizer.enable_truncation(facts["max_length"], direction=facts["truncation_side"])
            self._tokenizer.no_padding()
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise UserError(f"{folder} is not a classifier exported by metatrain ({type(error).__name__}: {error}); run metatrain export again") from error
        except (Fail, InvalidArgument, InvalidGraph, InvalidProtobuf, NoSuchFile) as error:
            raise UserError(f"{folder / GRAPH} cannot be read: {str(error).splitlines()[0]}; run metatrain export again") from error

    def scores(self, texts: Sequence[str]) -> np.ndarray:
        """Return the label scores (logits), [texts, labels]; of a model of numbers, the number before it is limited to its range, [texts, 1].

        Raises:
            UserError: a text is a pair, and the model reads long texts in windows.
        """
        ids = self.encode(texts)
        found = np.zeros((len(ids), len(self.labels)), dtype=np.float32)
        for rows in _batches([len(each) for each in ids]):
            (found[rows],) = self._session.run(["logits"], self._inputs([ids[row] for row in rows]))
        return found

    def _inputs(self, ids: Sequence[Sequence[int]]) -> dict[str, np.ndarray]:
        """Return the inputs of the graph for token ids of texts."""
        if self._windows is None:
            tokens, mask = padded(ids, self._padding)
            return {"input_ids": tokens, "attention_mask": mask}
        windows, places = self._windows.split([np.array(each, dtype=np.int64) for each in ids])
        tokens, mask = padded(windows, self._padding)
        return {"input_ids": tokens, "attention_mask": mask, "window_weights": window_weights(places, len(ids))}

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, special tokens included. Raises: UserError: as of `scores`."""
        if self._windows is not None:
            check_single(texts)
        return [each.ids or [self._empty] for each in self._tokenizer.encode_batch([_input(self._prefix + text) for text in texts])]


def _input(text: str) -> str | tuple[str, str]:
    """Return a text or a pair as a tokenizer takes it; transformers reads a pair with an empty second text as a single text."""
    first, _, second = text.partition(PAIR)
    return (first, second) if second else first


def window_weights(places: np.ndarray, texts: int) -> np.ndarray:
    """Return the matrix that averages the windows of each text, float32, [texts, windows]; places: of its text for each window."""
    is_own = places[None] == np.arange(texts)[:, None]
    return (is_own / is_own.sum(1, keepdims=True)).astype(np.float32)


def padded(ids: Sequence[Sequence[int] | np.ndarray], padding: int) -> tuple[np.ndarray, np.ndarray]:
    """Return token ids, padded on the right, and the attention mask, both [texts, longest]."""
    lengths = np.array([len(each) for each in ids])
    mask = np.arange(lengths.max())[None] < lengths[:, None]
    tokens = np.full(mask.shape, padding, dtype=np.int64)
    tokens[mask] = np.concatenate([np.asarray(each, dtype=np.int64) for each in ids])
    return tokens, mask.astype(np.int64)


def _batches(lengths: Sequence[int]) -> Iterator[np.ndarray]:
    """Yield rows of similar length, the longest first, of at most `_MAX_TOKENS` tokens with their padding, or of one text."""
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    begin = 0
    while begin < len(order):
        size = max(1, _MAX_TOKENS // max(1, lengths[order[begin]]))
        yield order[begin : begin + size]
        begin += size
