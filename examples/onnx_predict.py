"""Predict with a classifier that `metatrain export` has written: onnxruntime, tokenizers and numpy, without torch and without metatrain.

    python examples/onnx_predict.py MODEL/onnx "The strap broke on the first day."

MODEL is a model directory of `metatrain finetune`. A pair of texts is given as two arguments. The output is each label with its probability,
the most probable first:

    damaged: 0.9985
    late: 0.0015

A model with several labels a text (data.kind=labels) prints the labels above their thresholds with a star; one of numbers (data.kind=number) the number.

The directory MODEL/onnx is all that a program needs: the graph (model.onnx), its tokenizer (tokenizer.json), and classifier.json with the label
names, the maximum number of tokens, and, for a model that detects out-of-scope texts, the score below which a text has none of the labels.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from tokenizers import Tokenizer


class Classifier:
    """An exported model of texts, or of pairs of texts."""

    def __init__(self, folder: Path):
        self.facts: dict[str, Any] = json.loads((folder / "classifier.json").read_text(encoding="utf-8"))
        if "windows" in self.facts:
            sys.exit("this model reads long texts in windows (model.long_texts=windows); use metatrain predict")
        self.target: dict[str, Any] = self.facts.get("target", {"kind": "label"})
        self.session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(self.facts["max_length"], direction=self.facts["truncation_side"])
        self.tokenizer.enable_padding(pad_id=self.facts["padding_token"])

    def run(self, texts: Sequence[str | tuple[str, str]]) -> tuple[np.ndarray, np.ndarray]:
        """Return the label probabilities, [texts, labels], or the numbers, [texts], and whether each text is out of scope, [texts]."""
        encoded = self.tokenizer.encode_batch([self._input(text) for text in texts])
        ids = np.array([each.ids for each in encoded], dtype=np.int64)  # [texts, tokens]
        mask = np.array([each.attention_mask for each in encoded], dtype=np.int64)
        output = "numbers" if self.target["kind"] == "number" else "probabilities"
        found, logits = self.session.run([output, "logits"], {"input_ids": ids, "attention_mask": mask})
        below = self.facts["out_of_scope_below"]
        return found, logits.max(1) < (-np.inf if below is None else below)

    def _input(self, text: str | tuple[str, str]) -> str | tuple[str, str]:
        """Return a text or a pair as the model reads it; a pair with an empty second text is a single text."""
        first, second = (text, "") if isinstance(text, str) else text
        first = self.facts.get("prefix", "") + first
        return (first, second) if second else first


def main() -> None:
    folder, *given = sys.argv[1:]
    classifier = Classifier(Path(folder))
    text = tuple(each.strip() for each in given)
    if len(text) != (2 if classifier.facts["pair"] else 1):
        sys.exit("give two texts" if classifier.facts["pair"] else "give one text")
    found, out_of_scope = classifier.run([(text[0], text[1]) if len(text) == 2 else text[0]])
    if out_of_scope[0]:
        print("none_of_these")
        return
    if classifier.target["kind"] == "number":
        print(f"{found[0]:.4f}")
        return
    is_predicted = found[0] >= np.array(classifier.target.get("thresholds", np.inf))  # without thresholds, there is one label, the first line
    for place in np.argsort(-found[0], kind="stable"):
        print(f"{classifier.facts['labels'][place]}: {found[0, place]:.4f}{' *' if is_predicted[place] else ''}")


if __name__ == "__main__":
    main()
