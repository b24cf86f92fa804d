"""metatrain in Python: one meta-trained model, and many tasks served from it.

    model = metatrain.load("latest")
    task = model.adapt([("where is my parcel?", "delivery"), ("it broke", "complaint"), ...])
    task.predict(["my order has not come"])        # ["delivery"]
    task.save("tickets.safetensors")
    task = model.load_task("tickets.safetensors")

A task keeps only what adaptation changed: of a method whose head alone adapts, a few kilobytes. The model itself is shared.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from metatrain.checkpoints.adaptation import adapted_to, check_no_label_is_none, check_none_of_these
from metatrain.checkpoints.opening import open_checkpoint
from metatrain.config.schema import AlgorithmOverrides, InnerOverrides, Overrides
from metatrain.errors import UserError
from metatrain.gradient.parameters import Parameters
from metatrain.meta.learner import Learner
from metatrain.models.export import NONE, is_none
from metatrain.run import hardware
from metatrain.run.atomic import atomic_file
from metatrain.run.config import HardwareConfig
from metatrain.tasks.encoded_episode import encode_episode
from metatrain.tasks.episodes import given_episode
from metatrain.tasks.labels import clean_label
from metatrain.tasks.texts import PAIR, has_lone_surrogate, plain

_FORMAT = "metatrain task 1"
Text = str | tuple[str, str]  # a tuple: two texts that belong together, a premise and a hypothesis, say


def load(
    checkpoint: str | Path,
    device: str = "auto",
    fit_head: bool | None = None,
    fit_encoder: bool | None = None,
    algorithm: str | None = None,
    adapt: str | None = None,
) -> FewShotModel:
    """Load a run, `latest`, a directory that `metatrain train` exported, or a plain Hugging Face encoder.

    fit_head: whether heads are fitted to the examples (`inner.fit_head`); fit_encoder: whether the whole encoder is trained on them too
    (`inner.fit_encoder`), where that is of use: it pays with many examples, and takes minutes. algorithm: the method for a plain encoder, such as
    "recommended" (`metatrain ls algorithms`). adapt: which parameters adapt (`algorithm.adapt`). None: as the run has it.

    Raises:
        UserError: there is no such thing, it cannot be read, or it is no classifier of texts.
    """
    where, dtype, _ = hardware.apply(HardwareConfig(device=device, threads=torch.get_num_threads()))
    settings = Overrides(AlgorithmOverrides(name=algorithm, adapt=adapt), InnerOverrides(fit_head=fit_head, fit_encoder=fit_encoder))
    learner = open_checkpoint(str(checkpoint), settings, where, dtype, lambda line: None).learner
    if learner.encodings is None or learner.model.tokenizer is None:
        raise UserError(f"checkpoint={checkpoint}: metatrain.load supports text classifiers only; use `metatrain finetune` and `predict` for other models")
    return FewShotModel(learner)


class FewShotModel:
    """A meta-trained encoder that adapts to tasks."""

    def __init__(self, learner: Learner):
        assert learner.encodings is not None  # `load` refuses other learners
        self._learner, self._encodings = learner, learner.encodings
        self._tokens = learner.model.tokens()

    def adapt(self, examples: Iterable[tuple[Text, str]], none_of_these: float | None = None) -> Task:
        """Learn a task from pairs (text, label), some of every label.

        A text is read as `metatrain finetune` reads it from a file: without the blanks around it.

        none_of_these: the share of texts of the labels that may be taken for none of them; None: every text is of one of the labels.

        Raises:
            UserError: an example is no such pair, there are fewer than two labels, two look the same, `none_of_these` is no share or needs more than one
                example of a label, or adaptation does not stay finite.
        """
        check_none_of_these(none_of_these, self._learner)
        read = [_example(example, f"examples[{number}]") for number, example in enumerate(examples)]
        if len({label for _, label in read}) < 2:
            raise UserError("a classifier needs examples of at least two labels")
        _check_spelling([label for _, label in read])
        if none_of_these is not None:
            check_no_label_is_none([label for _, label in read], "examples")
        episode = given_episode([text for text, _ in read], [label for _, label in read], len(read))
        texts = encode_episode(episode, self._tokens)
        adapted, _, fit = adapted_to(self._learner, texts)
        threshold = None
        if none_of_these is not None:
            assert fit is not None  # `check_none_of_these` has refused it where no head is fitted
            threshold = fit.threshold(none_of_these)
        own = {name: value for name, value in adapted.items() if value is not self._learner.parameters.get(name)}
        return Task(self, list(episode.task.label_names), own, threshold)

    def load_task(self, path: str | Path) -> Task:
        """Load a task written by `Task.save`, for a model with the same weights.

        Raises:
            UserError: the file cannot be read, or belongs to another model.
        """
        try:
            with safetensors.safe_open(str(path), framework="pt") as file:
                facts = json.loads((file.metadata() or {}).get("metatrain", "{}"))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (a file is no dictionary)
        except (OSError, safetensors.SafetensorError, json.JSONDecodeError) as error:
            raise UserError(f"{path} cannot be read: {error}") from error
        if facts.get("format") != _FORMAT:
            raise UserError(f"{path} is not a task saved by metatrain")
        if facts["model"] != self._fingerprint():
            raise UserError(f"{path} was adapted from a model with different weights; load that model, or adapt again")
        return Task(self, facts["labels"], {name: value.to(self._learner.model.device) for name, value in tensors.items()}, facts["threshold"])

    def _fingerprint(self) -> str:
        """Tells models with other weights apart: a sum over every meta-parameter."""
        return f"{sum(float(value.double().sum()) for value in self._learner.parameters.values()):.9e}"

    def _logits(self, own: Mapping[str, Tensor], texts: Sequence[str]) -> Tensor:
        parameters: Parameters = {**self._learner.initial, **own}
        return self._encodings.logits(parameters, self._tokens.encode(texts)).cpu()


@dataclass(frozen=True)
class Task:
    """A task that a model has adapted to."""

    model: FewShotModel
    labels: list[str]
    own: Parameters  # what adaptation changed, the head among it
    threshold: float | None  # a text whose highest logit is below it is of none of the labels

    def predict(self, texts: Iterable[Text]) -> list[str]:
        """A label for each text, which is read as `metatrain predict` reads it; `none_of_these` where the task allows it.

        Raises:
            UserError: it is one text instead of several, or one of them is no text that a tokenizer can read.
        """
        if not (texts := _listed(texts)):
            return []
        logits = self.model._logits(self.own, texts)
        none = is_none(logits, self.threshold).tolist()
        return [NONE if unlike else self.labels[label] for unlike, label in zip(none, logits.argmax(1).tolist())]

    def probabilities(self, texts: Iterable[Text]) -> np.ndarray:
        """Return the label probabilities, [texts, labels]; raises what `predict` raises."""
        texts = _listed(texts)
        return self.model._logits(self.own, texts).softmax(1).numpy() if texts else np.zeros((0, len(self.labels)))

    def save(self, path: str | Path) -> None:
        """Write the task beside the model: nothing but tensors and the names of the labels."""
        facts = {"format": _FORMAT, "labels": self.labels, "threshold": self.threshold, "model": self.model._fingerprint()}
        tensors = {name: value.contiguous().cpu() for name, value in self.own.items()}
        with atomic_file(Path(path)) as temporary:
            safetensors.torch.save_file(tensors, temporary, metadata={"metatrain": json.dumps(facts, ensure_ascii=False)})


def _check_spelling(labels: Iterable[str]) -> None:
    """Raises: UserError: two labels differ in nothing that can be seen."""
    spellings: dict[str, str] = {}
    for label in labels:
        other = spellings.setdefault(clean_label(label), label)
        if other != label:
            raise UserError(f"the labels {ascii(other)} and {ascii(label)} look the same; spell them the same way")


def _example(example: object, where: str) -> tuple[str, str]:
    """An example as it is learned from: (text, label)."""
    if isinstance(example, (tuple, list)) and len(example) == 2:
        text, label = example
        if _is_text(text) and isinstance(label, str):
            if has_lone_surrogate(label):
                raise UserError(f"{where}: the label {label!r} has half a character (a lone surrogate)")
            return _read(text, where), label
    raise UserError(f"{where} must be a pair of strings (text, label), not {example!r}")


def _listed(texts: Iterable[Text]) -> list[str]:
    """The texts, of a column of a table, say, as they are read."""
    if isinstance(texts, str):
        raise UserError("texts must be a list of strings, not a string; use [text]")
    return [_read(text, f"texts[{number}]") for number, text in enumerate(texts)]


def _read(text: Text, where: str) -> str:
    """A text, or two that belong together, as the tokenizer is given it."""
    if not _is_text(text):
        raise UserError(f"{where} must be a string, not {text!r}")
    parts = (text,) if isinstance(text, str) else text
    if any(map(has_lone_surrogate, parts)):
        raise UserError(f"{where} has half a character (a lone surrogate): {text!r}")
    return PAIR.join(map(plain, parts))


def _is_text(text: object) -> bool:
    return isinstance(text, str) or (isinstance(text, tuple) and len(text) == 2 and all(isinstance(part, str) for part in text))
