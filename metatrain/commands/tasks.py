"""`metatrain tasks`: list the tasks of a distribution, check its splits for leakage, and measure task similarity."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from metatrain.commands import export_episodes
from metatrain.commands.effects import effects_of
from metatrain.config.compose import run_under_hydra
from metatrain.config.overrides import override_of_list
from metatrain.config.schema import TasksCommandConfig
from metatrain.plugins import check_installed

if TYPE_CHECKING:
    from rich.table import Table

    from metatrain.tasks.task import Task, TaskDistribution
    from metatrain.tracking.console import Display

_SHOWN = 3  # maximum number of near-duplicates shown
_NAMED = 0.1  # difference, in fractions of the texts, between those that contain their own label name and another one, from which it is reported


SUBCOMMANDS = {"add": "metatrain.commands.add_task"}
USAGE = """\
usage: metatrain tasks [tasks=NAME] [SETTING=VALUE ...]
       metatrain tasks export=FILE.jsonl [split=SPLIT] [SETTING=VALUE of train ...]
       metatrain tasks add FILE            write a configuration for a file: metatrain tasks add --help

Show the tasks of a distribution and check its splits for shared texts. With target, select, compare or map, measure task similarity and
suggest training tasks. With export, write the meta-test episodes that `metatrain train` draws with the same settings (split=meta_validation or
split=meta_train: those of validation or training), for other programs and for episode.file. With show, print prompts as a language model reads
them. Trains nothing.

examples:
  metatrain tasks tasks=reviews
  metatrain tasks tasks=files tasks.path=my_tasks/
  metatrain tasks tasks=reviews target=examples.csv select=4 map=tasks.png
  metatrain tasks tasks=reviews export=episodes.jsonl evaluation.shots=[1,5]
  metatrain tasks tasks=reviews model=smollm2 prompt=chat episode.shots=1 show=2
"""
SHOWN = (
    "tasks.path",
    "tasks.text",
    "tasks.label",
    "tasks.task",
    "tasks.overlap",
    "compare",
    "target",
    "select",
    "similarity_weight",
    "map",
    "export",
    "split",
    "show",
    "prompt.instruction",
    "model.name",
)


def main(arguments: list[str]) -> None:
    """Entry point; `arguments` are Hydra's."""
    if export_episodes.is_export(arguments):
        export_episodes.main(arguments)
        return
    run_under_hydra("tasks", arguments, TasksCommandConfig, start, effects=effects_of)


def start(config: TasksCommandConfig, path: Path, overrides: list[str]) -> None:
    """Print a row per task, the findings of the audit and, if requested, task similarities."""
    from metatrain.commands.shown_prompts import show_prompts
    from metatrain.tasks.distribution import load_tasks
    from metatrain.tracking.console import Display

    drawing = None if config.map is None else _place_for_map(config.map)
    tasks = load_tasks(config.tasks, config.seed)
    with Display() as display:
        display.table(_listing(tasks, f"{tasks.name} ({config.tasks.path or f'{len(config.tasks.sources)} sources'})"))
        for note in tasks.notes:
            display.say(note)
        _audit(tasks, display)
        if config.show is not None:
            show_prompts(config, tasks, display)
        if config.compare or config.target or config.select or config.map:
            _compare(config, tasks, drawing, display)


def _listing(tasks: TaskDistribution, title: str) -> Table:
    """Return a table with a row for each task."""
    import numpy as np
    from rich.table import Table

    from metatrain.tasks.episodes import SPLITS
    from metatrain.tasks.languages import languages

    everything = [(split, task) for split in SPLITS for task in tasks.split(split)]
    spoken = [None if task.of_images else languages(task.texts) for _, task in everything]
    table = Table(title=title, title_justify="left")
    for column in ("split", "task", "rows", "words", *(["languages"] if any(spoken) else []), "classes"):
        table.add_column(column, justify="right" if column in ("rows", "words") else "left")
    for (split, task), language in zip(everything, spoken):
        words = [0 if task.of_images else len(text.split()) for text in task.texts]
        length = "images" if task.of_images else f"{np.median(words):.0f} (to {max(words)})"
        table.add_row(split, task.name, f"{len(words)}", length, *([language or ""] if any(spoken) else []), _classes(task))
    return table


def _classes(task: Task) -> str:
    import numpy as np

    if task.targets is not None:
        words = [len(target.split()) for target in task.targets]
        return f"texts of {np.median(words):.0f} words (to {max(words)}), by {task.score}"
    counts = [f"{name} {int(task.has_label(number).sum())}" for number, name in enumerate(task.label_names)]
    if task.label_sets is not None:
        counts = [f"{task.label_sets.sum(1).mean():.2f} labels per text: {counts[0]}", *counts[1:]]
    return ", ".join(counts[:4]) + (f" and {len(counts) - 4} more" if len(counts) > 4 else "")


