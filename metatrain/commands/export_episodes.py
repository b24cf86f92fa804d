"""`metatrain tasks export=FILE`: write the episodes that `metatrain train` draws with the same settings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from metatrain.commands.effects import effects_of
from metatrain.config.compose import run_under_hydra
from metatrain.config.schema import TrainConfig
from metatrain.errors import UserError

if TYPE_CHECKING:
    from metatrain.tasks.episodes import Episode
    from metatrain.tasks.task import TaskDistribution

_OWN = ("export", "split")  # settings that `metatrain train` does not have


def is_export(arguments: list[str]) -> bool:
    """Return whether the arguments of `metatrain tasks` ask for an export."""
    return any(item.startswith("export=") for item in arguments)


def main(arguments: list[str]) -> None:
    """Entry point; the arguments are `export`, `split`, and settings of `metatrain train`."""
    own = {key: value for key, _, value in (item.partition("=") for item in arguments) if key in _OWN}

    def start(config: TrainConfig, path: Path, overrides: list[str]) -> None:
        export(config, own["export"], own.get("split", "meta_test"))

    rest = [item for item in arguments if item.partition("=")[0] not in _OWN]
    run_under_hydra("plan", rest, TrainConfig, start, program="metatrain tasks", effects=effects_of)  # as train, but without a run directory


def export(config: TrainConfig, file: str, split: str) -> None:
    """Write the episodes of a split.

    Raises:
        UserError: there is no such split, its episodes depend on the course of training, or they cannot be drawn.
    """
    from metatrain.run.atomic import place_for, write_lines
    from metatrain.tasks.distribution import load_tasks
    from metatrain.tasks.episode_file import line_of
    from metatrain.tasks.episodes import SPLITS
    from metatrain.tracking.console import Display

    if split not in SPLITS:
        raise UserError(f"split={split} is unknown; choose one of {', '.join(SPLITS)}")
    path = place_for("export", file, (".jsonl",))
    with Display() as display:
        tasks = load_tasks(config.tasks, config.seed, hold_out_seed=config.evaluation.seed_of(config.seed))
        for note in tasks.notes:
            display.say(note)
        number = write_lines(path, (line_of(episode, split, index) for index, episode in _episodes(config, tasks, split)))
        display.say(f"{number} {split.replace('_', '-')} episodes: {path}")


def _episodes(config: TrainConfig, tasks: TaskDistribution, split: str) -> Iterator[tuple[int, Episode]]:
    """Yield the episodes of a split, each with its index."""
    from metatrain.evaluation.protocol import episode_settings
    from metatrain.tasks.episodes import check_tasks, task_episode, training_episode
    from metatrain.training.check import validation_settings

    if split == "meta_train":
        if config.tasks.sampling.by != "fixed":
            raise UserError(f"split=meta_train: with tasks.sampling.by={config.tasks.sampling.by}, episodes depend on the losses; set tasks.sampling.by=fixed")
        check_tasks(tasks.meta_train, config.episode, split)
        for index in range(config.outer.steps * config.outer.meta_batch):
            yield index, training_episode(tasks, config.episode, config.seed, index)
        return
    if split == "meta_validation":
        kinds, number, seed = [validation_settings(config)], config.validation.episodes, config.seed
    else:
        kinds = [episode_settings(config.episode, config.evaluation, shots) for shots in config.evaluation.shots]
        number, seed = config.evaluation.episodes, config.evaluation.seed_of(config.seed)
    for settings in kinds:
        check_tasks(tasks.split(split), settings, split)
        for task in tasks.split(split):
            for index in range(number):
                yield index, task_episode(task, settings, seed, split, index)
