"""Export of a finetuned model as one ONNX graph: encoder, pooling, normalisation and head, from token ids to probabilities or numbers.

Inputs `input_ids` and `attention_mask`, int64 [texts, tokens], both of any length; outputs `probabilities` and `logits`, float32 [texts, labels].
Of a model of numbers, the outputs are `numbers`, float32 [texts], and `logits`, [texts, 1], the number before it is limited to its range. Of a model
that reads long texts in windows, the first two inputs are [windows, tokens], and `window_weights`, float32 [texts, windows], averages the encodings of
the windows of each text.
"""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
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
from metatrain.models.finetuned_folder import PROMPT, TASK, read_facts
from metatrain.models.folders import folder_of_transformer
from metatrain.models.onnx_classifier import CLASSIFIER, GRAPH, TOKENIZER, OnnxClassifier, sha256, sources_of, window_weights
from metatrain.models.targets import TARGET, Number, OneLabel, SeveralLabels, facts_of, sigmoid
from metatrain.models.windows import Windows
from metatrain.tasks.tokens import empty_text_token

OPSET = 18  # of ONNX; onnxruntime 1.14 and newer run it
# Largest difference between the graph and the model: of a probability, or of a number relative to the range of the examples.
TOLERANCE = 1e-4
QUANTIZED = "int8"
_ONLY = "metatrain export writes classifiers of texts with a linear head"
_INPUTS = ("input_ids", "attention_mask")
_WEIGHTS = "window_weights"
_DIFFERENCE = {OneLabel.kind: "of a probability", SeveralLabels.kind: "of a probability", Number.kind: "of a number, relative to the range of the examples,"}
_SAME = {OneLabel.kind: "same label", SeveralLabels.kind: "same labels"}


@dataclass(frozen=True)
class Check:
    """Comparison of a graph with the model that it was made from, on real texts."""

    kind: str  # of prediction
    texts: int
    difference: float  # largest difference of a probability, or of a number relative to the range of the examples
    agreement: float | None  # fraction of the texts with the same label, or labels; None: the model predicts numbers

    def __str__(self) -> str:
        same = "" if self.agreement is None else f", {_SAME[self.kind]} for {self.agreement:.1%} of the texts"
        return f"largest difference {_DIFFERENCE[self.kind]} {self.difference:.1e}{same}"


