"""Writing models that others can load: meta-trained models, and finetuned classifiers.

A finetuned classifier of texts loads without metatrain: as a `transformers` sequence classifier where the architecture computes
the same function (BERT with its own pooler), else as a `sentence-transformers` pipeline whose output is the label scores. Such a
pipeline is no model of `transformers`, which would put a random classifier on top of it.
"""

from __future__ import annotations

import copy
import json
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerBase

from metatrain.errors import UserError
from metatrain.models.adapters import folded, lost_by_folding
from metatrain.models.batches import chunks, pad
from metatrain.models.cloze import ClozeEncoder, load_cloze_encoder
from metatrain.models.config import ModelConfig, PromptConfig
from metatrain.models.encoder import Encoder, load_encoder
from metatrain.models.finetuned_folder import DESCRIPTIONS, FINETUNED, PROMPT, read_facts, read_object
from metatrain.models.folders import folder_of_transformer, is_model
from metatrain.models.generation import save_language_model
from metatrain.models.head_rule import Head, HeadRule, LogitHead
from metatrain.models.heads import make_head
from metatrain.models.images import ImageEncoder, is_image_model, load_image_encoder
from metatrain.models.language_model import LanguageModel
from metatrain.models.peft_export import Base, save_adapter
from metatrain.models.pretrained import lost_weights, read_settings, save_tokenizer, tokenizer_as_read
from metatrain.models.reading import Reading
from metatrain.models.sentence_pipeline import TRANSFORMER, read_linear, read_pipeline, write_modules
from metatrain.models.targets import ONE_LABEL, TARGET, Number, OneLabel, SeveralLabels, facts_of, target_of
from metatrain.models.windows import WINDOWS
from metatrain.tasks.tokens import Tokens

RECIPE, _LEARNED = "adaptation.json", "adaptation.safetensors"
_HEAD = "head.safetensors"
_MAX_TOKENS = 4096  # maximum number of tokens of one batch of `Classifier.scores`
_SEQUENCE_CLASSIFIERS = {"bert": "classifier"}  # architectures whose classifier is pooler, then one linear layer


Model = Encoder | ImageEncoder | LanguageModel


def save_meta_trained(
    folder: Path, model: Model, prefix: str, learned: Mapping[str, Tensor], recipe: Mapping[str, Any], adapter_of: Base | None = None
) -> None:
    """Write a meta-trained model as a Hugging Face directory, with the recipe of its adaptation.

    adapter_of: the model whose weights it has, of which only the LoRA matrices are written; None: the whole model is.

    adaptation.json holds the settings of the axes; adaptation.safetensors what has been learned beside the model, if
    anything, under the names of `learned`. Adapters are folded into the model, and what that loses stands there too,
    under `prefix`.
    """
    if not isinstance(model, LanguageModel):
        _set_labels(model.backbone.config, None)
    if adapter_of is None:
        _save_model(folder, model)
    else:
        save_adapter(folder, model.backbone, adapter_of)
        if model.tokenizer is not None:
            save_tokenizer(model.tokenizer, folder)
    names = lost_by_folding(model) if adapter_of is None else set()
    lost = {f"{prefix}{name}": value for name, value in model.named_parameters() if name in names}
    learned = {**lost, **learned}
    if learned:
        safetensors.torch.save_file({name: value.detach().contiguous() for name, value in learned.items()}, folder / _LEARNED)
    _write_json(folder / RECIPE, recipe)


