"""Console output of a run: a live display on a terminal, plain lines elsewhere; run.log gets every line."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from metatrain.tracking.durations import duration
from metatrain.tracking.score_names import MICRO_F1, common_score, read_name

MODE = "METATRAIN_CONSOLE"  # environment variable with the output mode: auto, quiet or json
_CURVE = 60  # maximum number of validations on the live curve
_SHOWN_TASKS = 6  # number of validation tasks in the live display
_PLAIN_EVERY = 10.0  # seconds between progress lines when there is no terminal
_VERDICTS = {"better": "is better than", "worse": "is worse than", "not distinguishable": "is not significantly different from"}
_MOMENT = 2.0  # seconds; a brief job that takes less prints no line
_BARS = "▁▂▃▄▅▆▇█"
_PLAIN_WIDTH = 110  # columns of tables when there is no terminal


class _Rate(ProgressColumn):
    """Speed of a job, in units per second or seconds per unit."""

    def render(self, task: Task) -> Text:
        return Text(_rate(task.finished_speed or task.speed), style="progress.data.speed")


def _rate(speed: float | None) -> str:
    """Return the speed as text; speed: units per second."""
    if not speed:
        return ""
    return f"{speed:.1f}/s" if speed >= 1 else f"{1 / speed:.1f} s each"


_announced: list[str] = []


@contextmanager
def announced(*lines: str) -> Iterator[None]:
    """Print these lines at the beginning of the next display, for messages that precede a command's own output."""
    _announced.extend(lines)
    try:
        yield
    finally:
        _announced.clear()


class Display:
    """Output of one run: `auto` is live on a terminal and plain lines elsewhere, `quiet` prints only errors, `json` one JSON object per line.

    Use it as a context manager around the work.
    """

    def __init__(self, quiet: bool = False, stderr: bool = False) -> None:
        """quiet: print nothing, for ranks other than 0; stderr: print to standard error, because standard output is for results."""
        self.mode = "quiet" if quiet else os.environ.get(MODE, "auto")
        quiet = self.mode == "quiet"
        # In a notebook, plain lines of its standard output: rich's own form has a box of HTML for each, and a live display needs ipywidgets.
        self.console = Console(highlight=False, quiet=quiet, stderr=stderr, force_jupyter=False)
        if not self.console.is_terminal or self.mode != "auto":
            self.console = Console(highlight=False, quiet=quiet, stderr=stderr, width=_PLAIN_WIDTH, force_terminal=False, force_jupyter=False)
        self._log: IO[str] | None = None
        self._before_log: list[str] = []
        self._live: Live | None = None
        self._progress: Progress | None = None
        self._facts: dict[str, str] = {}
        self._scores: list[float] = []
        self._tasks: dict[str, tuple[float, float | None]] = {}  # latest and previous score of each validation task
        self._last_plain = 0.0

    def __enter__(self) -> Display:
        while _announced:
            self.say(_announced.pop(0))
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self._log:
            self._log.close()

    def log_to(self, path: Path) -> None:
        """Write every line to this file too, including the lines printed so far."""
        self._log = path.open("a", encoding="utf-8")
        self._log.writelines(self._before_log)
        self._before_log.clear()

    def say(self, line: str) -> None:
        """Print one line, and write it to run.log."""
        self._write(line)
        if self.mode == "json":
            self._object(line=line)
        else:
            self.console.print(line, markup=False, soft_wrap=True)

    def start(self, title: str, total: int, done: int = 0, *, brief: bool = False) -> None:
        """Start a progress display; brief: print no line if the job takes less than `_MOMENT` seconds."""
        self.stop()
        self._facts, self._scores, self._tasks = {}, [], {}
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TaskProgressColumn(), _Rate(), TimeRemainingColumn(), console=self.console
        )
        self._job = self._progress.add_task(title, total=total, completed=done)
        self._title, self._total, self._done, self._begin, self._first = title, total, done, time.monotonic(), done
        self._last_plain = time.monotonic()
        self._brief = brief
        if self.console.is_terminal:
            self._live = Live(self._render(), console=self.console, refresh_per_second=4, transient=True)
            self._live.start()

    def show(self, facts: Mapping[str, str]) -> None:
        """Update the numbers next to the progress bar."""
        self._facts.update(facts)

    def validated(self, scores: Sequence[float], per_task: Mapping[str, float]) -> None:
        """Update the validation curve and table; scores: all validation scores so far, in order; per_task: the latest score of each task."""
        self._scores = list(scores)
        self._tasks = {task: (score, self._tasks[task][0] if task in self._tasks else None) for task, score in per_task.items()}

    def advance(self, facts: Mapping[str, str] | None = None, by: int = 1) -> None:
        """Advance the progress by a number of units."""
        self._done += by
        self.show(facts or {})
        assert self._progress is not None  # created by `start`
        self._progress.update(self._job, completed=self._done)
        if self._live is not None:
            self._live.update(self._render())
            return
        now = time.monotonic()
        seconds, done = now - self._begin, self._done - self._first
        if now - self._last_plain >= _PLAIN_EVERY or (self._done == self._total and (seconds >= _MOMENT or not self._brief)):
            self._last_plain = now
            left = seconds / max(1, done) * (self._total - self._done)
            numbers = "  ".join(f"{name} {value}" for name, value in self._facts.items())
            line = f"{self._title} {self._done}/{self._total}  {numbers}  remaining {duration(left)}  {_rate(done / seconds if seconds else None)}".rstrip()
            if self.mode == "json":
                self._write(line)
                self._object(job=self._title, done=self._done, total=self._total, seconds_left=round(left), **self._facts)
            else:
                self.say(line)

    def stop(self) -> None:
        """End the progress display."""
        if self._live is not None:
            self._live.update(self._render())
            self._live.stop()
            self._live = None

    def table(self, table: Table) -> None:
        """Print a table, and write it to run.log; cells are printed without markup, because names of tasks and labels may have brackets."""
        self.stop()
        if self.mode == "json":
            columns = [str(column.header).replace("\n", " ") for column in table.columns]
            self._object(table=str(table.title), columns=columns, rows=[list(map(str, row)) for row in zip(*(column.cells for column in table.columns))])
        else:
            _print(self.console, table)
        if self._log:
            _print(Console(file=self._log, width=_PLAIN_WIDTH), table)
            self._log.flush()

    def _render(self) -> Group:
        facts = Table.grid(padding=(0, 3))
        items = list(self._facts.items())
        for begin in range(0, len(items), 4):
            facts.add_row(*(f"[dim]{name}[/dim] {value}" for name, value in items[begin : begin + 4]))
        parts: list[Any] = [*([self._progress] if self._progress else []), facts]
        if self._scores:
            parts.append(f"[dim]validation[/dim] {sparkline(self._scores[-_CURVE:])} {self._scores[-1]:.3f}")
            parts.append(self._of_tasks())
        return Group(*parts)

    def _of_tasks(self) -> Table:
        """Return the table of the validation tasks with the lowest scores."""
        table = Table.grid(padding=(0, 2))
        for task, (score, before) in sorted(self._tasks.items(), key=lambda item: item[1][0])[:_SHOWN_TASKS]:
            table.add_row(f"  {escape(task)}", f"{score:.3f}", "" if before is None else f"[dim]{score - before:+.3f}[/dim]")
        return table

    def _object(self, **content: Any) -> None:
        """Print one JSON object, in mode `json`."""
        self.console.print(json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **content}, ensure_ascii=False), markup=False, soft_wrap=True)

    def _write(self, line: str) -> None:
        line = f"{time.strftime('%H:%M:%S')} {line}\n"
        if self._log is None:
            self._before_log.append(line)
        else:
            self._log.write(line)
            self._log.flush()


