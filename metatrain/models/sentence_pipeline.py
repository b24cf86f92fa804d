"""Sentence-transformers pipelines: a folder whose modules.json lists a transformer, its pooling, and further modules."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor
from transformers.utils.hub import cached_file

from metatrain.errors import UserError
from metatrain.models.folders import MODULES, listed_modules
from metatrain.paths import local_path

TRANSFORMER, _POOLING, _NORMALIZE, _DENSE = "0_Transformer", "1_Pooling", "2_Normalize", "3_Dense"
_LENGTH, _PROMPTS = "sentence_bert_config.json", "config_sentence_transformers.json"
_PROMPT = "text"  # name of the prompt before every text
# Names of poolings in metatrain -> in sentence-transformers -> keys in configurations of its versions before 6.
_MODES = {"mean": "mean", "first": "cls", "cls": "cls", "last": "lasttoken"}
_KEYS = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
_POOLINGS = {"mean": "mean", "cls": "cls", "lasttoken": "last"}  # poolings of sentence-transformers that metatrain supports
_IDENTITY = "torch.nn.modules.linear.Identity"
_NO_LIMIT = 10**6  # number of tokens from which a tokenizer's maximum length means no limit

FindFile = Callable[[str], Path | None]  # from the path of a file in a pipeline to its local path


@dataclass(frozen=True)
class Pipeline:
    """Encoding of texts by a pipeline, as settings of `ModelConfig`, and its further modules."""

    transformer: str  # folder of the transformer inside the pipeline; empty: the folder of the pipeline
    pooling: str
    normalize: bool
    prefix: str  # text before every text; empty: none
    max_length: int | None  # None: the pipeline does not say
    labels: str | None  # folder of the classification layer inside the pipeline; None: there is none
    unknown: str | None  # description of the steps that an encoder here cannot compute

    @property
    def encoding(self) -> dict[str, Any]:
        """Return the settings of `ModelConfig` with which an encoder computes the same."""
        length = {} if self.max_length is None else {"max_length": self.max_length}
        prefix = {"prefix": self.prefix} if self.prefix else {}
        return {"pooling": self.pooling, "normalize": self.normalize, **length, **prefix}

    @property
    def described(self) -> str:
        """Describe its pooling and normalisation."""
        prefix = f", with {self.prefix!r} before every text" if self.prefix else ""
        return self.unknown or f"with {self.pooling} pooling{', normalised' if self.normalize else ''}{prefix}"


def read_pipeline(name: str, revision: str | None = None) -> Pipeline | None:
    """Return the pipeline in a folder or of a hub id; None: it is not a pipeline.

    Raises:
        UserError: it cannot be read.
    """
    find = _finder(name, revision)
    listed = find(MODULES)
    if listed is None:
        return None
    modules = listed_modules(listed)
    try:
        return _read(modules, find)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{name}: its sentence-transformers pipeline cannot be read: {error}") from error


def _finder(name: str, revision: str | None) -> FindFile:
    folder = local_path(name)
    if folder.is_dir():
        return lambda file: folder / file if (folder / file).is_file() else None

    def of_hub(file: str) -> Path | None:
        # A missing model and an unreachable hub are reported when the model itself is loaded.
        silent: dict[str, Any] = {f"_raise_exceptions_for_{what}": False for what in ("gated_repo", "missing_entries", "connection_errors")}
        try:
            found = cached_file(name, file, revision=revision, **silent)
        except OSError:
            return None
        return None if found is None else Path(found)

    return of_hub


def _read(modules: list[tuple[str, str]], find: FindFile) -> Pipeline:
    def settings(file: str) -> Any:
        path = find(file)
        return {} if path is None else json.loads(path.read_text(encoding="utf-8"))

    places, unknown = dict(modules), None
    transformer = places.get("Transformer", "")
    beside = f"{transformer}/" if transformer else ""

    linear = settings(f"{places['Dense']}/config.json") if "Dense" in places else {}
    labels = len(settings(beside + "config.json").get("id2label") or ("LABEL_0", "LABEL_1"))  # transformers does not write default names
    gives_labels = linear.get("out_features") == labels and linear.get("activation_function") == _IDENTITY and linear.get("bias") is True
    kinds = [kind for kind, _ in modules if kind != "Dropout"]  # dropout is off at inference
    if kinds[:2] != ["Transformer", "Pooling"] or kinds[2:] not in ([], ["Normalize"], *([["Dense"], ["Normalize", "Dense"]] if gives_labels else [])):
        unknown = f"of the modules {', '.join(kinds) or 'none'}, which are not supported"

    pooling = settings(f"{places['Pooling']}/config.json") if "Pooling" in places else {}
    modes = pooling.get("pooling_mode") or [mode for mode, key in _KEYS.items() if pooling.get(key)] or ["mean"]
    modes = [modes] if isinstance(modes, str) else modes
    if len(modes) > 1 or modes[0] not in _POOLINGS:
        unknown = unknown or f"with {' and '.join(modes)} pooling, which is not supported"

    prompts = settings(_PROMPTS)
    prefix = prompts.get("prompts", {}).get(prompts.get("default_prompt_name")) or ""
    if prefix and pooling.get("include_prompt") is False:
        unknown = unknown or f"that puts {prefix!r} before every text but not into the pooling, which is not supported"

    of_transformer, of_tokenizer = settings(beside + _LENGTH), settings(beside + "tokenizer_config.json")
    if of_transformer.get("do_lower_case") and not of_tokenizer.get("do_lower_case"):
        unknown = unknown or "that converts every text to lower case, which is not supported"
    own = of_tokenizer.get("model_max_length")
    length = of_transformer.get("max_seq_length") or (own if isinstance(own, int) and own < _NO_LIMIT else None)
    labelled = places.get("Dense") if gives_labels else None
    return Pipeline(transformer, _POOLINGS.get(modes[0], "mean"), "Normalize" in places, prefix, length, labelled, unknown)


def read_linear(folder: Path, pipeline: Pipeline) -> tuple[Tensor, Tensor] | None:
    """Return weight [labels, H] and bias [labels] of the classification layer of a pipeline; None: there is none.

    Raises:
        OSError, KeyError, safetensors.SafetensorError: it cannot be read.
    """
    if pipeline.labels is None:
        return None
    linear = safetensors.torch.load_file(folder / pipeline.labels / "model.safetensors")
    return linear["linear.weight"], linear["linear.bias"]


def write_modules(folder: Path, encoding: Mapping[str, Any], weight: Tensor, bias: Tensor) -> None:
    """Write all modules of a pipeline except its transformer, whose folder is `TRANSFORMER`.

    encoding: pooling, normalize, max_length and, if it has one, prefix of the encoder; weight [labels, H], bias [labels]: the classification layer at the end.
    """
    labels, hidden = weight.shape
    kind = "sentence_transformers.models."
    modules = [(TRANSFORMER, "Transformer"), (_POOLING, "Pooling"), *([(_NORMALIZE, "Normalize")] if encoding["normalize"] else []), (_DENSE, "Dense")]
    for path, _ in modules:
        (folder / path).mkdir(parents=True, exist_ok=True)
    _write(folder / MODULES, [{"idx": i, "name": str(i), "path": path, "type": kind + name} for i, (path, name) in enumerate(modules)])
    _write(folder / TRANSFORMER / _LENGTH, {"max_seq_length": encoding["max_length"], "do_lower_case": False})
    if "prefix" in encoding:
        _write(folder / _PROMPTS, {"prompts": {_PROMPT: encoding["prefix"]}, "default_prompt_name": _PROMPT})
    chosen = _MODES[encoding["pooling"]]
    _write(folder / _POOLING / "config.json", {"word_embedding_dimension": hidden, **{key: mode == chosen for mode, key in _KEYS.items()}})
    linear = {"in_features": hidden, "out_features": labels, "bias": True, "activation_function": _IDENTITY}
    _write(folder / _DENSE / "config.json", linear)
    dense = {"linear.weight": weight.detach().float().contiguous(), "linear.bias": bias.detach().float().contiguous()}
    safetensors.torch.save_file(dense, folder / _DENSE / "model.safetensors")


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
