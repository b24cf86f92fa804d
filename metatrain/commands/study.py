"""`metatrain study FILE`: start the missing runs of a study and write its tables."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from metatrain.commands import evaluate
from metatrain.commands.effects import effects_of, effects_of_use
from metatrain.commands.job import Job
from metatrain.commands.resume import check_same, resume
from metatrain.commands.workers import run_job
from metatrain.config.effects import typed_keys
from metatrain.errors import RestartableError, Stopped, UserError

if TYPE_CHECKING:
    from metatrain.report.chart_parts import Chart
    from metatrain.report.record import Record
    from metatrain.study.config import StudyConfig, TableConfig
    from metatrain.study.plan import PlannedRun
    from metatrain.study.tables import MarkdownTable, Results
    from metatrain.tracking.console import Display

USAGE = """\
usage: metatrain study FILE [plan] [page=PAGE.md] [SETTING=VALUE ...] [--config-dir DIR]

Start the missing runs of a study, one after the other, and write its tables. FILE is a YAML file that names runs, seeds and tables. Each run
has a directory below outputs/studies/, named by a hash of its settings: the same command again keeps finished runs and resumes a stopped one.
The tables are printed as Markdown and written to outputs/studies/NAME/tables.md; the folder tables/ beside it has each of
them as LaTeX (booktabs) and csv, and charts of the scores by shots, inner steps, number of meta-training tasks, training time and adaptation time
(those that differ among the runs). A SETTING=VALUE applies to every run of train; hardware.* also applies to runs of evaluate.

  plan        list the runs and whether each is done, stopped or missing; start nothing
  page=PAGE   also replace the tables of this Markdown page, between the lines <!-- study NAME: TABLE --> and <!-- end of study table -->

examples:
  metatrain study studies/example.yaml plan
  metatrain study studies/example.yaml hardware.threads=2
  metatrain study studies/example.yaml page=docs/results.md
