"""Export of a finetuned classifier as one ONNX graph: encoder, pooling, normalisation and head, from token ids to probabilities.

Inputs `input_ids` and `attention_mask`, int64 [texts, tokens], both of any length; outputs `probabilities` and `logits`, float32 [texts, labels].
"""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import Tensor, nn

from metatrain.errors import UserError
from metatrain.models.decisions import softmax
from metatrain.models.encoder import Encoder
from metatrain.models.export import Classifier
from metatrain.models.finetuned_folder import TASK, read_facts
from metatrain.models.folders import folder_of_transformer
from metatrain.models.onnx_classifier import CLASSIFIER, GRAPH, TOKENIZER, OnnxClassifier, sha256, sources_of
from metatrain.models.targets import check_one_label
from metatrain.tasks.tokens import empty_text_token

OPSET = 18  # of ONNX; onnxruntime 1.14 and newer run it
TOLERANCE = 1e-4  # largest difference of a probability between the graph and the model
QUANTIZED = "int8"
_ONLY = "metatrain export writes classifiers of texts with a linear head"
_INPUTS, _OUTPUTS = ("input_ids", "attention_mask"), ("probabilities", "logits")


@dataclass(frozen=True)
class Check:
    """Comparison of a graph with the model that it was made from, on real texts."""

    texts: int
    difference: float  # largest difference of a probability
    agreement: float  # fraction of the texts with the same most probable label


class _Graph(nn.Module):
    """A classifier as a function of token ids and attention mask, both [texts, tokens]; returns (probabilities, logits), [texts, labels]."""

    def __init__(self, classifier: Classifier):
        super().__init__()
        self.model, self.normalize = classifier.model, False
        if isinstance(self.model, Encoder):
            assert classifier.linear is not None  # `check_exportable` has refused other heads
            if self.model.architecture is not None:
                self.model.backbone.set_attn_implementation("eager")  # that for packed texts has no padding
            self.weight, self.bias = (nn.Parameter(each.float(), requires_grad=False) for each in classifier.linear)
            self.normalize = self.model.normalize

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        if isinstance(self.model, Encoder):
            encodings = self.model.encode_padded(input_ids, attention_mask)
            logits = F.linear(F.normalize(encodings, dim=-1) if self.normalize else encodings, self.weight, self.bias)
        else:
            logits = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits.softmax(1), logits


def check_exportable(folder: Path) -> None:
    """Raises: UserError: the files of a model directory say that it cannot be a graph of this kind."""
    facts = read_facts(folder)
    if (folder / TASK).is_file():
        raise UserError(f"model={folder} is a language model; {_ONLY}")
    check_one_label(facts, "metatrain export")
    if "long_texts" in facts.get("encoder", {}):
        raise UserError(f"model={folder} reads long texts in windows (model.long_texts), which are no graph of one text; predict with torch")
    if "head" in facts:
        raise UserError(f"model={folder} has a head that is not linear (algorithm.head={facts['head']['name']}); {_ONLY}")


def export_graph(model: Path, folder: Path, quantize: str | None, texts: Sequence[str]) -> Check:
    """Write the graph of the model directory `model`, its tokenizer and `classifier.json` to `folder`, and compare both models on `texts`.

    quantize: `int8` for weights of 8 bits, whose probabilities differ; None: float32.

    Raises:
        UserError: the model cannot be one graph, or the graph reads texts or gives probabilities that differ.
    """
    check_exportable(model)
    classifier = Classifier(model, torch.device("cpu"))
    encoder, tokenizer, max_length = classifier.model, classifier.tokens.tokenizer, classifier.tokens.max_length
    if classifier.of_images:
        raise UserError(f"model={model} reads images; {_ONLY}")
    if isinstance(encoder, Encoder) and encoder.reads_padding:
        raise UserError(f"model={model}: {encoder.backbone.config.model_type} reads padding, so that a graph for texts of all lengths would differ; {_ONLY}")
    source = Path(folder_of_transformer(str(model))) / TOKENIZER
    if not source.is_file():
        raise UserError(f"model={model} has no {TOKENIZER}, the only tokenizer that is read without transformers; {_ONLY}")
    expected = softmax(classifier.scores(texts).numpy())  # before the graph is made, which changes the attention of the model
    _write_graph(classifier, folder / GRAPH, quantize)
    shutil.copyfile(source, folder / TOKENIZER)
    facts = {
        **{"format": 1, "labels": classifier.labels, "pair": "pair" in read_facts(model).get("columns", {}), "max_length": max_length},
        "prefix": classifier.tokens.prefix,
        **{"truncation_side": tokenizer.truncation_side, "padding_token": tokenizer.pad_token_id or 0, "empty_text_token": empty_text_token(tokenizer)},
        **{"out_of_scope_below": classifier.threshold, "quantize": quantize, "opset": OPSET, "tokenizer": sha256(source), "made_from": sources_of(model)},
    }
    (folder / CLASSIFIER).write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    graph = OnnxClassifier(folder, torch.get_num_threads())
    if any(mine != other.tolist() for mine, other in zip(graph.encode(texts), classifier.tokens.encode(texts))):
        raise UserError(f"the tokenizer of this model does more than its {TOKENIZER} says, so that programs without transformers would read other texts")
    found = softmax(graph.scores(texts))
    check = Check(len(texts), float(np.abs(expected - found).max()), float(np.mean(expected.argmax(1) == found.argmax(1))))
    if quantize is None and not check.difference <= TOLERANCE:
        raise UserError(f"the graph gives other probabilities than the model (difference {check.difference:.1e} on {len(texts)} texts); predict with torch")
    return check


def _write_graph(classifier: Classifier, path: Path, quantize: str | None) -> None:
    """Write the graph without the stack traces that torch adds, which have paths of this machine."""
    graph = _Graph(classifier).eval()
    ids = torch.from_numpy(np.stack(classifier.tokens.encode(["a b c", "a b c"])).astype(np.int64))
    sizes = {0: torch.export.Dim("texts", min=1), 1: torch.export.Dim("tokens", min=1)}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # else it says that torchvision is not installed
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # about names of dimensions, for those who change torch
            program = torch.onnx.export(
                graph, (ids, torch.ones_like(ids)), input_names=_INPUTS, output_names=_OUTPUTS, dynamic_shapes=dict.fromkeys(_INPUTS, sizes),
                opset_version=OPSET, dynamo=True, verbose=False,
            )  # fmt: skip
    except (torch.onnx.errors.OnnxExporterError, torch._dynamo.exc.TorchDynamoException) as error:
        raise UserError(f"torch cannot write this architecture as a graph: {str(error).strip().splitlines()[0]}; predict with torch") from error
    assert program is not None  # without a path, `export` returns the program
    found = program.model_proto
    for part in (found, found.graph, *found.graph.node, *found.graph.value_info, *found.graph.input, *found.graph.output):
        part.ClearField("metadata_props")
    onnx.save(found, path)
    if quantize == QUANTIZED:
        root = logging.getLogger()
        level = root.level
        root.setLevel(logging.ERROR)  # else it recommends a step for graphs of convolutions
        try:
            quantize_dynamic(path, path, weight_type=QuantType.QInt8, per_channel=True)
        finally:
            root.setLevel(level)
