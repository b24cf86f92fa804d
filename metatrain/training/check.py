"""Refuse training that cannot be done: before a model is loaded, or when a run is resumed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from metatrain.config.schema import TrainConfig
from metatrain.errors import UserError
from metatrain.evaluation.chosen_arms import check_arms
from metatrain.evaluation.protocol import check_answers, check_one_kind
from metatrain.evaluation.statistics import SCORES
from metatrain.evaluation.text_scores import check_scores
from metatrain.meta.algorithm import check_label_sets
from metatrain.models.heads import head_facts
from metatrain.run.hints import shown
from metatrain.tasks.config import EpisodeConfig
from metatrain.tasks.episodes import SPLITS, check_tasks
from metatrain.tasks.sampler import check_sampling
from metatrain.tasks.task import TaskDistribution
from metatrain.training.outer import check_outer

# Settings, or beginnings of their keys, that may change after training is complete.
_AFTER_TRAINING = ("evaluation.", "report", "tracking.", "hardware.", "checkpoint.", "name", "tasks.meta_test.", "episode.file")


def check_needs(config: TrainConfig) -> None:
    """Raises: UserError: an arm is unknown, or a package that the settings need is not installed; checked before tasks are read."""
    if config.evaluation.arms:
        check_arms(config.evaluation.arms)
    check_scores(config.tasks, computed=config.validation.every > 0 or config.evaluation.arms != [])


def check_training(config: TrainConfig, tasks: TaskDistribution) -> None:
    """Raises: UserError: a setting has an invalid value, or a task is too small for its episodes; checked before a model is loaded."""
    check_outer(config.outer)
    if config.checkpoint.every < 1 or config.checkpoint.keep < 1:
        raise UserError("checkpoint.every and checkpoint.keep must be 1 or more")
    if config.validation.every < 0 or config.validation.episodes < 1:
        raise UserError("validation.every must be 0 (never) or more, validation.episodes 1 or more")
    if config.validation.queries is not None and config.validation.queries < 1:
        raise UserError(f"validation.queries={config.validation.queries} must be 1 or more, or null")
    if config.validation.score not in SCORES:
        raise UserError(f"validation.score={config.validation.score} is unknown; choose one of {', '.join(SCORES)}")
    check_sampling(config.tasks.sampling)
    _check_number(config, tasks)
    check_tasks(tasks.meta_train, config.episode, "meta_train")
    per_label = head_facts(config.algorithm.head).row_per_label
    if config.episode.cross_task_fraction and per_label:
        raise UserError(
            f"episode.cross_task_fraction samples classes across tasks, for which algorithm.head={config.algorithm.head} has no rows; use only one of the two"
        )
    if per_label and any(task.way is not None for task in tasks.meta_train):
        raise UserError(
            f"self-supervised tasks have too many classes for algorithm.head={config.algorithm.head}, which keeps a row for each; use only one of the two"
        )
    check_label_sets([task for split in SPLITS for task in tasks.split(split)], config.algorithm, config.inner)
    check_answers(tasks.meta_train, config.algorithm, scored=False)
    check_answers(tasks.meta_validation, config.algorithm, scored=config.validation.every > 0)
    if config.validation.every:
        check_one_kind(tasks.meta_validation, "meta_validation")
        check_tasks(tasks.meta_validation, validation_settings(config), "meta_validation")


def _check_number(config: TrainConfig, tasks: TaskDistribution) -> None:
    """Raises: UserError: there are too few tasks to meta-train; a single file is usually a single task, to finetune on."""
    number = len(tasks.meta_train) + len(tasks.meta_validation) + len(tasks.meta_test)
    lacking = (
        not tasks.meta_train
        or (config.validation.every and not tasks.meta_validation)
        or (config.evaluation.arms != [] and not tasks.meta_test and config.episode.file is None)
    )
    if number < 3 and lacking:
        raise UserError(
            f"tasks.path={config.tasks.path} has {number} task{'s' * (number != 1)}, but meta-training needs 3 or more (for training, validation and test); "
            "give a folder with one file per task, or the column with the name of the task (tasks.task=COLUMN); "
            "to train on a single task: metatrain finetune data.train=FILE"
        )


def check_changes(config: TrainConfig, run: Path, step: int, changed: Sequence[str]) -> None:
    """Raises: UserError: settings of training change although training is complete at `step`; the run would record settings it was not trained with."""
    without_effect = [key for key in changed if not key.startswith(_AFTER_TRAINING)]
    if not without_effect:
        return
    if step < config.outer.steps:
        why = f"stopped early at step {step} (validation.patience={config.validation.patience})"
        remedy = "add validation.patience=null or a larger number"
    else:
        why, remedy = f"is complete at step {step}", "raise outer.steps"
    keys = ", ".join(without_effect)
    raise UserError(f"training of {shown(run)} {why}, so {keys} would have no effect; to continue training, {remedy}, or start a new run")


def validation_settings(config: TrainConfig) -> EpisodeConfig:
    """Return the episode settings of meta-validation."""
    return replace(config.episode, queries=config.validation.queries)
