"""`metatrain compare RUN RUN ...`: what differs between runs, in their settings and in their scores on the same episodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metatrain.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

    from metatrain.report.record import Record

USAGE = """\
usage: metatrain compare RUN[:ARM] RUN[:ARM] ... [html=FILE]

Compares runs of train or evaluate with the first: the settings that differ, validation over time, and the differences of their scores,
paired by episode where both saw the same episodes, with 95% intervals. ARM is meta_trained if it is left out. With html=FILE as a page
with charts too.

examples:
  metatrain compare outputs/train/maml/A outputs/train/protonet/B html=comparison.html
  metatrain compare outputs/latest outputs/latest:logistic_regression
"""

_RESAMPLES = 2000
_SAME = ("split", "tasks", "way", "queries_per_class", "episodes_per_task", "seed")  # of a protocol: then the episodes are the same
_NOT_TOLD = ("name", "evaluation", "validation", "checkpoint", "tracking", "hardware", "report")  # settings that change no training


@dataclass(frozen=True)
class Compared:
    """One of the runs."""

    letter: str
    name: str
    record: Record
    settings: dict[str, Any]
    arm: str

    @property
    def results(self) -> dict[str, Any]:
        return self.record.results


@dataclass(frozen=True)
class Rows:
    """A table of the comparison."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def drawn(self) -> Table:
        from rich.table import Table

        table = Table(box=None, padding=(0, 2, 0, 0), title=self.title, title_justify="left")
        for column in self.columns:
            table.add_column(column, overflow="fold")
        for row in self.rows:
            table.add_row(*row)
        return table


def main(arguments: list[str]) -> None:
    """Entry point."""
    named = [argument for argument in arguments if not argument.startswith("html=")]
    pages = [argument.removeprefix("html=") for argument in arguments if argument.startswith("html=")]
    if len(named) < 2:
        raise UserError("metatrain compare needs two runs or more: metatrain compare RUN RUN")
    from rich.console import Console

    from metatrain.tracking.console import sparkline
    from metatrain.tracking.metrics import validation_scores
    from metatrain.training.whole_files import place_for

    paths = [place_for("html", page) for page in pages]
    runs = [_read(argument, _letter(number)) for number, argument in enumerate(named)]
    console = Console(highlight=False, markup=False)
    for run in runs:
        console.print(f"{run.letter} = {run.name}", soft_wrap=True)
    settings, scores = _settings(runs), _scores(runs)
    if settings.rows:
        console.print(settings.drawn())
    else:
        console.print("settings: the same, but for those of evaluation, hardware and the like")
    for run in runs:
        if curve := validation_scores(run.record.metrics):
            console.print(f"validation of {run.letter}: {sparkline(curve)} {curve[0]:.3f} to {curve[-1]:.3f}, best {max(curve):.3f}")
    if not scores:
        console.print("scores: the runs have no number of shots in common; metatrain evaluate checkpoint=RUN evaluation.shots=[...] makes them comparable")
    for table in scores:
        console.print(table.drawn())
    for path in paths:
        _write(runs, settings, scores, path)
        console.print(f"page: {path}", soft_wrap=True)


def _read(argument: str, letter: str) -> Compared:
    """Raises: UserError: it is no run, has no results, or not this arm."""
    from metatrain.config.settings import leaves
    from metatrain.report.record import read

    reference, _, arm = argument.partition(":")
    record, arm = read(Path(reference)), arm or "meta_trained"
    if not record.results:
        raise UserError(f"{reference} has no results.json: give a run of train or evaluate that has ended")
    if arm not in record.results.get("arms", {}):
        raise UserError(f"{reference} has no arm '{arm}'; there are {', '.join(record.results.get('arms', {})) or 'none'}")
    return Compared(letter, argument, record, dict(leaves(record.settings)), arm)


def _settings(runs: Sequence[Compared]) -> Rows:
    """Those that differ."""
    keys = [key for key in dict.fromkeys(key for run in runs for key in run.settings) if key.split(".")[0] not in _NOT_TOLD]
    different = [key for key in keys if len({str(run.settings.get(key)) for run in runs}) > 1]
    rows = [[key, *("null" if (value := run.settings.get(key)) is None else str(value) for run in runs)] for key in different]
    return Rows("", ["setting", *(run.letter for run in runs)], rows)


def _scores(runs: Sequence[Compared]) -> list[Rows]:
    """One table for each number of shots that all have."""
    first, tables = runs[0], []
    for shots in first.results["by_shots"]:
        if not all(shots in run.results["by_shots"] for run in runs):
            continue
        rows = []
        for run in runs:
            arm = run.results["by_shots"][shots]["arms"][run.arm]
            paired = ("", "") if run is first else _paired(run, first, shots)
            rows.append([run.letter, run.arm, f"{100 * arm['mean']:.1f} ± {100 * arm['ci95']:.1f}", *paired])
        tables.append(Rows(f"{shots}-shot", ["run", "arm", "score", "minus A", "which is"], rows))
    return tables


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


def _write(runs: Sequence[Compared], settings: Rows, scores: Sequence[Rows], path: Path) -> None:
    from metatrain.report.charts import compared_tasks, curves
    from metatrain.report.page import write_comparison

    found = [curves([(run.letter, run.record) for run in runs]), compared_tasks([(run.letter, run.record, run.arm) for run in runs])]
    context = {"title": f"{len(runs)} runs compared", "runs": [(run.letter, run.name) for run in runs], "settings": settings, "scores": scores}
    write_comparison(context, [chart for chart in found if chart is not None], path)


def _letter(number: int) -> str:
    return chr(ord("A") + number) if number < 26 else f"run {number + 1}"
