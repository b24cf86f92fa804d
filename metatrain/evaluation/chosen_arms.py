"""Choice of the arms of an evaluation: the defaults of a method or those of `evaluation.arms`, checked against their requirements."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from metatrain.errors import UserError
from metatrain.evaluation.arms import ENCODERS, INNER_LOOP, JOINT, LABEL_NAMES, LANGUAGE_MODELS, ROWS, UNTRAINED_LANGUAGE_MODEL, names_of_arms, row_of
from metatrain.evaluation.config import EvaluationConfig
from metatrain.meta.algorithm import reads_label_names
from metatrain.meta.config import AlgorithmConfig
from metatrain.meta.learner import Learner
from metatrain.models.heads import head_facts
from metatrain.plugins import check_installed
from metatrain.tasks.task import Task
from metatrain.tasks.texts import PAIR


def chosen_arms(config: EvaluationConfig, algorithm: AlgorithmConfig, tasks: Sequence[Task]) -> list[str]:
    """Names of the arms that are compared on these tasks.

    Raises:
        UserError: one is unknown, or needs what is not there.
    """
    several = next((task.name for task in tasks if task.label_sets is not None), None)
    if config.arms is None:
        comparisons = _comparisons(config, algorithm)
        return [name for name, row in ROWS.items() if comparisons & set(row.default_in) and (several is None or row.reads_label_sets)]
    if config.arms:
        check_arms(config.arms)
    for name in config.arms:
        row = row_of(name)
        if row.needs_encodings and head_facts(algorithm.head).is_language_model:
            raise UserError(f"evaluation.arms: {name} needs encodings, and algorithm.head={algorithm.head} has none; remove it")
        if row.encodes_names and head_facts(algorithm.head).reads_word_embeddings:
            raise UserError(f"evaluation.arms: {name} encodes label names as texts, and algorithm.head={algorithm.head} predicts them as words; remove it")
        if row.needs_language_model and not head_facts(algorithm.head).is_language_model:
            raise UserError(f"evaluation.arms: {name} needs a language model, and algorithm.head={algorithm.head} is of an encoder; remove it")
        if row.needs_joint and config.joint is None:
            raise UserError(f"evaluation.arms: {name} needs a run of joint training: metatrain train algorithm=multitask ..., then evaluation.joint=RUN")
        if row.needs_label_names and not reads_label_names(algorithm):
            raise UserError(f"evaluation.arms: {name} needs label names; set algorithm.label_names=true, or remove it")
        if several is not None and not row.reads_label_sets:
            able = ", ".join(name for name, row in ROWS.items() if row.reads_label_sets)
            raise UserError(f"evaluation.arms: {name} predicts one label, and task '{several}' has several labels per text; choose from {able}")
    return list(config.arms)


def _comparisons(config: EvaluationConfig, algorithm: AlgorithmConfig) -> set[str]:
    """The comparisons whose defaults apply to a method."""
    head = head_facts(algorithm.head)
    if head.is_language_model:
        return {LANGUAGE_MODELS} if head.reads_support else {LANGUAGE_MODELS, INNER_LOOP}
    return {ENCODERS} | ({LABEL_NAMES} if reads_label_names(algorithm) else set()) | ({JOINT} if config.joint else set())


def untrained_arms(learner: Learner, tasks: Sequence[Task]) -> list[str]:
    """Return the default arms of a language model without meta-training: those that can use the model and predict the tasks."""
    has_targets, found = any(task.targets is not None for task in tasks), []
    for name, row in ROWS.items():
        if UNTRAINED_LANGUAGE_MODEL in row.default_in and not (row.needs_labels and has_targets):
            with suppress(UserError):
                check_learner([name], learner)
                found.append(name)
    return found


def check_arms(names: Sequence[str]) -> None:
    """Raises: UserError: an arm is unknown or needs a package that is not installed, or there is none."""
    if not names:
        raise UserError(f"evaluation.arms is empty; choose from {', '.join(names_of_arms())}")
    for name in names:
        if package := row_of(name).package:
            check_installed(f"evaluation.arms: {name}", *package)


def check_learner(names: Sequence[str], learner: Learner) -> None:
    """Refuse, before anything is trained, arms that cannot use this learner's model.

    Raises:
        UserError: there is one.
    """
    for name in names:
        row = row_of(name)
        if row.needs_unlabelled and not learner.inner.fit_head:
            raise UserError(f"evaluation.arms: {name} needs a head fitted to the support set: set inner.fit_head=true, or remove it")
        if row.check_model is not None:
            row.check_model(learner.model)


def check_settings(names: Sequence[str], config: EvaluationConfig, tasks: Sequence[Task]) -> None:
    """Raises: UserError: an arm's settings make no sense, or it cannot read the tasks."""
    for name in names:
        row = row_of(name)
        if not row.reads_pairs and any(PAIR in task.texts[0] for task in tasks):
            raise UserError(f"evaluation.arms: {name} reads single texts, but the tasks have text pairs; remove it")
        texts = next((task.name for task in tasks if task.targets is not None), None)
        if row.needs_labels and texts is not None:
            raise UserError(f"evaluation.arms: {name} predicts labels, and task '{texts}' has target texts; remove it")
        if row.check_config is not None:
            row.check_config(config)
