"""`metatrain tasks add FILE`: detect the columns of a file of examples, and write the configuration of a task distribution."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from metatrain.errors import UserError

if TYPE_CHECKING:
    from metatrain.tasks.columns import Guess

USAGE = """\
usage: metatrain tasks add FILE [name=NAME] [text=COLUMN] [pair=COLUMN] [label=COLUMN] [target=COLUMN] [task=COLUMN] [folder=conf]

Detect the columns of a csv, tsv, jsonl or parquet file, check that few-shot episodes can be sampled from it, and write
FOLDER/tasks/NAME.yaml for `metatrain train --config-dir FOLDER tasks=NAME`. Columns that are given are not detected.

examples:
  metatrain tasks add tickets.csv
  metatrain tasks add tickets.csv name=support label=intent task=department
"""
_SETTINGS = ("name", "text", "pair", "label", "target", "task", "folder")
_SHOTS = (5, 1)
_MAX_TASKS, _MAX_CLASSES = 8, 20  # maximum numbers that are listed


def main(arguments: list[str]) -> None:
    """Entry point; the first argument is the file."""
    if not arguments:
        raise UserError("metatrain tasks add needs a file; see metatrain tasks add --help")
    from metatrain.config.compose import conf_dir
    from metatrain.paths import local_path
    from metatrain.run.hints import shell_quoted, typed_setting
    from metatrain.tasks.columns import guess_columns

    path, given = local_path(arguments[0]), _settings(arguments[1:])
    guess = guess_columns(path, {key: value for key, value in given.items() if key not in ("name", "folder")})
    name = given.get("name", re.sub(r"\W+", "_", path.name.split(".")[0]).strip("_").lower() or "mine")
    if not re.fullmatch(r"[\w-]+", name):
        raise UserError(f"name={name} must be letters, digits, - and _")
    for line in (*guess.notes, *_classes(guess)):
        print(line)
    shots = _shots(guess)
    config = Path(given.get("folder", "conf")) / "tasks" / f"{name}.yaml"
    if config.exists():
        raise UserError(f"{config} already exists; choose another name=NAME, or delete it")
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(_yaml(name, path.resolve(), guess), encoding="utf-8")
    choice = f"--config-dir {shell_quoted(str(config.parents[1]))} tasks={name}"
    print(f"written: {config}")
    if (conf_dir() / "tasks" / config.name).is_file():
        print(f"metatrain has a built-in tasks={name}; with --config-dir, yours replaces it")
    print(f"inspect it: metatrain tasks {choice}")
    if len(guess.tasks) >= 3:
        settings = f"episode.shots={shots} evaluation.shots=[{shots}]" + (" algorithm=fomaml algorithm.head=lm model=t5_small" if guess.columns.target else "")
        print(f"train on it: metatrain train {choice} {settings}")
    else:
        print(f"it has {len(guess.tasks)} task{'s' if len(guess.tasks) > 1 else ''}, and meta-training needs at least 3; to finetune on a single task:")
        columns = "".join(f" {typed_setting(f'data.{key}', value)}" for key, value in _unusual(guess).items())
        print(f"  metatrain finetune checkpoint=latest {typed_setting('data.train', path)}{columns}      (without a meta-trained model: checkpoint=minilm)")


def _settings(arguments: Sequence[str]) -> dict[str, str]:
    given = {}
    for argument in arguments:
        key, sign, value = argument.partition("=")
        if not sign or key not in _SETTINGS or not value:
            raise UserError(f"metatrain tasks add: cannot read {argument!r}; write FILE, then any of {', '.join(f'{each}=...' for each in _SETTINGS)}")
        given[key] = value
    return given


def _shots(guess: Guess) -> int:
    """Return the largest number in `_SHOTS` for which every class of every task has enough rows, with one left for a query.

    Raises:
        UserError: a class has a single row.
    """
    task, label, rows = min(((task, label, rows) for task, classes in guess.tasks.items() for label, rows in classes.items()), key=lambda each: each[2])
    shots = next((shots for shots in _SHOTS if rows > shots), None)
    if shots is None:
        raise UserError(
            f"class {label!r} of task '{task}' has a single row; an episode needs one support and one query example per class: add rows, or remove the class"
        )
    print(f"the smallest class ({label!r} of task '{task}') has {rows} rows: enough for {shots} shots")
    return shots


def _classes(guess: Guess) -> list[str]:
    """Return a line for each task, with its number of rows, and of rows per class."""
    lines = []
    for task, classes in list(guess.tasks.items())[:_MAX_TASKS]:
        rows = sum(classes.values())
        shown = ", ".join(f"{label} ({count})" for label, count in sorted(classes.items())[:_MAX_CLASSES])
        more = f" and {len(classes) - _MAX_CLASSES} more" if len(classes) > _MAX_CLASSES else ""
        lines.append(f"task '{task}': {rows} rows" + ("" if guess.columns.target else f" of {len(classes)} classes: {shown}{more}"))
    if len(guess.tasks) > _MAX_TASKS:
        lines.append(f"and {len(guess.tasks) - _MAX_TASKS} more tasks")
    return lines


def _unusual(guess: Guess) -> dict[str, str]:
    """Return the columns whose names differ from the defaults of finetune."""
    return {key: value for key, value in _found(guess).items() if key != "task" and (key in ("pair", "target") or value != key)}


def _found(guess: Guess) -> dict[str, str]:
    """Return the names of the columns that the file has, by kind."""
    columns = guess.columns
    found = {"text": columns.text, "pair": columns.pair, "label": columns.label, "target": columns.target, "task": columns.task}
    return {key: value for key, value in found.items() if value}


def _yaml(name: str, path: Path, guess: Guess) -> str:
    import yaml

    from metatrain.config.settings import escaped

    settings = escaped({"name": name, "path": str(path), **_found(guess), "meta_train": {"tasks": ["*"]}})
    sizes = ", ".join(f"{task} ({sum(classes.values())} rows)" for task, classes in list(guess.tasks.items())[:8])
    more = f" and {len(guess.tasks) - 8} more" if len(guess.tasks) > 8 else ""
    head = (
        f"# Written by: metatrain tasks add {path.name}\n# Tasks: {sizes}{more}.\n"
        "# Name tasks in meta_validation.tasks and meta_test.tasks to hold them out; otherwise a random fraction is held out.\n"
    )
    return head + yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=120)
