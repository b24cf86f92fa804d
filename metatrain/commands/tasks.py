"""`metatrain tasks`: what a task distribution holds, and whether its splits are clean."""

from __future__ import annotations

from pathlib import Path

from metatrain.config.compose import run_under_hydra
from metatrain.config.schema import TasksCommandConfig


def main(arguments: list[str]) -> None:
    """Entry point; `arguments` are Hydra's."""
    run_under_hydra("tasks", arguments, TasksCommandConfig, start)


def start(config: TasksCommandConfig, path: Path, overrides: list[str]) -> None:
    """Print a row per task."""
    from rich.table import Table

    from metatrain.tasks.episodes import SPLITS
    from metatrain.tasks.sources import load_tasks
    from metatrain.tracking.console import Display

    tasks = load_tasks(config.tasks, config.seed)
    with Display() as display:
        table = Table(title=f"{tasks.name} ({config.tasks.path})", title_justify="left")
        for column in ("split", "task", "rows", "classes"):
            table.add_column(column, justify="right" if column == "rows" else "left")
        for split in SPLITS:
            for task in tasks.split(split):
                counts = [f"{name} {int((task.labels == number).sum())}" for number, name in enumerate(task.label_names)]
                shown = ", ".join(counts[:4]) + (f" and {len(counts) - 4} more" if len(counts) > 4 else "")
                table.add_row(split, task.name, str(len(task.texts)), shown)
        display.table(table)
        for note in tasks.notes:
            display.say(note)
