"""`metatrain tasks`: what a task distribution holds, and whether its splits are clean."""

from __future__ import annotations

from pathlib import Path

from metatrain.config.compose import run_under_hydra
from metatrain.config.schema import TasksCommandConfig

_SHOWN = 3  # near-duplicates that are shown
_NAMED = 0.1  # more of the texts than this name their own label than name another


def main(arguments: list[str]) -> None:
    """Entry point; `arguments` are Hydra's."""
    run_under_hydra("tasks", arguments, TasksCommandConfig, start)


def start(config: TasksCommandConfig, path: Path, overrides: list[str]) -> None:
    """Print a row per task, and what the audit finds."""
    import numpy as np
    from rich.table import Table

    from metatrain.tasks.audit import named_labels, near_duplicates
    from metatrain.tasks.distribution import load_tasks
    from metatrain.tasks.episodes import SPLITS
    from metatrain.tracking.console import Display

    tasks = load_tasks(config.tasks, config.seed)
    with Display() as display:
        table = Table(title=f"{tasks.name} ({config.tasks.path})", title_justify="left")
        for column in ("split", "task", "rows", "words", "classes"):
            table.add_column(column, justify="right" if column in ("rows", "words") else "left")
        for split in SPLITS:
            for task in tasks.split(split):
                counts = [f"{name} {int((task.labels == number).sum())}" for number, name in enumerate(task.label_names)]
                shown = ", ".join(counts[:4]) + (f" and {len(counts) - 4} more" if len(counts) > 4 else "")
                words = [len(text.split()) for text in task.texts]
                table.add_row(split, task.name, str(len(task.texts)), f"{np.median(words):.0f} (to {max(words)})", shown)
        display.table(table)
        for note in tasks.notes:
            display.say(note)

        for split in SPLITS:
            for task in tasks.split(split):
                if task.way is not None:
                    continue  # a word that is masked is in no text of its own
                own, others = named_labels(task)
                if own > others + _NAMED:
                    display.say(f"warning: in task '{task.name}', {own:.0%} of the texts contain the name of their label, and {others:.0%} that of another")
        pairs = near_duplicates(tasks)
        for pair in pairs[:_SHOWN]:
            display.say(
                f"warning: nearly the same text in {pair.split} ({pair.task}) and {pair.other_split} ({pair.other_task}), similarity {pair.similarity:.2f}: "
                f"{_begin(pair.text)!r} and {_begin(pair.other_text)!r}"
            )
        if pairs:
            display.say(f"{len(pairs)} texts of held-out tasks are nearly those of another split")
        else:
            display.say("no text of a held-out task is nearly one of another split")


def _begin(text: str, most: int = 60) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."
