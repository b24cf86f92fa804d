"""`metatrain plan`: what a training run costs in time, memory and disk, from one real meta-update, and what would be cheaper."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from metatrain.commands.effects import effects_of
from metatrain.config.compose import run_under_hydra
from metatrain.config.schema import TrainConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from metatrain.commands.plan_costs import Cost


USAGE = """\
usage: metatrain plan [SETTING=VALUE ...]

Estimate the time, memory and disk of `metatrain train` with these settings from one real meta-update, and compare cheaper alternatives.
Writes nothing.

examples:
  metatrain plan +experiment=sentiment_fewshot
  metatrain plan model=minilm algorithm=maml inner.steps=8
"""
SHOWN = (
    "algorithm.adapt",
    "algorithm.meta_gradient",
    "inner.steps",
    "outer.steps",
    "outer.meta_batch",
    "episode.shots",
    "episode.queries",
    "model.name",
    "model.max_length",
    "hardware.max_memory",
)


def main(arguments: list[str]) -> None:
    """Entry point; `arguments` are Hydra's."""
    run_under_hydra("plan", arguments, TrainConfig, start, effects=effects_of)


def start(config: TrainConfig, path: Path, overrides: list[str]) -> None:
    """Measure one meta-update and one evaluation episode, and print the cost of the whole run."""
    from metatrain.commands.plan_costs import bytes_on_disk, costs, evaluation_seconds, prepared
    from metatrain.run.hardware import peak_memory
    from metatrain.tracking.console import Display
    from metatrain.tracking.durations import duration

    with Display() as display:
        run = prepared(config, display.say)
        found = costs(run)
        display.table(_table(found, len(run.episodes), config.outer.steps))
        if run.learner.steps(evaluation=False) == 0:
            display.say("no cheaper alternative: nothing adapts in meta-training (inner.steps=0)")
        training, evaluation, processes = found[0].seconds * config.outer.steps, evaluation_seconds(run), config.hardware.processes
        if processes > 1:
            parts = len(run.learner.groups(run.episodes)) if config.hardware.reduce == "ordered" else len(run.episodes)
            training, evaluation = training * math.ceil(parts / processes) / parts, evaluation / processes
        each = f" with {processes} processes" if processes > 1 else ""
        display.say(f"total: {duration(training + evaluation)}{each}, of which {duration(evaluation)} for validation and the meta-test")
        display.say(f"peak memory: about {peak_memory(run.device) / 1e9:.1f} GB")
        display.say(f"disk: {bytes_on_disk(config, run.learner) / 1e6:,.0f} MB for checkpoints and the model")


def _table(costs: Sequence[Cost], episodes: int, updates: int) -> Table:
    from rich.table import Table

    from metatrain.tracking.durations import duration

    table = Table(title=f"Cost of one meta-update of {episodes} episodes, and of {updates} meta-updates", title_justify="left")
    for column in ("", "seconds", "total", "memory MB"):
        table.add_column(column, justify="right" if column else "left")
    for cost in costs:
        table.add_row(cost.name, f"{cost.seconds:.2f}", duration(cost.seconds * updates), f"{cost.memory / 1e6:,.0f}")
    return table