def _audit(tasks: TaskDistribution, display: Display) -> None:
    """Report tasks whose texts contain their label name, and held-out near-duplicates of texts in another split."""
    from metatrain.tasks.audit import named_labels, near_duplicates
    from metatrain.tasks.episodes import SPLITS
    from metatrain.tasks.texts import beginning

    for task in (task for split in SPLITS for task in tasks.split(split) if task.is_labelled and task.label_sets is None and not task.of_images):
        own, others = named_labels(task)
        if own > others + _NAMED:
            display.say(f"warning: in task '{task.name}', {own:.0%} of the texts contain their label name, and {others:.0%} another one")
    pairs = near_duplicates(tasks, lambda total: display.start("comparing texts", total), lambda texts: display.advance(by=texts))
    display.stop()
    for pair in pairs[:_SHOWN]:
        display.say(
            f"warning: near-duplicate texts in {pair.split} ({pair.task}) and {pair.other_split} ({pair.other_task}), similarity {pair.similarity:.2f}: "
            f"{beginning(pair.text)!r} and {beginning(pair.other_text)!r}"
        )
    if pairs:
        display.say(f"{len(pairs)} texts of held-out tasks are near-duplicates of texts in another split")
    else:
        display.say("no text of a held-out task is a near-duplicate of one in another split")


def _compare(config: TasksCommandConfig, tasks: TaskDistribution, drawing: Path | None, display: Display) -> None:
    """Print the similarity of each training task to the target and to its neighbours, the selection, and the map."""
    import torch
    from rich.table import Table

    from metatrain.errors import UserError
    from metatrain.evaluation.task_similarity import draw_map, select, similarity
    from metatrain.models.encoder import load_encoder
    from metatrain.run import hardware
    from metatrain.run.hints import shell_quoted
    from metatrain.tasks.episodes import SPLITS

    if not 0 <= config.similarity_weight <= 1:
        raise UserError(f"similarity_weight={config.similarity_weight} must be between 0 (diverse tasks) and 1 (tasks similar to the target)")
    if config.select is not None and not 1 <= config.select <= len(tasks.meta_train):
        raise UserError(f"select={config.select} must be between 1 and the number of training tasks, {len(tasks.meta_train)}")
    everything = [(split, task) for split in SPLITS for task in tasks.split(split) if task.way is None and not task.of_images]
    training = [row for row, (split, _) in enumerate(everything) if split == "meta_train"]
    target = None
    if config.target is not None:
        target, everything = _target(config, config.target, everything)
    device, _, _ = hardware.apply(config.hardware)
    encoder, notes = load_encoder(config.model, second_order=False, dtype=torch.float32)
    kind = config.compare or "embedding"
    display.say(f"{notes[0]}; task similarity by {kind}")
    display.start("comparing tasks", len(everything))
    found = similarity([task for _, task in everything], encoder.to(device), kind, display.advance)
    display.stop()

    table = Table(title="Training tasks, by similarity" + (f" to {found.names[target]}" if target is not None else ""), title_justify="left")
    for column in ("task", *(["similarity to target"] if target is not None else []), "most similar task", "similarity"):
        table.add_column(column, justify="right" if column in ("similarity to target", "similarity") else "left")
    for row in sorted(training, key=lambda row: -found.matrix[row, target] if target is not None else row):
        near = found.nearest(row, training) if len(training) > 1 else row
        to_target = [f"{found.matrix[row, target]:.3f}"] if target is not None else []
        table.add_row(found.names[row], *to_target, found.names[near], f"{found.matrix[row, near]:.3f}")
    display.table(table)
    display.say(f"diversity of the training tasks (1 minus mean similarity): {found.diversity(training):.3f}")
    if config.select is not None:
        chosen = select(found, training, target, config.select, config.similarity_weight)
        display.say(f"diversity of the suggested tasks: {found.diversity(chosen):.3f}")
        display.say(f"suggested tasks: {shell_quoted(override_of_list('tasks.meta_train.tasks', [found.names[row] for row in chosen]))}")
    if drawing is not None:
        draw_map(found, [split for split, _ in everything], drawing)
        display.say(f"map: {drawing}")


def _place_for_map(name: str) -> Path:
    """Raises: UserError: `matplotlib` is missing, the image format is unknown, or the file cannot be written."""
    from metatrain.run.atomic import place_for

    check_installed("map=FILE", "matplotlib", "explore")
    return place_for("map", name, (".png", ".svg", ".pdf"))


def _target(config: TasksCommandConfig, name: str, everything: Sequence[tuple[str, Task]]) -> tuple[int, list[tuple[str, Task]]]:
    """Return the position of the target among the tasks, and the tasks including it."""
    from metatrain.config.explain import suggestion
    from metatrain.errors import UserError
    from metatrain.paths import local_path
    from metatrain.tasks.distribution import task_of_file
    from metatrain.tasks.files import Columns
    from metatrain.tasks.rows import format_of
    from metatrain.tasks.sources import label_form

    path = local_path(name)
    if format_of(path):
        own = config.tasks
        return len(everything), [*everything, ("target", task_of_file(path, Columns(own.text, own.label, pair=own.pair), label_form(own, "tasks")))]
    names = [task.name for _, task in everything]
    if name not in names:
        raise UserError(f"target={name} is neither a task of {config.tasks.name} nor a data file{suggestion(name, names)}")
    # The last task of that name: held-out tasks come after training tasks, and the target is usually held out.
    return len(names) - 1 - names[::-1].index(name), list(everything)
