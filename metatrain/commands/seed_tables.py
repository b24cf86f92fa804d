"""Tables of runs that differ only in their training seed, for `metatrain train -m seed=0,1,2` and `metatrain compare`."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from rich.table import Table

    from metatrain.evaluation.over_seeds import ArmOverSeeds, Trainings

_NOT_OF_TRAINING = ("name", "evaluation", "validation", "checkpoint", "tracking", "hardware", "report")  # settings that do not affect training
_T = TypeVar("_T")


@dataclass(frozen=True)
class Rows:
    """Table for the console or a page."""

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


def trains(key: str) -> bool:
    """Return True if a setting affects training."""
    return key.split(".")[0] not in _NOT_OF_TRAINING


def same_but_for_seeds(items: Iterable[tuple[_T, Mapping[str, Any], Hashable]]) -> list[list[_T]]:
    """Group runs (run, settings, other values that must be equal) that differ only in their seed, in order of first occurrence.

    Runs with equal settings and seeds are not grouped: they are the same training, or differ in something other than the seed.
    """
    groups: dict[Any, dict[int, list[_T]]] = {}
    for item, settings, other in items:
        key = other, tuple(sorted((name, str(value)) for name, value in settings.items() if trains(name) and name != "seed"))
        groups.setdefault(key, {}).setdefault(int(settings.get("seed", 0)), []).append(item)
    found: list[list[_T]] = []
    for seeds in groups.values():
        if len(seeds) > 1 and all(len(each) == 1 for each in seeds.values()):
            found.append([seeds[seed][0] for seed in sorted(seeds)])
        else:
            found += [[item] for each in seeds.values() for item in each]
    return found


def seed_tables(trainings: Trainings) -> Iterator[Rows]:
    """Yield a table of the arms for each number of shots."""
    from metatrain.evaluation.over_seeds import over_seeds

    first = trainings.results[0]
    seeds, tasks = ", ".join(map(str, trainings.seeds)), len(first["protocol"]["tasks"])
    columns = ["arm", "score", "sd of seeds", "sd of tasks", "meta_trained minus arm", "p", "verdict"]
    for shots in first["by_shots"]:
        if all(shots in results["by_shots"] for results in trainings.results):
            title = f"{shots}-shot; training seeds {seeds}; {tasks} meta-test task{'s' if tasks > 1 else ''}"
            yield Rows(title, columns, [_row(line) for line in over_seeds(trainings, shots)])


def reading(trainings: Trainings) -> list[str]:
    """Return the notes below the tables."""
    tasks, seeds = len(trainings.results[0]["protocol"]["tasks"]), len(trainings.seeds)
    over = f"{tasks} tasks ({tasks - 1} degrees of freedom)" if tasks > 2 else "the episodes of these tasks"
    lines = [f"95% intervals are over {over} and {seeds} training seeds ({seeds - 1}); p is corrected for the comparisons of its table (Holm)"]
    lines.append(
        "sd of seeds, sd of tasks: standard deviations due to each, without their interaction; 0.0: not distinguishable from noise. "
        "That of tasks includes how difficult the episodes of a task are, which are the same for all seeds"
    )
    if len({results["protocol"].get("seed") for results in trainings.results}) > 1:
        lines.append("each run has its own test episodes, which adds to the variation over seeds; evaluation.seed=0 gives all runs the same episodes")
    return lines


def _row(line: ArmOverSeeds) -> list[str]:
    spreads = ["" if value is None else f"{100 * value:.1f}" for value in (line.of_seeds, line.of_tasks)]
    return [line.arm, points(line.mean, line.half_width), *spreads, *comparison_cells(line.comparison)]


def points(mean: float, half_width: float) -> str:
    """Return a score with its interval, in percent; a single episode has no interval."""
    return f"{100 * mean:.1f}" if half_width == float("inf") else f"{100 * mean:.1f} ± {100 * half_width:.1f}"


def comparison_cells(found: Mapping[str, Any] | None) -> list[str]:
    """Return [difference with interval, corrected p, verdict], all empty if there is no comparison."""
    if found is None:
        return ["", "", ""]
    low, high = found["ci95"]
    p = "< 0.001" if found["p_adjusted"] < 0.001 else f"{found['p_adjusted']:.3f}"
    return [f"{100 * found['difference']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]", p, found["verdict"]]
