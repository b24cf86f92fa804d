"""The tables of a study, computed from the results of its runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from metatrain.errors import UserError
from metatrain.evaluation.over_seeds import Trainings, difference, spread
from metatrain.evaluation.protocol import SUBJECT, compared
from metatrain.evaluation.statistics import Estimate, estimate, variance_components
from metatrain.study.config import COMPARED, STATISTICS, TableConfig

_SINGULAR = {"runs": "run", "arms": "arm", "tasks": "task", "seeds": "training seed", "shots": "shots"}


@dataclass(frozen=True)
class Cell:
    """Selection of the results that a cell of a table is computed from; None: all (tasks, seeds)."""

    run: str
    arm: str
    shots: str
    task: str | None = None
    seed: int | None = None

    def at(self, dimension: str, value: str) -> Cell:
        """Return the cell at a value of a dimension."""
        if dimension == "seeds":
            return replace(self, seed=int(value))
        changed: dict[str, Any] = {dimension if dimension == "shots" else dimension.removesuffix("s"): value}
        return replace(self, **changed)


@dataclass(frozen=True)
class MarkdownTable:
    """A table as it is printed and written."""

    title: str
    columns: list[str]
    rows: list[list[str]]

    def lines(self) -> Iterator[str]:
        """Yield its lines in Markdown."""
        yield f"| {' | '.join(self.columns)} |"
        yield f"|{'---|' * len(self.columns)}"
        for row in self.rows:
            yield f"| {' | '.join(row)} |"


class Results:
    """The results of the runs of a study, by name; results of one name are of several seeds."""

    def __init__(self, runs: Mapping[str, Trainings], settings: Mapping[str, str]):
        """settings: the heading of each run of the study, results or not: its name, or what tells a variant from the others of its run."""
        self.runs = runs
        self.settings = settings

    def tables(self, config: TableConfig, runs: Sequence[str]) -> Iterator[MarkdownTable]:
        """Yield the table, or one for each number of shots.

        Raises:
            UserError: an arm, task or number of shots has no results.
        """
        read = [*runs, *(name for name in self.settings if name == config.against)]
        if without := [run for run in read if run not in self.runs]:
            raise UserError(f"{', '.join(without)}: no results; a run with evaluation.arms=[] has none")
        for shots in [None] if "shots" in (config.rows, config.columns) else self._shots(config, runs):
            yield self._table(config, runs, shots)

    def by_shots(self) -> list[tuple[str, int, float, float]]:
        """Return (name, shots, score, half-width of its interval), in points, of the meta-trained model of every run; of a single run, of every arm."""
        return [(self._name(cell), int(cell.shots), *_points(self._chosen(cell), cell)) for cell in self._charted()]

    def by_adaptation_time(self) -> list[tuple[str, int, float, float, float]]:
        """Return (name, shots, seconds to adapt to a support set, score, half-width of its interval) of what `by_shots` returns."""
        found = []
        for cell in self._charted():
            trainings = self._chosen(cell)
            seconds = [results["by_shots"][cell.shots]["arms"][cell.arm].get("adapt_seconds_per_episode") for results in trainings.results]
            if all(seconds):  # without 0, which a logarithmic axis does not have
                found.append((self._name(cell), int(cell.shots), float(np.mean(seconds)), *_points(trainings, cell)))
        return found

    def by_value(self, values: Mapping[str, float]) -> list[tuple[str, int, float, float, float]]:
        """Return (name, shots, value, score, half-width of its interval) of the meta-trained model of each run that has a value."""
        cells = [cell for cell in self._charted() if cell.arm == SUBJECT and cell.run in values]
        return [(self.name(cell.run), int(cell.shots), values[cell.run], *_points(self._chosen(cell), cell)) for cell in cells]

    def name(self, run: str) -> str:
        """Return the name of a run on charts."""
        return self.settings.get(run) or run

    def _name(self, cell: Cell) -> str:
        return cell.arm if len(self.runs) == 1 else self.name(cell.run)

    def _charted(self) -> Iterator[Cell]:
        """Yield the cells of charts: the meta-trained model of every run, or every arm of a single run, at each number of shots."""
        for run, trainings in self.runs.items():
            for shots, part in trainings.results[0]["by_shots"].items():
                for arm in part["arms"] if len(self.runs) == 1 else [SUBJECT]:
                    if shots.isdecimal() and trainings.has(shots, arm) and trainings.problem() is None:
                        yield Cell(run, arm, shots)

    def _shots(self, config: TableConfig, runs: Sequence[str]) -> list[str]:
        known = [shots for shots in self.runs[runs[0]].results[0]["by_shots"] if all(self._has(run, shots) for run in runs)]
        if unknown := [str(shots) for shots in config.shots or [] if str(shots) not in known]:
            raise UserError(f"shots: there are no results with {', '.join(unknown)}; there are {', '.join(known)}")
        return known if config.shots is None else [str(shots) for shots in config.shots]

    def _has(self, run: str, shots: str) -> bool:
        return all(shots in results["by_shots"] for results in self.runs[run].results)

    def _values(self, dimension: str, config: TableConfig, runs: Sequence[str]) -> list[str]:
        """Return the values of a dimension that a table has rows or columns for."""
        first = self.runs[runs[0]]
        if dimension == "runs":
            return list(runs)
        if dimension == "shots":
            return self._shots(config, runs)
        if dimension == "seeds":
            return [str(seed) for seed in first.seeds]
        if dimension == "tasks":
            return list(first.results[0]["protocol"]["tasks"])
        return list(first.results[0]["arms"]) if config.arms is None else config.arms

    def _table(self, config: TableConfig, runs: Sequence[str], shots: str | None) -> MarkdownTable:
        start = Cell(runs[0], (config.arms or [SUBJECT])[0], shots or "")
        lines = [(row, start.at(config.rows, row)) for row in self._values(config.rows, config, runs)]
        columns = self._values(config.columns, config, runs) if config.columns is not None else [""]
        places = [(column, statistic) for column in columns for statistic in config.statistics]
        cells = [[self._at(cell, config.columns, column) for column in columns] for _, cell in lines]
        if config.best_first:
            order = sorted(range(len(lines)), key=lambda line: -self._score(cells[line][0]))
            lines, cells = [lines[line] for line in order], [cells[line] for line in order]
        written = self._written(config, [cell for row in cells for cell in row])
        rows = [[self._label(config, row), *(text for cell in of_row for text in written[cell])] for (row, _), of_row in zip(lines, cells)]
        heads = [self._head(config, column, statistic) for column, statistic in places]
        return MarkdownTable("" if shots is None else f"{shots}-shot", [_SINGULAR[config.rows], *heads], rows)

    def _at(self, cell: Cell, dimension: str | None, value: str) -> Cell:
        found = cell if dimension is None else cell.at(dimension, value)
        if found.seed is not None and found.seed not in self.runs[found.run].seeds:
            raise UserError(f"{found.run} has no run with seed {found.seed}")
        if found.task is not None and found.task not in self.runs[found.run].results[0]["protocol"]["tasks"]:
            raise UserError(f"{found.run} has no results of the task '{found.task}'")
        if not self.runs[found.run].has(found.shots, found.arm):
            raise UserError(f"{found.run} has no results of the arm '{found.arm}' with {found.shots} shots")
        return found

    def _label(self, config: TableConfig, name: str) -> str:
        """Return the heading of a run (a variant is named by its settings), arm, task, seed or number of shots."""
        plain = name if name.isdigit() else f"`{self.settings.get(name, name) or 'unchanged'}`"
        return config.labels.get(name, plain)

    def _head(self, config: TableConfig, column: str, statistic: str) -> str:
        what = config.labels.get(statistic, STATISTICS[statistic])
        if statistic == "difference" and statistic not in config.labels:
            what = f"difference from {self._label(config, str(config.against))}"
        of_column = f"{column}-shot" if config.columns == "shots" else self._label(config, column)
        return what if config.columns is None else of_column if len(config.statistics) == 1 else f"{of_column}: {what}"

    def _chosen(self, cell: Cell) -> Trainings:
        """Return the results of a cell's run, of its task and seed only where it has one."""
        found = self.runs[cell.run]
        if cell.seed is not None:
            place = found.seeds.index(cell.seed)
            found = Trainings((cell.seed,), (found.results[place],))
        return found if cell.task is None else Trainings(found.seeds, tuple(_of_task(results, cell) for results in found.results))

    def _score(self, cell: Cell) -> float:
        return estimate(self._chosen(cell).scores(cell.shots, cell.arm)).mean

    def _written(self, config: TableConfig, cells: Sequence[Cell]) -> dict[Cell, list[str]]:
        """Return the texts of each cell, one per statistic; p of all differences of the table are corrected together (Holm)."""
        pairs = {(cell, "difference"): (cell, self._other(config, cell)) for cell in cells if set(COMPARED) & set(config.statistics)}
        pairs |= {(cell, "gain"): (replace(cell, arm=SUBJECT), cell) for cell in cells if "gain" in config.statistics}
        found = {key: difference(self._chosen(one), one.arm, self._chosen(other), other.arm, one.shots) for key, (one, other) in pairs.items() if one != other}
        known = {key: value for key, value in found.items() if isinstance(value, Estimate)}
        comparisons: dict[Any, Any] = dict(zip(known, compared(list(known.values()))))
        comparisons |= {key: value for key, value in found.items() if isinstance(value, str)}
        return {cell: [self._text(cell, statistic, comparisons) for statistic in config.statistics] for cell in cells}

    def _other(self, config: TableConfig, cell: Cell) -> Cell:
        """Return the cell that one is compared with."""
        against = str(config.against)
        return self._at(replace(cell, run=against) if against in self.runs else replace(cell, arm=against), None, "")

    def _text(self, cell: Cell, statistic: str, comparisons: Mapping[Any, Any]) -> str:
        if statistic in (*COMPARED, "gain"):
            found = comparisons.get((cell, "gain" if statistic == "gain" else "difference"))
            return "" if found is None else _comparison(found, statistic)
        chosen = self._chosen(cell)
        if problem := chosen.problem():
            return f"not combined: {problem}"
        values = chosen.scores(cell.shots, cell.arm)
        if statistic in ("score", "mean"):
            mean = estimate(values)
            interval = "" if statistic == "mean" or not np.isfinite(mean.half_width) else f" ± {100 * mean.half_width:.1f}"
            return f"{100 * mean.mean:.1f}{interval}"
        if statistic in ("sd_of_seeds", "sd_of_tasks"):
            sd = spread(values)[0 if statistic == "sd_of_seeds" else 1]
            return "" if sd is None else f"{100 * sd:.1f}"
        if statistic == "variance_components":
            return _standard_deviations(values)
        return _stored(chosen, cell, statistic)