def sparkline(values: Sequence[float]) -> str:
    """Return a curve as one line of block characters."""
    low, high = min(values), max(values)
    return "".join(_BARS[round((value - low) / (high - low or 1) * (len(_BARS) - 1))] for value in values)


def _print(console: Console, table: Table) -> None:
    title = table.title
    table.title = escape(str(title)) if title is not None else None  # `markup=False` does not apply to titles
    console.print(table, markup=False)
    table.title = title


def results_table(results: Mapping[str, Any], shots: str) -> Table:
    """Return the table of arms for one number of shots, best first; `meta_trained minus arm` is the paired difference of accuracy."""
    title, columns, rows = result_rows(results, shots)
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column.replace("meta_trained ", "meta_trained\n"), justify="left" if column == "arm" else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def result_rows(results: Mapping[str, Any], shots: str) -> tuple[str, list[str], list[list[str]]]:
    """Return (title, columns, rows) of the table of arms for one number of shots."""
    part, protocol = results["by_shots"][shots], results["protocol"]
    episodes = protocol["episodes_per_task"]
    tasks = f"{len(protocol['tasks'])} meta-test task{'s' if len(protocol['tasks']) > 1 else ''}"
    title = f"{way_name(protocol)} {shots}-shot, {tasks}, {episodes} episode{'s' if episodes > 1 else ''} each; scores in %, ± and [ ]: 95% intervals"
    balanced = _is_unbalanced(part)
    metrics = list(dict.fromkeys(metric for arm in part["arms"].values() for metric in arm.get("metrics", ())))
    second = [_balanced_name(protocol, "balanced")] if balanced else []
    columns = ["arm", score_name(protocol), *second, "ECE", *map(read_name, metrics), "adaptation s", "meta_trained minus arm"]
    against = {item["against"]: item for item in part["comparisons"]}
    rows = []
    for name, arm in sorted(part["arms"].items(), key=lambda item: -item[1]["mean"]):
        paired = against.get(name)
        row = [
            name,
            mean_of(arm),
            *([f"{100 * arm['balanced']:.1f}"] if balanced else []),
            "" if arm.get("calibration_error") is None else f"{100 * arm['calibration_error']:.1f}",
            *(f"{arm['metrics'][metric]['mean']:.3f}" for metric in metrics),
            f"{arm['adapt_seconds_per_episode']:.3f}",
            f"{100 * paired['difference']:+.1f} {_interval(paired)}" if paired else "",
        ]
        rows.append(row)
    return title, columns, rows


