"""The content of a study file, and its checks."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from metatrain.config.explain import explain, suggestion
from metatrain.config.settings import escaped
from metatrain.errors import UserError

COMMANDS = ("train", "evaluate")
REFERENCE = re.compile(r"\$\{run:([^}]*)\}")  # ${run:NAME} in settings: the directory of another run
DIMENSIONS = ("runs", "arms", "tasks", "seeds", "shots")
STATISTICS = {
    "score": "score",
    "mean": "score",  # without its interval
    "balanced": "balanced accuracy",
    "loss": "log loss",
    "calibration_error": "calibration error",
    "adaptation_time": "adaptation time (s)",
    "sd_of_seeds": "sd of seeds",
    "sd_of_tasks": "sd of tasks",
    "variance_components": "sd of seed / task / episode",
    "gain": "gain",
    "difference": "difference",
    "p": "p",
    "verdict": "verdict",
}
COMPARED = ("difference", "p", "verdict")  # statistics that need `against`
_NAME = re.compile(r"\w[\w.-]*")


@dataclass
class RunConfig:
    """One run, or several variants of it; a string is short for its settings."""

    command: str = "train"  # train | evaluate
    settings: str = ""  # as on the command line; ${run:NAME} is the directory of an earlier run
    seeds: list[int] | None = None  # null: those of the study
    variants: dict[str, str] = field(default_factory=dict)  # further settings of each variant, which is called RUN/VARIANT


@dataclass
class TableConfig:
    """One table of scores."""

    text: str = ""  # printed above the table
    runs: list[str] = field(default_factory=list)  # runs to read; the name of a run with variants stands for all of them; empty: all runs
    arms: list[str] | None = None  # null: all arms if they are rows or columns, else meta_trained
    shots: list[int] | None = None  # null: all; without `shots` as rows or columns, each number of shots has its own table
    rows: str = "arms"  # runs | arms | tasks | seeds | shots
    columns: str | None = None  # null (a column per statistic) | runs | arms | tasks | seeds | shots
    statistics: list[str] = field(default_factory=lambda: ["score"])
    against: str | None = None  # run or arm that difference, p and verdict compare with, paired by task, episode and seed
    labels: dict[str, str] = field(default_factory=dict)  # headings in place of the names of runs, arms, tasks and statistics
    best_first: bool = False  # sort rows by their first score, the highest first


@dataclass
class StudyConfig:
    """A study file."""

    base: dict[str, str] = field(default_factory=dict)  # settings of every run, by command
    seeds: list[int] = field(default_factory=lambda: [0])
    runs: dict[str, RunConfig] = field(default_factory=dict)
    tables: dict[str, TableConfig] = field(default_factory=dict)

    def variants_of(self, run: str) -> dict[str, str]:
        """Return the further settings of each variant of a run, by its full name; of a run without variants, none under its own name."""
        return {f"{run}/{variant}": settings for variant, settings in self.runs[run].variants.items()} or {run: ""}

    def names_of(self, run: str) -> list[str]:
        """Return the names of a run's variants, or its own."""
        return list(self.variants_of(run))

    def names(self) -> Iterator[str]:
        """Yield the names of all runs, a variant as RUN/VARIANT."""
        for run in self.runs:
            yield from self.names_of(run)

    def runs_of(self, table: TableConfig) -> list[str]:
        """Return the names of the runs that a table reads."""
        return [name for run in table.runs or self.runs for name in (self.names_of(run) if run in self.runs else [run])]


def read_study(path: Path) -> StudyConfig:
    """Read a study file.

    Raises:
        UserError: it cannot be read, or a key or value is wrong.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; metatrain study takes a YAML file")
    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
        if not isinstance(content, dict):
            raise UserError(f"{path}: a study has the keys base, seeds, runs and tables")
        if isinstance(content.get("runs"), dict):
            content["runs"] = {name: {"settings": run} if isinstance(run, str) else run for name, run in content["runs"].items()}
        made: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(StudyConfig), OmegaConf.create(escaped(content))))
    except YAMLError as error:
        raise UserError(explain(error)) from error
    except (OmegaConfBaseException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: {explain(error)}") from error
    for key, problem in _problems(made):
        raise UserError(f"{path}: {key}: {problem}")
    return made


def _problems(study: StudyConfig) -> Iterator[tuple[str, str]]:
    """Yield (key, what is wrong with it)."""
    for command in study.base:
        yield from _choice(f"base.{command}", command, COMMANDS)
    yield from _seeds("seeds", study.seeds)
    if not study.runs:
        yield "runs", "a study needs at least one run; write runs: {NAME: SETTINGS}"
    before: list[str] = []
    for name, run in study.runs.items():
        key = f"runs.{name}"
        if not _NAME.fullmatch(name):
            yield key, "a name has letters, digits, '.', '-' and '_'"
        yield from _choice(f"{key}.command", run.command, COMMANDS)
        yield from _seeds(f"{key}.seeds", [0] if run.seeds is None else run.seeds)
        for variant, settings in {"": "", **run.variants}.items():
            where = f"{key}.variants.{variant}" if variant else f"{key}.settings"
            if variant and not _NAME.fullmatch(variant):
                yield where, "a name has letters, digits, '.', '-' and '_'"
            for other in REFERENCE.findall(f"{study.base.get(run.command, '')} {run.settings} {settings}"):
                if other not in before:
                    yield where, f"${{run:{other}}} is no run above this one{suggestion(other, before)}"
        before += study.names_of(name)
    for name, table in study.tables.items():
        if not _NAME.fullmatch(name):
            yield f"tables.{name}", "a name has letters, digits, '.', '-' and '_'"
        for where, problem in _table_problems(study, table):
            yield f"tables.{name}.{where}", problem


def _table_problems(study: StudyConfig, table: TableConfig) -> Iterator[tuple[str, str]]:
    known = [*study.runs, *study.names()]
    for run in table.runs:
        yield from _choice("runs", run, known)
    yield from _choice("rows", table.rows, DIMENSIONS)
    if table.columns is not None:
        yield from _choice("columns", table.columns, DIMENSIONS)
        if table.columns == table.rows:
            yield "columns", f"rows and columns are both {table.rows}"
    if not table.statistics:
        yield "statistics", f"there is none; choose from {', '.join(STATISTICS)}"
    for statistic in table.statistics:
        yield from _choice("statistics", statistic, STATISTICS)
        if statistic in COMPARED and table.against is None:
            yield "statistics", f"{statistic} needs against: RUN or ARM"
    if table.against in study.runs and study.runs[table.against].variants:
        yield "against", f"{table.against} has variants; name one of {', '.join(study.names_of(table.against))}"
    shown = (table.rows, table.columns)
    if "runs" not in shown and len(study.runs_of(table)) > 1:
        yield "runs", "several runs need rows: runs or columns: runs"
    if "arms" not in shown and len(table.arms or [""]) != 1:
        yield "arms", "several arms need rows: arms or columns: arms"


def _choice(key: str, value: str, known: Collection[str]) -> Iterator[tuple[str, str]]:
    if value not in known:
        yield key, f"'{value}' is not one of {', '.join(known)}{suggestion(value, known)}"


def _seeds(key: str, seeds: list[int]) -> Iterator[tuple[str, str]]:
    if not seeds or len(set(seeds)) != len(seeds) or min(seeds) < 0:
        yield key, f"{seeds} must be different seeds, 0 or larger"
