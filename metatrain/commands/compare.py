"""`metatrain compare RUN RUN ...`: what differs between runs, in their settings and in their scores on the same episodes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metatrain.errors import UserError

USAGE = """\
usage: metatrain compare RUN[:ARM] RUN[:ARM] ...

Compares runs of train or evaluate with the first: the settings that differ, validation over time, and the differences of their scores,
paired by episode where both saw the same episodes, with 95% intervals. ARM is meta_trained if it is left out.

examples:
  metatrain compare outputs/train/maml/A outputs/train/protonet/B
  metatrain compare outputs/latest outputs/latest:logistic_regression
"""

_RESAMPLES = 2000
_BARS = "▁▂▃▄▅▆▇█"
_SAME = ("split", "tasks", "way", "queries_per_class", "episodes_per_task", "seed")  # of a protocol: then the episodes are the same
_NOT_TOLD = ("name", "evaluation", "validation", "checkpoint", "tracking", "hardware")  # settings that change no training


@dataclass(frozen=True)
class Compared:
    """One of the runs."""

    name: str
    settings: dict[str, Any]
    results: dict[str, Any]
    arm: str
    curve: list[float]  # scores of validation, in order


def main(arguments: list[str]) -> None:
    """Entry point."""
    if "-h" in arguments or "--help" in arguments:
        print(USAGE)
        return
    if len(arguments) < 2:
        raise UserError("metatrain compare needs two runs or more: metatrain compare RUN RUN")
    from rich.console import Console

    runs = [_read(argument) for argument in arguments]
    console = Console(highlight=False, markup=False)
    for number, run in enumerate(runs):
        console.print(f"{_letter(number)} = {run.name}", soft_wrap=True)
    _show_settings(runs, console)
    for number, run in enumerate(runs):
        if run.curve:
            bars = "".join(_BARS[round((value - min(run.curve)) / (max(run.curve) - min(run.curve) or 1) * (len(_BARS) - 1))] for value in run.curve)
            console.print(f"validation of {_letter(number)}: {bars} {run.curve[0]:.3f} to {run.curve[-1]:.3f}, best {max(run.curve):.3f}")
    _show_scores(runs, console)


def _read(argument: str) -> Compared:
    """Raises: UserError: it is no run, has no results, or not this arm."""
    from omegaconf import OmegaConf

    from metatrain.config.settings import leaves
    from metatrain.tracking.metrics import validation_scores

    reference, _, arm = argument.partition(":")
    path, arm = Path(reference).expanduser(), arm or "meta_trained"
    try:
        results = json.loads((path / "results.json").read_text(encoding="utf-8"))
        settings = OmegaConf.to_container(OmegaConf.load(path / "config.yaml"))
    except FileNotFoundError as error:
        raise UserError(f"{reference} has no {Path(error.filename).name}: give a run of train or evaluate that has ended") from error
    except ValueError as error:
        raise UserError(f"{path / 'results.json'} cannot be read: {error}") from error
    if arm not in results.get("arms", {}):
        raise UserError(f"{reference} has no arm '{arm}'; there are {', '.join(results.get('arms', {})) or 'none'}")
    curve = validation_scores(path / "metrics.jsonl")
    return Compared(argument, dict(leaves(settings)), results, arm, curve)


def _show_settings(runs: Sequence[Compared], console: Any) -> None:
    from rich.table import Table

    keys = [key for key in dict.fromkeys(key for run in runs for key in run.settings) if key.split(".")[0] not in _NOT_TOLD]
    different = [key for key in keys if len({str(run.settings.get(key)) for run in runs}) > 1]
    if not different:
        console.print("settings: the same, but for those of evaluation, hardware and the like")
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("setting", *map(_letter, range(len(runs)))):
        table.add_column(column, overflow="fold")
    for key in different:
        table.add_row(key, *("null" if (value := run.settings.get(key)) is None else str(value) for run in runs))
    console.print(table)


def _show_scores(runs: Sequence[Compared], console: Any) -> None:
    from rich.table import Table

    first = runs[0]
    shared = [shots for shots in first.results["by_shots"] if all(shots in run.results["by_shots"] for run in runs)]
    if not shared:
        console.print("scores: the runs have no number of shots in common; metatrain evaluate checkpoint=RUN evaluation.shots=[...] makes them comparable")
    for shots in shared:
        table = Table(box=None, padding=(0, 2, 0, 0), title=f"{shots}-shot", title_justify="left")
        for column in ("run", "arm", "score", "minus A", "which is"):
            table.add_column(column)
        for number, run in enumerate(runs):
            arm = run.results["by_shots"][shots]["arms"][run.arm]
            paired = ("", "") if number == 0 else _paired(run, first, shots)
            table.add_row(_letter(number), run.arm, f"{100 * arm['mean']:.1f} ± {100 * arm['ci95']:.1f}", *paired)
        console.print(table)


def _paired(run: Compared, first: Compared, shots: str) -> tuple[str, str]:
    """(difference and interval, verdict), or why there is none."""
    from metatrain.evaluation.protocol import paired_difference

    other = [key for key in _SAME if run.results["protocol"].get(key) != first.results["protocol"].get(key)]
    if other:
        return "", f"not paired: another {', '.join(other)}"
    ours, theirs = (each.results["by_shots"][shots]["arms"][each.arm]["per_task"] for each in (run, first))
    if any("scores" not in task for task in (*ours.values(), *theirs.values())):
        return "", "not paired: a run of an earlier version; metatrain evaluate checkpoint=RUN makes its scores anew"
    mine, other_scores = ({task: found["scores"] for task, found in tasks.items()} for tasks in (ours, theirs))
    found = paired_difference(mine, other_scores, _RESAMPLES, run.results["protocol"]["seed"])
    low, high = found["ci95"]
    return f"{100 * found['difference']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]", found["verdict"]


def _letter(number: int) -> str:
    return chr(ord("A") + number) if number < 26 else f"run {number + 1}"