"""
_BEGIN, _END = "<!-- study {}: {} -->", "<!-- end of study table -->"


def main(arguments: list[str]) -> None:
    """Entry point; the arguments are the file, `plan`, `page=` and settings."""
    from metatrain.config.overrides import split_flags
    from metatrain.config.user_folder import searched_first
    from metatrain.paths import local_path
    from metatrain.study.config import read_study
    from metatrain.study.plan import planned
    from metatrain.tracking.console import Display

    words, flags = split_flags(arguments)
    names = [word for word in words if "=" not in word and word != "plan"]
    if len(names) != 1:
        raise UserError("metatrain study takes one file: metatrain study FILE; see metatrain study --help")
    if flags and not flags[0].startswith(("--config-dir", "-cd")):
        raise UserError(f"metatrain study takes --config-dir DIR, not {' '.join(flags)}")
    path = local_path(names[0])
    pages = [local_path(word.removeprefix("page=")) for word in words if word.startswith("page=")]
    for page in pages:
        if not page.is_file():
            raise UserError(f"page={page}: no such file")
    study = read_study(path)
    try:
        with searched_first(flags):
            runs = planned(study, path.stem, [word for word in words if "=" in word and not word.startswith("page=")])
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    with Display() as display:
        for line in _without_effect(runs):
            display.say(line)
        if "plan" in words:
            _show_plan(runs, display)
            return
        for number, run in enumerate(runs, start=1):
            if run.state != "done":
                display.say(f"run {number} of {len(runs)}: {run.name}, seed {run.seed}{' (resumed)' if run.state == 'stopped' else ''}")
                _make(run)
        results = _results(study, runs)
        tables = _tables(study, path, results)
        _write(path, tables, display)
        _write_files(path, tables, _charts(results, runs), display)
        for page in pages:
            _put(path, tables, page, display)


def completions(before: list[str]) -> list[str]:
    """Return the completions: the studies of this directory, then `plan`."""
    return ["plan"] if before else sorted(map(str, Path("studies").glob("*.yaml")))


def _without_effect(runs: Sequence[PlannedRun]) -> list[str]:
    """Return a line for each reason for which settings have no effect, with the first run that has them."""
    found: dict[str, str] = {}
    for run in runs:
        effects = effects_of(run.config) if run.command == "train" else effects_of_use(run.config)
        for line in effects.notes(typed_keys(run.overrides)):
            found.setdefault(line, run.name)
    return [f"warning: runs.{name}: {line}" for line, name in found.items()]


def _show_plan(runs: Sequence[PlannedRun], display: Display) -> None:
    from metatrain.commands.seed_tables import Rows
    from metatrain.run.hints import shown

    states = [run.state for run in runs]
    if display.mode == "json":
        rows = [[run.name, str(run.seed), state, run.command, shown(run.path), *run.overrides] for run, state in zip(runs, states)]
        display.table(Rows("plan", ["run", "seed", "state", "command", "directory"], [row[:5] for row in rows]).drawn())
        return
    for run, state in zip(runs, states):
        display.say(f"{state:<8} {run.path}")
    display.say(f"{len(runs)} runs: {', '.join(f'{states.count(state)} {state}' for state in ('done', 'stopped', 'missing'))}")


def _make(run: PlannedRun) -> None:
    """Start a run, or resume it.

    Raises:
        UserError, RestartableError, Stopped: as the run raises them, with its name.
    """
    from metatrain.run.directory import RunDirectory, is_run

    try:
        if run.state == "stopped":
            directory = RunDirectory(run.path.resolve())
            check_same(directory, run.config)
            resume(directory, run.config, [])
        elif run.command == "train":
            run_job(Job(run.config, run.path, run.overrides))
        else:
            if is_run(run.path):  # an evaluation that was stopped: it has no checkpoints
                directory = RunDirectory(run.path.resolve())
                directory.lock()
                directory.unlock()
                shutil.rmtree(run.path)
            evaluate.start(run.config, run.path, run.overrides, of_study=True)
    except UserError as error:
        raise UserError(f"{run.name}, seed {run.seed}: {error}") from error
    except RestartableError as error:
        raise RestartableError(f"{run.name}, seed {run.seed}: {error}") from error
    except Stopped as stop:
        raise Stopped(stop.signal_number, f"stopped in {run.name}, seed {run.seed}; run the same command to continue the study") from None


def _tables(study: StudyConfig, path: Path, results: Results) -> dict[str, tuple[TableConfig, list[MarkdownTable]]]:
    """Return the tables by name."""
    found = {}
    for name, table in study.tables.items():
        try:
            found[name] = table, list(results.tables(table, study.runs_of(table)))
        except UserError as error:
            raise UserError(f"{path}: tables.{name}: {error}") from error
    return found


def _results(study: StudyConfig, runs: Sequence[PlannedRun]) -> Results:
    """Read the results of all runs that have some."""
    from metatrain.evaluation.over_seeds import Trainings
    from metatrain.run.directory import RunDirectory
    from metatrain.study.tables import Results

    by_name: dict[str, list[tuple[int, dict[str, object]]]] = {}
    for run in runs:
        if (file := RunDirectory(run.path).results).exists():
            by_name.setdefault(run.name, []).append((run.seed, json.loads(file.read_text(encoding="utf-8"))))
    trainings = {name: Trainings(*map(tuple, zip(*found))) for name, found in by_name.items()}
    headings = {full: settings if run.variants else full for name, run in study.runs.items() for full, settings in study.variants_of(name).items()}
    return Results(trainings, headings)


def _write(path: Path, tables: dict[str, tuple[TableConfig, list[MarkdownTable]]], display: Display) -> None:
    """Print the tables and write them to tables.md."""
    from metatrain.commands.seed_tables import Rows
    from metatrain.run.atomic import write_text
    from metatrain.run.hints import shown
    from metatrain.study.plan import FOLDER

    parts = [f"Made by `metatrain study {path}`."]
    for name, (config, found) in tables.items():
        parts.append(f"## {name}\n\n{_text(config, found)}")
        if display.mode == "json":
            for table in found:
                display.table(Rows(f"{name} {table.title}".strip(), table.columns, table.rows).drawn())
        else:
            display.say(f"\n{parts[-1]}\n")
    target = FOLDER / path.stem / "tables.md"
    target.parent.mkdir(parents=True, exist_ok=True)
    write_text(target, "\n\n".join(parts) + "\n")
    display.say(f"tables: {shown(target)}")


def _charts(results: Results, runs: Sequence[PlannedRun]) -> list[Chart]:
    """Return the charts of scores by shots, inner steps, number of meta-training tasks, training time and adaptation time, those of which differ."""
    from metatrain.report.record import read
    from metatrain.report.study_charts import Step, against_shots, against_steps, against_value

    records: dict[str, list[Record]] = {}
    for run in runs:
        if run.name in results.runs and run.state == "done":
            records.setdefault(run.name, []).append(read(run.path))
    tasks: dict[str, float] = {}
    seconds: dict[str, float] = {}
    steps: list[Step] = []
    for name, of_seeds in records.items():
        counts = [record.results.get("training_tasks") for record in of_seeds]
        if counts[0] is not None and len(set(counts)) == 1:
            tasks[name] = counts[0]
        times = [sum({each["step"]: each["seconds"] for each in record.timings}.values()) for record in of_seeds]
        if all(times):
            seconds[name] = sum(times) / len(times)
        curves = [record.analysis.get("by_steps", {}).get("by_shots", {}) for record in of_seeds]
        for shots, part in curves[0].items():
            for count in part.get("steps", {}):
                scores = [curve.get(shots, {}).get("steps", {}).get(count) for curve in curves]
                if None not in scores:
                    steps.append((results.name(name), int(shots), int(count), 100 * sum(scores) / len(scores)))
    found = [
        against_shots(results.by_shots()),
        against_steps(steps),
        against_value(results.by_value(tasks), "training_tasks", "meta-training tasks"),
        against_value(results.by_value(seconds), "training_time", "seconds of meta-training", is_time=True),
        against_value(results.by_adaptation_time(), "adaptation_time", "seconds of adaptation to a support set", is_time=True),
    ]
    return [chart for chart in found if chart is not None]


def _write_files(path: Path, tables: dict[str, tuple[TableConfig, list[MarkdownTable]]], charts: Sequence[Chart], display: Display) -> None:
    """Write each table as LaTeX and csv, and the charts as SVG, to the folder of the study."""
    from metatrain.report.page import svg
    from metatrain.run.atomic import write_text
    from metatrain.run.hints import shown
    from metatrain.study.formats import csv_text, latex
    from metatrain.study.plan import FOLDER

    folder = FOLDER / path.stem / "tables"
    folder.mkdir(exist_ok=True)
    for name, (config, found) in tables.items():
        for table in found:
            stem = f"{name}-{table.title}" if len(found) > 1 else name
            caption = " ".join(filter(None, (config.text or f"Study {path.stem}: {name}.", f"{table.title}." if table.title else "")))
            write_text(folder / f"{stem}.tex", latex(table, caption, f"{path.stem}-{stem}"))
            write_text(folder / f"{stem}.csv", csv_text(table))
    for chart in charts:
        write_text(folder / f"{chart.key}.svg", svg(chart))
        display.say(f"chart: {shown(folder / f'{chart.key}.svg')}")
    display.say(f"LaTeX and csv: {shown(folder)}")


def _text(config: TableConfig, tables: Sequence[MarkdownTable]) -> str:
    """Return a table in Markdown, one below the other where there are several."""
    parts = [config.text] if config.text else []
    for table in tables:
        parts += [f"{table.title}:"] if len(tables) > 1 else []
        parts.append("\n".join(table.lines()))
    return "\n\n".join(parts)


def _put(path: Path, tables: dict[str, tuple[TableConfig, list[MarkdownTable]]], page: Path, display: Display) -> None:
    """Replace the tables of a page, between their markers.

    Raises:
        UserError: the page has no marker of any table.
    """
    from metatrain.report.sections import put_between

    placed = [name for name, (config, found) in tables.items() if put_between(page, _BEGIN.format(path.stem, name), _END, _text(config, found))]
    if not placed:
        raise UserError(f"page={page}: it has no line {_BEGIN.format(path.stem, next(iter(tables), 'TABLE'))}")
    display.say(f"page: {page}: {', '.join(placed)}")
    if missing := tables.keys() - set(placed):
        display.say(f"page: {page} has no place for {', '.join(sorted(missing))}; a place is {_BEGIN.format(path.stem, 'TABLE')} above {_END}")
