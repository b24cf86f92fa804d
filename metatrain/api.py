"""metatrain in Python: one meta-trained model, and many tasks served from it.

    model = metatrain.load("latest")
    task = model.adapt([("where is my parcel?", "delivery"), ("it broke", "complaint"), ...])
    task.predict(["my order has not come"])        # ["delivery"]
    task.save("tickets.safetensors")
    task = model.load_task("tickets.safetensors")  # or metatrain.load("tickets.safetensors")

A task stores only the adapted parameters: a few kilobytes if only the head adapts. The model itself is shared.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from metatrain.checkpoints.adaptation import adapted_to, check_no_label_is_none, check_none_of_these
from metatrain.checkpoints.opening import open_checkpoint
from metatrain.config.schema import AlgorithmOverrides, InnerOverrides, Overrides
from metatrain.errors import UserError
from metatrain.estimator import SAVED, FewShotClassifier, load_classifier
from metatrain.finetuned_model import FinetunedModel
from metatrain.gradient.inner_rules import HEAD
from metatrain.gradient.parameters import Parameters
from metatrain.inputs import Text, is_table, is_text, labelled_of_table, listed_texts, read_text
from metatrain.meta.language_learner import LanguageLearner
from metatrain.meta.learner import Learner
from metatrain.models.export import is_none
from metatrain.models.finetuned_folder import NONE, is_finetuned
from metatrain.models.folders import is_model, model_folder
from metatrain.paths import local_path
from metatrain.run import hardware
from metatrain.run.atomic import atomic_file
from metatrain.run.config import HardwareConfig
from metatrain.run.latest import pinned
from metatrain.tasks.encoded_episode import encode_episode
from metatrain.tasks.episodes import given_episode
from metatrain.tasks.labels import clean_label
from metatrain.tasks.texts import has_lone_surrogate

_FORMAT = "metatrain task 1"


def load(
    checkpoint: str | Path,
    device: str = "auto",
    fit_head: bool | None = None,
    fit_encoder: bool | None = None,
    algorithm: str | None = None,
    adapt: str | None = None,
) -> FewShotModel | FinetunedModel | FewShotClassifier | Task | Tasks:
    """Load what metatrain has written, or a plain Hugging Face encoder.

    - a run of `metatrain train`, `latest`, the model that it exported, or a plain encoder: a `FewShotModel`, which adapts to tasks;
    - a run of `metatrain finetune`, or its model directory: a `FinetunedModel`. With one of the settings of adaptation below, its encoder is
      opened instead, to adapt to other tasks;
    - a directory of `FewShotClassifier.save`: the `FewShotClassifier`, fitted;
    - a file of `Task.save`: its `Task`, and a folder of such files: `Tasks`, by their names.

    All but a `FewShotModel` have `predict(texts)`.

    fit_head: whether heads are fitted to the examples (`inner.fit_head`); fit_encoder: whether the whole encoder is trained on them too
    (`inner.fit_encoder`), where that is of use: it pays with many examples, and takes minutes. algorithm: the method for a plain encoder, such as
    "recommended", which only fits a head (`metatrain ls algorithms`); None: its last layers adapt, and a head is fitted. adapt: which parameters
    adapt (`algorithm.adapt`). None: as the run has it.

    Raises:
        UserError: there is no such thing, it cannot be read, or it is a model that can neither adapt to labels nor predict.
    """
    path, origin = local_path(str(checkpoint)), Origin(str(checkpoint), fit_head, fit_encoder, algorithm, adapt)
    if origin == Origin(str(checkpoint)):  # no setting of adaptation
        if path.is_file():
            return next(iter(_saved_tasks([path], device).values()))
        if (path / SAVED).is_file():
            return load_classifier(path, device)
        if is_finetuned(model_folder(path)):
            where, _, _ = hardware.apply(_on(device))
            return FinetunedModel(model_folder(path), where)
        if files := _task_files(path):
            return _saved_tasks(files, device)
    return open_model(origin, _on(device))


@dataclass(frozen=True)
class Origin:
    """Arguments of `load` from which a model was opened; a saved task has them, to open the model again."""

    checkpoint: str
    fit_head: bool | None = None
    fit_encoder: bool | None = None
    algorithm: str | None = None
    adapt: str | None = None

    @classmethod
    def of(cls, facts: Any) -> Origin | None:
        """Return the origin that a file states; None: it states none."""
        kinds = {"checkpoint": str, "fit_head": bool, "fit_encoder": bool, "algorithm": str, "adapt": str}
        if not isinstance(facts, dict) or not isinstance(facts.get("checkpoint"), str) or facts.keys() - kinds.keys():
            return None
        return cls(**facts) if all(value is None or isinstance(value, kinds[key]) for key, value in facts.items()) else None


def _on(device: str) -> HardwareConfig:
    return HardwareConfig(device=device, threads=torch.get_num_threads())


def open_model(origin: Origin, config: HardwareConfig) -> FewShotModel:
    """Open a model that adapts to tasks.

    Raises:
        UserError: there is no such model, or it reads no texts.
    """
    where, dtype, _ = hardware.apply(config)
    checkpoint = pinned(origin.checkpoint)
    settings = Overrides(
        AlgorithmOverrides(name=origin.algorithm, adapt=origin.adapt), InnerOverrides(fit_head=origin.fit_head, fit_encoder=origin.fit_encoder)
    )
    learner = open_checkpoint(origin.checkpoint, settings, where, dtype, lambda line: None).learner
    if learner.model.tokenizer is None:
        raise UserError(f"checkpoint={checkpoint}: metatrain.load supports models of texts only; use `metatrain finetune` and `predict` for other models")
    path = local_path(checkpoint)
    return FewShotModel(learner, replace(origin, checkpoint=str(path.resolve()) if path.exists() else checkpoint))


def _task_files(folder: Path) -> list[Path]:
    """Return the files of `Task.save` in a folder, sorted; none in the folder of a model."""
    return [] if is_model(folder) else [path for path in sorted(folder.glob("*.safetensors")) if _read_task(path)[0].get("format") == _FORMAT]


def _saved_tasks(files: Sequence[Path], device: str) -> Tasks:
    """Open saved tasks and the models that they were adapted from, each once.

    Raises:
        UserError: a file cannot be read or is no task, or its model has other weights now or is not there.
    """
    models: dict[Origin, FewShotModel] = {}
    found = {}
    for path in files:
        facts, _ = _read_task(path)
        if facts.get("format") != _FORMAT:
            raise UserError(f"{path} is not a task saved by metatrain")
        origin = Origin.of(facts.get("origin"))
        if origin is None:
            raise UserError(f"{path} does not say which model it was adapted from; use metatrain.load(MODEL).load_task({str(path)!r})")
        if origin not in models:
            try:
                models[origin] = open_model(origin, _on(device))
            except UserError as error:
                raise UserError(f"{path}: the model that it was adapted from cannot be opened: {error}") from error
        found[path.stem] = models[origin].load_task(path)
    return Tasks(found)


def _read_task(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return what a saved task states, and its tensors.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            facts = json.loads((file.metadata() or {}).get("metatrain", "{}"))
            return facts, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (a file is no dictionary)
    except (OSError, safetensors.SafetensorError, json.JSONDecodeError) as error:
        raise UserError(f"{path} cannot be read as a file of Task.save: {error}") from error


class FewShotModel:
    """A meta-trained model that adapts to tasks: an encoder, or a language model, which chooses among the label names."""

    def __init__(self, learner: Learner, origin: Origin | None = None):
        """origin: from where it was opened; None: its tasks do not say so."""
        self.origin = origin
        self._learner = learner
        self._tokens = learner.model.tokens()

    def adapt(self, examples: Iterable[tuple[Text, str]], none_of_these: float | None = None) -> Task:
        """Learn a task from pairs (text, label), some of every label.

        Examples may be a DataFrame with columns of usual names (text, label). A text is read as `metatrain finetune` reads it from a file: without
        the blanks around it.

        none_of_these: the share of texts of the labels that may be taken for none of them; None: every text is of one of the labels.

        Raises:
            UserError: an example is no such pair, there are fewer than two labels, two look the same, `none_of_these` is no share or needs more than one
                example of a label, or adaptation does not stay finite.
        """
        check_none_of_these(none_of_these, self._learner)
        read = [_example(example, f"examples[{number}]") for number, example in enumerate(labelled_of_table(examples) if is_table(examples) else examples)]
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
        reading = self._learner.reading(texts)
        return Task(self, list(episode.task.label_names), own, threshold, None if reading is None else reading.context)

    def load_task(self, path: str | Path) -> Task:
        """Load a task written by `Task.save`, for a model with the same weights.

        Raises:
            UserError: the file cannot be read, or belongs to another model.
        """
        facts, tensors = _read_task(Path(path))
        if facts.get("format") != _FORMAT:
            raise UserError(f"{path} is not a task saved by metatrain")
        if facts["model"] != self._fingerprint:
            raise UserError(f"{path} was adapted from a model with different weights; load that model, or adapt again")
        context = None if facts.get("context") is None else np.array(facts["context"], dtype=np.int64)
        own = {name: value.to(self._learner.model.device) for name, value in tensors.items()}
        return Task(self, facts["labels"], own, facts["threshold"], context)

    @functools.cached_property
    def _fingerprint(self) -> str:
        """Tells models with other weights apart: a sum over every meta-parameter."""
        return f"{sum(float(value.double().sum()) for value in self._learner.parameters.values()):.9e}"

    def predict(self, texts: Iterable[Text]) -> list[str]:
        """Raises: UserError: the model has not learned any labels; `adapt` returns a task, which predicts."""
        raise UserError("this model has no labels yet; adapt it to examples, task = model.adapt([(text, label), ...]), and use task.predict")

    def scores(self, requests: Sequence[tuple[Task, Sequence[str]]]) -> list[np.ndarray]:
        """Return the label scores (logits), [texts, labels], of texts for several tasks of this model; texts are as `read_text` returns them.

        Texts of tasks that adapt only the head are encoded together.
        """
        encodings = self._learner.encodings
        together = [place for place, (task, _) in enumerate(requests) if encodings is not None and all(name.startswith(HEAD) for name in task.own)]
        features: dict[int, Tensor] = {}
        if together and encodings is not None:
            ids = self._tokens.encode([text for place in together for text in requests[place][1]])
            features = dict(zip(together, encodings.features(ids).split([len(requests[place][1]) for place in together])))
        found = []
        for place, (task, texts) in enumerate(requests):
            if place not in features or encodings is None:
                found.append(self._logits(task, texts))
                continue
            with torch.no_grad():
                found.append(encodings.functional.logits_of({**self._learner.initial, **task.own}, features[place]).cpu())
        return [each.numpy() for each in found]

    def _logits(self, task: Task, texts: Sequence[str]) -> Tensor:
        parameters: Parameters = {**self._learner.initial, **task.own}
        read = self._tokens.encode(texts)
        if isinstance(self._learner, LanguageLearner):
            assert task.context is not None  # a task of a language model has one
            return self._learner.scores(parameters, read, task.labels, task.context).cpu()
        encodings = self._learner.encodings
        assert encodings is not None  # the learner is one of the two
        return encodings.logits(parameters, read).cpu()


@dataclass(frozen=True)
class Task:
    """A task that a model has adapted to."""

    model: FewShotModel
    labels: list[str]
    own: Parameters  # what adaptation changed, the head among it
    threshold: float | None  # a text whose highest logit is below it is of none of the labels
    context: np.ndarray | None = None  # token ids that a language model reads before each text; None: it is an encoder

    def predict(self, texts: Iterable[Text]) -> list[str]:
        """A label for each text, which is read as `metatrain predict` reads it; `none_of_these` where the task allows it.

        Raises:
            UserError: it is one text instead of several, or one of them is no text that a tokenizer can read.
        """
        if not (read := listed_texts(texts)):
            return []
        logits = self.model._logits(self, read)
        none = is_none(logits, self.threshold).tolist()
        return [NONE if unlike else self.labels[label] for unlike, label in zip(none, logits.argmax(1).tolist())]

    def probabilities(self, texts: Iterable[Text]) -> np.ndarray:
        """Return the label probabilities, [texts, labels]; raises what `predict` raises."""
        read = listed_texts(texts)
        return self.model._logits(self, read).softmax(1).numpy() if read else np.zeros((0, len(self.labels)))

    def save(self, path: str | Path, metadata: Mapping[str, str] | None = None) -> None:
        """Write the task beside the model: nothing but tensors and the names of the labels; metadata: further entries of the file's header."""
        facts: dict[str, Any] = {"format": _FORMAT, "labels": self.labels, "threshold": self.threshold, "model": self.model._fingerprint}
        if self.context is not None:
            facts["context"] = self.context.tolist()
        if self.model.origin is not None:
            facts["origin"] = asdict(self.model.origin)
        tensors = {name: value.contiguous().cpu() for name, value in self.own.items()}
        with atomic_file(Path(path)) as temporary:
            safetensors.torch.save_file(tensors, temporary, metadata={**(metadata or {}), "metatrain": json.dumps(facts, ensure_ascii=False)})


class Tasks(Mapping[str, Task]):
    """The tasks of a folder of files of `Task.save`, by the names of the files; those of one model share its weights."""

    def __init__(self, tasks: Mapping[str, Task]):
        self._tasks = dict(tasks)

    def __getitem__(self, name: str) -> Task:
        return self._tasks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tasks)

    def __len__(self) -> int:
        return len(self._tasks)

    def predict(self, texts: Iterable[Text]) -> dict[str, list[str]]:
        """Return the labels of the texts by the name of the task, as `Task.predict`; raises what it raises."""
        given = texts if isinstance(texts, str) else list(texts)
        return {name: task.predict(given) for name, task in self._tasks.items()}


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
        if is_text(text) and isinstance(label, str):
            if has_lone_surrogate(label):
                raise UserError(f"{where}: the label {label!r} has half a character (a lone surrogate)")
            return read_text(text, where), label
    raise UserError(f"{where} must be a pair of strings (text, label), not {example!r}")