def read_recipe(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """(recipe, tensors of adaptation.safetensors) of a directory that `save_meta_trained` wrote, or None for any other model directory.

    Raises: UserError: one of the files cannot be read.
    """
    if not (folder / RECIPE).is_file():
        return None
    path = folder / _LEARNED
    try:
        return read_object(folder / RECIPE), safetensors.torch.load_file(path) if path.is_file() else {}
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error


def save_classifier(folder: Path, encoder: Encoder, weight: Tensor, bias: Tensor, labels: Sequence[str], problem: str = "single_label_classification") -> str:
    """Write a finetuned classifier; weight [labels, H], bias [labels]; problem: `problem_type`. Returns `transformers` or `sentence-transformers`."""
    config = encoder.backbone.config
    _set_labels(config, labels, problem)
    if encoder.uses_pooler:
        backbone, tokenizer = _with_padding(folded(encoder.backbone), tokenizer_as_read(encoder.tokenizer, encoder.max_length))
        classifier = AutoModelForSequenceClassification.from_config(copy.deepcopy(backbone.config), attn_implementation="eager")  # it sets that there
        getattr(classifier, classifier.base_model_prefix).load_state_dict(backbone.state_dict())
        linear = getattr(classifier, _SEQUENCE_CLASSIFIERS[config.model_type])
        linear.weight.data.copy_(weight)
        linear.bias.data.copy_(bias)
        classifier.to(weight.dtype).save_pretrained(folder)
        save_tokenizer(tokenizer, folder)
        return "transformers"
    # The transformer has a folder of its own: beside the names of the labels, transformers would make up a classifier for it.
    _save_model(folder / TRANSFORMER, encoder, encoder.max_length)
    write_modules(folder, encoding_of(encoder), weight, bias)
    _write_json(folder / "config.json", {"id2label": config.id2label, "label2id": config.label2id})
    return "sentence-transformers"


def _set_labels(config: Any, labels: Sequence[str] | None, problem: str | None = None) -> None:
    """Set the labels of a classifier in a model's configuration, and its `problem_type`; None: no labels."""
    names = ("LABEL_0", "LABEL_1") if labels is None else labels  # transformers' default
    config.id2label = dict(enumerate(names))
    config.label2id = {label: number for number, label in enumerate(names)}
    config.problem_type = problem


def encoding_of(encoder: Encoder | ImageEncoder) -> dict[str, Any]:
    """The settings of `ModelConfig` that say how an encoder makes one vector of an input."""
    prefix = {"prefix": encoder.prefix} if isinstance(encoder, Encoder) and encoder.prefix else {}
    windows = {"long_texts": WINDOWS} if _reads_windows(encoder) else {}
    return {"pooling": encoder.pooling, "normalize": encoder.normalize, "max_length": encoder.max_length, **prefix, **windows}


def _reads_windows(model: Model) -> bool:
    """Return whether a model reads long texts in windows, which is no layer that other libraries have."""
    return isinstance(model, Encoder) and model.windows is not None


def is_none(logits: Tensor, threshold: float | None) -> Tensor:
    """Return which texts are out of scope: highest logit below the threshold, if there is one. logits: [texts, labels]; boolean, [texts]."""
    return logits.amax(1) < (-math.inf if threshold is None else threshold)


@dataclass(frozen=True)
class ExportedHead:
    """Settings of a head that is not linear, from which it is made again: `algorithm.head` and `algorithm.head_scale`."""

    name: str
    scale: float


def save_finetuned(
    folder: Path,
    model: Model,
    adapted: Mapping[str, Tensor],
    labels: Sequence[str] | None,
    threshold: float | None = None,
    columns: Mapping[str, str] | None = None,
    reading: Reading | None = None,
    head: ExportedHead | None = None,
    target: OneLabel | SeveralLabels | Number = ONE_LABEL,
    prediction_sets: Mapping[str, Any] | None = None,
    descriptions: Mapping[str, str] | None = None,
    adapter_of: Base | None = None,
) -> str:
    """Write a finetuned model of any kind; adapted: its parameters, an encoder's head among them. Returns who loads it.

    A head that is not linear (`head`; None: it is linear) is no layer that other libraries have, so only metatrain loads that model.

    threshold: of a classifier, below which the highest score means none of the labels; columns: of the examples' file, `text`, and `pair` if it
    has one; reading: what a language model reads around every text; None: nothing; target: what an encoder's head predicts;
    prediction_sets: their calibration; None: there is none; descriptions: label descriptions that replace labels of files, by label; None: none do;
    adapter_of: the model whose weights a language model has, of which only the LoRA matrices are written; None: it is written whole.
    """
    facts: dict[str, Any] = {} if threshold is None else {"none_of_these": {"highest_score_below": threshold}}
    if columns is not None:
        facts["columns"] = dict(columns)
    if prediction_sets is not None:
        facts["prediction_sets"] = dict(prediction_sets)
    if descriptions:
        facts[DESCRIPTIONS] = dict(descriptions)
    if not isinstance(target, OneLabel):
        facts[TARGET] = facts_of(target)
    if isinstance(model, LanguageModel):
        kind = save_language_model(folder, model, labels, reading, adapter_of)
    elif head is not None or isinstance(model, (ImageEncoder, ClozeEncoder)) or _reads_windows(model):
        assert labels is not None
        kind = "metatrain"  # no class of others computes the same of all that are supported
        _set_labels(model.backbone.config, None)
        _save_model(folder, model, model.max_length if isinstance(model, Encoder) else None)
        names = ["head.weight", "head.bias"] if head is None else [name for name in adapted if name.startswith("head.")]
        safetensors.torch.save_file({name[len("head.") :]: adapted[name].detach().contiguous() for name in names}, folder / _HEAD)
        facts["labels"], facts["encoder"] = list(labels), encoding_of(model)
        if head is not None:
            facts["head"] = asdict(head)
        if isinstance(model, ClozeEncoder):
            facts[PROMPT] = model.prompt.text
        elif isinstance(model, Encoder):
            facts["encoding"] = facts["encoder"]  # read where the directory is a plain encoder
    else:
        assert labels is not None  # an encoder's task has some
        kind = save_classifier(folder, model, adapted["head.weight"], adapted["head.bias"], labels, target.problem)
        facts["encoding"] = encoding_of(model)
    if facts:
        _write_json(folder / FINETUNED, {"format": 1, **facts})
    return kind


class Classifier:
    """A finetuned model directory, loaded for prediction.

    model: an encoder, or a sequence classifier of transformers; linear: weight [labels, H] and bias [labels] of the head on an encoder, None:
    the head is not linear, or part of the model.
    """

    linear: tuple[Tensor, Tensor] | None = None

    def __init__(self, folder: Path, device: torch.device):
        """Raises: UserError: the directory is not a finetuned model, or cannot be read."""
        if not is_model(folder):
            raise UserError(f"model={folder}: not a model directory (no config.json); give the output of `metatrain finetune`")
        no_head = f"model={folder} is not a classifier; give the output of `metatrain finetune`"
        try:
            config: Any = read_settings(folder_of_transformer(str(folder)))
            facts = read_facts(folder)
            target = target_of(facts)
            if "encoder" in facts:
                model = ModelConfig(name=str(folder), **facts["encoder"])
                self.model: Any
                if PROMPT in facts:
                    self.model = load_cloze_encoder(model, PromptConfig(text=facts[PROMPT]), second_order=False)[0]
                else:
                    self.model = (load_image_encoder if is_image_model(model) else load_encoder)(model, second_order=False)[0]
                head = {name: value.to(device) for name, value in safetensors.torch.load_file(folder / _HEAD).items()}
                own = facts.get("head")
                if own is None:
                    self.linear = (head["weight"], head["bias"])
                logits = partial(F.linear, weight=head["weight"], bias=head["bias"]) if own is None else _own_logits(make_head(own["name"], own["scale"]), head)
                self._scores: Callable[[list[np.ndarray]], Tensor] = partial(self._encoded, logits)
                self.tokens = self.model.tokens()
            elif (pipeline := read_pipeline(str(folder))) is not None:
                linear = read_linear(folder, pipeline)
                if linear is None:
                    raise UserError(no_head)
                weight, bias = self.linear = (linear[0].to(device), linear[1].to(device))
                self.model = load_encoder(ModelConfig(name=str(folder), **pipeline.encoding), second_order=False)[0]
                self.tokens = self.model.tokens()
                self._scores = partial(self._encoded, partial(F.linear, weight=weight, bias=bias))
            else:
                tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
                self.tokens = Tokens(tokenizer, min(tokenizer.model_max_length, config.max_position_embeddings))
                options: dict[str, Any] = {"dtype": torch.float32, "use_safetensors": True, "trust_remote_code": False}
                self.model, found = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True, **options)
                if lost_weights(found):
                    raise UserError(no_head)
                self._scores = self._classified
        except (OSError, ValueError, KeyError, RuntimeError, safetensors.SafetensorError) as error:
            raise UserError(f"model={folder} cannot be read: {str(error).strip().splitlines()[0]}") from error
        self.model.to(device).eval()
        self._device = device
        self.of_images = isinstance(self.model, ImageEncoder)
        self.labels: list[str] = facts.get("labels") or [config.id2label[number] for number in sorted(config.id2label)]
        self.threshold: float | None = facts.get("none_of_these", {}).get("highest_score_below")
        self.target = target

    def scores(self, texts: Sequence[str]) -> Tensor:
        """Label scores (logits) of shape [texts, labels], of texts or images.

        With a `threshold`, an input whose highest score is below it is out of scope.
        """
        ids = self.tokens.encode(texts)
        # Texts of a batch are of similar length; of one length, their order is their own, so that no bit of a score depends on the order of the inputs.
        order = np.array(sorted(range(len(ids)), key=lambda row: (-len(ids[row]), zlib.crc32(ids[row].tobytes()))), dtype=np.int64)
        ids = [ids[row] for row in order]
        with torch.no_grad():
            parts = [self._scores(ids[part]).cpu() for part in chunks(ids, _MAX_TOKENS)]
        return torch.cat(parts)[torch.from_numpy(np.argsort(order))] if parts else torch.zeros(0, len(self.labels))

    def _encoded(self, logits: Callable[[Tensor], Tensor], ids: list[np.ndarray]) -> Tensor:
        fused = {"fused": True} if isinstance(self.model, Encoder) else {}
        return logits(self.model(self.model.batch(ids), **fused))

    def _classified(self, ids: list[np.ndarray]) -> Tensor:
        batch = pad(ids, self.tokens.tokenizer.pad_token_id or 0, self._device)
        parts = [self.model(input_ids=group.input_ids, attention_mask=group.attention_mask).logits for group in batch.groups]
        return torch.cat(parts).index_select(0, batch.order)


