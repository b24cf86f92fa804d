"""`metatrain ls [KIND]`: list the options of config groups, components, and the runs below outputs/."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metatrain.errors import UserError
from metatrain.plugins import installed

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

USAGE = """\
usage: metatrain ls [experiments|algorithms|models|tasks|arms|plugins|runs] [NAME] [--config-dir DIR]

List experiments with their results, methods with their papers, models, task distributions, arms, installed plug-ins, or the runs below outputs/
with their state and score. With NAME, print its full description. Without arguments, list all names and the newest runs. --config-dir adds your
own configuration folder.

examples:
  metatrain ls experiments
  metatrain ls experiments sentiment_fewshot
  metatrain ls runs
"""

_GROUPS = {"experiments": "experiment", "algorithms": "algorithm", "models": "model", "tasks": "tasks"}
_TABLES = ("arms", "plugins", "runs")
_NEWEST = 5
_WIDEST = 10_000
_SHORT = "In short: "  # first words of an experiment's comment
_PARTS = "(?:Shows|Result|Cost|Equation|Check)"  # first words of its other parts


def main(arguments: list[str]) -> None:
    """Entry point."""
    from rich.console import Console

    from metatrain.config.compose import conf_dir
    from metatrain.config.overrides import split_flags

    arguments, flags = split_flags(arguments)
    folders = [*_own_folders(flags), conf_dir()]
    if arguments and arguments[0] not in (*_GROUPS, *_TABLES):
        raise UserError(f"metatrain ls lists one of {', '.join((*_GROUPS, *_TABLES))}, not {' '.join(arguments)}")
    if len(arguments) > 2 or (len(arguments) == 2 and arguments[0] not in _GROUPS):
        raise UserError(f"metatrain ls takes a kind, and a name of one of {', '.join(_GROUPS)}, not {' '.join(arguments)}")
    console = Console(highlight=False, markup=False)
    if len(arguments) == 2:
        console.print("\n".join(_head(_option(arguments[0], arguments[1], folders))), soft_wrap=True)
        return
    if arguments and arguments[0] in _TABLES:
        _print_whole(console, {"arms": _arms, "plugins": _plugins, "runs": _runs}[arguments[0]]())
        return
    if arguments:
        console.print(_options(arguments[0], folders))
        return
    for kind in _GROUPS:
        console.print(f"{kind}: {', '.join(_files(kind, folders))}", soft_wrap=True)
    if plugins := [f"{name} ({kind})" for kind, name, _ in installed()]:
        console.print(f"plug-ins: {', '.join(plugins)}", soft_wrap=True)
    _print_whole(console, _runs(_NEWEST))


def _own_folders(flags: list[str]) -> list[Path]:
    """Return the folder of `--config-dir`, if it is given.

    Raises:
        UserError: there is no such folder, or another flag.
    """
    if not flags:
        return []
    flag, value = flags[0].partition("=")[::2] if "=" in flags[0] else (flags[0], " ".join(flags[1:]))
    if flag not in ("--config-dir", "-cd"):
        raise UserError(f"metatrain ls takes --config-dir DIR, not {' '.join(flags)}")
    if not Path(value).is_dir() or not value:
        raise UserError(f"--config-dir={value}: no such folder")
    return [Path(value)]


def completions(before: list[str]) -> list[str]:
    """Return the completions: a kind, then one of its names."""
    from metatrain.config.compose import conf_dir

    if not before:
        return [*_GROUPS, *_TABLES]
    return list(_files(before[0], [conf_dir()])) if len(before) == 1 and before[0] in _GROUPS else []


def _print_whole(console: Console, table: Table) -> None:
    """Print a table without wrapping, even if the terminal is narrower, so that names can be copied and `grep` finds whole rows."""
    from rich.measure import Measurement

    console.width = max(console.width, Measurement.get(console, console.options.update(max_width=_WIDEST), table).maximum)
    console.print(table)


def _files(kind: str, folders: Sequence[Path]) -> dict[str, Path]:
    """Return the files of a config group by name, sorted; of two files with the same name, that of the first folder."""
    found = {path.stem: path for folder in reversed(folders) for path in (folder / _GROUPS[kind]).glob("*.yaml")}
    return dict(sorted(found.items()))


def _option(kind: str, name: str, folders: Sequence[Path]) -> Path:
    """Raises: UserError: there is no file of that name."""
    from metatrain.config.explain import suggestion

    files = _files(kind, folders)
    if name not in files:
        raise UserError(f"there is no {name} among the {kind}: {', '.join(files)}{suggestion(name, files)}")
    return files[name]


def _options(kind: str, folders: Sequence[Path]) -> Table:
    """Return a table of the files of a config group, with the first sentence of their first comments."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column(kind, no_wrap=True)
    table.add_column("in short; more: metatrain ls experiments NAME" if kind == "experiments" else "what", overflow="fold")
    for name, path in _files(kind, folders).items():
        table.add_row(name, _sentence(re.sub(rf" {_PARTS}: .*", "", " ".join(line.strip() for line in _head(path)))).removeprefix(_SHORT))
    return table


