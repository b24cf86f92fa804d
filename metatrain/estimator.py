"""A few-shot text classifier as a scikit-learn estimator; `fit` adapts a base to the examples as `metatrain finetune` does.

    classifier = metatrain.FewShotClassifier().fit(texts, labels)
    classifier.predict(["my order has not come"])
    classifier.save("tickets")                       # safetensors and JSON; metatrain.load("tickets") reads it

A fitted classifier holds its own copy of the model, so that it depends on no other directory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, Self

import numpy as np
import torch
from omegaconf import OmegaConf
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_consistent_length
from sklearn.utils.validation import check_is_fitted

from metatrain.checkpoints.class_balance import balance_of
from metatrain.checkpoints.finetuning import finetuned, open_for, write_finetuned
from metatrain.config.compose import typed
from metatrain.config.schema import FinetuneConfig
from metatrain.errors import UserError
from metatrain.estimator_input import check_labels_beside_none, classes_of, names_of, rows_of, seed_of, training_texts
from metatrain.inputs import read_text
from metatrain.meta.progress import Progress, Silent
from metatrain.models.export import is_none
from metatrain.models.finetuned import load_finetuned
from metatrain.models.finetuned_folder import NONE
from metatrain.models.folders import is_model
from metatrain.run import hardware
from metatrain.run.atomic import atomic_directory, write_json
from metatrain.run.config import HardwareConfig
from metatrain.tasks.episodes import Episode, given_episode
from metatrain.tasks.labels import label_notes
from metatrain.tracking.console import Display

SAVED = "classifier.json"
_FORMAT = "metatrain classifier 1"
# Settings of `metatrain finetune` that are parameters of the estimator.
_SETTINGS = {
    "algorithm": "algorithm.name",
    "head": "algorithm.head",
    "adapt": "algorithm.adapt",
    "label_names": "algorithm.label_names",
    "fit_head": "inner.fit_head",
    "fit_encoder": "inner.fit_encoder",
    "inner_lr": "inner.lr",
    "inner_steps": "inner.steps",
    "max_length": "model.max_length",
    "oos_false_rejection_rate": "oos_false_rejection_rate",
}


class FewShotClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Text classifier that learns from a few examples per class.

    Texts are a list, an array or a column of strings; pairs of texts are tuples of two strings, or two columns. Labels are strings, integers or
    truth values. The results are those of `metatrain finetune` with the same settings and the same examples in a file.

    Args:
        base: `everyday` (in the package), a run of `metatrain train`, `latest`, a model that it exported, or a Hugging Face encoder such as `minilm`.
        algorithm: method of a plain encoder (`metatrain ls algorithms`), for base="minilm" for example. None: the run's own; `leave_one_out` with a fitted head
            for a plain encoder.
        head: how the head is initialised (`algorithm.head`). None: as in the method.
        adapt: which parameters adapt (`algorithm.adapt`). None: as in the method.
        label_names: whether the label name of each class is an extra example. None: as in the method.
        fit_head: whether the head is fitted to the examples. None: as in the base.
        fit_encoder: whether the whole encoder is trained too, for minutes. None: as in the base.
        inner_lr: learning rate of inner steps. None: as in the base.
        inner_steps: number of inner steps. None: as in the base.
        max_length: truncate texts to this number of tokens. None: as in the base.
        oos_false_rejection_rate: fraction of in-scope texts that may be rejected; `predict` then returns `none_of_these` for out-of-scope texts.
            None: always predict a class.
        settings: any other settings of `metatrain finetune`, such as {"inner.head_lr": 0.1}.
        device: auto, cpu, cuda or mps.
        random_state: seed of what adaptation draws, such as the folds of cross-validation. None: 0, so that results repeat.
        verbose: 0: print nothing; 1: print what `metatrain finetune` prints of the adaptation.

    Attributes:
        classes_: the labels, sorted; the columns of `predict_proba`.
        seed_: the seed that `random_state` has given.
    """

    def __init__(
        self,
        base: str | Path = "everyday",
        *,
        algorithm: str | None = None,
        head: str | None = None,
        adapt: str | None = None,
        label_names: bool | None = None,
        fit_head: bool | None = None,
        fit_encoder: bool | None = None,
        inner_lr: float | None = None,
        inner_steps: int | None = None,
        max_length: int | None = None,
        oos_false_rejection_rate: float | None = None,
        settings: Mapping[str, Any] | None = None,
        device: str = "auto",
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ):
        self.base = base
        self.algorithm = algorithm
        self.head = head
        self.adapt = adapt
        self.label_names = label_names
        self.fit_head = fit_head
        self.fit_encoder = fit_encoder
        self.inner_lr = inner_lr
        self.inner_steps = inner_steps
        self.max_length = max_length
        self.oos_false_rejection_rate = oos_false_rejection_rate
        self.settings = settings
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any) -> Self:
        """Adapt the base to texts X with the labels y.

        Raises:
            ValueError: a text or a label cannot be read, there are fewer than two classes, or the base cannot be opened or cannot adapt.
        """
        with _value_errors():
            texts = training_texts(X)
            classes, names, labels = classes_of(y)
            check_consistent_length(texts, labels)
            seed = seed_of(self.random_state)
            config = self._config(seed)
            if config.oos_false_rejection_rate is not None:
                check_labels_beside_none(classes, names)
            episode = given_episode(texts, labels, len(texts), seed=seed)
            with _progress(self.verbose) as progress:
                for note in label_notes("y", names):
                    progress.say(note)
                self._files = _finetune(config, episode, progress)
            self._classifier = _loaded(self._files, self.device)
        self.seed_, self.classes_ = seed, classes
        self._order = [self._classifier.labels.index(name) for name in names]
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return the label of each text, [texts]; `none_of_these` for a text that is out of scope, with `oos_false_rejection_rate`.

        Raises:
            ValueError: a text cannot be read.
        """
        scores, is_rejected = self._scores(X)
        predicted = self.classes_[scores.argmax(1)]
        return np.where(is_rejected, NONE, predicted.astype(object)).astype(str) if is_rejected.any() else predicted

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the class probabilities, [texts, classes], columns as `classes_`; raises what `predict` raises."""
        scores, _ = self._scores(X)
        return torch.from_numpy(scores).softmax(1).numpy()

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the logits, [texts, classes]; of two classes the second minus the first, [texts]; raises what `predict` raises."""
        scores, _ = self._scores(X)
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def save(self, directory: str | Path) -> None:
        """Write the fitted classifier to a new directory, which `metatrain.load` and `metatrain predict model=DIR` read.

        Raises:
            NotFittedError: the classifier is not fitted.
            ValueError: the directory holds something else, or a parameter cannot be written as JSON.
        """
        check_is_fitted(self)
        folder = Path(directory)
        parameters = {**self.get_params(deep=False), "base": str(self.base), "random_state": self.seed_}
        with _value_errors():
            try:
                facts = json.loads(json.dumps({"format": _FORMAT, "parameters": parameters, "classes": self.classes_.tolist(), "seed": self.seed_}))
            except TypeError as error:
                raise UserError(f"the parameters of the classifier cannot be written as JSON: {error}") from error
            if folder.exists() and not (folder / SAVED).is_file() and not (folder.is_dir() and not any(folder.iterdir())):
                raise UserError(f"{directory} holds something else than a saved classifier; choose a new directory")
            with atomic_directory(folder) as temporary:
                _write(self._files, temporary)
                write_json(temporary / SAVED, facts)

    def __getstate__(self) -> dict[str, Any]:
        """Return plain values: the parameters, the classes, and the files of the model as bytes."""
        return {name: value for name, value in self.__dict__.items() if name != "_classifier"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore what `__getstate__` returned; the model is loaded when it is first used."""
        self.__dict__.update(state)
        if "_files" in state:
            self._classifier = None

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "classes_")

    def __sklearn_tags__(self) -> Any:
        """Return the tags: the input is a column of strings."""
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array = tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        return tags

    def _config(self, seed: int) -> FinetuneConfig:
        """Return the settings of `metatrain finetune`. Raises: UserError: one does not exist, or has another type."""
        given = {key: getattr(self, name) for name, key in _SETTINGS.items()} | dict(self.settings or {})
        settings = OmegaConf.create({"checkpoint": str(self.base), "seed": seed, "data": {"train": "y"}})
        for key, value in given.items():
            if value is not None:
                OmegaConf.update(settings, key, value)
        config: FinetuneConfig = typed(settings, FinetuneConfig)
        if "hardware.threads" not in given:
            config.hardware.threads = torch.get_num_threads()  # those of the process, which belong to the user
        if config.hardware.device == HardwareConfig().device:
            config.hardware.device = self.device
        return config

    def _scores(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        """(logits, [texts, classes]; which texts are out of scope, boolean, [texts])."""
        check_is_fitted(self)
        with _value_errors():
            texts = [read_text(text, f"X[{row}]") for row, text in enumerate(rows_of(X))]
            if self._classifier is None:
                self._classifier = _loaded(self._files, self.device)
            scores = self._classifier.scores(texts) if texts else torch.zeros(0, len(self.classes_))
            return scores[:, self._order].numpy(), is_none(scores, self._classifier.threshold).numpy()


def load_classifier(folder: Path, device: str = "auto") -> FewShotClassifier:
    """Return the classifier that `FewShotClassifier.save` has written.

    Raises:
        UserError: the directory cannot be read.
    """
    try:
        facts = json.loads((folder / SAVED).read_text(encoding="utf-8"))
        if facts["format"] != _FORMAT:
            raise ValueError(f"its format is {facts['format']!r}, not {_FORMAT!r}")
        found = FewShotClassifier(**{**facts["parameters"], "device": device})
        classes, found.seed_ = np.array(facts["classes"]), int(facts["seed"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / SAVED} cannot be read: {error}") from error
    found._files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and path.name != SAVED}
    found._classifier = _loaded(found._files, device)
    names = names_of(classes)
    if sorted(names) != sorted(found._classifier.labels):
        raise UserError(f"{folder / SAVED}: its classes {', '.join(names)} are not the labels of the model: {', '.join(found._classifier.labels)}")
    found._order = [found._classifier.labels.index(name) for name in names]
    found.classes_ = classes
    return found


@contextmanager
def _value_errors() -> Iterator[None]:
    """Raise a UserError as the ValueError that scikit-learn expects, with the same line."""
    try:
        yield
    except UserError as error:
        raise ValueError(str(error)) from error


@contextmanager
def _progress(verbose: int) -> Iterator[Progress]:
    if not verbose:
        yield Silent()
        return
    with Display() as display:
        yield display


def _finetune(config: FinetuneConfig, episode: Episode, progress: Progress) -> dict[str, bytes]:
    """Adapt as `metatrain finetune` does; return the files of the model directory. Raises: UserError: see `open_for` and `finetuned`."""
    balance = balance_of(config.data, episode)
    learner = open_for(config, episode.task, is_tested=False, say=progress.say)
    found = finetuned(learner, episode, progress, balance)
    threshold = found.threshold(config.oos_false_rejection_rate)
    with TemporaryDirectory(prefix="metatrain-") as name:
        folder = Path(name)
        write_finetuned(folder, learner, episode.task, found.parameters, threshold, found.reading, {"text": "text"}, found.prediction_sets())
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _loaded(files: Mapping[str, bytes], device: str) -> Any:
    """Return the model of a directory of these files. Raises: UserError: it cannot be read, or is no classifier of texts."""
    where, _, _ = hardware.apply(HardwareConfig(device=device, threads=torch.get_num_threads()))
    with TemporaryDirectory(prefix="metatrain-") as name:
        _write(files, Path(name))
        if not is_model(Path(name)):
            raise UserError("the directory has no model (config.json)")
        model = load_finetuned(Path(name), where)
    if model.labels is None or model.of_images:
        raise UserError("FewShotClassifier needs a base that classifies texts; use `metatrain finetune` and `predict` for images and generated texts")
    return model


def _write(files: Mapping[str, bytes], folder: Path) -> None:
    """Write files into a folder. Raises: UserError: one of them would lie elsewhere."""
    for name, content in files.items():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise UserError(f"the file {name!r} lies outside of the model's directory")
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