def _own_logits(rule: HeadRule, head: Head) -> Callable[[Tensor], Tensor]:
    """Return the function from encodings [texts, H] to logits [texts, labels] of a head that is not linear."""
    return lambda features: cast(LogitHead, rule).logits(head, features)


def _save_model(folder: Path, model: Model, max_length: int | None = None) -> None:
    """The model's own weights, adapters folded in, and what makes its inputs; max_length: that its tokenizer is to know, None: its own."""
    folder.mkdir(parents=True, exist_ok=True)
    backbone, tokenizer = folded(model.backbone), model.tokenizer
    if isinstance(model, Encoder):
        backbone, tokenizer = _with_padding(backbone, tokenizer_as_read(model.tokenizer, max_length))
    backbone.save_pretrained(folder)
    if tokenizer is not None:
        save_tokenizer(tokenizer, folder)
    if isinstance(model, ImageEncoder):
        model.reader.processor.save_pretrained(folder)


def _with_padding(backbone: Any, tokenizer: PreTrainedTokenizerBase) -> tuple[Any, PreTrainedTokenizerBase]:
    """The two, with an embedding for the padding if it has none; which one does not matter, since nothing attends to it."""
    padding = tokenizer.pad_token_id
    if padding < backbone.get_input_embeddings().weight.shape[0]:
        return backbone, tokenizer
    backbone = copy.deepcopy(backbone)
    backbone.resize_token_embeddings(padding + 1)
    return backbone, tokenizer


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