def _points(trainings: Trainings, cell: Cell) -> tuple[float, float]:
    """Return the score and the half-width of its interval, in points; 0 where there is no interval."""
    mean = estimate(trainings.scores(cell.shots, cell.arm))
    return 100 * mean.mean, 100 * (mean.half_width if np.isfinite(mean.half_width) else 0.0)


def _standard_deviations(values: Sequence[np.ndarray]) -> str:
    """Return the standard deviations due to seed, task and episode, in points; "-" for one that cannot be estimated, "" without several episodes."""
    if len({scores.shape for scores in values}) > 1 or values[0].shape[-1] < 2:
        return ""
    found = variance_components(values)
    return " / ".join("-" if variance is None else f"{100 * variance**0.5:.1f}" for variance in (found.seeds, found.tasks, found.episodes))


def _of_task(results: Mapping[str, Any], cell: Cell) -> Mapping[str, Any]:
    """Return the results with one task only."""
    arms = {name: {"per_task": {cell.task: arm["per_task"][cell.task]}} for name, arm in results["by_shots"][cell.shots]["arms"].items()}
    return {"protocol": {**results["protocol"], "tasks": [cell.task]}, "by_shots": {cell.shots: {"arms": arms}}}


def _stored(chosen: Trainings, cell: Cell, statistic: str) -> str:
    """Return a statistic that results.json has as a mean, averaged over seeds; empty where it has none (of a single task, say)."""
    key = {"adaptation_time": "adapt_seconds_per_episode"}.get(statistic, statistic)
    arms = [results["by_shots"][cell.shots]["arms"][cell.arm] for results in chosen.results]
    values = [(arm if cell.task is None else arm["per_task"][cell.task]).get(key) for arm in arms]
    if None in values:
        return ""
    mean = float(np.mean(values))
    return {"loss": f"{mean:.3f}", "adaptation_time": f"{mean:.2f}"}.get(statistic, f"{100 * mean:.1f}")


def _comparison(found: Mapping[str, Any] | str, statistic: str) -> str:
    if isinstance(found, str):
        return "" if statistic in ("p", "verdict") else f"not paired: {found}"
    if statistic == "p":
        return "< 0.001" if found["p_adjusted"] < 0.001 else f"{found['p_adjusted']:.3f}"
    if statistic == "verdict":
        return str(found["verdict"])
    low, high = (100 * bound for bound in found["ci95"])
    return f"{100 * found['difference']:+.1f} [{low:+.1f}, {high:+.1f}]"