def _head(path: Path) -> list[str]:
    """Return the lines of the comment that a file of conf/ begins with, without its command and package lines."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        text = line.removeprefix("#").removeprefix(" ").rstrip()
        if not text.lstrip().startswith(("@package", "metatrain ")):
            lines.append(text)
    return lines


def _sentence(text: str) -> str:
    """Return the first sentence; a full stop in a number, a name or an abbreviation does not end it."""
    found = re.match(r"(.*?[^.A-Z]{2}\.)(?= [A-Z(]|$)", text)
    return found[1] if found and "et al." not in found[1][-7:] else text


def _arms() -> Table:
    """Return a table of the arms, those of plug-ins included."""
    from metatrain.evaluation.arms import names_of_arms, row_of

    return _table(("arm", "what it is"), [(name, row_of(name).description) for name in names_of_arms()])


def _plugins() -> Table:
    """Return a table of the components that installed packages register."""
    return _table(("kind", "name", "package"), list(installed()) or [("none are installed", "", "")])


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def _runs(max_runs: int | None = None) -> Table:
    """Return a table of the runs below outputs/, newest first."""
    from rich.table import Table

    found = sorted(_read_runs(), key=lambda run: run["started"], reverse=True)
    caption = None if max_runs is None or len(found) <= max_runs else f"{len(found) - max_runs} more: metatrain ls runs"
    table = Table(box=None, padding=(0, 2, 0, 0), caption=caption, caption_justify="left")
    for column in ("run", "command", "started", "state", "score"):
        table.add_column(column, no_wrap=True)
    for run in found[:max_runs]:
        table.add_row(run["path"], run["command"], run["started"][:16].replace("T", " "), run["state"], run["score"])
    if not found:
        table.add_row("none yet below outputs/")
    return table


def _read_runs() -> Iterator[dict[str, str]]:
    from metatrain.run.hints import shown
    from metatrain.run.latest import run_records

    for path in run_records():
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            score = _score(path.parent)
        except (ValueError, KeyError, OSError) as error:
            record, score = {"state": "unreadable"}, str(error)
        yield {
            "path": shown(path.parent.absolute()),
            "command": record.get("command", ""),
            "started": str(record.get("started", "")),
            "state": _state(path.parent, record),
            "score": score,
        }


def _state(folder: Path, record: dict[str, Any]) -> str:
    """Return the recorded state of a run; `running` only if a process holds its lock, otherwise it was killed."""
    from metatrain.run.directory import RunDirectory

    state = record.get("state", "")
    if state != "running":
        return state
    try:
        if RunDirectory(folder).is_held():
            return "running"
    except OSError:
        return "running, or killed"  # the lock belongs to another user
    return "killed; resumable" if record.get("command") == "train" else "killed"


def _score(folder: Path) -> str:
    """Return the test score, or else the best validation score so far."""
    from metatrain.tracking.console import mean_of
    from metatrain.tracking.metrics import read_metrics, validation_scores

    if (folder / "results.json").exists():
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        if "arms" in results:
            arm = results["arms"].get("meta_trained") or next(iter(results["arms"].values()))
            return f"{mean_of(arm)} ({results['protocol']['shots'][0]}-shot)"
        test, folds = results.get("test", {}), results.get("cross_validation") or {}
        if "accuracy" in test and "mean_absolute_error" not in test:
            return f"{100 * test['accuracy']:.1f} on {test['examples']} {'examples' if test.get('held_out', True) else 'training examples'}"
        for kind, scores in (("", test), ("cross-validated ", folds)):
            if "micro_f1" in scores:
                return f"{kind}micro F1 {100 * scores['micro_f1']:.1f} on {scores['examples']} examples"
            if "mean_absolute_error" in scores:
                return f"{kind}mean absolute error {scores['mean_absolute_error']:.3f} on {scores['examples']} examples"
        return f"cross-validated {100 * folds['accuracy']:.1f}" if "accuracy" in folds else ""
    scores = validation_scores(read_metrics(folder / "metrics.jsonl"))
    return f"validation {100 * max(scores):.1f}" if scores else ""