def mean_of(arm: Mapping[str, Any]) -> str:
    """Return an arm's mean score in percent, ± the half-width of its 95% interval; one episode of one or two tasks gives no interval."""
    tasks = arm["per_task"].values()
    has_interval = len(tasks) > 2 or any(task["episodes"] > 1 for task in tasks)
    return f"{100 * arm['mean']:.1f}" + (f" ± {100 * arm['ci95']:.1f}" if has_interval else "")


def way_name(protocol: Mapping[str, Any]) -> str:
    """Return the way, with the maximum number of classes per task if that is larger."""
    way = protocol.get("way")
    if way is None:
        return "all-way (all classes of a task)"
    if isinstance(way, str):  # a range: 2..6 is drawn per episode, ..6 is as many as a task has and at most 6
        return f"up to {way.removeprefix('..')}-way" if way.startswith("..") else f"{way}-way"
    most = max(protocol.get("classes", {}).values(), default=way)
    return f"{way}-way" if most <= way else f"{way}-way (of up to {most} classes)"


def gain_line(results: Mapping[str, Any], is_diagnostic: Callable[[str], bool]) -> str | None:
    """Return the gain from meta-training over `no_meta_training`, or else over the best other arm, at the first number of shots.

    is_diagnostic: whether the arm with this name is a diagnostic rather than a method to compare with.
    """
    found = {item["against"]: item for item in results["comparisons"] if not is_diagnostic(item["against"])}
    if not found:
        return None
    other = "no_meta_training" if "no_meta_training" in found else min(found, key=lambda name: found[name]["difference"])
    shots, score = results["protocol"]["shots"][0], score_name(results["protocol"])
    points = 100 * found[other]["difference"]
    word = {"better": "significant gain", "worse": "significant drop"}.get(found[other]["verdict"], "no significant gain")
    return f"{word} from meta-training: {points:+.1f} points of {score} {_interval(found[other])} over {other}, {shots}-shot"


def verdict_lines(results: Mapping[str, Any], shots: str) -> list[str]:
    """Return one line per comparison; with unbalanced classes, also one for balanced accuracy, and with several labels per text for macro F1."""
    part = results["by_shots"][shots]
    unbalanced = _is_unbalanced(part)
    lines = [
        f"warning: {shots}-shot: adaptation of {name} diverges (non-finite values) in {arm['diverged_episodes']} episodes, "
        "where it predicts the first class; lower inner.lr"
        for name, arm in part["arms"].items()
        if arm.get("diverged_episodes")
    ]
    names = score_name(results["protocol"]), _balanced_name(results["protocol"], "balanced accuracy")
    for item in part["comparisons"]:
        for score, found in list(zip(names, (item, item["balanced"])))[: 2 if unbalanced else 1]:
            lines.append(
                f"{shots}-shot: {item['arm']} {_VERDICTS[found['verdict']]} {item['against']}: "
                f"{100 * found['difference']:+.1f} points of {score}, 95% interval {_interval(found)}{_adjusted(found)}"
            )
    return [*lines, *_scope_of_verdicts(part["comparisons"], len(results["protocol"]["tasks"]))]


def _adjusted(comparison: Mapping[str, Any]) -> str:
    """Return the adjusted p-value as text; results of earlier versions have none."""
    p = comparison.get("p_adjusted")
    return "" if p is None else ", p < 0.001" if p < 0.001 else f", p = {p:.3f}"


def _scope_of_verdicts(comparisons: Sequence[Mapping[str, Any]], tasks: int) -> list[str]:
    """Return the lines that say which tasks the verdicts apply to and which p-values they are based on."""
    known = [item for item in comparisons if "p_adjusted" in item]
    if not known:
        return []
    corrected = f", corrected for {len(known)} comparisons (Holm); intervals are not corrected" if len(known) > 1 else ""
    unknown = [item["against"] for item in known if item["ci95"] == [-1.0, 1.0]]
    silent = ["one episode per task gives no interval: raise evaluation.episodes"] if unknown else []
    return [f"verdicts apply to {known[0]['about']} ({tasks} meta-test task{'s' if tasks > 1 else ''}) and are based on p{corrected}", *silent]


def _is_unbalanced(part: Mapping[str, Any]) -> bool:
    """Return True if balanced accuracy differs from accuracy for any arm."""
    return any(abs(arm["mean"] - arm["balanced"]) > 1e-9 for arm in part["arms"].values())


def score_name(protocol: Mapping[str, Any]) -> str:
    """Return the name of the score that a person reads, or "score" if the tasks have different scores."""
    return read_name(common_score(protocol.get("scores", {}).values()))


def _balanced_name(protocol: Mapping[str, Any], otherwise: str) -> str:
    """Return the name of the second score of the arms."""
    return read_name("macro_f1") if common_score(protocol.get("scores", {}).values()) == MICRO_F1 else otherwise


def _interval(comparison: Mapping[str, Any]) -> str:
    """Return the interval of a difference, in percentage points."""
    low, high = comparison["ci95"]
    return f"[{100 * low:+.1f}, {100 * high:+.1f}]"
