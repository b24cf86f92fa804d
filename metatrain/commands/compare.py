"""`metatrain compare RUN RUN ...`: differences between runs in settings and in scores on the same episodes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metatrain.commands.seed_tables import Rows, comparison_cells, points, reading, same_but_for_seeds, seed_tables, trains
from metatrain.errors import UserError

if TYPE_CHECKING:
    from metatrain.evaluation.over_seeds import Trainings
    from metatrain.report.chart_parts import Chart
    from metatrain.report.record import Record

USAGE = """\
usage: metatrain compare RUN[:ARM] RUN[:ARM] ... [html=FILE]

Compare runs of train or evaluate with the first one: settings that differ, validation curves, and score differences with 95% intervals,
paired by episode if both saw the same episodes. Runs that differ only in their training seed are grouped, with intervals over seeds. ARM
defaults to meta_trained. Runs of finetune are compared by held-out and cross-validated scores. html=FILE also writes a page with charts.

examples:
  metatrain compare outputs/train/maml/A outputs/train/protonet/B html=comparison.html
  metatrain compare outputs/latest outputs/latest:logistic_regression
  metatrain compare maml_0 maml_1 maml_2 protonet_0 protonet_1 protonet_2
"""


@dataclass(frozen=True)
class Run:
    """One run, and its arm that is compared."""

    name: str
    record: Record
    settings: dict[str, Any]
    arm: str
    training: dict[str, Any]  # settings of the run of train that trained the model; empty if there is none

    @property
    def seed(self) -> int:
        """The training seed."""
        return int(self.training.get("seed", 0))


@dataclass(frozen=True)
class Compared:
    """A run, or several runs that differ only in their training seed, in the order of their seeds."""

    letter: str
    runs: tuple[Run, ...]

    @property
    def arm(self) -> str:
        return self.runs[0].arm

    @property
    def name(self) -> str:
        names = ", ".join(run.name for run in self.runs)
        return f"{names} (training seeds {', '.join(str(run.seed) for run in self.runs)})" if len(self.runs) > 1 else names

    @property
    def named(self) -> list[tuple[str, Run]]:
        """Pairs (name on charts, run)."""
        return [(f"{self.letter}, seed {run.seed}" if len(self.runs) > 1 else self.letter, run) for run in self.runs]

    @property
    def trainings(self) -> Trainings:
        from metatrain.evaluation.over_seeds import Trainings

        return Trainings(tuple(run.seed for run in self.runs), tuple(run.record.results for run in self.runs))

    def setting(self, key: str) -> str:
        """Return the value of a setting, or the different values of the runs."""
        return ", ".join(dict.fromkeys("null" if (value := run.settings.get(key)) is None else str(value) for run in self.runs))


def main(arguments: list[str]) -> None:
    """Entry point."""
    named = [argument for argument in arguments if not argument.startswith("html=")]
    pages = [argument.removeprefix("html=") for argument in arguments if argument.startswith("html=")]
    if len(named) < 2:
        raise UserError("metatrain compare needs at least two runs: metatrain compare RUN RUN")
    from rich.console import Console

    from metatrain.run.atomic import place_for
    from metatrain.tracking.console import sparkline
    from metatrain.tracking.metrics import validation_scores

    paths = [place_for("html", page, (".html", ".htm")) for page in pages]
    if finetuned := _finetuned(named):
        from metatrain.commands import compare_finetuned

        compare_finetuned.compare(finetuned, paths)
        return
    compared = _grouped([_read(argument) for argument in named])
    console = Console(highlight=False, markup=False)
    for each in compared:
        console.print(f"{each.letter} = {each.name}", soft_wrap=True)
    settings, scores, notes = _settings(compared), list(_scores(compared)), _notes(compared)
    if settings.rows:
        console.print(settings.drawn())
    else:
        console.print("settings: no difference (evaluation, hardware and tracking are not compared)")
    for name, run in (pair for each in compared for pair in each.named):
        if curve := validation_scores(run.record.metrics):
            console.print(f"validation of {name}: {sparkline(curve)} {curve[0]:.3f} to {curve[-1]:.3f}, best {max(curve):.3f}")
    if not scores:
        console.print("scores: the runs have no number of shots in common; run metatrain evaluate checkpoint=RUN evaluation.shots=[...] to compare them")
    for table in scores:
        console.print(table.drawn())
    for note in notes:
        console.print(note, soft_wrap=True)
    for path in paths:
        _write(compared, settings, scores, notes, path)
        console.print(f"page: {path}", soft_wrap=True)


def _split(argument: str) -> tuple[str, str]:
    """Return (run, arm), the arm empty if none is named; a colon may be part of a path."""
    from metatrain.run.latest import pinned

    whole = ":" not in argument or Path(argument).is_dir()
    reference, arm = (argument, "") if whole else argument.rsplit(":", 1)
    return pinned(reference), arm


def _finetuned(named: Sequence[str]) -> list[tuple[str, str, Record]]:
    """Return (letter, name, record) of each run if all are runs of finetune; empty if none is.

    Raises:
        UserError: only some are runs of finetune.
    """
    from metatrain.report.record import read

    names = [_split(argument)[0] for argument in named]
    records = [read(Path(name)) for name in names]
    of_finetune = [name for name, record in zip(names, records) if record.command == "finetune"]
    if of_finetune and len(of_finetune) < len(names):
        raise UserError(f"{of_finetune[0]} is a run of metatrain finetune, with scores of a single task; compare it with other runs of finetune")
    return [(_letter(number), name, record) for number, (name, record) in enumerate(zip(names, records))] if of_finetune else []


def _read(argument: str) -> Run:
    """Raises: UserError: there is no such run, or it has no results or no such arm."""
    from metatrain.config.settings import leaves
    from metatrain.report.record import read

    reference, arm = _split(argument)
    name, record, arm = f"{reference}:{arm}" if arm else reference, read(Path(reference)), arm or "meta_trained"
    if not record.results:
        raise UserError(f"{reference} has no results.json; give a finished run of train or evaluate")
    if arm not in record.results.get("arms", {}):
        raise UserError(f"{reference} has no arm '{arm}'; there are {', '.join(record.results.get('arms', {})) or 'none'}")
    trained = record if record.command == "train" else _evaluated(record)
    return Run(name, record, dict(leaves(record.settings)), arm, dict(leaves(trained.settings)) if trained else {})


def _evaluated(record: Record) -> Record | None:
    """Return the run of train that a run of evaluate evaluated; None: it evaluated something else, or the run no longer exists."""
    from metatrain.report.record import read
    from metatrain.run.directory import is_run

    checkpoint = Path(str(record.results.get("checkpoint")))
    return read(checkpoint) if is_run(checkpoint) else None


def _grouped(runs: Sequence[Run]) -> list[Compared]:
    """Group runs of `train` that differ only in their training seed, and runs of `evaluate` of such runs with equal settings."""
    items = []
    for number, run in enumerate(runs):
        evaluated = [(key, str(value)) for key, value in run.settings.items() if trains(key) and key != "seed"] if run.record.command != "train" else []
        items.append((run, run.training, (run.arm, run.record.command, tuple(evaluated), None if run.training else number)))
    return [Compared(_letter(number), tuple(group)) for number, group in enumerate(same_but_for_seeds(items))]


def _settings(compared: Sequence[Compared]) -> Rows:
    """Return the settings that differ."""
    keys = [key for key in dict.fromkeys(key for each in compared for run in each.runs for key in run.settings) if trains(key)]
    different = [key for key in keys if len({each.setting(key) for each in compared}) > 1]
    return Rows("", ["setting", *(each.letter for each in compared)], [[key, *(each.setting(key) for each in compared)] for key in different])


def _scores(compared: Sequence[Compared]) -> Iterator[Rows]:
    """Yield a table for each number of shots that all runs have; for a single group of seeds, with all its arms."""
    if len(compared) == 1 and compared[0].trainings.problem() is None:
        yield from seed_tables(compared[0].trainings)
        return
    for shots in compared[0].trainings.results[0]["by_shots"]:
        if all(each.trainings.has(shots, each.arm) for each in compared):
            yield Rows(f"{shots}-shot", ["run", "arm", "score", "sd of seeds", "minus A", "p", "verdict"], list(_rows(compared, shots)))


def _rows(compared: Sequence[Compared], shots: str) -> Iterator[list[str]]:
    """Yield a row for each run or group, the first without a comparison; p is corrected for all comparisons (Holm)."""
    from metatrain.evaluation import protocol
    from metatrain.evaluation.over_seeds import difference, spread
    from metatrain.evaluation.statistics import Estimate, estimate

    first = compared[0]
    found = [difference(each.trainings, each.arm, first.trainings, first.arm, shots) for each in compared[1:]]
    known = iter(protocol.compared([each for each in found if isinstance(each, Estimate)]))
    cells = [["", "", ""], *(comparison_cells(next(known)) if isinstance(each, Estimate) else ["", "", f"not paired: {each}"] for each in found)]
    for each, comparison in zip(compared, cells):
        if len(each.runs) == 1 or each.trainings.problem():
            arms = [results["by_shots"][shots]["arms"][each.arm] for results in each.trainings.results]
            score, of_seeds = ", ".join(points(arm["mean"], arm["ci95"]) for arm in arms), ""
        else:
            values = each.trainings.scores(shots, each.arm)
            mean, (seeds, _) = estimate(values), spread(values)
            score, of_seeds = points(mean.mean, mean.half_width), "" if seeds is None else f"{100 * seeds:.1f}"
        yield [each.letter, each.arm, score, of_seeds, *comparison]


def _notes(compared: Sequence[Compared]) -> list[str]:
    """Return the notes below the tables."""
    notes = [f"{each.letter}: {note}" for each in compared if len(each.runs) > 1 and not each.trainings.problem() for note in reading(each.trainings)]
    for each in compared:
        if len(each.runs) > 1 and (problem := each.trainings.problem()):
            notes.append(f"{each.letter}: the seeds cannot be combined: {problem}")
    if single := [each.letter for each in compared if len(each.runs) == 1 and each.runs[0].training]:
        notes.append(f"{', '.join(single)}: a single training seed; the intervals do not cover the variation over seeds")
    return notes


def _write(compared: Sequence[Compared], settings: Rows, scores: Sequence[Rows], notes: Sequence[str], path: Path) -> None:
    from metatrain.report.comparison_charts import compared_tasks, curves
    from metatrain.report.page import write_comparison

    named = [pair for each in compared for pair in each.named]
    found = [
        _by_setting(compared, settings),
        curves([(name, run.record) for name, run in named]),
        compared_tasks([(name, run.record, run.arm) for name, run in named]),
    ]
    names = [(each.letter, each.name) for each in compared]
    context = {"title": f"{len(named)} runs compared", "runs": names, "settings": settings, "scores": scores, "notes": notes}
    write_comparison(context, [chart for chart in found if chart is not None], path)


def _by_setting(compared: Sequence[Compared], settings: Rows) -> Chart | None:
    """Return the chart of scores against the one setting that differs; None: several differ, or it is no number, or the runs are grouped by seed."""
    from metatrain.report.comparison_charts import by_setting

    if len(settings.rows) != 1 or any(len(each.runs) > 1 for each in compared):
        return None
    key = settings.rows[0][0]
    values = [each.runs[0].settings.get(key) for each in compared]
    numbers = [float(value) for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)]
    if len(set(numbers)) < len(compared):
        return None
    return by_setting(key, [(number, each.runs[0].record, each.arm) for number, each in zip(numbers, compared)])


def _letter(number: int) -> str:
    return chr(ord("A") + number) if number < 26 else f"run {number + 1}"
