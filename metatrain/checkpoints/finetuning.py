"""The steps of finetuning that `metatrain finetune` and `FewShotClassifier` share: open a checkpoint, adapt to examples, write the model directory."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from metatrain.checkpoints.adaptation import adapted_to, check_fits_head, check_none_of_these, exported_head
from metatrain.checkpoints.class_balance import ClassBalance, check_balance
from metatrain.checkpoints.opening import open_checkpoint
from metatrain.config.schema import AlgorithmOverrides, DataConfig, FinetuneConfig, FinetuneInner, Overrides
from metatrain.errors import UserError
from metatrain.evaluation.protocol import check_answers
from metatrain.gradient.parameters import Parameters
from metatrain.meta.algorithm import reads_label_names
from metatrain.meta.head_fit import Fit
from metatrain.meta.learner import Learner
from metatrain.meta.progress import Progress
from metatrain.meta.sets_across_tasks import facts_for
from metatrain.models.export import read_recipe, save_finetuned
from metatrain.models.language_model import LanguageModel
from metatrain.models.peft_export import Base, loaded_from
from metatrain.models.prediction_sets import calibration
from metatrain.models.reading import Reading
from metatrain.models.targets import Number, SeveralLabels
from metatrain.run import hardware
from metatrain.tasks.encoded_episode import EncodedEpisode, encode_episode
from metatrain.tasks.episodes import Episode
from metatrain.tasks.label_names import unread_note
from metatrain.tasks.task import Task
from metatrain.tasks.tokens_per_word import language_note
from metatrain.training.memory_limit import fit_adaptation


def open_for(config: FinetuneConfig, task: Task, is_tested: bool, say: Callable[[str], None]) -> Learner:
    """Open the checkpoint and check that it can adapt to the task; return its learner, on the device of the settings.

    Raises:
        UserError: it cannot be opened or cannot adapt to the task.
    """
    device, dtype, notes = hardware.apply(config.hardware)
    for note in notes:
        say(note)
    settings = Overrides(config.algorithm, config.inner.of_checkpoint(), config.model, config.prompt)
    learner = open_checkpoint(config.checkpoint, settings, device, dtype, say, generates=True if task.targets is not None else None).learner
    learner = learner.with_budget(config.inner.budget, trains_encoder=config.inner.fit_encoder is not False)
    tokens = learner.model.tokens()
    tokens.check([task])
    for note in tokens.notes([task]):
        say(note)
    if not task.of_images and (hint := language_note(tokens.tokenizer, task.texts)) is not None:
        say(hint)
    check_answers([task], learner.algorithm, scored=is_tested)
    check_none_of_these(config.oos_false_rejection_rate, learner)
    check_balance(config.data, learner)
    check_unlabelled(config.data, learner)
    exported_head(learner)
    adapter_base(learner, config.export)
    if reads_label_names(learner.algorithm) and (unread := unread_note([(config.data.train, task.read_names)])):
        say(f"warning: {unread}")
    return learner.with_plan(fit_adaptation(config.hardware, learner, device))


def check_unlabelled(data: DataConfig, learner: Learner) -> None:
    """Raises: UserError: there are texts without labels, and the learner fits no head to encodings, or trains the whole encoder after it."""
    if data.unlabelled is None:
        return
    check_fits_head("data.unlabelled", learner)
    if learner.budget is not None:
        raise UserError("inner.budget estimates the time of learning from the examples, without that of data.unlabelled; remove one of the two")
    if learner.inner.fit_encoder:
        raise UserError("data.unlabelled changes the fitted head, which inner.fit_encoder=true trains further; set inner.fit_encoder=false")


@dataclass(frozen=True)
class Finetuned:
    """A learner adapted to the support set of an episode."""

    texts: EncodedEpisode
    parameters: Parameters
    loss: float  # of the support set, at the end
    fit: Fit | None  # of the head; None: the head was not fitted
    reading: Reading | None  # what a language model reads around every text; None: it is an encoder
    seconds: float  # adaptation time
    balance: ClassBalance
    across_tasks: dict[str, Any] | None  # calibration of prediction sets on other tasks, as of `sets_across_tasks.facts_of`; None: there is none

    def threshold(self, rejection_rate: float | None) -> float | None:
        """Return the threshold of the highest logit, below which a text is out of scope; None: every text gets a label."""
        return None if self.fit is None or rejection_rate is None else self.fit.threshold(rejection_rate)

    def prediction_sets(self) -> dict[str, Any] | None:
        """Return the calibration of prediction sets; None: no example was held out, and there is none on other tasks."""
        if self.fit is None or self.fit.held_out is None:
            return None if self.across_tasks is None else {"held_out": 0, "across_tasks": self.across_tasks}
        balance, labels = self.balance, np.asarray(self.texts.support_labels)
        weights = None if balance.priors is None or balance.shares is None else balance.priors / balance.shares
        return calibration(self.fit.held_out[: len(labels)].double().numpy(), labels, weights, self.across_tasks)


def finetuned(learner: Learner, episode: Episode, progress: Progress, balance: ClassBalance, unlabelled: Sequence[str] = ()) -> Finetuned:
    """Adapt to the support set of an episode; balance: its class weights and priors; unlabelled: texts without labels, of which the head learns too.

    Raises:
        UserError: adaptation diverges, or the examples exceed the positions of a language model.
    """
    tokens = learner.model.tokens()
    texts = replace(encode_episode(episode, tokens), class_weights=balance.weights)
    if unlabelled:
        texts = replace(texts, unlabelled=tokens.encode(unlabelled), reads_unlabelled=True)
    reading = learner.reading(texts)
    begin = time.perf_counter()
    parameters, loss, fit = adapted_to(learner, texts, progress)
    is_plain = balance.weights is None and balance.priors is None and not unlabelled  # as the episodes of the calibration are
    # They were calibrated on adaptations without a limit of time.
    across_tasks = facts_for(learner, texts, fit) if is_plain and learner.budget is None else None
    if fit is not None:  # as priors need, which `check_balance` has checked
        parameters, fit = balance.applied(parameters, fit)
    return Finetuned(texts, parameters, loss, fit, reading, time.perf_counter() - begin, balance, across_tasks)


def write_finetuned(
    folder: Path,
    learner: Learner,
    task: Task,
    parameters: Parameters,
    threshold: float | None,
    reading: Reading | None,
    columns: Mapping[str, str],
    prediction_sets: Mapping[str, Any] | None = None,
    descriptions: Mapping[str, str] | None = None,
    export: str | None = None,
) -> str:
    """Write the model directory of an adapted learner; return which library loads it.

    columns: names of the columns of the examples, `text` and perhaps `pair`; prediction_sets: their calibration, None: there is none; descriptions: label
    descriptions that replace labels of files, by label; export: setting of that name.
    """
    labels = None if task.targets is not None else list(task.label_names)
    model = learner.functional.write_to_model(parameters)
    columns_of_texts = None if task.of_images else columns
    head = exported_head(learner)
    base = adapter_base(learner, export)
    return save_finetuned(
        folder,
        model,
        parameters,
        labels,
        threshold,
        columns_of_texts,
        reading,
        head,
        prediction_sets=prediction_sets,
        descriptions=descriptions,
        adapter_of=base,
    )


def adapter_base(learner: Learner, export: str | None) -> Base | None:
    """Return the language model of which finetuning changes only the LoRA matrices; None: the whole model is written.

    Raises:
        UserError: `export` is set for a model that cannot be an adapter, or is no choice.
    """
    is_lora = isinstance(learner.model, LanguageModel) and (learner.algorithm.adapt, learner.algorithm.train) == ("lora", "adapted")
    base = loaded_from(learner.model) if is_lora else None
    if base is not None and read_recipe(Path(base.name)) is not None:
        base = None  # a meta-trained model with its LoRA matrices merged
    if export not in (None, "adapter", "merged"):
        raise UserError(f"export={export} is unknown; choose adapter or merged")
    if export is not None and base is None:
        raise UserError(f"export={export} is for a pretrained language model of which only LoRA matrices adapt; any other model is written whole, so remove it")
    return None if export == "merged" else base


def open_frozen(config: FinetuneConfig, task: Task, say: Callable[[str], None]) -> Learner:
    """Open the checkpoint as a learner whose encoder stays as it is; the label names of the task may be read as examples.

    Raises:
        UserError: it cannot be opened, or is a language model, which has no encodings.
    """
    method = AlgorithmOverrides(name=config.algorithm.name, label_names=config.algorithm.label_names, adapt="head")
    learner = open_for(replace(config, algorithm=method, inner=FinetuneInner(fit_head=True)), task, False, say)
    if learner.encodings is None:
        raise UserError(
            f"data.kind={config.data.kind} fits a head to encodings, and checkpoint={config.checkpoint} has none; give an encoder, minilm for example"
        )
    return learner


def write_frozen(
    folder: Path, learner: Learner, weight: Tensor, bias: Tensor, labels: Sequence[str], target: SeveralLabels | Number, columns: Mapping[str, str]
) -> str:
    """Write the model directory of a linear head on the encoder as it is; return which library loads it.

    weight: [labels, H]; bias: [labels]; columns: as of `write_finetuned`.
    """
    head = {"head.weight": weight, "head.bias": bias}
    return save_finetuned(folder, learner.load_model(), head, labels, columns=columns, target=target)