class _Graph(nn.Module):
    """A model as a function of token ids and attention mask, both [texts, tokens], or of windows and their weights; returns its outputs and the logits."""

    def __init__(self, classifier: Classifier):
        super().__init__()
        self.model, self.normalize, self.target = classifier.model, False, classifier.target
        if isinstance(self.model, Encoder):
            assert classifier.linear is not None  # `check_exportable` has refused other heads
            if self.model.architecture is not None:
                self.model.backbone.set_attn_implementation("eager")  # that for packed texts has no padding
            self.weight, self.bias = (nn.Parameter(each.float(), requires_grad=False) for each in classifier.linear)
            self.normalize = self.model.normalize

    def forward(self, input_ids: Tensor, attention_mask: Tensor, window_weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if isinstance(self.model, Encoder):
            encodings = self._normalized(self.model.encode_padded(input_ids, attention_mask))
            if window_weights is not None:
                encodings = self._normalized(window_weights @ encodings)
            logits = F.linear(encodings, self.weight, self.bias)
        else:
            logits = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return self._output(logits), logits

    def _normalized(self, encodings: Tensor) -> Tensor:
        return F.normalize(encodings, dim=-1) if self.normalize else encodings

    def _output(self, logits: Tensor) -> Tensor:
        """Return probabilities, [texts, labels], or numbers, [texts]."""
        if isinstance(self.target, Number):
            return logits[:, 0].clamp(self.target.lowest, self.target.highest)
        return logits.sigmoid() if isinstance(self.target, SeveralLabels) else logits.softmax(1)


def check_exportable(folder: Path) -> None:
    """Raises: UserError: the files of a model directory say that it cannot be a graph of this kind."""
    facts = read_facts(folder)
    if (folder / TASK).is_file():
        raise UserError(f"model={folder} is a language model; {_ONLY}")
    if PROMPT in facts:
        raise UserError(f"model={folder} reads each text in a template (algorithm.head=mlm), which the tokenizer of a graph does not have; {_ONLY}")
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
    expected = classifier.scores(texts).numpy()  # before the graph is made, which changes the attention of the model
    _write_graph(classifier, folder / GRAPH, quantize)
    shutil.copyfile(source, folder / TOKENIZER)
    facts = {
        **{"format": 1, "labels": classifier.labels, "pair": "pair" in read_facts(model).get("columns", {}), "max_length": max_length},
        "prefix": classifier.tokens.prefix,
        **({} if isinstance(classifier.target, OneLabel) else {TARGET: facts_of(classifier.target)}),
        **({} if (windows := _windows_of(encoder)) is None else {"windows": asdict(windows)}),
        **{"truncation_side": tokenizer.truncation_side, "padding_token": tokenizer.pad_token_id or 0, "empty_text_token": empty_text_token(tokenizer)},
        **{"out_of_scope_below": classifier.threshold, "quantize": quantize, "opset": OPSET, "tokenizer": sha256(source), "made_from": sources_of(model)},
    }
    (folder / CLASSIFIER).write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    graph = OnnxClassifier(folder, torch.get_num_threads())
    if any(mine != other.tolist() for mine, other in zip(graph.encode(texts), classifier.tokens.encode(texts))):
        raise UserError(f"the tokenizer of this model does more than its {TOKENIZER} says, so that programs without transformers would read other texts")
    check = _compared(classifier.target, expected, graph.scores(texts))
    if quantize is None and not check.difference <= TOLERANCE:
        raise UserError(f"the graph gives other predictions than the model ({check}, on {len(texts)} texts); predict with torch")
    return check


def _windows_of(model: nn.Module) -> Windows | None:
    """Return the windows in which an encoder reads long texts; None: they are cut."""
    return model.windows if isinstance(model, Encoder) else None


def _compared(target: OneLabel | SeveralLabels | Number, expected: np.ndarray, found: np.ndarray) -> Check:
    """Compare the scores of the model and of its graph, both [texts, labels]."""
    if isinstance(target, Number):
        difference = np.abs(target.numbers(expected) - target.numbers(found)).max() / (target.highest - target.lowest)
        return Check(target.kind, len(expected), float(difference), None)
    if isinstance(target, SeveralLabels):
        one, other = sigmoid(expected), sigmoid(found)
        is_same = (target.is_predicted(one) == target.is_predicted(other)).all(1)
    else:
        one, other = softmax(expected), softmax(found)
        is_same = one.argmax(1) == other.argmax(1)
    return Check(target.kind, len(expected), float(np.abs(one - other).max()), float(is_same.mean()))


def _write_graph(classifier: Classifier, path: Path, quantize: str | None) -> None:
    """Write the graph without the stack traces that torch adds, which have paths of this machine."""
    graph = _Graph(classifier).eval()
    ids = torch.from_numpy(np.stack(classifier.tokens.encode(["a b c"] * 3)).astype(np.int64))
    windows = _windows_of(classifier.model) is not None
    rows, tokens = torch.export.Dim("windows" if windows else "texts", min=1), torch.export.Dim("tokens", min=1)
    inputs = dict(zip(_INPUTS, (ids, torch.ones_like(ids))))
    sizes = {name: {0: rows, 1: tokens} for name in _INPUTS}
    if windows:
        inputs[_WEIGHTS] = torch.from_numpy(window_weights(np.array([0, 0, 1]), 2))  # windows of two texts
        sizes[_WEIGHTS] = {0: torch.export.Dim("texts", min=1), 1: rows}
    outputs = ("numbers" if isinstance(classifier.target, Number) else "probabilities", "logits")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # else it says that torchvision is not installed
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # about names of dimensions, for those who change torch
            program = torch.onnx.export(
                graph, tuple(inputs.values()), input_names=tuple(inputs), output_names=outputs, dynamic_shapes=sizes,
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
